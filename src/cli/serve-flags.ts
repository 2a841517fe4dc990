// The flags of `ledge serve`, one row each. The only place that knows a flag's name, default and meaning as text.
//
// README.md shows this table (test/tidy compares them); turning values and defaults into a ServerConfig is
// serve-config.ts.

import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { parseDurationMs, parseSizeBytes } from "../base/units.ts";
import type { ListenAddress } from "../grpc/server.ts";
import { LOG_LEVELS } from "../telemetry/log.ts";
import type { Flag } from "./flag.ts";
import { parseMountFlag, parseRootMode } from "./root-flags.ts";

/** `20GiB`, or a share of the file system the data directory is on. */
export type SizeLimit = { readonly bytes: number } | { readonly percent: number };

const SIZE = "a size such as 20GiB, 500MB or 1048576";
const DURATION = "a duration such as 30s, 5m, 24h or 250ms";
/** As many as one machine could want; above it a typing error is more likely than a wish. */
const MAX_SLOTS = 1024;
const MAX_QUEUE_DEPTH = 10_000_000;
/** More than a process has descriptors. */
const MAX_CONNECTIONS = 10_000_000;

export const SERVE_FLAGS = {
  listen: flag({
    name: "listen",
    placeholder: "ADDR",
    repeatable: true,
    help: "Where to listen: HOST:PORT, [::1]:PORT or unix:PATH. Port 0: the kernel chooses",
    defaultText: "127.0.0.1:8980",
    accepts: "HOST:PORT, [IPv6]:PORT or unix:PATH",
    parse: parseListenAddress,
  }),
  portFile: flag({
    name: "port-file",
    placeholder: "PATH",
    help: "File to write once all addresses accept, one a line, in the order of --listen",
    accepts: "a path",
    parse: parsePath,
  }),
  dataDir: flag({
    name: "data-dir",
    placeholder: "DIR",
    help: "Where blobs and results are kept; `:memory:` keeps them in memory",
    defaultText: "$XDG_CACHE_HOME/ledge, else ~/.cache/ledge",
    accepts: "a path, or :memory:",
    parse: (text) => (text === ":memory:" ? text : parsePath(text)),
  }),
  maxSize: flag({
    name: "max-size",
    placeholder: "SIZE",
    help: "What the store may take up: 20GiB, or a share of its file system: 10%",
    defaultText: "10%",
    accepts: `${SIZE}, or a share such as 10%`,
    parse: parseSizeLimit,
  }),
  leaseMs: flag({
    name: "lease",
    placeholder: "TIME",
    help: "How long what a build touched is kept, within half of the store",
    defaultText: "1h",
    accepts: DURATION,
    parse: parseDurationMs,
  }),
  durability: flag({
    name: "durability",
    placeholder: "MODE",
    help: "sync: acknowledged is on disk; lazy: a crash may lose the last seconds",
    defaultText: "sync",
    accepts: "sync or lazy",
    parse: oneOf(["sync", "lazy"] as const),
  }),
  slots: flag({
    name: "slots",
    placeholder: "N",
    help: "How many actions run at once; 0: cache only",
    defaultText: "number of cores",
    accepts: `a whole number from 0 to ${MAX_SLOTS}`,
    parse: (text) => parseWholeNumber(text, MAX_SLOTS),
  }),
  sandbox: flag({
    name: "sandbox",
    placeholder: "MODE",
    help: "auto: cache only when no sandbox works; require: refuse to start then; own: auto, without bwrap where that works; none: no isolation",
    defaultText: "auto",
    accepts: "auto, require, own or none",
    parse: oneOf(["auto", "require", "own", "none"] as const),
  }),
  bwrapPath: flag({
    name: "bwrap-path",
    placeholder: "PATH",
    help: "The bubblewrap to use",
    defaultText: "bwrap on PATH",
    accepts: "a path",
    parse: parsePath,
  }),
  allow: flag({
    name: "allow",
    placeholder: "WHAT",
    repeatable: true,
    help: "What actions may ask for by platform property: network",
    accepts: "network",
    parse: oneOf(["network"] as const),
  }),
  properties: flag({
    name: "property",
    placeholder: "NAME=VALUE",
    repeatable: true,
    help: "A platform property this server has; actions that ask for another value are refused",
    accepts: "NAME=VALUE",
    parse: parsePair,
  }),
  ignoredProperties: flag({
    name: "ignore-property",
    placeholder: "NAME",
    repeatable: true,
    help: "A platform property to accept without effect",
    accepts: "the name of a property",
    parse: (text) => (text === "" || text.includes("=") ? undefined : text),
  }),
  images: flag({
    name: "image",
    placeholder: "NAME=DIR",
    repeatable: true,
    help: "Unpacked root of actions whose container-image is NAME",
    accepts: "NAME=DIR",
    parse: parseNamedPath,
  }),
  mounts: flag({
    name: "mount",
    placeholder: "ro:SRC[:DST]",
    repeatable: true,
    listSeparator: ";",
    help: "A folder of this machine that actions see (rw: may write to); may end in ,if=PROPERTY=VALUE ,optional",
    accepts: "ro:SRC[:DST] or rw:SRC[:DST] with absolute paths, then ,if=NAME=VALUE and ,optional",
    parse: parseMountFlag,
  }),
  rootModes: flag({
    name: "root-mode",
    placeholder: "INSTANCE=MODE",
    repeatable: true,
    help: "What actions of an instance have as /: host, input-root (BuildStream) or image:NAME (of --image)",
    defaultText: "host",
    accepts: "INSTANCE=host, INSTANCE=input-root or INSTANCE=image:NAME",
    parse: parseRootMode,
  }),
  maxQueueDepth: flag({
    name: "max-queue-depth",
    placeholder: "N",
    help: "Actions that may wait for a slot; further ones get RESOURCE_EXHAUSTED",
    defaultText: "10000",
    accepts: `a whole number from 0 to ${MAX_QUEUE_DEPTH}`,
    parse: (text) => parseWholeNumber(text, MAX_QUEUE_DEPTH),
  }),
  defaultActionTimeoutMs: flag({
    name: "default-action-timeout",
    placeholder: "TIME",
    help: "For actions that name no timeout",
    defaultText: "24h",
    accepts: DURATION,
    parse: parsePositiveDurationMs,
  }),
  maxActionTimeoutMs: flag({
    name: "max-action-timeout",
    placeholder: "TIME",
    help: "Longest timeout an action may ask for",
    defaultText: "24h",
    accepts: DURATION,
    parse: parsePositiveDurationMs,
  }),
  maxLogBytes: flag({
    name: "max-log-bytes",
    placeholder: "SIZE",
    help: "stdout and stderr of an action; more ends it with RESOURCE_EXHAUSTED",
    defaultText: "64MiB",
    accepts: SIZE,
    parse: parsePositiveSize,
  }),
  orphanGraceMs: flag({
    name: "orphan-grace",
    placeholder: "TIME",
    help: "How long an action runs on when no client waits for it any more",
    defaultText: "60s",
    accepts: DURATION,
    parse: parseDurationMs,
  }),
  maxConnectionAgeMs: flag({
    name: "max-connection-age",
    placeholder: "TIME",
    help: "About how old a connection may get before it is asked to end; 0: any",
    defaultText: "0",
    accepts: DURATION,
    parse: parseDurationMs,
  }),
  maxConnectionsPerAddress: flag({
    name: "max-per-address",
    placeholder: "N",
    help: "Connections of one address (by default not of this machine); 0: any",
    defaultText: "512",
    accepts: `a whole number from 0 to ${MAX_CONNECTIONS}`,
    parse: (text) => parseWholeNumber(text, MAX_CONNECTIONS),
  }),
  drainTimeoutMs: flag({
    name: "drain-timeout",
    placeholder: "TIME",
    help: "How long SIGTERM and SIGINT wait for calls and actions under way",
    defaultText: "30s",
    accepts: DURATION,
    parse: parseDurationMs,
  }),
  httpOpaquePrefixes: flag({
    name: "http-opaque",
    placeholder: "PREFIX",
    repeatable: true,
    help: "HTTP path for keys and values of any kind: ccache, sccache, Gradle",
    defaultText: "/opaque",
    accepts: "an absolute path such as /opaque, without /cas, /ac, /status and /metrics",
    parse: parseOpaquePrefix,
  }),
  tlsCert: flag({
    name: "tls-cert",
    placeholder: "PATH",
    help: "PEM certificate chain; with --tls-key every TCP address speaks TLS",
    accepts: "a path",
    parse: parsePath,
  }),
  tlsKey: flag({ name: "tls-key", placeholder: "PATH", help: "PEM private key", accepts: "a path", parse: parsePath }),
  tlsClientCa: flag({
    name: "tls-client-ca",
    placeholder: "PATH",
    help: "PEM authorities whose certificates clients must present",
    accepts: "a path",
    parse: parsePath,
  }),
  tlsMinVersion: flag({
    name: "tls-min-version",
    placeholder: "VERSION",
    help: "Oldest TLS to accept",
    defaultText: "1.2",
    accepts: "1.2 or 1.3",
    parse: (text) => (text === "1.2" ? "TLSv1.2" : text === "1.3" ? "TLSv1.3" : undefined),
  }),
  logLevel: flag({
    name: "log-level",
    placeholder: "LEVEL",
    help: `Least important lines to log: ${LOG_LEVELS.join(", ")}`,
    defaultText: "info",
    accepts: LOG_LEVELS.join(", "),
    parse: oneOf(LOG_LEVELS),
  }),
  logFormat: flag({
    name: "log-format",
    placeholder: "FORMAT",
    help: "text or json",
    defaultText: "text",
    accepts: "text or json",
    parse: oneOf(["text", "json"] as const),
  }),
  installBubblewrap: flag({
    name: "install-bubblewrap",
    placeholder: undefined,
    help: "As root on Debian or Ubuntu: install a missing bubblewrap (npm start does)",
    accepts: "true or false",
    parse: parseSwitch,
  }),
} as const;

interface FlagRow<T> {
  readonly name: string;
  readonly placeholder: string | undefined;
  readonly repeatable?: boolean;
  readonly listSeparator?: string;
  readonly help: string;
  readonly defaultText?: string;
  readonly accepts: string;
  readonly parse: (text: string) => T | undefined;
}

function flag<T>(row: FlagRow<T>): Flag<T> {
  return { ...row, repeatable: row.repeatable ?? false, defaultText: row.defaultText };
}

/** The number of slots when nobody says: cores this process may use, which containers limit. */
export function defaultSlots(): number {
  return availableParallelism();
}

export function parseListenAddress(text: string): ListenAddress | undefined {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length).replace(/^\/\//, "");
    return path === "" ? undefined : { kind: "unix", path: resolve(path) };
  }
  const match = /^(?:\[([0-9a-fA-F:.]+(?:%[\w.-]+)?)\]|([^:[\]/\s]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535) return undefined;
  return { kind: "tcp", host, port };
}

export function parseSizeLimit(text: string): SizeLimit | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*%$/.exec(text.trim());
  if (match !== null) {
    const percent = Number(match[1]);
    return percent > 0 && percent <= 100 ? { percent } : undefined;
  }
  const bytes = parsePositiveSize(text);
  return bytes === undefined ? undefined : { bytes };
}

function parseOpaquePrefix(text: string): string | undefined {
  const path = text.replace(/\/+$/, "");
  if (!/^(\/[\w.~-]+)+$/.test(path)) return undefined;
  return /\/(cas|ac|status|metrics)(\/|$)/.test(path) || /\/\.\.?(\/|$)/.test(path) ? undefined : path;
}

/** Splits at the first "=" that has something on both sides; image names contain none. */
export function parsePair(text: string): { readonly name: string; readonly value: string } | undefined {
  const at = text.indexOf("=");
  return at > 0 && at < text.length - 1 ? { name: text.slice(0, at), value: text.slice(at + 1) } : undefined;
}

function parseNamedPath(text: string): { readonly name: string; readonly path: string } | undefined {
  const pair = parsePair(text);
  return pair === undefined ? undefined : { name: pair.name, path: resolve(pair.value) };
}

export function parsePath(text: string): string | undefined {
  return text === "" || text.includes("\0") ? undefined : resolve(text);
}

function parsePositiveSize(text: string): number | undefined {
  const bytes = parseSizeBytes(text);
  return bytes === 0 ? undefined : bytes;
}

function parsePositiveDurationMs(text: string): number | undefined {
  const ms = parseDurationMs(text);
  return ms === 0 ? undefined : ms;
}

function parseWholeNumber(text: string, max: number): number | undefined {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : undefined;
  return value === undefined || value > max ? undefined : value;
}

function parseSwitch(text: string): boolean | undefined {
  return text === "true" || text === "1" ? true : text === "false" || text === "0" ? false : undefined;
}

function oneOf<const T extends string>(values: readonly T[]): (text: string) => T | undefined {
  return (text) => values.find((value) => value === text);
}
