// The filter's verdicts, by an interpreter of its own and numbers written down by name.

import { describe, expect, it } from "vitest";
import { seccompFilter } from "../../src/sandbox/seccomp-filter.ts";

const ARCHES = { x64: 0xc000003e, i386: 0x40000003, arm64: 0xc00000b7 };
const ALLOWED = "allowed";

/** Classic BPF as seccomp(2) describes it; only what a filter may contain. */
function verdict(filter: Buffer, arch: number, call: number, ...words: number[]): string {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(call, 0);
  data.writeUInt32LE(arch, 4);
  words.forEach((word, i) => data.writeUInt32LE(word, 16 + 8 * i));
  let accumulator = 0;
  for (let at = 0; at < filter.length / 8; at++) {
    const code = filter.readUInt16LE(at * 8);
    const [yes, no] = [filter.readUInt8(at * 8 + 2), filter.readUInt8(at * 8 + 3)];
    const k = filter.readUInt32LE(at * 8 + 4);
    if (code === 0x20) accumulator = data.readUInt32LE(k);
    else if (code === 0x15) at += accumulator === k ? yes : no;
    else if (code === 0x35) at += accumulator >= k ? yes : no;
    else if (code === 0x45) at += (accumulator & k) === 0 ? no : yes;
    else if (code === 0x06) return k === 0x7fff0000 ? ALLOWED : `errno ${k & 0xffff}`;
    else throw new Error(`Unknown instruction ${code}`);
  }
  throw new Error("The program has no end");
}

const NAMED = {
  x64: {
    refused: { add_key: 248, request_key: 249, keyctl: 250, bpf: 321, perf_event_open: 298, userfaultfd: 323 },
    alsoRefused: {
      kexec_load: 246,
      init_module: 175,
      mount: 165,
      umount2: 166,
      pivot_root: 155,
      setns: 308,
      reboot: 169,
    },
    used: { read: 0, write: 1, mmap: 9, execve: 59, wait4: 61, ptrace: 101, chmod: 90, personality: 135, openat: 257 },
    special: { clone: 56, unshare: 272, ioctl: 16 },
  },
  arm64: {
    refused: { add_key: 217, request_key: 218, keyctl: 219, bpf: 280, perf_event_open: 241, userfaultfd: 282 },
    alsoRefused: { kexec_load: 104, init_module: 105, mount: 40, umount2: 39, pivot_root: 41, setns: 268, reboot: 142 },
    used: { read: 63, write: 64, mmap: 222, execve: 221, wait4: 260, ptrace: 117, fchmodat: 53, openat: 56 },
    special: { clone: 220, unshare: 97, ioctl: 29 },
  },
} as const;

describe.each(["x64", "arm64"] as const)("seccompFilter(%s)", (architecture) => {
  const filter = seccompFilter(architecture) ?? Buffer.alloc(0);
  const arch = ARCHES[architecture];
  const { refused, alsoRefused, used, special } = NAMED[architecture];

  it.each(Object.entries({ ...refused, ...alsoRefused }))("refuses %s", (_, call) => {
    expect(verdict(filter, arch, call)).toBe("errno 1");
  });
  it.each(Object.entries(used))("allows %s", (_, call) => {
    expect(verdict(filter, arch, call)).toBe(ALLOWED);
  });
  it.each([425, 426, 427, 435])("says that call %i does not exist", (call) => {
    expect(verdict(filter, arch, call)).toBe("errno 38");
  });
  it("refuses user namespaces and allows threads and processes", () => {
    const [newUser, threadFlags] = [0x10000000, 0x3d0f00];
    expect(verdict(filter, arch, special.clone, newUser | 17)).toBe("errno 1");
    expect(verdict(filter, arch, special.unshare, newUser)).toBe("errno 1");
    expect(verdict(filter, arch, special.clone, threadFlags)).toBe(ALLOWED);
    expect(verdict(filter, arch, special.clone, 17)).toBe(ALLOWED);
  });
  it("refuses to type into a terminal and allows other terminal calls", () => {
    const [tiocsti, tioclinux, tcgets] = [0x5412, 0x541c, 0x5401];
    expect(verdict(filter, arch, special.ioctl, 1, tiocsti)).toBe("errno 1");
    expect(verdict(filter, arch, special.ioctl, 1, tioclinux)).toBe("errno 1");
    expect(verdict(filter, arch, special.ioctl, 1, tcgets)).toBe(ALLOWED);
  });
  it("refuses every call of an architecture that does not belong here", () => {
    expect(verdict(filter, 0x1234, 0)).toBe("errno 1");
  });
});

describe("seccompFilter(x64)", () => {
  const filter = seccompFilter("x64") ?? Buffer.alloc(0);
  it("has no second door: x32 calls do not exist", () => {
    expect(verdict(filter, ARCHES.x64, 0x40000000)).toBe("errno 38");
    expect(verdict(filter, ARCHES.x64, 0x40000000 + 250)).toBe("errno 38");
  });
  it("knows the numbers of 32-bit programs", () => {
    expect(verdict(filter, ARCHES.i386, 288)).toBe("errno 1"); // keyctl
    expect(verdict(filter, ARCHES.i386, 250)).toBe(ALLOWED); // fadvise64 there, keyctl in 64-bit programs
    expect(verdict(filter, ARCHES.i386, 11)).toBe(ALLOWED); // execve
    expect(verdict(filter, ARCHES.i386, 310, 0x10000000)).toBe("errno 1"); // unshare
  });
});

describe("seccompFilter() of an unknown architecture", () => {
  it("is absent", () => expect(seccompFilter("riscv64")).toBeUndefined());
});
