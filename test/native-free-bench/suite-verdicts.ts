// Runs parts of the conformance suite against servers with faults, several at once.

import { availableParallelism } from "node:os";
import { httpTarget } from "../../native-free-bench/client/http1-client.ts";
import { parseTarget } from "../../native-free-bench/client/target.ts";
import { SUITE } from "../../native-free-bench/conformance/suite.ts";
import { runSuite, type CheckOutcome } from "../../native-free-bench/conformance/runner.ts";
import { startBrokenServer } from "./broken-server/broken-server.ts";
import type { Fault } from "./broken-server/faults.ts";

export const SEED = Number(process.env["LEDGE_TEST_SEED"] ?? 20261121);

/** Some servers wait for time-outs of actions; several at once keep the cores busy meanwhile. */
const WORKERS = Math.max(8, availableParallelism());

export async function inParallel<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < items.length; index = next++) results[index] = await work(items[index]!);
  };
  await Promise.all(Array.from({ length: WORKERS }, worker));
  return results;
}

/** What the strict checks of one area (or the check of that name) say about a server with `faults`. */
export async function complaints(faults: readonly Fault[], area: string): Promise<string[]> {
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
