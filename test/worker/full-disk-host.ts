// What the executor does on a disk that fills up, on a small tmpfs of this process alone: the child's side of
// full-disk.test.ts. Exits with 0, or with what was wrong on stderr.

import assert from "node:assert/strict";
import { readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import type { FakeProcess } from "../runner/fake-runner.ts";
import { ExecutorFixture } from "./executor-fixture.ts";

/** More than the tmpfs has, and so much of it that less than the store keeps in reserve is left. */
const TOO_MUCH_BYTES = 80 << 20;
const MOST_BYTES = 62 << 20;

await fillsWhileStaging();
await fillsWhileCollecting();

/** The input root does not fit: the action did not run, and the next one finds all the space again. */
async function fillsWhileStaging(): Promise<void> {
  await using fixture = await ExecutorFixture.create({ programs: { ok: () => 0 } });
  const large = await fixture.build.job({
    command: { arguments: ["ok"] },
    inputs: { small: "fits", large: Buffer.alloc(TOO_MUCH_BYTES, "x") },
  });
  const { status } = await fixture.run(large);
  assert.equal(status?.code, Code.RESOURCE_EXHAUSTED, status?.message ?? "OK");
  assert.match(status.message, /Build directory: .*ENOSPC/);
  await expectAsGoodAsNew(fixture);
}

/** The outputs do not fit into the store: nothing is cached, streams aside, and the next action is stored. */
async function fillsWhileCollecting(): Promise<void> {
  const storage = await openStorage({
    dataDir: `${tmpdir()}/data`,
    maxSizeBytes: 1 << 30,
    clock: systemClock,
    logger: silentLogger,
    metrics: new MetricsRegistry(),
    threads: 1,
  });
  try {
    await using fixture = await ExecutorFixture.create({ programs: { fill, ok: () => 0 }, store: storage.blobs });
    const job = await fixture.build.job({ command: { arguments: ["fill"], outputPaths: ["out"] } });
    const { status, result } = await fixture.run(job);
    assert.equal(status?.code, Code.RESOURCE_EXHAUSTED, status?.message ?? "OK");
    assert.deepEqual(result?.outputFiles ?? [], []);
    const key = { instanceName: "", fn: DigestFunction.SHA256, hash: job.actionDigest.hash };
    assert.equal(await fixture.actionCache.get(key), undefined);
    await expectAsGoodAsNew(fixture);
  } finally {
    await storage.close();
  }
}

/** As a program that takes no notice of a write that fails: how much room there is depends on the store's reserve. */
function fill({ workingDirectoryPath }: FakeProcess): number {
  try {
    writeFileSync(`${workingDirectoryPath}/out`, Buffer.alloc(MOST_BYTES, "y"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
  return 0;
}

async function expectAsGoodAsNew(fixture: ExecutorFixture): Promise<void> {
  await fixture.buildDirectories.settle();
  assert.deepEqual(readdirSync(`${fixture.execPath}/slots/0`), []);
  assert.deepEqual(readdirSync(`${fixture.execPath}/trash`), []);
  await sleep(200); // the store looks at the disk every 100 ms
  const next = await fixture.build.job({ command: { arguments: ["ok"] }, inputs: { next: "input" } });
  const { status, result } = await fixture.run(next);
  assert.equal(status, undefined, status?.message ?? "OK");
  assert.equal(result?.exitCode, 0);
}
