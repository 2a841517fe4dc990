// What an action left at its output paths: kinds, sizes, modes and times, without following any symlink.
//
// Synchronous, for file-thread.ts. The action and all it started are dead by now (settled), so nothing changes between
// two looks; only what is found is hostile. Invariant: a symlink in the middle of an output path ends the walk there.
// Names that are not UTF-8 cannot travel in a message and are reported. Source: executor.md 5.6, wire/reapi.md 5.3.

import { isUtf8 } from "node:buffer";
import {
  chmodSync,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  type BigIntStats,
} from "node:fs";
import { errorCode } from "./file-operations.ts";

export interface ScanJob {
  readonly root: string;
  /** Each output as names below the root. */
  readonly outputs: readonly (readonly string[])[];
  readonly limits: ScanLimits;
  /** Give ourselves the right to read what the action closed; not needed as root. */
  readonly makeReadable: boolean;
  /** Files of our own beside the root (stdout, stderr), read in the same job. */
  readonly streams: readonly string[];
  /** Names directly in the root that the sandbox made as mount points; skipped when they are empty directories. */
  readonly mountPoints: readonly string[];
}

export interface ScanLimits {
  readonly maxEntries: number;
  readonly maxDepth: number;
  readonly maxPathBytes: number;
}

export interface Times {
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
  readonly mode: number;
}

export interface FoundFile {
  readonly sizeBytes: number;
  /** Of a small file: saves the way of a file into the store. Of `sizeBytes` bytes. */
  readonly content: Uint8Array<ArrayBuffer> | undefined;
}

export type ScannedNode =
  | ({ readonly kind: "file" } & FoundFile & Times)
  | ({ readonly kind: "directory"; readonly entries: readonly ScannedEntry[] } & Times)
  | ({ readonly kind: "symlink"; readonly target: string; readonly leadsTo: "file" | "directory" | "unknown" } & Times)
  | { readonly kind: "missing" }
  /** A parent is a symlink: `path` is what is in the way. */
  | { readonly kind: "blocked"; readonly path: string };

export interface ScannedEntry {
  readonly name: string;
  readonly node: ScannedNode;
}

/** A problem with what the action made, found while walking: `reason` completes "Output … ". */
export interface ScanProblem {
  readonly kind: "type" | "name" | "limit";
  readonly path: string;
  readonly reason: string;
}

export interface ScanResult {
  readonly streams: readonly FoundFile[];
  readonly outputs: { readonly nodes: readonly ScannedNode[] } | { readonly problem: ScanProblem };
}

/** Larger files are moved into the store; at this size reading and moving cost the same. */
const SMALL_FILE_BYTES = 16 * 1024;
/** Bytes of small files in one answer; the rest goes the way of large ones. */
const MAX_CONTENT_BYTES = 8 * 1024 * 1024;

/** Kernel's own bound on symlinks in one path. */
const MAX_SYMLINK_HOPS = 40;

class Problem extends Error {
  readonly problem: ScanProblem;

  constructor(problem: ScanProblem) {
    super(problem.reason);
    this.problem = problem;
  }
}

/** Looks at every output. Problems of the action's making are returned, those of the machine thrown. */
export function scanOutputs(job: ScanJob): ScanResult {
  const walk = new Walk(job);
  const streams = job.streams.map((path) => walk.stream(path));
  try {
    return { streams, outputs: { nodes: job.outputs.map((names) => walk.output(names)) } };
  } catch (error) {
    if (error instanceof Problem) return { streams, outputs: { problem: error.problem } };
    throw error;
  }
}

class Walk {
  readonly #job: ScanJob;
  #entries = 0;
  #contentBytes = 0;

  constructor(job: ScanJob) {
    this.#job = job;
  }

  /** Absent ones are empty: the runner had no time to create them. */
  stream(path: string): FoundFile {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    return this.#found(path, stats?.size ?? 0);
  }

  output(names: readonly string[]): ScannedNode {
    let path = "";
    for (const name of names.slice(0, -1)) {
      path = joinPath(path, name);
      const stats = this.#lstat(path);
      if (stats === undefined) return { kind: "missing" };
      if (stats.isSymbolicLink()) return { kind: "blocked", path };
      if (!stats.isDirectory()) return { kind: "missing" };
    }
    return this.#node(joinPath(path, names.at(-1) ?? ""), names.length);
  }

  #node(path: string, depth: number): ScannedNode {
    const stats = this.#lstat(path);
    if (stats === undefined) return { kind: "missing" };
    this.#entries++;
    this.#assertLimits(path, depth);
    if (stats.isFile()) return this.#file(path, stats);
    if (stats.isDirectory()) return this.#directory(path, depth, stats);
    if (stats.isSymbolicLink()) return this.#symlink(path, stats);
    throw new Problem({ kind: "type", path, reason: `is a ${specialKind(stats)}, which cannot be an output` });
  }

  #file(path: string, stats: BigIntStats): ScannedNode {
    if (this.#job.makeReadable && (stats.mode & 0o400n) === 0n) {
      chmodSync(this.#host(path), Number(stats.mode & 0o777n) | 0o400);
    }
    return { kind: "file", ...this.#found(this.#host(path), Number(stats.size)), ...times(stats) };
  }

  #found(hostPath: string, sizeBytes: number): FoundFile {
    if (sizeBytes === 0) return { sizeBytes, content: new Uint8Array(0) };
    if (sizeBytes > SMALL_FILE_BYTES || this.#contentBytes + sizeBytes > MAX_CONTENT_BYTES) {
      return { sizeBytes, content: undefined };
    }
    this.#contentBytes += sizeBytes;
    const content = new Uint8Array(sizeBytes);
    const file = openSync(hostPath, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NOCTTY);
    try {
      const count = readSync(file, content, 0, sizeBytes, 0);
      if (count !== sizeBytes) throw new Error(`${hostPath} has ${count} bytes, expected ${sizeBytes}`);
    } finally {
      closeSync(file);
    }
    return { sizeBytes, content };
  }

  #directory(path: string, depth: number, stats: BigIntStats): ScannedNode {
    if (this.#job.makeReadable && (stats.mode & 0o500n) !== 0o500n) chmodSync(this.#host(path), 0o700);
    const entries: ScannedEntry[] = [];
    for (const bytes of readdirSync(this.#host(path), { encoding: "buffer" })) {
      const name = this.#name(path, bytes);
      const node = this.#node(joinPath(path, name), depth + 1);
      if (path === "" && this.#isMountPoint(name, node)) continue;
      if (node.kind !== "missing") entries.push({ name, node });
    }
    return { kind: "directory", entries, ...times(stats) };
  }

  #symlink(path: string, stats: BigIntStats): ScannedNode {
    const bytes = readlinkSync(this.#host(path), { encoding: "buffer" });
    if (!isUtf8(bytes)) {
      throw new Problem({ kind: "name", path, reason: `is a symlink to "${escapeBytes(bytes)}", which is not UTF-8` });
    }
    const target = bytes.toString();
    return { kind: "symlink", target, leadsTo: this.#leadsTo(path, target), ...times(stats) };
  }

  /** Follows a relative target by hand, inside the root only; what we cannot tell is unknown. */
  #leadsTo(path: string, target: string): "file" | "directory" | "unknown" {
    let names = path.split("/").slice(0, -1);
    let pending = target.split("/");
    if (target.startsWith("/")) return "unknown";
    for (let hops = 0; pending.length > 0;) {
      const name = pending.shift()!;
      if (name === "" || name === ".") continue;
      if (name === "..") {
        if (names.length === 0) return "unknown";
        names.pop();
        continue;
      }
      const stats = this.#lstat([...names, name].join("/"));
      if (stats === undefined) return "unknown";
      if (!stats.isSymbolicLink()) {
        names = [...names, name];
        if (!stats.isDirectory()) return pending.length === 0 && stats.isFile() ? "file" : "unknown";
        continue;
      }
      const next = readlinkSync(this.#host([...names, name].join("/")));
      if (++hops > MAX_SYMLINK_HOPS || next.startsWith("/")) return "unknown";
      pending = [...next.split("/"), ...pending];
    }
    return "directory";
  }

  #name(directory: string, bytes: Buffer): string {
    if (isUtf8(bytes)) return bytes.toString();
    const name = escapeBytes(bytes);
    throw new Problem({ kind: "name", path: joinPath(directory, name), reason: "has a name that is not UTF-8" });
  }

  #assertLimits(path: string, depth: number): void {
    const { maxEntries, maxDepth, maxPathBytes } = this.#job.limits;
    const at = { kind: "limit", path: path.length <= 200 ? path : `${path.slice(0, 197)}...` } as const;
    if (this.#entries > maxEntries) {
      throw new Problem({ ...at, reason: `is one of more than ${maxEntries} files and directories` });
    }
    if (depth > maxDepth) throw new Problem({ ...at, reason: `is more than ${maxDepth} directories deep` });
    if (Buffer.byteLength(path) > maxPathBytes) {
      throw new Problem({ ...at, reason: `has a path of more than ${maxPathBytes} bytes` });
    }
  }

  #isMountPoint(name: string, node: ScannedNode): boolean {
    return this.#job.mountPoints.includes(name) && node.kind === "directory" && node.entries.length === 0;
  }

  #lstat(path: string): BigIntStats | undefined {
    try {
      return lstatSync(this.#host(path), { bigint: true });
    } catch (error) {
      const code = errorCode(error);
      if (code === "ENOENT" || code === "ENOTDIR" || code === "ENAMETOOLONG") return undefined;
      throw error;
    }
  }

  #host(path: string): string {
    return path === "" ? this.#job.root : `${this.#job.root}/${path}`;
  }
}

function joinPath(directory: string, name: string): string {
  return directory === "" ? name : `${directory}/${name}`;
}

function times(stats: BigIntStats): Times {
  // Floor, so that times before 1970 keep nanoseconds between 0 and 999,999,999.
  const nanos = ((stats.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  const seconds = (stats.mtimeNs - nanos) / 1_000_000_000n;
  return { mtimeSeconds: Number(seconds), mtimeNanos: Number(nanos), mode: Number(stats.mode & 0o777n) };
}

function specialKind(stats: BigIntStats): string {
  if (stats.isFIFO()) return "FIFO";
  if (stats.isSocket()) return "socket";
  if (stats.isCharacterDevice()) return "character device";
  return "block device";
}

function escapeBytes(bytes: Buffer): string {
  return bytes
    .toString("latin1")
    .replaceAll(/[^\x20-\x7e]/g, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`);
}
