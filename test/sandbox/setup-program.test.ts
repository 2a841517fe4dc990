// The list of system calls: what bwrap's options become, what is left to bwrap, and how it lies in memory.

import { describe, expect, it } from "vitest";
import { type BwrapContext, bwrapArguments } from "../../src/sandbox/bwrap-arguments.ts";
import { builderImage, PROGRAM_ADDRESS } from "../../src/sandbox/builder-image.ts";
import type { SandboxView } from "../../src/sandbox/sandbox-spec.ts";
import { encodeSetup, type SetupCall } from "../../src/sandbox/setup-block.ts";
import { setupProgram } from "../../src/sandbox/setup-program.ts";

const CONTEXT: BwrapContext = {
  profile: { bwrapPath: "/usr/bin/bwrap", bwrapVersion: "0.11", disableUserns: true, proc: "own", ownNetwork: true },
  etcPath: "/build-root/etc",
  fds: { status: 4, seccomp: 8 },
  memoryFileBytes: { temporary: 1e9, shared: 1e8 },
  reachablePath: (path) => path,
};
const VIEW: SandboxView = {
  rootMode: "host",
  inputRootPath: "/build-root/1/root",
  mounts: [],
  network: "none",
  limits: {},
};
const identity = { uid: 1_900_000_000, gid: 1_900_000_001 };
const FILTER = Buffer.alloc(16, 6);

function program(view: Partial<SandboxView>, profile: Partial<BwrapContext["profile"]> = {}): SetupCall[] {
  const context = { ...CONTEXT, profile: { ...CONTEXT.profile, ...profile } };
  const calls = setupProgram(bwrapArguments({ ...VIEW, ...view }, context), { identity, filter: FILTER });
  if (calls === undefined) throw new Error("left to bwrap");
  return calls;
}

const purposes = (calls: readonly SetupCall[]) => calls.map(({ purpose }) => purpose);

describe("setupProgram()", () => {
  it("makes every kind of root", () => {
    expect(purposes(program({}))).toContain("mount /build-root/etc at /etc");
    expect(purposes(program({ rootMode: { image: "/usr" } }))).toContain("mount /usr/bin at /bin");
    expect(purposes(program({ rootMode: "input-root" }))).toContain("find a directory at /proc");
  });

  it("makes no mount point in a tree that is not its own", () => {
    const mount = { source: "/nix", writable: false, optional: false };
    const inside = purposes(program({ mounts: [{ ...mount, destination: "/build/nix" }] }));
    expect(inside).toContain("mount /nix at /build/nix");
    expect(inside).not.toContain("make /build/nix");
    expect(purposes(program({ mounts: [{ ...mount, destination: "/nix/store" }] }))).toContain("make /nix/store");
    const inRoot = purposes(program({ rootMode: "input-root", mounts: [{ ...mount, destination: "/nix" }] }));
    expect(inRoot).not.toContain("make /nix");
  });

  it("has a network of its own exactly when the options say so", () => {
    const namespaces = (calls: SetupCall[]) => Number(calls.find(({ call }) => call === "clone")?.arguments[0]);
    const newNetwork = 0x4000_0000;
    expect(namespaces(program({})) & newNetwork).toBe(newNetwork);
    expect(namespaces(program({ network: "host" })) & newNetwork).toBe(0);
    expect(purposes(program({}, { ownNetwork: false }))).not.toContain("switch the loopback interface on");
  });

  it("leaves to bwrap what it does not know", () => {
    const words = bwrapArguments(VIEW, CONTEXT);
    const context = { identity, filter: FILTER };
    expect(setupProgram(words, context)).toBeDefined();
    for (const extra of [["--overlay-src", "/x"], ["--ro-bind-try", "/x", "/x"], ["--share-net"]]) {
      expect(setupProgram([...extra, ...words], context)).toBeUndefined();
    }
    for (const needed of ["--unshare-pid", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop"]) {
      const without = words.filter((word, i) => word !== needed && !(words[i - 1] === needed && word === "ALL"));
      expect(setupProgram(without, context), `without ${needed}`).toBeUndefined();
    }
  });
});

describe("encodeSetup()", () => {
  it("puts numbers, addresses and what follows a failure where the builder looks for them", () => {
    const bytes = Buffer.from("abc");
    const calls: SetupCall[] = [
      { call: "chdir", arguments: ["/x"], purpose: "" },
      { call: "write", arguments: [-100, bytes, 2 ** 40 + 1], mayFail: 17, purpose: "" },
      { call: "clone", arguments: [17], childAt: 4, purpose: "" },
      { call: "close", arguments: [0xffff_ffff], mayFail: "always", purpose: "" },
      { call: "BecomeLauncher", arguments: [], purpose: "" },
    ];
    const encoded = encodeSetup(calls, "x64") ?? Buffer.alloc(0);
    const word = (record: number, index: number) => Number(encoded.readBigInt64LE(record * 64 + index * 8));
    const textAt = word(0, 1) - PROGRAM_ADDRESS;
    expect(encoded.toString("latin1", textAt, textAt + 3)).toBe("/x\0");
    expect([word(0, 0), word(0, 7)]).toEqual([80, 0]);
    expect([word(1, 1), word(1, 3), word(1, 7)]).toEqual([-100, 2 ** 40 + 1, -17]);
    expect(word(2, 7)).toBe(PROGRAM_ADDRESS + 4 * 64);
    expect([word(3, 1), word(3, 7)]).toEqual([0xffff_ffff, 1]);
    expect(word(4, 0)).toBe(-1);
    expect(encodeSetup(calls, "arm64")?.readBigInt64LE(0)).toBe(49n);
  });

  it("refuses what does not fit, other architectures, and a NUL byte in a path", () => {
    const call = (path: string): SetupCall => ({ call: "chdir", arguments: [path], purpose: "" });
    expect(encodeSetup([call("x".repeat(300_000))])).toBeUndefined();
    expect(encodeSetup([call("/")], "riscv64")).toBeUndefined();
    expect(() => encodeSetup([call("/\0")])).toThrow("NUL");
  });
});

describe("builderImage()", () => {
  it("is a program for both architectures, and for no other", () => {
    expect(builderImage("x64")?.readUInt16LE(18)).toBe(62);
    expect(builderImage("arm64")?.readUInt16LE(18)).toBe(183);
    expect(builderImage("riscv64")).toBeUndefined();
  });
});
