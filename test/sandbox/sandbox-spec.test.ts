// What is refused before a sandbox is made, and that no string of a client becomes an option of bwrap.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bwrapArguments, encodeArguments, type SandboxProfile } from "../../src/sandbox/bwrap-arguments.ts";
import {
  findSpecFault,
  inputRootInside,
  type SandboxSpec,
  workingDirectoryInside,
} from "../../src/sandbox/sandbox-spec.ts";

const SPEC: SandboxSpec = {
  rootMode: "host",
  inputRootPath: "/var/build/root",
  mounts: [],
  arguments: ["true"],
  environment: [],
  workingDirectory: "",
  network: "none",
  limits: {},
};
const PROFILE: SandboxProfile = {
  bwrapPath: "/usr/bin/bwrap",
  bwrapVersion: "0.8.0",
  disableUserns: true,
  proc: "own",
  ownNetwork: true,
};
const mount = (source: string, destination: string) => ({ source, destination, writable: false, optional: false });

describe("findSpecFault()", () => {
  it.each<[string, Partial<SandboxSpec>, RegExp]>([
    ["no arguments", { arguments: [] }, /no arguments/],
    ["an empty program", { arguments: ["", "x"] }, /first argument of the command is ""/],
    ["NUL in an argument", { arguments: ["a", "b\0c"] }, /Argument 1 .* NUL/],
    ["an empty variable name", { environment: [{ name: "", value: "x" }] }, /empty name/],
    ["= in a variable name", { environment: [{ name: "A=B", value: "x" }] }, /"A=B" contains "="/],
    ["NUL in a variable name", { environment: [{ name: "A\0", value: "x" }] }, /NUL/],
    ["NUL in a value", { environment: [{ name: "A", value: "\0" }] }, /"A" contains a NUL/],
    ["an absolute working directory", { workingDirectory: "/x" }, /must be relative/],
    ["a working directory above", { workingDirectory: "a/../.." }, /stay inside/],
    ["NUL in the working directory", { workingDirectory: "a\0b" }, /NUL/],
    ["an input root at /usr", { inputRootPathInside: "/usr" }, /cannot lie at "\/usr"/],
    ["an input root above", { inputRootPathInside: "/a/../b" }, /cannot lie at/],
    ["a relative input root", { inputRootPathInside: "a" }, /cannot lie at/],
    ["a relative mount", { mounts: [mount("nix", "/nix")] }, /"nix:\/nix" must have absolute paths/],
    ["a mount with ..", { mounts: [mount("/nix", "/a/../etc")] }, /absolute paths without/],
  ])("refuses %s", (_, overrides, message) => {
    expect(findSpecFault({ ...SPEC, ...overrides })).toMatch(message);
  });

  it.each<[string, Partial<SandboxSpec>]>([
    ["options as arguments", { arguments: ["--bind", "/", "--", "\n"] }],
    ["a path that comes back", { workingDirectory: "a/../b/./c" }],
    ["odd variable names", { environment: [{ name: "A.B-C", value: "" }] }],
  ])("allows %s", (_, overrides) => expect(findSpecFault({ ...SPEC, ...overrides })).toBeUndefined());
});

describe("paths inside", () => {
  it("depend on the root mode", () => {
    expect(inputRootInside(SPEC)).toBe("/build");
    expect(inputRootInside({ ...SPEC, inputRootPathInside: "/project/src" })).toBe("/project/src");
    expect(workingDirectoryInside({ ...SPEC, workingDirectory: "a/b" })).toBe("/build/a/b");
    expect(workingDirectoryInside({ ...SPEC, rootMode: "input-root", workingDirectory: "a" })).toBe("/a");
    expect(workingDirectoryInside({ ...SPEC, rootMode: "input-root" })).toBe("/");
  });
});

describe("bwrapArguments()", () => {
  const context = {
    profile: PROFILE,
    etcPath: "/var/build/runner/etc/1",
    fds: { status: 4, seccomp: 8 },
    memoryFileBytes: { temporary: 1e9, shared: 1e8 },
    reachablePath: (path: string) => path.replace("/var/build", "/media/ledge"),
  };
  const words = (overrides: Partial<SandboxSpec> = {}, profile: Partial<SandboxProfile> = {}) =>
    bwrapArguments({ ...SPEC, ...overrides }, { ...context, profile: { ...PROFILE, ...profile } });
  const text = (...parameters: Parameters<typeof words>) => ` ${words(...parameters).join(" ")} `;

  it("isolate everything by default", () => {
    for (const option of ["user", "pid", "ipc", "uts", "net"]) expect(words()).toContain(`--unshare-${option}`);
    expect(text()).toContain(" --disable-userns --die-with-parent --new-session --cap-drop ALL ");
    expect(text()).toContain(" --uid 1000 --gid 1000 --hostname sandbox ");
    expect(text()).toContain(" --remount-ro / ");
  });

  it("say nothing of the command, its environment or its working directory", () => {
    const marked = words({
      arguments: ["marker-program"],
      environment: [{ name: "MARKER", value: "marker-value" }],
      workingDirectory: "marker-directory",
    });
    expect(marked.filter((word) => /marker/i.test(word))).toEqual([]);
    expect(marked).toEqual(words());
  });

  it("name host paths as the user of the sandbox reaches them", () => {
    expect(text({ mounts: [mount("/var/build/trees/1", "/build/x")] })).toContain(
      " --bind /media/ledge/root /build --ro-bind /media/ledge/trees/1 /build/x ",
    );
  });

  it("make the input root the root, as user 0, writable", () => {
    const inputRoot = text({ rootMode: "input-root" });
    expect(inputRoot).toContain(" --bind /media/ledge/root / --proc /proc --dev /dev ");
    expect(inputRoot).toContain(" --uid 0 --gid 0 ");
    expect(inputRoot).not.toContain("--remount-ro / ");
    expect(inputRoot).not.toContain("/usr");
  });

  it("share the network only where asked or conceded", () => {
    expect(words({ network: "host" })).not.toContain("--unshare-net");
    expect(words({}, { ownNetwork: false })).not.toContain("--unshare-net");
  });

  it("follow what the probe found", () => {
    expect(words({}, { disableUserns: false })).not.toContain("--disable-userns");
    expect(text({}, { proc: "host" })).toContain(" --ro-bind /proc /proc ");
  });

  it("bound /tmp in memory, or bind a directory there", () => {
    expect(text({ limits: { diskBytes: 1 << 20 } })).toContain(" --perms 1777 --size 1048576 --tmpfs /tmp ");
    expect(text()).toContain(" --size 1000000000 --tmpfs /tmp ");
    expect(text()).toContain(" --size 100000000 --tmpfs /dev/shm --remount-ro /dev ");
    expect(text({ temporaryPath: "/var/build/tmp" })).toContain(" --bind /media/ledge/tmp /tmp ");
  });

  it("mount writable and optional ones as told, in order, after the input root", () => {
    const mounts = [
      { source: "/a", destination: "/build/a", writable: true, optional: false },
      { source: "/b", destination: "/build/a/b", writable: false, optional: true },
    ];
    expect(text({ mounts })).toContain(" /build --bind /a /build/a --ro-bind-try /b /build/a/b ");
  });

  it("are separated by NUL", () => {
    expect(encodeArguments(["--a", "", "b c"]).toString()).toBe("--a\0\0b c\0");
  });

  it("throw for an image that is not there", () => {
    const scratch = mkdtempSync(join(tmpdir(), "ledge-image-"));
    rmSync(scratch, { recursive: true });
    expect(() => words({ rootMode: { image: scratch } })).toThrow(/ENOENT/);
  });
});
