// ledge stats, fsck and gc on the store of a stopped server.

import { chmodSync, globSync, statSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
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

  test("gc --compact gives back what the index file does not use any more, and loses nothing that stays", async () => {
    await using server = await LedgeServer.start({ flags: ["--slots", "0"] });
    const url = (index: number) => `http://${server.address}/opaque/${index}`;
    const body = (index: number) => new Uint8Array(Buffer.alloc(40_000, `body ${index} `));
    for (let begin = 0; begin < 800; begin += 100) {
      const puts = Array.from({ length: 100 }, (_, index) => begin + index);
      await Promise.all(
        puts.map(async (index) =>
          expect((await fetch(url(index), { method: "PUT", body: body(index) })).ok).toBe(true),
        ),
      );
    }
    await server.stop();
    const sizeBytes = () => statSync(join(server.dataDir, "index.mdb")).size;
    const before = sizeBytes();
    const gc = await ledge("gc", "--compact", "--data-dir", server.dataDir, "--max-size", "16MiB");
    expect(gc).toMatchObject({ exitCode: 0 });
    expect(gc.stdout).toMatch(/^compacted the index from .* to .*$/m);
    expect(sizeBytes()).toBeLessThan(before * 0.9);
    const { stdout } = await ledge("stats", "--data-dir", server.dataDir);
    const kept = Number(/^opaque values\s+(\d+)/m.exec(stdout)?.[1]);
    await server.restart();
    let found = 0;
    for (let index = 0; index < 800; index++) {
      const response = await fetch(url(index));
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (!response.ok) continue;
      found++;
      expect(Buffer.from(bytes).equals(body(index))).toBe(true);
    }
    expect(found).toBeGreaterThan(50);
    expect(found).toBeLessThanOrEqual(kept);
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
