// An index file that cannot be opened never ends the server by a signal, and a sound one is never put aside.
//
// With real servers: the LMDB package ends the process (SIGSEGV) when an open fails, which would be the test's process.

import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  globSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LedgeServer } from "../support/ledge-server.ts";

const SIZES = [500, 5000, 100_000, 300_000];
const FLAGS = ["--slots", "0", "--max-size", "1GiB"];

interface Stored {
  readonly server: LedgeServer;
  readonly bodies: ReadonlyMap<string, Buffer>;
}

/** A server that holds two small blobs and two that are files. */
async function startAndStore(): Promise<Stored> {
  const server = await LedgeServer.start({ flags: FLAGS });
  const bodies = new Map<string, Buffer>();
  for (const size of SIZES) {
    const body = randomBytes(size);
    const hash = createHash("sha256").update(body).digest("hex");
    bodies.set(hash, body);
    const response = await fetch(`http://${server.address}/cas/${hash}`, { method: "PUT", body: new Uint8Array(body) });
    expect(response.ok).toBe(true);
  }
  return { server, bodies };
}

/** The sizes of the blobs that the server has, each of which must be right. */
async function presentSizes({ server, bodies }: Stored): Promise<number[]> {
  const sizes: number[] = [];
  for (const [hash, body] of bodies) {
    const response = await fetch(`http://${server.address}/cas/${hash}`);
    const bytes = Buffer.from(await response.arrayBuffer());
    if (!response.ok) continue;
    expect(bytes.equals(body)).toBe(true);
    sizes.push(body.length);
  }
  return sizes;
}

function overwrite(path: string, offset: number, bytes: Uint8Array): void {
  const file = openSync(path, "r+");
  writeSync(file, bytes, 0, bytes.length, offset);
  closeSync(file);
}

describe("a damaged index file", () => {
  for (const [name, damage] of [
    ["random bytes", (path: string) => writeFileSync(path, randomBytes(100_000))],
    ["zeros", (path: string) => writeFileSync(path, new Uint8Array(100_000))],
    ["a few bytes", (path: string) => writeFileSync(path, "abc")],
  ] as const) {
    test(`of ${name} after a clean stop is put aside, and what files hold is served again`, async () => {
      const stored = await startAndStore();
      await using server = stored.server;
      await server.stop();
      damage(join(server.dataDir, "index.mdb"));
      await server.restart();
      await expect.poll(() => presentSizes(stored), { timeout: 20_000 }).toEqual([100_000, 300_000]);
      expect(existsSync(join(server.dataDir, "quarantine", "index.mdb"))).toBe(true);
      expect(server.log).toContain("the index file is damaged");
      expect((await server.stop()).code).toBe(0);
    });
  }

  // Either header describes a whole tree, so the loss of one costs nothing that was committed before the last commit.
  for (const page of [0, 1]) {
    test(`with a wiped header in page ${page} keeps its small blobs as well`, async () => {
      const stored = await startAndStore();
      await using server = stored.server;
      await server.stop();
      overwrite(join(server.dataDir, "index.mdb"), page * 4096, new Uint8Array(512));
      await server.restart();
      await expect.poll(() => presentSizes(stored), { timeout: 20_000 }).toEqual(SIZES);
    });
  }

  test("with wiped tree pages is rebuilt after the server it ended, at the latest", async () => {
    const stored = await startAndStore();
    await using server = stored.server;
    await server.kill();
    const path = join(server.dataDir, "index.mdb");
    // Two starts in a row that were no clean ones: the whole file is read in a child process.
    writeFileSync(join(server.dataDir, "RUNNING"), "2\n");
    overwrite(path, 2 * 4096, randomBytes(readFileSync(path).length - 2 * 4096));
    await server.restart();
    await expect.poll(() => presentSizes(stored), { timeout: 20_000 }).toEqual([100_000, 300_000]);
  });
});

describe("a sound index file that cannot be opened here", () => {
  const shell = (limits: string) => ["sh", "-c", `${limits}; exec "$@"`, "sh"];

  test("stays in place when address space is limited below its size, and opens again without the limit", async () => {
    const stored = await startAndStore();
    await using server = stored.server;
    for (const end of ["clean stop", "kill"] as const) {
      await (end === "kill" ? server.kill() : server.stop());
      const path = join(server.dataDir, "index.mdb");
      const sizeBytes = readFileSync(path).length;
      // Sparse: LMDB's file is as large as its map has to be.
      truncateSync(path, 9 * 2 ** 30);
      const limited = LedgeServer.start({ flags: FLAGS, dataDir: server.dataDir, wrapper: shell("ulimit -v 9000000") });
      await expect(limited).rejects.toThrow(/address space.*ulimit -v/);
      expect(globSync(`${server.dataDir}/quarantine/index*`)).toEqual([]);
      truncateSync(path, sizeBytes);
      await server.restart();
      expect(await presentSizes(stored)).toEqual(SIZES);
    }
  });

  // Below some limit Node does not start, and above another one everything works: between them the answer is a sentence.
  test("is served, or refused in words, under any limit that lets the program run", async () => {
    const { server } = await startAndStore();
    await using _ = server;
    await server.stop();
    for (const limitKiB of [2_000_000, 4_000_000, 6_000_000, 9_000_000]) {
      const limited = await LedgeServer.start({
        flags: FLAGS,
        dataDir: server.dataDir,
        wrapper: shell(`ulimit -v ${limitKiB}`),
      }).catch(String);
      if (typeof limited === "string") {
        expect(limited).toMatch(/address space is .*too low.*ulimit -v/);
        continue;
      }
      // Threads may find less than V8 wants; that fails their upload and nothing else.
      await fetch(`http://${limited.address}/opaque/${limitKiB}`, { method: "PUT", body: new Uint8Array(300_000) });
      expect((await fetch(`http://${limited.address}/status`)).ok).toBe(true);
      expect(await limited.stop()).toEqual({ code: 0, signal: null });
    }
    expect(globSync(`${server.dataDir}/quarantine/index*`)).toEqual([]);
  });
});
