// Does the conformance suite notice? A right server passes all of it, and each of its single faults is caught.

import { availableParallelism } from "node:os";
import { expect, test } from "vitest";
import { httpTarget } from "../../native-free-bench/client/http1-client.ts";
import { parseTarget } from "../../native-free-bench/client/target.ts";
import { SUITE } from "../../native-free-bench/conformance/suite.ts";
import { runSuite, type CheckOutcome } from "../../native-free-bench/conformance/runner.ts";
import { startBrokenServer } from "./broken-server/broken-server.ts";
import { FAULTS, type Fault } from "./broken-server/faults.ts";

const SEED = Number(process.env["LEDGE_TEST_SEED"] ?? 20261121);

/** Some servers wait for time-outs of actions; several at once keep the cores busy meanwhile. */
const WORKERS = Math.max(8, availableParallelism());

// The control: a suite that fails a right server proves nothing by failing a broken one.
test("the suite passes the server without faults", { timeout: 300_000 }, async () => {
  const areas = [...new Set(SUITE.map(({ id }) => id.split(".")[0]!))];
  const failures = await inParallel(areas, async (area) => await complaints([], area));
  expect(failures.flat(), `seed ${SEED}`).toEqual([]);
});

test("the suite catches every mutant", { timeout: 300_000 }, async () => {
  const faults = Object.keys(FAULTS) as Fault[];
  const caught = await inParallel(faults, async (fault) => await complaints([fault], FAULTS[fault][1]));
  const killers = caught.map((lines) => lines.map((line) => line.split(":")[0]!).join(", "));
  const lines = faults.map(
    (fault, index) => `${fault.padEnd(42)} ${FAULTS[fault][0].padEnd(58)} ${killers[index] || "NOT CAUGHT"}`,
  );
  console.log(`Kill table, seed ${SEED}: ${faults.length} mutants\n${lines.join("\n")}`);
  expect(faults.filter((_, index) => killers[index] === "")).toEqual([]);
  expect(faults.length).toBeGreaterThanOrEqual(40);
});

async function inParallel<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < items.length; index = next++) results[index] = await work(items[index]!);
  };
  await Promise.all(Array.from({ length: WORKERS }, worker));
  return results;
}

/** What the strict checks of one area (or the check of that name) say about a server with `faults`. */
async function complaints(faults: readonly Fault[], area: string): Promise<string[]> {
  const server = await startBrokenServer(...faults);
  try {
    const run = await runSuite({
      target: parseTarget(`grpc://127.0.0.1:${server.port}`),
      http: httpTarget(`http://127.0.0.1:${server.port}`),
      instanceName: "",
      checks: SUITE.filter(({ id }) => id === area || id.startsWith(`${area}.`)),
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
