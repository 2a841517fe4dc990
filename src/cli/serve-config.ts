// Flags and environment → ServerConfig: fills in the defaults that depend on the machine.
//
// Reads the environment and asks the file system; creates nothing but a default data directory, whose place it has to try.

import { accessSync, constants, existsSync, lstatSync, mkdirSync, statfsSync } from "node:fs";
import { homedir, tmpdir, totalmem, userInfo } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { formatBytes } from "../base/units.ts";
import type { ListenAddress, TlsOptions } from "../grpc/server.ts";
import type { PlatformConfig, ServerConfig } from "../server/config.ts";
import { parseFlags, UsageError, type FlagValues } from "./flag.ts";
import { defaultSlots, SERVE_FLAGS, type SizeLimit } from "./serve-flags.ts";
import { takeActivatedSockets } from "./socket-activation.ts";

type Environment = Record<string, string | undefined>;
type Values = FlagValues<typeof SERVE_FLAGS>;

const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;
const MIB = 1024 * 1024;
const DEFAULT_LISTEN: ListenAddress = { kind: "tcp", host: "127.0.0.1", port: 8980 };
/** A store below this cannot hold one large object file beside its index. */
const MIN_SIZE_BYTES = 16 * MIB;

export interface ServeArguments {
  readonly config: ServerConfig;
  readonly installBubblewrap: boolean;
  /** Things the operator should know, such as a default that could not be used. */
  readonly notes: readonly string[];
}

/** Throws UsageError. Takes the variables of socket activation out of `environment`, so that children do not see them. */
export function readServeArguments(args: readonly string[], environment: Environment = process.env): ServeArguments {
  const values = parseFlags(SERVE_FLAGS, args, environment);
  const notes: string[] = [];
  const dataDir = values.dataDir[0] ?? chooseDataDir(environment, notes);
  const maxSize = values.maxSize[0] ?? { percent: 10 };
  return {
    installBubblewrap: values.installBubblewrap[0] ?? false,
    notes,
    config: {
      listen: chooseListen(values, environment),
      portFile: values.portFile[0],
      dataDir,
      maxSizeBytes: resolveMaxSize(maxSize, dataDir),
      durability: values.durability[0] ?? "sync",
      leaseMs: values.leaseMs[0] ?? HOUR_MS,
      ...resolveExecution(values, dataDir),
      bwrapPath: values.bwrapPath[0],
      platform: readPlatform(values),
      logLevel: values.logLevel[0] ?? "info",
      logFormat: values.logFormat[0] ?? "text",
      drainTimeoutMs: values.drainTimeoutMs[0] ?? 30_000,
      maxConnectionAgeMs: values.maxConnectionAgeMs[0] ?? 0,
      maxConnectionsPerAddress: values.maxConnectionsPerAddress[0],
      httpOpaquePrefixes: values.httpOpaquePrefixes.length > 0 ? values.httpOpaquePrefixes : ["/opaque"],
      maxLogBytes: values.maxLogBytes[0] ?? 64 * MIB,
      ...resolveTimeouts(values),
      orphanGraceMs: values.orphanGraceMs[0] ?? 60_000,
      maxQueueDepth: values.maxQueueDepth[0] ?? 10_000,
      tls: readTls(values),
    },
  };
}

function chooseListen(values: Values, environment: Environment): ListenAddress[] {
  const activated = takeActivatedSockets(environment);
  const addresses = [...activated.map((fd): ListenAddress => ({ kind: "fd", fd })), ...values.listen];
  return addresses.length > 0 ? addresses : [DEFAULT_LISTEN];
}

/**
 * The first place that can be written: the user's cache folder, or, for users without a home (or with a read-only one),
 * a folder of their own below TMPDIR, which says so in `notes`.
 */
function chooseDataDir(environment: Environment, notes: string[]): string {
  const refused: string[] = [];
  for (const candidate of dataDirCandidates(environment, refused)) {
    try {
      mkdirSync(candidate, { recursive: true, mode: 0o700 });
      accessSync(candidate, constants.W_OK | constants.X_OK);
      assertOurs(candidate);
      if (refused.length > 0) notes.push(`the data directory is ${candidate}: ${refused.join("; ")}`);
      return candidate;
    } catch (error) {
      refused.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new UsageError(`No place for the data directory (${refused.join("; ")}); name one with --data-dir DIR`);
}

function dataDirCandidates(environment: Environment, refused: string[]): string[] {
  const candidates: string[] = [];
  const xdg = environment["XDG_CACHE_HOME"];
  if (xdg !== undefined && isAbsolute(xdg)) candidates.push(join(xdg, "ledge"));
  try {
    // With HOME empty or relative, homedir() is no place: the password file knows better.
    const home = isAbsolute(homedir()) ? homedir() : userInfo().homedir;
    candidates.push(join(home, ".cache", "ledge"));
  } catch {
    // homedir() throws for a uid without an entry in the password file; there are other places.
    refused.push("HOME is not set and this user has no home directory");
  }
  candidates.push(join(tmpdir(), `ledge-${process.getuid?.() ?? 0}`));
  return candidates;
}

/** In a TMPDIR that everybody shares, somebody else may have made "our" folder first. */
function assertOurs(path: string): void {
  const stat = lstatSync(path);
  if (stat.isDirectory() && stat.uid === process.getuid?.()) return;
  if (!path.startsWith(join(tmpdir(), "ledge-"))) return;
  throw new Error(`${path} belongs to uid ${stat.uid}`);
}

/** Who requires a sandbox must not get a server that cannot execute at all. */
function resolveExecution(values: Values, dataDir: string): Pick<ServerConfig, "slots" | "sandbox"> {
  const slots = values.slots[0] ?? defaultSlots();
  const sandbox = values.sandbox[0] ?? "auto";
  if (sandbox === "require") {
    if (dataDir === ":memory:") {
      throw new UsageError("--sandbox=require needs a --data-dir on disk: with :memory: no action is executed");
    }
    if (slots === 0)
      throw new UsageError("--sandbox=require needs --slots 1 or more: with --slots 0 no action is executed");
  }
  return { slots, sandbox };
}

function resolveMaxSize(limit: SizeLimit, dataDir: string): number {
  if ("bytes" in limit) return assertEnough(limit.bytes);
  return assertEnough(Math.floor((capacityBytes(dataDir) * limit.percent) / 100));
}

function assertEnough(bytes: number): number {
  if (bytes >= MIN_SIZE_BYTES) return bytes;
  throw new UsageError(
    `--max-size: ${formatBytes(bytes)} is too little; expected ${formatBytes(MIN_SIZE_BYTES)} or more`,
  );
}

function capacityBytes(dataDir: string): number {
  if (dataDir === ":memory:") return totalmem();
  const { blocks, bsize } = statfsSync(nearestExisting(dataDir));
  return blocks * bsize;
}

/** The folder itself, or the one in which it will be made. */
function nearestExisting(path: string): string {
  return existsSync(path) ? path : nearestExisting(dirname(path));
}

/** Throws UsageError. */
export function readPlatform(
  values: Pick<Values, "properties" | "mounts" | "images" | "rootModes" | "allow" | "ignoredProperties">,
): PlatformConfig {
  const properties = new Map<string, string[]>();
  // A mount that asks for a property makes it one that actions may name.
  const conditions = values.mounts.flatMap(({ condition }) => condition ?? []);
  for (const { name, value } of [...values.properties, ...conditions]) {
    properties.set(name, [...(properties.get(name) ?? []), value]);
  }
  const images = new Map(values.images.map(({ name, path }) => [name, path]));
  const rootModes = new Map(values.rootModes.map(({ instance, mode }) => [instance, mode]));
  for (const mode of rootModes.values()) {
    if (typeof mode === "object" && !images.has(mode.image)) {
      throw new UsageError(
        `--root-mode names the image "${mode.image}", and --image names ${[...images.keys()].join(", ") || "none"}`,
      );
    }
  }
  return {
    allowNetwork: values.allow.includes("network"),
    properties,
    ignoredProperties: new Set(values.ignoredProperties),
    images,
    mounts: values.mounts,
    rootModes,
  };
}

function resolveTimeouts(values: Values): Pick<ServerConfig, "defaultActionTimeoutMs" | "maxActionTimeoutMs"> {
  const maxActionTimeoutMs = values.maxActionTimeoutMs[0] ?? DAY_MS;
  const asked = values.defaultActionTimeoutMs[0];
  if (asked !== undefined && asked > maxActionTimeoutMs) {
    throw new UsageError(
      `--default-action-timeout: ${asked} ms is above --max-action-timeout (${maxActionTimeoutMs} ms); expected at most that`,
    );
  }
  return { maxActionTimeoutMs, defaultActionTimeoutMs: asked ?? Math.min(DAY_MS, maxActionTimeoutMs) };
}

function readTls(values: Values): TlsOptions | undefined {
  const [certPath, keyPath, clientCaPath] = [values.tlsCert[0], values.tlsKey[0], values.tlsClientCa[0]];
  if (certPath === undefined && keyPath === undefined) {
    const stray = clientCaPath === undefined ? undefined : "--tls-client-ca";
    if (stray !== undefined) throw new UsageError(`${stray} needs --tls-cert and --tls-key`);
    return undefined;
  }
  if (certPath === undefined) throw new UsageError("--tls-key needs --tls-cert as well");
  if (keyPath === undefined) throw new UsageError("--tls-cert needs --tls-key as well");
  const minVersion = values.tlsMinVersion[0] ?? "TLSv1.2";
  return { certPath, keyPath, minVersion, ...(clientCaPath === undefined ? {} : { clientCaPath }) };
}
