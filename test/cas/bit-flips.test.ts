// Random bit flips in LMDB's file after an unclean stop: never a dead server, never wrong bytes.
//
// LEDGE_FLIPS makes a long run of it; LEDGE_FLIP_SEED repeats one.

import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { blobOf } from "./crash-blobs.ts";
import { StorageFixture } from "./storage-fixture.ts";

const FLIPS = Number(process.env["LEDGE_FLIPS"] ?? "6");
const SEED = Number(process.env["LEDGE_FLIP_SEED"] ?? randomInt(2 ** 31));
const BLOBS = 300;

test(
  "bits flipped in the index file end no server and change no bytes",
  async () => {
    console.log(`seed ${SEED}, ${FLIPS} rounds`);
    await using fixture = await StorageFixture.open();
    for (let number = 0; number < BLOBS; number++) {
      const { digest, data } = blobOf(String(SEED), number);
      await fixture.storage.blobs.put(digest, data);
    }
    await fixture.storage.close();
    const sound = readFileSync(join(fixture.dataDir, "index.mdb"));
    const folder = mkdtempSync(join(tmpdir(), "ledge-flips-"));
    try {
      let lost = 0;
      for (let round = 0; round < FLIPS; round++) {
        const dataDir = join(folder, String(round));
        cpSync(fixture.dataDir, dataDir, { recursive: true });
        const bytes = Buffer.from(sound);
        const offsets = Array.from({ length: 1 + (round % 4) * 8 }, (_, index) =>
          pick(round * 100 + index, bytes.length),
        );
        for (const offset of offsets) bytes[offset] = (bytes[offset] ?? 0) ^ (1 << pick(offset, 8));
        writeFileSync(join(dataDir, "index.mdb"), bytes);
        // Several unclean stops in a row: the whole file is walked.
        writeFileSync(join(dataDir, "RUNNING"), "2\n");
        const { exitCode, output } = await probe(dataDir);
        if (exitCode !== 0) throw new Error(`seed ${SEED}, round ${round}: the server ended with ${exitCode}`);
        const counts = JSON.parse(output) as { present: number; absent: number; wrong: number; stored: number };
        expect(counts).toMatchObject({ wrong: 0, stored: 50 });
        lost += counts.absent;
        rmSync(dataDir, { recursive: true });
      }
      console.log(`${lost} of ${FLIPS * BLOBS} blobs lost`);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  600_000 + FLIPS * 10_000,
);

function pick(salt: number, below: number): number {
  let value = (SEED ^ Math.imul(salt + 1, 0x9e3779b1)) >>> 0;
  value = Math.imul(value ^ (value >>> 15), 0x85ebca6b) >>> 0;
  return ((value ^ (value >>> 13)) % below) >>> 0;
}

function probe(dataDir: string): Promise<{ exitCode: number | string | null; output: string }> {
  return new Promise((resolve) => {
    const script = join(import.meta.dirname, "flip-probe.ts");
    const child = spawn(process.execPath, [script, dataDir, String(SEED), String(BLOBS)], {
      stdio: ["ignore", "pipe", "inherit"],
      timeout: 60_000,
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
    child.on("close", (exitCode, signal) => resolve({ exitCode: exitCode ?? signal, output }));
  });
}
