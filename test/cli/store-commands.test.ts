// ledge stats, fsck and gc on the store of a stopped server.

import { chmodSync, globSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { runToEnd } from "../support/child-output.ts";
import { ledgeCommand, LedgeServer } from "../support/ledge-server.ts";

const BLOB_BYTES = 100_000;

async function ledge(...args: readonly string[]) {
  const [program = "", ...first] = await ledgeCommand();
  return runToEnd(program, [...first, ...args]);
}

/** A stopped server with `count` blobs that are files. */
async function stoppedServer(count: number): Promise<LedgeServer> {
  const server = await LedgeServer.start({ flags: ["--slots", "0"] });
  for (let index = 0; index < count; index++) {
    const body = randomBytes(BLOB_BYTES);
    const response = await fetch(`http://${server.address}/opaque/${index}`, { method: "PUT", body });
    expect(response.ok).toBe(true);
  }
  await server.stop();
  return server;
}

describe("the commands for a store", () => {
  test("stats counts what is stored", async () => {
    await using server = await stoppedServer(3);
    const { exitCode, stdout } = await ledge("stats", "--data-dir", server.dataDir);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^SHA256 blobs\s+3\s/m);
    expect(stdout).toMatch(/^opaque values\s+3\s/m);
  });

  test("fsck finds nothing in a whole store, and drops a file that was changed", async () => {
    await using server = await stoppedServer(3);
    expect(await ledge("fsck", "--data-dir", server.dataDir)).toMatchObject({ exitCode: 0 });
    const [path = ""] = globSync(`${server.dataDir}/files/sha256/*/*`);
    chmodSync(path, 0o600);
    writeFileSync(path, randomBytes(BLOB_BYTES));
    const { exitCode, stdout } = await ledge("fsck", "--data-dir", server.dataDir);
    expect(exitCode).toBe(1);
    expect(stdout).toContain("1 damaged and dropped");
    expect(await ledge("fsck", "--data-dir", server.dataDir)).toMatchObject({ exitCode: 0 });
  });

  test("gc evicts until the store is within --max-size", async () => {
    await using server = await stoppedServer(200);
    const { exitCode, stdout } = await ledge("gc", "--data-dir", server.dataDir, "--max-size", "16MiB");
    expect(exitCode).toBe(0);
    expect(stdout).not.toContain("evicted 0 entries");
    expect(globSync(`${server.dataDir}/files/sha256/*/*`).length).toBeLessThan(170);
  });

  test("leave a running server alone", async () => {
    await using server = await LedgeServer.start({ flags: ["--slots", "0"] });
    const { exitCode, stderr } = await ledge("gc", "--data-dir", server.dataDir);
    expect(exitCode).not.toBe(0);
    expect(stderr).toContain(`ledge with pid ${server.pid}`);
  });

  test("say where there is no store", async () => {
    const { exitCode, stderr } = await ledge("stats", "--data-dir", "/nonexistent/ledge");
    expect(exitCode).toBe(2);
    expect(stderr).toContain("/nonexistent/ledge");
  });
});
