// Large blobs as files: temporary names, durable commits, reading, and unlinking in the background.
//
//   tmp/<number>            being written; removed at start
//   quarantine/             damaged files, a few
//   files/<fn>/<ab>/<hash>  whole, 0444, one inode each; <fn> is the digest function's number, <ab> the first two digits
//
// Invariant: a name below files/ appears by rename after its bytes are synced, and commit() resolves after its directory
// is. Nobody else may write below these folders; names that are not hashes are left alone.

import { mkdirSync, rmSync } from "node:fs";
import { mkdir, open, readdir, rename, unlink, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncDirectory } from "../base/atomic-file.ts";
import { Limiter } from "../base/limiter.ts";
import { Code, StatusError } from "../base/status.ts";
import { DIGEST_FUNCTIONS, functionName, type DigestFunction } from "../digest/digest.ts";
import { BLOB_FILE_MTIME_SECONDS } from "./blob-store.ts";

/**
 * libuv runs file calls on UV_THREADPOOL_SIZE (16) threads, LMDB's commits as well: some must stay free for those, or
 * syncs of slow files would hold every commit up.
 */
const MAX_FILE_CALLS = 12;

/** A third of those, so that commits never wait for the uploads of others alone. */
const MAX_EARLY_WRITES = 4;

/** A quarter of the folders of one digest function, and few beside a limit of 1,024 open files. */
const MAX_OPEN_DIRECTORIES = 64;

/** Files that wait to be synced, of a lazy store; a slow disk makes writers wait from here on. */
const MAX_LATER_SYNCS = 1024;

/** Damaged files kept for somebody to look into; further ones are removed, since the disk may be dying. */
const MAX_QUARANTINED_FILES = 64;

/** sync: what was acknowledged is on the disk; lazy: it soon will be, and a crash loses whole blobs of the last seconds. */
export type Durability = "sync" | "lazy";

export class FileStore {
  readonly #temporaryDirectory: string;
  readonly #filesDirectory: string;
  readonly #quarantineDirectory: string;
  readonly #limiter = new Limiter(MAX_FILE_CALLS);
  readonly #directorySyncs = new Map<string, DirectorySync>();
  /** By path; one that is being synced is not in it. */
  readonly #openDirectories = new Map<string, FileHandle>();
  /** Folders whose own names may not be on the disk: made just now, or their sync failed. */
  readonly #unsyncedFolders = new Map<string, Promise<void> | undefined>();
  /** Files on their way out: a commit of the same name waits, or the unlink would take the new file. */
  readonly #unlinks = new Map<string, Promise<void>>();
  /** Of a lazy store; the key-value store commits behind them, and takes no more while many wait. */
  readonly #laterSyncs = new Set<Promise<void>>();
  readonly #isLazy: boolean;
  #nextTemporary = 1;
  #earlyWrites = 0;
  /** Names that were given out and not moved or removed since. */
  readonly #temporaries = new Set<string>();

  private constructor(dataDirectory: string, durability: Durability) {
    this.#isLazy = durability === "lazy";
    this.#temporaryDirectory = join(dataDirectory, "tmp");
    this.#filesDirectory = join(dataDirectory, "files");
    this.#quarantineDirectory = join(dataDirectory, "quarantine");
  }

  /** Makes the folders and removes what a killed process was writing. */
  static async open(dataDirectory: string, durability: Durability = "sync"): Promise<FileStore> {
    const store = new FileStore(dataDirectory, durability);
    rmSync(store.#temporaryDirectory, { recursive: true, force: true });
    mkdirSync(store.#temporaryDirectory, { mode: 0o700 });
    for (const fn of DIGEST_FUNCTIONS) {
      const directory = join(store.#filesDirectory, folderOf(fn));
      mkdirSync(directory, { recursive: true, mode: 0o755 });
      // Whoever was killed may have made folders in it.
      await syncDirectory(directory);
    }
    await syncDirectory(store.#filesDirectory);
    await syncDirectory(dataDirectory);
    return store;
  }

  get filesDirectory(): string {
    return this.#filesDirectory;
  }

  /** A name nobody uses, on the file system of the blobs. */
  newTemporaryPath(): string {
    const path = join(this.#temporaryDirectory, String(this.#nextTemporary++));
    this.#temporaries.add(path);
    return path;
  }

  pathOf(fn: DigestFunction, hash: string): string {
    return join(this.#directoryOf(fn, hash), hash);
  }

  /** Makes the temporary file, read-only already, the blob's file; durable once it resolves, unless the store is lazy. */
  async commit(temporaryPath: string, fn: DigestFunction, hash: string): Promise<void> {
    const path = this.pathOf(fn, hash);
    try {
      await this.#limiter.run(() => finishFile(temporaryPath, this.#isLazy ? "without sync" : "with sync"));
      await this.#unlinks.get(path);
      await this.#limiter.run(() => this.#rename(temporaryPath, path));
      this.#temporaries.delete(temporaryPath);
      if (this.#isLazy) await this.#syncLater(path);
      else await this.#syncDirectory(dirname(path));
    } catch (error) {
      throw fileError(error, `Cannot store ${functionName(fn)} blob "${hash}"`);
    }
  }

  /** Resolves when all files that were committed before are durable. */
  async syncCommitted(): Promise<void> {
    await Promise.all(this.#laterSyncs);
  }

  /**
   * Begins to write out what a large upload has so far, so that its commit finds little left to wait for. Skipped while
   * enough of them run; failures are left to the commit.
   */
  writeOutEarly(temporaryPath: string): void {
    if (this.#isLazy || this.#earlyWrites >= MAX_EARLY_WRITES) return;
    this.#earlyWrites++;
    void this.#limiter
      .run(() => writeOut(temporaryPath))
      .catch(() => undefined)
      .finally(() => this.#earlyWrites--);
  }

  /** Removes a temporary file that is not wanted any more; a file that is not there is fine, and one committed costs nothing. */
  async discard(temporaryPath: string): Promise<void> {
    if (!this.#temporaries.delete(temporaryPath)) return;
    await this.#limiter.run(() => unlink(temporaryPath)).catch(() => undefined);
  }

  /** Unlinks a blob's file once `after` has settled; never rejects. A commit of the same blob waits for it. */
  unlinkAfter(after: Promise<unknown>, fn: DigestFunction, hash: string): Promise<void> {
    const path = this.pathOf(fn, hash);
    return this.#takeAway(path, () => after.then(() => this.#limiter.run(() => unlink(path))));
  }

  /** As unlinkAfter(), but keeps the file in quarantine/ for somebody to look into, as long as few are there. */
  quarantineAfter(after: Promise<unknown>, fn: DigestFunction, hash: string): Promise<void> {
    const path = this.pathOf(fn, hash);
    const keep = async () => {
      await mkdir(this.#quarantineDirectory, { recursive: true, mode: 0o700 });
      const kept = await readdir(this.#quarantineDirectory);
      if (kept.length >= MAX_QUARANTINED_FILES) await unlink(path);
      else await rename(path, join(this.#quarantineDirectory, `${folderOf(fn)}-${hash}`));
    };
    return this.#takeAway(path, () => after.then(() => this.#limiter.run(keep)));
  }

  /** Opens a blob's file; undefined when there is none. */
  async openFile(fn: DigestFunction, hash: string): Promise<FileHandle | undefined> {
    try {
      return await this.#limiter.run(() => open(this.pathOf(fn, hash), "r"));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw fileError(error, `Cannot read ${functionName(fn)} blob "${hash}"`);
    }
  }

  /** Runs a file call under the limit that all of them share. */
  run<T>(call: () => Promise<T>): Promise<T> {
    return this.#limiter.run(call);
  }

  /** Waits for the unlinks under way. */
  async close(): Promise<void> {
    await Promise.all([...this.#unlinks.values(), ...this.#laterSyncs]);
    await Promise.all([...this.#openDirectories.values()].map((handle) => handle.close()));
    this.#openDirectories.clear();
  }

  /** The first file of a folder makes the folder, durably; the next ones wait for that. */
  async #rename(from: string, to: string): Promise<void> {
    const folder = dirname(to);
    if (this.#unsyncedFolders.has(folder)) await this.#makeFolder(folder);
    try {
      await rename(from, to);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      await this.#makeFolder(folder);
      await rename(from, to);
    }
  }

  #makeFolder(folder: string): Promise<void> {
    const making = this.#unsyncedFolders.get(folder) ?? makeDurableFolder(folder);
    this.#unsyncedFolders.set(folder, making);
    return making.then(
      () => void this.#unsyncedFolders.delete(folder),
      (error: unknown) => {
        // Named still, for the next file to try again.
        this.#unsyncedFolders.set(folder, undefined);
        throw error;
      },
    );
  }

  async #syncLater(path: string): Promise<void> {
    while (this.#laterSyncs.size >= MAX_LATER_SYNCS) await Promise.race(this.#laterSyncs);
    const sync = this.#limiter
      .run(() => syncFile(path))
      .then(() => this.#syncDirectory(dirname(path)))
      // Evicted meanwhile, or a disk that fails: what it does not hold, the checksums tell when it is read.
      .catch(() => undefined)
      .finally(() => this.#laterSyncs.delete(sync));
    this.#laterSyncs.add(sync);
  }

  #takeAway(path: string, task: () => Promise<void>): Promise<void> {
    const done: Promise<void> = task()
      // What stays behind is found by the sweep of orphaned files.
      .catch(() => undefined)
      .then(() => {
        if (this.#unlinks.get(path) === done) this.#unlinks.delete(path);
      });
    this.#unlinks.set(path, done);
    return done;
  }

  #directoryOf(fn: DigestFunction, hash: string): string {
    return join(this.#filesDirectory, folderOf(fn), hash.slice(0, 2));
  }

  /** Folders stay open between syncs, the last few used: opening one costs as much as a small file's write. */
  async #syncOpened(path: string): Promise<void> {
    let handle = this.#openDirectories.get(path);
    this.#openDirectories.delete(path);
    handle ??= await open(path, "r");
    try {
      await handle.sync();
    } finally {
      this.#openDirectories.set(path, handle);
      for (const [oldest, idle] of this.#openDirectories) {
        if (this.#openDirectories.size <= MAX_OPEN_DIRECTORIES) break;
        this.#openDirectories.delete(oldest);
        void idle.close().catch(() => undefined); // only read from
      }
    }
  }

  /** Files renamed into one folder while it syncs share the next sync. */
  #syncDirectory(path: string): Promise<void> {
    let sync = this.#directorySyncs.get(path);
    if (sync === undefined) {
      sync = new DirectorySync(() => this.#limiter.run(() => this.#syncOpened(path)));
      this.#directorySyncs.set(path, sync);
    }
    return sync.request().finally(() => {
      if (sync.isIdle && this.#directorySyncs.get(path) === sync) this.#directorySyncs.delete(path);
    });
  }
}

/** A sync that begins after the request covers it; one that runs already may not. */
class DirectorySync {
  readonly #sync: () => Promise<void>;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(sync: () => Promise<void>) {
    this.#sync = sync;
  }

  get isIdle(): boolean {
    return this.#running === undefined && this.#next === undefined;
  }

  request(): Promise<void> {
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#running.then(
      () => this.#startNext(),
      () => this.#startNext(),
    );
    return this.#next;
  }

  #startNext(): Promise<void> {
    this.#next = undefined;
    return this.#start();
  }

  #start(): Promise<void> {
    const running = this.#sync().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}

async function finishFile(path: string, how: "with sync" | "without sync"): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.utimes(BLOB_FILE_MTIME_SECONDS, BLOB_FILE_MTIME_SECONDS);
    if (how === "with sync") await file.datasync();
  } finally {
    await file.close();
  }
}

async function makeDurableFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o755 });
  await syncDirectory(dirname(path));
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function writeOut(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

function folderOf(fn: DigestFunction): string {
  return functionName(fn).toLowerCase();
}

export function fileError(error: unknown, context: string): StatusError {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new StatusError(Code.RESOURCE_EXHAUSTED, `${context}: the disk is full (${message})`, { cause: error });
  }
  if (code === "EMFILE" || code === "ENFILE") {
    return new StatusError(Code.RESOURCE_EXHAUSTED, `${context}: too many open files (${message})`, { cause: error });
  }
  return new StatusError(Code.INTERNAL, `${context}: ${message}`, { cause: error });
}
