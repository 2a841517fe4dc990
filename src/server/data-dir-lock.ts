// One server per data directory: a listening unix socket in it, which answers with the pid of the owner.
//
// A socket that refuses connections belongs to nobody alive, whatever pid it had, so kill -9 needs no cleaning up, not
// even where every start gets the same pid (containers). Sockets are numbered, and the highest number owns the directory:
//
//   lock.7.sock   refuses: its owner was killed
//   lock.8.sock   answers: the owner
//
// Invariant: at most one process owns the directory. A candidate listens on a name of its own first and then links it to
// the number after the highest, which fails when another one was faster; it owns the directory once it has that number
// and sees no higher one. Numbers never go down: the owner removes only lower ones, and leaves its own when it ends.
// (With a single name, two candidates that both find it stale could each remove it, the second one a live one.)

import { randomUUID } from "node:crypto";
import { closeSync, constants, linkSync, mkdirSync, openSync, readdirSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** How long to wait for the pid of a living owner: it may be starting too, with nineteen others, on two cores. */
const ANSWER_TIMEOUT_MS = 5000;
const RETRY_MS = 50;
/** Each round lost means that another candidate made progress; far more than starts at once. */
const MAX_ROUNDS = 1000;

export interface DataDirLock {
  /** Lets others in. Idempotent. */
  release(): void;
}

/** Thrown when another process owns the directory. */
export class DataDirInUseError extends Error {}

/** Takes the lock of `dataDir`, which is created when absent; throws DataDirInUseError naming the owner's pid. */
export async function lockDataDir(dataDir: string): Promise<DataDirLock> {
  makeDataDir(dataDir);
  const directory = new LockDirectory(dataDir);
  try {
    const candidate = `candidate.${process.pid}.${randomUUID().slice(0, 8)}.sock`;
    const server = await listenAndTellPid(directory.path(candidate));
    try {
      await winNumber(directory, candidate);
    } catch (error) {
      server.close();
      throw error;
    } finally {
      directory.remove(candidate);
    }
    return { release: once(() => server.close(() => directory.close())) };
  } catch (error) {
    directory.close();
    throw error;
  }
}

/** As lockDataDir, but waits up to `timeoutMs` for the owner to end: it may be our predecessor, which drains. */
export async function waitForDataDirLock(dataDir: string, timeoutMs: number): Promise<DataDirLock> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await lockDataDir(dataDir);
    } catch (error) {
      if (!(error instanceof DataDirInUseError) || performance.now() > deadlineMs) throw error;
      await sleep(RETRY_MS);
    }
  }
}

function makeDataDir(dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot create data directory "${dataDir}" (--data-dir): ${reason}`, { cause: error });
  }
}

async function winNumber(directory: LockDirectory, candidate: string): Promise<void> {
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const highest = directory.highestNumber();
    if (highest > 0) await assertStale(directory, highest);
    const mine = highest + 1;
    if (!directory.link(candidate, socketName(mine))) continue;
    // A listing made while others create and remove may miss both; one made after the link cannot miss a higher number.
    if (directory.highestNumber() === mine) return await directory.removeBelow(mine);
    directory.remove(socketName(mine));
  }
  throw new Error(`Cannot lock data directory "${directory.dataDir}": too many processes start on it at once`);
}

async function assertStale(directory: LockDirectory, number: number): Promise<void> {
  const owner = await askOwner(directory.path(socketName(number)));
  if (owner === "nobody") return;
  throw new DataDirInUseError(
    `Data directory "${directory.dataDir}" is in use by ${owner === "unknown" ? "another ledge process" : `ledge with pid ${owner}`}. ` +
      "Stop that one first, or give this one a directory of its own with --data-dir",
  );
}

/** The pid of the process behind the socket at `path`; "unknown" when it is alive but does not say. */
function askOwner(path: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = "";
    const socket = connect(path);
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy());
    socket.on("data", (chunk) => (answer += chunk.toString("latin1")));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      // Refused: nobody listens. ENOENT: a new owner removed it, and the next round sees that one's number.
      if (error.code === "ECONNREFUSED" || error.code === "ENOENT") resolve("nobody");
    });
    // Anything else (a full backlog, a stopped process) is a living owner.
    socket.on("close", () => resolve(/^\d+$/.exec(answer.trim())?.[0] ?? "unknown"));
  });
}

function listenAndTellPid(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      socket.on("error", () => socket.destroy());
      socket.end(`${process.pid}\n`);
    });
    server.unref();
    server.once("error", reject);
    server.listen(path, () => resolve(server));
  });
}

function socketName(number: number): string {
  return `lock.${number}.sock`;
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (!done) action();
    done = true;
  };
}

/** The data directory through an open descriptor: socket paths end at 107 bytes, and data directories do not. */
class LockDirectory {
  readonly dataDir: string;
  #fd: number | undefined;

  constructor(dataDir: string) {
    this.dataDir = dataDir;
    this.#fd = openSync(dataDir, constants.O_RDONLY | constants.O_DIRECTORY);
  }

  path(name: string): string {
    return `/proc/self/fd/${this.#fd}/${name}`;
  }

  /** 0 when there is none. */
  highestNumber(): number {
    return Math.max(0, ...this.#numbers());
  }

  /** False when `to` exists. */
  link(from: string, to: string): boolean {
    try {
      linkSync(this.path(from), this.path(to));
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
      throw error;
    }
  }

  remove(name: string): void {
    try {
      unlinkSync(this.path(name));
    } catch {
      // Already gone is as good.
    }
  }

  /** Removes what dead owners and dead candidates left behind. */
  async removeBelow(number: number): Promise<void> {
    for (const lower of this.#numbers()) if (lower < number) this.remove(socketName(lower));
    for (const name of readdirSync(this.path(""))) {
      if (name.startsWith("candidate.") && (await askOwner(this.path(name))) === "nobody") this.remove(name);
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #numbers(): number[] {
    return readdirSync(this.path("")).flatMap((name) => {
      const match = /^lock\.(\d+)\.sock$/.exec(name);
      return match === null ? [] : [Number(match[1])];
    });
  }
}
