// Does the conformance suite notice? A right server passes all of it, and each of its single faults is caught.

import { availableParallelism } from "node:os";
import { test } from "vitest";
import { httpTarget } from "../../native-free-bench/client/http1-client.ts";
import { parseTarget } from "../../native-free-bench/client/target.ts";
import { SUITE } from "../../native-free-bench/conformance/suite.ts";
import { runSuite, type CheckOutcome } from "../../native-free-bench/conformance/runner.ts";
import { startBrokenServer } from "./broken-server/broken-server.ts";
import { FAULTS, type Fault } from "./broken-server/faults.ts";

const SEED = Number(process.env["LEDGE_TEST_SEED"] ?? 20261121);

// The control: a suite that fails a right server proves nothing by failing a broken one.
test.concurrent("the suite passes the server without faults", { timeout: 300_000 }, async ({ expect }) => {
  const failures = await complaints([], () => true);
  expect(failures, `seed ${SEED}`).toEqual([]);
});

test.concurrent("the suite catches every mutant", { timeout: 300_000 }, async ({ expect }) => {
  const faults = Object.keys(FAULTS) as Fault[];
  const table = new Map<Fault, string[]>();
  const queue = [...faults];
  const work = async (): Promise<void> => {
    for (let fault = queue.shift(); fault !== undefined; fault = queue.shift()) {
      const area = FAULTS[fault][1];
      const caught = await complaints([fault], (id) => id === area || id.startsWith(`${area}.`));
      table.set(
        fault,
        caught.map((line) => line.split(":")[0]!),
      );
    }
  };
  // Some mutants wait for time-outs of actions; several at once keep the cores busy meanwhile.
  await Promise.all(Array.from({ length: Math.max(8, availableParallelism()) }, work));
  const lines = faults.map(
    (fault) => `${fault.padEnd(42)} ${FAULTS[fault][0].padEnd(58)} ${table.get(fault)?.join(", ") || "NOT CAUGHT"}`,
  );
  console.log(`Kill table, seed ${SEED}: ${faults.length} mutants\n${lines.join("\n")}`);
  expect(faults.filter((fault) => table.get(fault)?.length === 0)).toEqual([]);
  expect(faults.length).toBeGreaterThanOrEqual(40);
});

/** What strict checks say about a server with `faults`. */
async function complaints(faults: readonly Fault[], select: (id: string) => boolean): Promise<string[]> {
  const server = await startBrokenServer(...faults);
  try {
    const run = await runSuite({
      target: parseTarget(`grpc://127.0.0.1:${server.port}`),
      http: httpTarget(`http://127.0.0.1:${server.port}`),
      instanceName: "",
      checks: SUITE.filter(({ id }) => select(id)),
      seed: SEED,
      platform: new Map(),
      timeoutMs: 20_000,
      budgetBytes: 2 ** 31,
    });
    const isComplaint = ({ verdict, check }: CheckOutcome): boolean =>
      (verdict === "fail" || verdict === "error") && check.level !== "MAY";
    return run.outcomes.filter(isComplaint).map(({ check, note }) => `${check.id}: ${note}`);
  } finally {
    await server.close();
  }
}
