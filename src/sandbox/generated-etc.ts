// The /etc an action sees: written by us, with what toolchains need copied from the host.
//
// Invariant: nothing in it that another user of the host could not read, and nothing that says which machine this is.
// Copied instead of bound, because each bind mount costs about 0.13 ms per action and these directories rarely change;
// `current()` makes a new copy when they did. A directory that was handed out is never altered, only replaced.

import {
  chmodSync,
  copyFileSync,
  type Dirent,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

/** What toolchains read below /etc; a trailing `*` matches the rest of one name. */
const COPIED_NAMES = [
  "ld.so.cache",
  "ld.so.conf",
  "ld.so.conf.d",
  "alternatives",
  "ssl",
  "pki",
  "ca-certificates",
  "ca-certificates.conf",
  "crypto-policies",
  "fonts",
  "magic",
  "mime.types",
  "perl",
  "python*",
  "java*",
  "maven",
  "protocols",
  "services",
  "rpc",
  "shells",
  "debian_version",
  "os-release",
];

/** Their modification tells that packages were installed or removed. */
const WATCHED_PATHS = ["/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs"];

/** Half of it is still a hundred times what a Debian with JDK and certificates has; beyond it the rest is left out. */
const MAX_COPIED_BYTES = 64 * 1024 * 1024;

/** One per (uid, gid, network) in use; more only when clients play with unixUID. The oldest is dropped. */
const MAX_VARIANTS = 32;

export interface EtcOptions {
  readonly uid: number;
  readonly gid: number;
  readonly hostName: string;
  readonly network: "none" | "host";
}

export class GeneratedEtc {
  readonly #directory: string;
  readonly #hostEtc: string | undefined;
  #variants = new Map<string, { path: string; stamp: string }>();
  #sequence = 0;

  /** `directory` is ours alone and gets one directory per variant. Nothing is copied when `hostEtc` is undefined. */
  constructor(directory: string, hostEtc: string | undefined) {
    this.#directory = directory;
    this.#hostEtc = hostEtc;
    mkdirSync(directory, { recursive: true, mode: 0o755 });
  }

  /** Returns the host path of a finished /etc for such an action. */
  current(options: EtcOptions): string {
    const key = `${options.uid}-${options.gid}-${options.network}`;
    const stamp = this.#stamp(options.network);
    const known = this.#variants.get(key);
    if (known?.stamp === stamp) {
      this.#variants.delete(key);
      this.#variants.set(key, known); // most recently used last
      return known.path;
    }
    const path = join(this.#directory, `${key}-${this.#sequence++}`);
    this.#build(path, options);
    this.#variants.delete(key);
    this.#variants.set(key, { path, stamp });
    this.#dropOldest();
    return path;
  }

  #stamp(network: "none" | "host"): string {
    if (this.#hostEtc === undefined) return "";
    const paths = network === "host" ? [...WATCHED_PATHS, join(this.#hostEtc, "resolv.conf")] : WATCHED_PATHS;
    return paths.map((path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0).join(" ");
  }

  #dropOldest(): void {
    while (this.#variants.size > MAX_VARIANTS) {
      const [oldest] = this.#variants;
      if (oldest === undefined) return;
      this.#variants.delete(oldest[0]);
      // Replaced directories of known keys stay until the runner ends: a running sandbox may still show them.
      rmSync(oldest[1].path, { recursive: true, force: true });
    }
  }

  #build(path: string, options: EtcOptions): void {
    mkdirSync(path, { mode: 0o755 });
    chmodSync(path, 0o755);
    if (this.#hostEtc !== undefined) copyToolchainFiles(this.#hostEtc, path);
    for (const [name, content] of Object.entries(generatedFiles(options))) {
      writeFileSync(join(path, name), content, { mode: 0o644 });
    }
    if (options.network === "host" && this.#hostEtc !== undefined) copyResolverConfiguration(this.#hostEtc, path);
  }
}

function copyToolchainFiles(hostEtc: string, path: string): void {
  const budget = { bytes: MAX_COPIED_BYTES };
  for (const entry of listDirectory(hostEtc)) {
    if (COPIED_NAMES.some((pattern) => matches(pattern, entry.name))) {
      copyReadable(join(hostEtc, entry.name), join(path, entry.name), budget);
    }
  }
}

function generatedFiles({ uid, gid, hostName }: EtcOptions): Record<string, string> {
  const users = ["root:x:0:0:root:/root:/bin/sh", "nobody:x:65534:65534:nobody:/nonexistent:/bin/false"];
  const groups = ["root:x:0:", "nogroup:x:65534:"];
  if (uid !== 0 && uid !== 65534) users.push(`build:x:${uid}:${gid}:build:/tmp:/bin/sh`);
  if (gid !== 0 && gid !== 65534) groups.push(`build:x:${gid}:`);
  return {
    passwd: `${users.join("\n")}\n`,
    group: `${groups.join("\n")}\n`,
    hosts: `127.0.0.1 localhost ${hostName}\n::1 localhost ip6-localhost ip6-loopback\n`,
    hostname: `${hostName}\n`,
    "host.conf": "multi on\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\nrpc: files\n",
  };
}

/** Read through symbolic links: on systemd machines the file lies in /run, which actions do not see. */
function copyResolverConfiguration(hostEtc: string, path: string): void {
  try {
    writeFileSync(join(path, "resolv.conf"), readFileSync(join(hostEtc, "resolv.conf")), { mode: 0o644 });
  } catch {
    // a host without resolv.conf resolves nothing, and so does the action
  }
}

function matches(pattern: string, name: string): boolean {
  return pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

/** Copies what everybody may read (private keys in ssl/private must not come along); the rest is left out. */
function copyReadable(from: string, to: string, budget: { bytes: number }): void {
  try {
    copyExisting(from, to, budget);
  } catch (error) {
    // A package manager replaces files while we copy; what it puts there changes the stamp, and the next action's copy.
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT" && "path" in error)) throw error;
    if (error.path !== from) throw error;
  }
}

function copyExisting(from: string, to: string, budget: { bytes: number }): void {
  const stats = lstatSync(from, { throwIfNoEntry: false });
  if (stats?.isSymbolicLink() === true) {
    symlinkSync(readlinkSync(from), to);
  } else if (stats?.isFile() === true && (stats.mode & 0o004) !== 0 && stats.size <= budget.bytes) {
    budget.bytes -= stats.size;
    copyFileSync(from, to);
    chmodSync(to, (stats.mode & 0o111) === 0 ? 0o644 : 0o755);
  } else if (stats?.isDirectory() === true && (stats.mode & 0o005) === 0o005) {
    mkdirSync(to);
    chmodSync(to, 0o755);
    for (const entry of listDirectory(from)) copyReadable(join(from, entry.name), join(to, entry.name), budget);
  }
}

function listDirectory(path: string): Dirent[] {
  try {
    return readdirSync(path, { withFileTypes: true });
  } catch {
    return []; // absent or not ours to read: nothing of it is shown
  }
}
