// Reads what strace recorded of one process (`-f -xx -s` long enough) into the operations its files and folders saw.
//
// Files are followed by descriptor, not by name, because syncs and renames of one file overlap. Operations are numbered by
// the lines on which they began and ended; one that began and did not end before a crash may have happened in part.
// What is changed below the root by a call that is not known here is an error, never overlooked.

/** Trace exactly these. */
export const TRACED_CALLS =
  "openat,creat,open,close,dup,dup2,dup3,write,pwrite64,writev,pwritev,pwritev2,lseek,fdatasync,fsync,ftruncate,truncate,fallocate," +
  "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,copy_file_range,sendfile,msync";

/** LMDB's lock file is written through a map, which no call shows; what is in it is made anew by whoever opens it alone. */
const IGNORED_NAME = /-lock$/;

interface Times {
  readonly beganAt: number;
  readonly endedAt: number;
}

export type DiskOperation = Times &
  (
    | { readonly type: "write"; readonly node: number; readonly position: number; readonly bytes: Buffer }
    /** As a write that is on the disk when it returns (O_DSYNC). */
    | { readonly type: "sync-write"; readonly node: number; readonly position: number; readonly bytes: Buffer }
    | { readonly type: "sync"; readonly node: number }
    /** The folder's entry `name` becomes `target`, a file or a folder, or goes. */
    | { readonly type: "name"; readonly node: number; readonly name: string; readonly target: number | undefined }
    /** A line of the process's standard output. */
    | { readonly type: "said"; readonly text: string }
  );

export interface DiskTrace {
  /** By the end of each. */
  readonly operations: readonly DiskOperation[];
  readonly root: number;
  readonly folders: ReadonlySet<number>;
  readonly length: number;
}

interface OpenFile {
  readonly node: number;
  readonly isSyncing: boolean;
  position: number;
}

interface Call extends Times {
  readonly name: string;
  readonly args: string;
  /** What the descriptor in the first argument meant when the call began. */
  readonly file: OpenFile | undefined;
}

export function parseDiskTrace(text: string, rootPath: string): DiskTrace {
  const reader = new TraceReader(rootPath);
  const unfinished = new Map<string, Omit<Call, "endedAt">>();
  const lines = text.split("\n");
  for (const [at, line] of lines.entries()) {
    const match = /^(\d+) +(.*)$/.exec(line);
    if (match === null) continue;
    const [, thread = "", rest = ""] = match;
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
    if (resumed !== null) {
      const begun = unfinished.get(thread);
      unfinished.delete(thread);
      if (begun !== undefined) reader.end({ ...begun, args: begun.args + (resumed[1] ?? ""), endedAt: at });
      continue;
    }
    const called = /^(\w+)\((.*)$/.exec(rest);
    if (called === null) continue;
    const [, name = "", args = ""] = called;
    const begun = {
      name,
      args: args.replace(/ *<unfinished \.\.\.>$/, ""),
      beganAt: at,
      file: reader.begin(name, args),
    };
    if (rest.endsWith("<unfinished ...>")) unfinished.set(thread, begun);
    else reader.end({ ...begun, endedAt: at });
  }
  return { ...reader.result(), length: lines.length };
}

class TraceReader {
  readonly #rootPath: string;
  readonly #operations: DiskOperation[] = [];
  readonly #descriptors = new Map<number, OpenFile>();
  readonly #nodes = new Map<string, number>();
  readonly #folders = new Set<number>();
  #nextNode = 1;

  constructor(rootPath: string) {
    this.#rootPath = rootPath;
  }

  result(): Pick<DiskTrace, "operations" | "root" | "folders"> {
    const root = this.#nodes.get(this.#rootPath);
    if (root === undefined) throw new Error(`the trace does not make "${this.#rootPath}"`);
    const operations = this.#operations.toSorted((a, b) => a.endedAt - b.endedAt);
    return { operations, root, folders: this.#folders };
  }

  /** A descriptor is free for others as soon as its close begins. */
  begin(name: string, args: string): OpenFile | undefined {
    const descriptor = Number(/^(\d+)[,) ]/.exec(`${args} `)?.[1] ?? Number.NaN);
    const file = this.#descriptors.get(descriptor);
    if (name === "close") this.#descriptors.delete(descriptor);
    return file;
  }

  end(call: Call): void {
    const result = /\) += (-?\d+)(?: .*)?$/.exec(call.args);
    const value = Number(result?.[1] ?? Number.NaN);
    if (!(value >= 0)) return;
    const args = call.args.slice(0, result?.index);
    if (call.name === "write" && args.startsWith("1, ")) return this.#say(call, args);
    if (call.file !== undefined) return this.#endOnFile({ ...call, args, file: call.file }, value);
    if (call.name.startsWith("open")) this.#descriptors.delete(value);
    const paths = [...args.matchAll(/(\w+, )?"((?:\\x[0-9a-f]{2})*)"/g)].map((match) =>
      decode(match[2] ?? "").toString(),
    );
    if (!paths.some((path) => this.#isOurs(path))) return;
    this.#endOnPaths({ ...call, args }, value, paths);
  }

  #endOnPaths(call: Call, value: number, paths: readonly string[]): void {
    const [from = "", to = ""] = paths;
    switch (call.name) {
      case "openat":
      case "open":
        return this.#open(call, value, from);
      case "mkdir": {
        const node = this.#nextNode++;
        this.#folders.add(node);
        this.#setName(call, from, node);
        return;
      }
      case "rename": {
        const node = this.#nodes.get(from);
        if (node === undefined || this.#folders.has(node)) throw unknownCall(call);
        this.#setName(call, to, node);
        this.#setName(call, from, undefined);
        return;
      }
      case "unlink":
      case "rmdir":
        return this.#setName(call, from, undefined);
      default:
        throw unknownCall(call);
    }
  }

  #open(call: Call, descriptor: number, path: string): void {
    if (call.args.includes("O_TRUNC") && this.#nodes.has(path)) throw unknownCall(call);
    if (!this.#nodes.has(path)) this.#setName(call, path, this.#nextNode++);
    const node = this.#nodes.get(path);
    if (node === undefined || IGNORED_NAME.test(path)) return;
    this.#descriptors.set(descriptor, { node, isSyncing: call.args.includes("O_DSYNC"), position: 0 });
  }

  #endOnFile(call: Call & { readonly file: OpenFile }, value: number): void {
    const { file } = call;
    switch (call.name) {
      case "close":
        return;
      case "lseek":
        file.position = value;
        return;
      case "fdatasync":
      case "fsync":
        this.#operations.push({ type: "sync", node: file.node, ...times(call) });
        return;
      case "write":
      case "writev":
        this.#write(call, file.position, value);
        file.position += value;
        return;
      case "pwrite64":
      case "pwritev":
        return this.#write(call, Number(/, (\d+)$/.exec(call.args)?.[1]), value);
      default:
        throw unknownCall(call);
    }
  }

  #write(call: Call & { readonly file: OpenFile }, position: number, length: number): void {
    const bytes = decode([...call.args.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g)].map((match) => match[1] ?? "").join(""));
    // Cut off by strace, or a write that took less than it was given.
    if (bytes.length < length || !Number.isSafeInteger(position)) throw unknownCall(call);
    const type = call.file.isSyncing ? "sync-write" : "write";
    this.#operations.push({ type, node: call.file.node, position, bytes: bytes.subarray(0, length), ...times(call) });
  }

  #say(call: Call, args: string): void {
    const text = decode(/"([^"]*)"/.exec(args)?.[1] ?? "").toString();
    for (const line of text.split("\n"))
      if (line !== "") this.#operations.push({ type: "said", text: line, ...times(call) });
  }

  #setName(call: Call, path: string, target: number | undefined): void {
    if (target === undefined) this.#nodes.delete(path);
    else this.#nodes.set(path, target);
    if (path === this.#rootPath || IGNORED_NAME.test(path)) return;
    const slash = path.lastIndexOf("/");
    const node = this.#nodes.get(path.slice(0, slash));
    if (node === undefined || !this.#folders.has(node)) throw unknownCall(call);
    this.#operations.push({ type: "name", node, name: path.slice(slash + 1), target, ...times(call) });
  }

  #isOurs(path: string): boolean {
    return path === this.#rootPath || path.startsWith(`${this.#rootPath}/`);
  }
}

function decode(text: string): Buffer {
  return Buffer.from(text.replaceAll(String.raw`\x`, ""), "hex");
}

function times({ beganAt, endedAt }: Times): Times {
  return { beganAt, endedAt };
}

function unknownCall(call: Call): Error {
  return new Error(`the trace has a call this reader does not know: ${call.name}(${call.args.slice(0, 300)}`);
}
