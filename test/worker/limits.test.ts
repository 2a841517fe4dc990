// Limits that strike: status, exit code, what is kept and what the metadata say, in real sandboxes; nothing is cached.

import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { Code } from "../../src/base/status.ts";
import { ExecutionUsage, ExecutionUsage_Limit as Limit } from "../../src/proto/execution_usage.ts";
import type { ActionInit } from "../../src/proto/remote_execution.ts";
import { EXECUTION_USAGE_TYPE_URL } from "../../src/worker/execution-metadata.ts";
import { SandboxWorld, type ScriptOutcome } from "./sandbox-world.ts";

let world: SandboxWorld;
beforeAll(async () => {
  world = await SandboxWorld.create({ limits: { maxLogBytes: 4096, memoryBytes: 96 << 20, diskBytes: 4 << 20 } });
});
afterAll(() => world[Symbol.asyncDispose]());

function usageOf({ result }: ScriptOutcome): ExecutionUsage {
  const aux = result?.executionMetadata?.auxiliaryMetadata ?? [];
  const own = aux.find(({ typeUrl }) => typeUrl === EXECUTION_USAGE_TYPE_URL);
  return ExecutionUsage.decode(own!.value);
}

interface StruckLimit {
  readonly script: string;
  readonly limit: number;
  readonly code: number | undefined;
  readonly stderr: RegExp;
  readonly action?: ActionInit;
}

const CASES: readonly StruckLimit[] = [
  {
    // The action is over like any other that was killed, and whoever looks at stderr sees why.
    script: "echo begun; echo why >&2; exec python3 -c 'import time; x = bytearray(1 << 29); time.sleep(60)'",
    limit: Limit.MEMORY,
    code: undefined,
    stderr: /^why\n(.*\n)*ledge: killed: the action used more than 100663296 bytes of memory\n$/,
  },
  {
    script: "echo begun; exec head -c 100000000 /dev/zero > file",
    limit: Limit.DISK,
    code: Code.RESOURCE_EXHAUSTED,
    stderr: /^/,
  },
  { script: "echo begun; exec yes >&2", limit: Limit.LOG_BYTES, code: Code.RESOURCE_EXHAUSTED, stderr: /^(y\n){2000}/ },
  {
    script: "echo begun; exec sleep 1000",
    limit: Limit.WALL_TIME,
    code: Code.DEADLINE_EXCEEDED,
    stderr: /^$/,
    action: { timeout: { seconds: 0, nanos: 700_000_000 } },
  },
];

test.each(CASES)("limit $limit is named in the metadata, and what was written is kept", async (struck) => {
  const stored = vi.spyOn(world.fixture.actionCache, "put");
  const outcome = await world.script(struck.script, struck.action === undefined ? {} : { action: struck.action });
  expect(outcome.status?.code).toBe(struck.code);
  expect(outcome.result?.exitCode).toBe(137);
  expect(outcome.stdout).toBe("begun\n");
  expect(outcome.stderr).toMatch(struck.stderr);
  expect(usageOf(outcome).limit).toBe(struck.limit);
  expect(stored).not.toHaveBeenCalled();
});

test("an action that keeps its limits has what it used in the metadata", async () => {
  const outcome = await world.script("printf 1234; printf 5 >&2; exit 3");
  const { limit, logBytes, peakMemoryBytes = 0, userMicroseconds = -1 } = usageOf(outcome);
  expect({ limit, logBytes }).toEqual({ limit: Limit.LIMIT_UNSPECIFIED, logBytes: 5 });
  expect(peakMemoryBytes).toBeGreaterThan(100_000);
  expect(userMicroseconds).toBeGreaterThanOrEqual(0);
});
