// Acknowledged means durable, seen from outside: what the kernel was asked to sync before each acknowledgement.
//
// kill -9 cannot test this (the page cache survives it), and a wrapper over fs does not see LMDB's writes; strace does.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findEarlyAcknowledgements, parseTrace, type TraceEvent } from "./sync-trace.ts";

const CALLS = "write,pwrite64,writev,pwritev,fdatasync,fsync,rename,openat";

describe("durability of the local store", () => {
  let folder: string;
  let dataDir: string;
  let events: TraceEvent[];
  beforeAll(() => {
    folder = realpathSync(mkdtempSync(join(tmpdir(), "ledge-durability-")));
    dataDir = join(folder, "data");
    const log = join(folder, "trace");
    const script = join(import.meta.dirname, "durability-load.ts");
    const { status, error } = spawnSync(
      "strace",
      ["-f", "-y", "-s", "120", "-e", `trace=${CALLS}`, "-o", log, process.execPath, script, dataDir],
      { stdio: ["ignore", "ignore", "inherit"] },
    );
    if (status !== 0) throw new Error(`strace of the load ended with ${status}`, { cause: error });
    events = parseTrace(readFileSync(log, "utf8"));
  }, 120_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("file, directory and index are synced before each acknowledgement", () => {
    expect(events.filter((event) => event.type === "done")).toHaveLength(20);
    expect(findEarlyAcknowledgements(events, dataDir)).toEqual([]);
  });

  // A checker that cannot fail proves nothing: each of the syncs is taken out of the log in turn.
  for (const [name, isMissing] of [
    [
      "of files",
      (event: TraceEvent) => event.type === "sync" && event.path.includes("/tmp/") && event.path.startsWith(dataDir),
    ],
    ["of directories", (event: TraceEvent) => event.type === "sync" && /\/files\/sha256\/..$/.test(event.path)],
    ["of the index's pages", (event: TraceEvent) => event.type === "sync" && event.path.endsWith("index.mdb")],
    ["of the commit", (event: TraceEvent) => event.isSyncWrite === true],
    ["of the data directory", (event: TraceEvent) => event.type === "sync" && event.path === dataDir],
  ] as const) {
    test(`the check fails without the syncs ${name}`, () => {
      const mutant = events.filter((event) => !isMissing(event));
      expect(mutant.length).toBeLessThan(events.length);
      expect(findEarlyAcknowledgements(mutant, dataDir).length).toBeGreaterThan(0);
    });
  }
});
