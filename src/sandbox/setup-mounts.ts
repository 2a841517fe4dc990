// The file system of a sandbox as system calls: every source opened first, then everything put in its place, then entered.
//
//   host's / ──► open_tree(sources) ──► an empty root on /tmp, or the input root ──► chroot ──► mounts ──► pivot_root
//
// Invariant: paths of the host are looked up in the host's root and paths inside in the new root, so a symbolic link of
// an action never leads to the host. In an input root as `/` a link in the place of a mount point is refused, and in
// trees of others no mount point is made: bwrap does it, or says what is wrong.

import type { CallArgument, SetupCall } from "./setup-block.ts";

const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;
/** The two have other numbers on arm64. Together they make open(2) of a symbolic link fail. */
const O_DIRECTORY_NOFOLLOW = process.arch === "arm64" ? 0o140000 : 0o600000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_REC_SLAVE = 0x4000 + 0x8_0000;
const MNT_DETACH = 2;
const EEXIST = 17;
const S_IFREG = 0o100000;

/** struct mount_attr: set, clear, propagation, user namespace. */
const MOUNT_ATTR_BYTES = 32;
const ATTR_RDONLY = 1;
const ATTR_NOSUID = 2;
const ATTR_NODEV = 4;

/** What bwrap's --dev shows of the host. */
const DEVICES = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS = {
  stdin: "/proc/self/fd/0",
  stdout: "/proc/self/fd/1",
  stderr: "/proc/self/fd/2",
  fd: "/proc/self/fd",
  core: "/proc/kcore",
  ptmx: "pts/ptmx",
};

/** Where the new root is put together; the host's is covered by it in this mount namespace alone, until it is gone. */
const ASSEMBLY_PLACE = "/tmp";

export class MountCalls {
  /** A handle of the host's /proc, which stays open after the host's root is gone. */
  readonly procFd: number;
  readonly #hostRootFd: number;
  readonly #opened: SetupCall[] = [];
  readonly #placed: SetupCall[] = [];
  /** Directories that exist in the new root. */
  readonly #made = new Set<string>([""]);
  /** Mounted trees, below which we make nothing. */
  readonly #foreign: string[] = [];
  #nextFd: number;
  #root: "unknown" | "empty" | "foreign" = "unknown";
  #permissions = "0755";
  #sizeBytes: string | undefined;

  /** The next descriptor the process will get is `firstFd`. */
  constructor(firstFd: number) {
    this.procFd = firstFd;
    this.#hostRootFd = firstFd + 1;
    this.#nextFd = firstFd + 2;
  }

  /** Takes one option of bwrap with its values. Returns false when only bwrap can do that. */
  add([option = "", first = "", second = ""]: readonly string[]): boolean {
    if (this.#root === "unknown" && !(option === "--bind" && second === "/")) this.#beginEmptyRoot();
    switch (option) {
      case "--bind":
        return second === "/" ? this.#beginForeignRoot(first) : this.#bind(first, second, ATTR_NOSUID + ATTR_NODEV);
      case "--ro-bind":
        return this.#bind(first, second, ATTR_RDONLY + ATTR_NOSUID + ATTR_NODEV);
      case "--symlink":
        return this.#symlink(first, second);
      case "--dir":
        return this.#directory(first);
      case "--proc":
        return this.#directory(first) && this.#mount("proc", first, MS_NOSUID + MS_NODEV + MS_NOEXEC, 0);
      case "--dev":
        return this.#directory(first) && this.#devices(first);
      case "--perms":
        this.#permissions = first;
        return true;
      case "--size":
        this.#sizeBytes = first;
        return true;
      case "--tmpfs":
        return this.#directory(first) && this.#memoryFiles(first);
      case "--remount-ro":
        this.#place(
          "mount_setattr",
          [AT_FDCWD, relative(first), 0, ...attributes(ATTR_RDONLY)],
          `make ${first} read-only`,
        );
        return true;
      default:
        return false;
    }
  }

  /** Everything but the way in. */
  calls(): SetupCall[] {
    return [
      call("mount", [0, "/", 0, MS_REC_SLAVE, 0], "keep mounts to ourselves"),
      call("openat", [AT_FDCWD, "/proc", O_PATH + O_CLOEXEC, 0], "open /proc"),
      call("openat", [AT_FDCWD, "/", O_PATH + O_CLOEXEC, 0], "open /"),
      ...this.#opened,
      ...this.#placed,
    ];
  }

  /** The new root becomes `/`, and the host's is gone. */
  enter(): SetupCall[] {
    return [
      call("fchdir", [this.#hostRootFd], "return to the host's root"),
      call("chroot", ["."], "return to the host's root"),
      call("chdir", [ASSEMBLY_PLACE], "enter the new root"),
      call("pivot_root", [".", "."], "change the root"),
      call("umount2", [".", MNT_DETACH], "leave the host's root"),
      call("chdir", ["/"], "enter the root"),
    ];
  }

  #beginEmptyRoot(): void {
    this.#root = "empty";
    const flags = MS_NOSUID + MS_NODEV;
    this.#place("mount", ["tmpfs", ASSEMBLY_PLACE, "tmpfs", flags, "mode=0755"], "mount the root");
    this.#enterNewRoot();
  }

  #beginForeignRoot(source: string): boolean {
    if (this.#root !== "unknown") return false;
    this.#root = "foreign";
    this.#moveHere(this.#open(source), ASSEMBLY_PLACE, ATTR_NOSUID + ATTR_NODEV, source);
    this.#enterNewRoot();
    return true;
  }

  #enterNewRoot(): void {
    this.#place("chdir", [ASSEMBLY_PLACE], "enter the new root");
    this.#place("chroot", ["."], "enter the new root");
  }

  #bind(source: string, destination: string, flags: number): boolean {
    if (this.#root === "empty" && !this.#isForeign(destination)) this.#directory(destination);
    this.#moveHere(this.#open(source), relative(destination), flags, `${source} at ${destination}`);
    this.#foreign.push(destination);
    return true;
  }

  #symlink(target: string, path: string): boolean {
    if (this.#root !== "empty" || this.#isForeign(path)) return false;
    this.#directory(path.slice(0, path.lastIndexOf("/")));
    this.#place("symlinkat", [target, AT_FDCWD, relative(path)], `make ${path}`);
    return true;
  }

  /** Makes it and what is above it. */
  #directory(path: string): boolean {
    if (this.#isForeign(path)) return false;
    let made = "";
    for (const part of path.split("/")) {
      if (part === "") continue;
      made += `/${part}`;
      if (this.#made.has(made)) continue;
      this.#made.add(made);
      this.#make(made);
    }
    return true;
  }

  #make(path: string): void {
    const make = call("mkdirat", [AT_FDCWD, relative(path), 0o755], `make ${path}`);
    if (this.#root === "empty") {
      this.#placed.push(make);
      return;
    }
    this.#placed.push({ ...make, mayFail: EEXIST });
    // Its descriptor is closed with all the others.
    const flags = O_PATH + O_CLOEXEC + O_DIRECTORY_NOFOLLOW;
    this.#place("openat", [AT_FDCWD, relative(path), flags, 0], `find a directory at ${path}`);
  }

  #devices(path: string): boolean {
    this.#mount("tmpfs", path, MS_NOSUID + MS_NODEV, "mode=0755");
    for (const name of DEVICES) {
      const place = `${path}/${name}`;
      this.#place("mknodat", [AT_FDCWD, relative(place), S_IFREG + 0o444, 0], `make ${place}`);
      this.#moveHere(this.#open(`/dev/${name}`), relative(place), ATTR_NOSUID, place);
    }
    for (const name of ["shm", "pts"]) this.#directory(`${path}/${name}`);
    this.#mount("devpts", `${path}/pts`, MS_NOSUID + MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620");
    for (const [name, target] of Object.entries(DEVICE_LINKS)) {
      this.#place("symlinkat", [target, AT_FDCWD, relative(`${path}/${name}`)], `make ${path}/${name}`);
    }
    return true;
  }

  #memoryFiles(path: string): boolean {
    const size = this.#sizeBytes === undefined ? "" : `,size=${this.#sizeBytes}`;
    const data = `mode=${this.#permissions}${size}`;
    this.#permissions = "0755";
    this.#sizeBytes = undefined;
    return this.#mount("tmpfs", path, MS_NOSUID + MS_NODEV, data);
  }

  #mount(type: string, path: string, flags: number, data: string | 0): boolean {
    this.#place("mount", [type, relative(path), type, flags, data], `mount ${type} on ${path}`);
    return true;
  }

  /** Returns the descriptor of a copy of that tree. */
  #open(source: string): number {
    const flags = OPEN_TREE_CLONE + AT_RECURSIVE + O_CLOEXEC;
    this.#opened.push(call("open_tree", [AT_FDCWD, source, flags], `open ${source}`));
    return this.#nextFd++;
  }

  #moveHere(fd: number, place: string, flags: number, purpose: string): void {
    const words = [fd, "", AT_EMPTY_PATH + AT_RECURSIVE, ...attributes(flags)];
    this.#place("mount_setattr", words, `protect ${purpose}`);
    this.#place("move_mount", [fd, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH], `mount ${purpose}`);
  }

  #place(name: SetupCall["call"], words: readonly CallArgument[], purpose: string): void {
    this.#placed.push(call(name, words, purpose));
  }

  #isForeign(path: string): boolean {
    return this.#foreign.some((tree) => path === tree || path.startsWith(`${tree}/`));
  }
}

/** The last two arguments of mount_setattr. */
function attributes(set: number): [Buffer, number] {
  const structure = Buffer.alloc(MOUNT_ATTR_BYTES);
  structure.writeUInt32LE(set, 0);
  return [structure, MOUNT_ATTR_BYTES];
}

/** Of an absolute path inside. */
function relative(path: string): string {
  return path === "/" ? "." : path.replace(/^\/+/, "");
}

function call(name: SetupCall["call"], words: readonly CallArgument[], purpose: string): SetupCall {
  return { call: name, arguments: words, purpose };
}
