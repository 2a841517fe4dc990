// What lies where inside: the host's tools, an image, the input root as the root, extra mounts, network, users.

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Mount, RunSpec } from "../../src/runner/runner.ts";
import { makeRealRunner, type RealRunnerFixture, RUNNER_USERS, shell } from "./real-runner.ts";

const NEVER = new AbortController().signal;

for (const user of RUNNER_USERS) {
  describe(`root modes and mounts, ${user}`, { timeout: 120_000 }, () => {
    let fixture: RealRunnerFixture;
    let image: string;
    beforeAll(async () => {
      fixture = await makeRealRunner({ user });
      image = join(fixture.buildRootPath, "image");
      makeImage(image);
    });
    afterAll(async () => {
      await fixture.close();
    });

    async function run(overrides: Parameters<RealRunnerFixture["newSpec"]>[0]): Promise<Ran> {
      const spec = fixture.newSpec(overrides);
      return runSpec(spec);
    }
    async function runSpec(spec: RunSpec): Promise<Ran> {
      const { outcome } = await fixture.runner.run(spec, { signal: NEVER });
      const read = (path: string) => (existsSync(path) ? readFileSync(path, "utf8") : "");
      return { spec, outcome, stdout: read(spec.stdoutPath), stderr: read(spec.stderrPath) };
    }

    it("host: the tools of the host are there, and nothing else of it", async () => {
      const { stdout } = await run({
        arguments: shell("ls /; sed -n '/build/p' /etc/passwd; gcc --version >/dev/null && echo gcc"),
      });
      const names = stdout.split("\n");
      for (const name of ["build", "etc", "usr", "tmp", "proc", "dev"]) expect(names).toContain(name);
      for (const name of ["home", "root", "sys", "boot", "mnt", "media", "srv"]) expect(names).not.toContain(name);
      expect(stdout).toContain("build:x:1000:1000:build:/tmp:/bin/sh\n");
      expect(stdout).toContain("gcc\n");
    });

    it("host: the input root lies where it is asked to lie", async () => {
      const { stdout } = await run({ arguments: ["pwd"], inputRootPathInside: "/home/someone/project" });
      expect(stdout).toBe("/home/someone/project\n");
    });

    it("image: its files are the root, read-only, with the input root at its place", async () => {
      const ran = await run({
        rootMode: { image },
        arguments: ["/tools/sh", "-c", "cat /marker; pwd; echo x > /marker; echo x > /tools/new; echo made > out"],
      });
      expect(ran.stdout).toBe("from the image\n/build\n");
      expect(ran.stderr).toMatch(/Read-only file system[^]*Read-only file system/);
      expect(readFileSync(join(ran.spec.inputRootPath, "out"), "utf8")).toBe("made\n");
      expect(readFileSync(join(image, "marker"), "utf8")).toBe("from the image\n");
    });

    it("image: one that is not there is named", async () => {
      const missing = join(fixture.buildRootPath, "no-such-image");
      const { outcome } = await run({ rootMode: { image: missing }, arguments: ["true"] });
      expect(outcome).toMatchObject({ kind: "sandbox-failed", message: expect.stringContaining("no-such-image") });
    });

    it("input-root: the input root is the root, though it has no proc, dev or tmp", async () => {
      const spec = fixture.newSpec({ rootMode: "input-root", arguments: [], workingDirectory: "some/where" });
      makeImage(
        spec.inputRootPath,
        fixture.runner.ownerOf(0) ?? { uid: lstatSync(spec.inputRootPath).uid, gid: lstatSync(spec.inputRootPath).gid },
      );
      const script =
        "pwd; echo $0 $UID; cat /marker; : > /dev/null; read x < /proc/self/comm; echo $x; echo t > /tmp/t; echo made > /made; echo b > below";
      const ran = await runSpec({
        ...spec,
        arguments: ["sh", "-c", script],
        environment: [{ name: "PATH", value: "/tools" }],
      });
      expect(ran).toMatchObject({ outcome: { kind: "exited", exitCode: 0 }, stderr: "" });
      expect(ran.stdout).toContain("/some/where\n");
      expect(ran.stdout).toContain("from the image\n");
      expect(readFileSync(join(spec.inputRootPath, "made"), "utf8")).toBe("made\n");
      expect(readFileSync(join(spec.inputRootPath, "some/where/below"), "utf8")).toBe("b\n");
      for (const name of ["dev", "proc", "tmp"]) expect(readdirSync(join(spec.inputRootPath, name))).toEqual([]);
    });

    it("input-root: read-only subtrees with writable ones in them", async () => {
      const spec = fixture.newSpec({ rootMode: "input-root", arguments: [] });
      makeImage(spec.inputRootPath, { uid: lstatSync(spec.inputRootPath).uid, gid: lstatSync(spec.inputRootPath).gid });
      const at = (path: string, writable: boolean): Mount => ({
        source: join(spec.inputRootPath, path),
        destination: `/${path}`,
        writable,
        optional: false,
      });
      const script = "echo x > /some/fixed; echo y > /some/where/new; echo z > /free";
      const ran = await runSpec({
        ...spec,
        arguments: ["/tools/sh", "-c", script],
        mounts: [at("some", false), at("some/where", true)],
      });
      expect(ran.stderr).toMatch(/some\/fixed: Read-only file system/);
      expect(readFileSync(join(spec.inputRootPath, "some/where/new"), "utf8")).toBe("y\n");
      expect(readFileSync(join(spec.inputRootPath, "free"), "utf8")).toBe("z\n");
    });

    it("mounts: a store of tools is run from and not written to", async () => {
      const store = join(fixture.buildRootPath, "nix-look-alike");
      mkdirSync(join(store, "abc-tool", "bin"), { recursive: true });
      writeFileSync(join(store, "abc-tool", "bin", "tool"), "#!/bin/sh\necho ran from $0\n", { mode: 0o755 });
      const mounts = [{ source: store, destination: "/nix/store", writable: false, optional: false }];
      const ran = await run({ mounts, arguments: shell("/nix/store/abc-tool/bin/tool; echo x > /nix/store/x") });
      expect(ran.stdout).toBe("ran from /nix/store/abc-tool/bin/tool\n");
      expect(ran.stderr).toMatch(/Read-only file system/);
    });

    it("mounts: a missing source is named, an optional one is passed over", async () => {
      const mount = { source: "/no/such/source", destination: "/nix/store", writable: false, optional: false };
      const failed = await run({ mounts: [mount], arguments: ["true"] });
      expect(failed.outcome).toMatchObject({
        kind: "sandbox-failed",
        message: expect.stringContaining("/no/such/source"),
      });
      const passed = await run({ mounts: [{ ...mount, optional: true }], arguments: ["true"] });
      expect(passed.outcome).toEqual({ kind: "exited", exitCode: 0 });
    });

    it("mounts: a writable one is written to", async () => {
      const { spec: other } = await run({ arguments: ["true"] });
      const mounts = [{ source: other.inputRootPath, destination: "/shared", writable: true, optional: false }];
      expect((await run({ mounts, arguments: shell("echo shared > /shared/file") })).outcome).toMatchObject({
        exitCode: 0,
      });
      expect(readFileSync(join(other.inputRootPath, "file"), "utf8")).toBe("shared\n");
    });

    it("answers the same about time zone, locale, host name, user and limits in every slot", async () => {
      const script =
        "date +%Z; locale 2>/dev/null; hostname; id; umask; ulimit -a; env; cat /etc/passwd /etc/hosts /etc/nsswitch.conf; pwd";
      const runs = [0, 1, 2, 3].map((slot) => run({ slot, arguments: shell(script) }));
      const [first, ...others] = await Promise.all(runs);
      expect(first?.stdout).toMatch(/^UTC\n/);
      expect(first?.stdout).toContain("\nsandbox\n");
      for (const other of others) expect(other.stdout).toBe(first?.stdout);
    });
  });

  describe(`network, ${user}`, { timeout: 120_000 }, () => {
    let fixture: RealRunnerFixture;
    let server: Server;
    let abstract: Server;
    let port: number;
    const abstractName = `ledge-test-${process.pid}`;
    beforeAll(async () => {
      fixture = await makeRealRunner({ user });
      server = createServer((socket) => socket.on("error", () => undefined));
      await new Promise<void>((resolve) => server.listen(0, resolve));
      abstract = createServer((socket) => socket.on("error", () => undefined));
      await new Promise<void>((resolve) => abstract.listen(`\0${abstractName}`, resolve));
      const address = server.address();
      port = typeof address === "object" && address !== null ? address.port : 0;
    });
    afterAll(async () => {
      await fixture.close();
      server.close();
      abstract.close();
    });

    const CONNECT = `
import socket, sys
def attempt(name, family, address):
    s = socket.socket(family); s.settimeout(2)
    try: s.connect(address); print(name, "reached")
    except OSError as e: print(name, e.strerror or e)
port = int(sys.argv[1])
attempt("localhost", socket.AF_INET, ("127.0.0.1", port))
for address in sys.argv[3:]: attempt("host", socket.AF_INET, (address, port))
attempt("outside", socket.AF_INET, ("192.0.2.1", 80))
attempt("abstract", socket.AF_UNIX, "\\0" + sys.argv[2])
attempt("docker", socket.AF_UNIX, "/run/docker.sock")
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen()
attempt("own", socket.AF_INET, l.getsockname())
`;
    const hostAddresses = () =>
      Object.values(networkInterfaces())
        .flatMap((addresses) => addresses ?? [])
        .filter(({ family, internal }) => family === "IPv4" && !internal)
        .map(({ address }) => address);

    async function connect(network: "none" | "host"): Promise<string[]> {
      const words = ["python3", "-c", CONNECT, String(port), abstractName, ...hostAddresses()];
      const spec = fixture.newSpec({ arguments: words, network });
      await fixture.runner.run(spec, { signal: NEVER });
      return readFileSync(spec.stdoutPath, "utf8").trim().split("\n");
    }

    it("none: reaches nothing of the host or beyond, and itself", async () => {
      const lines = await connect("none");
      expect(lines).toContain("localhost Connection refused");
      expect(lines).toContain("outside Network is unreachable");
      expect(lines).toContain("abstract Connection refused");
      expect(lines).toContain("docker No such file or directory");
      expect(lines).toContain("own reached");
      for (const line of lines.filter((text) => text.startsWith("host")))
        expect(line).toBe("host Network is unreachable");
    });

    it("host: reaches the host, when the operator allows it", async () => {
      expect(await connect("host")).toContain("localhost reached");
    });
  });
}

interface Ran {
  readonly spec: RunSpec;
  readonly outcome: unknown;
  readonly stdout: string;
  readonly stderr: string;
}

/** A root file system with a shell and the libraries it needs, copied from the host. */
function makeImage(path: string, owner?: { readonly uid: number; readonly gid: number }): void {
  mkdirSync(join(path, "tools"), { recursive: true });
  mkdirSync(join(path, "some", "where"), { recursive: true });
  mkdirSync(join(path, "etc"), { recursive: true });
  writeFileSync(join(path, "marker"), "from the image\n");
  const copied = ["/bin/sh", ...librariesOf("/bin/sh"), "/bin/cat", ...librariesOf("/bin/cat")];
  for (const file of copied) {
    const target = file.startsWith("/bin/") ? join(path, "tools", file.slice("/bin/".length)) : join(path, file);
    mkdirSync(join(target, ".."), { recursive: true });
    if (!existsSync(target)) copyFileSync(file, target);
  }
  symlinkSync("tools", join(path, "bin"));
  chmodSync(path, 0o755);
  if (owner !== undefined) spawnSync("chown", ["-R", `${owner.uid}:${owner.gid}`, path]);
}

function librariesOf(program: string): string[] {
  const { stdout } = spawnSync("ldd", [program], { encoding: "utf8" });
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? "");
}
