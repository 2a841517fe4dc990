// The control of mutants.test.ts: a suite that fails a right server proves nothing by failing a broken one.

import { expect, test } from "vitest";
import { SUITE } from "../../native-free-bench/conformance/suite.ts";
import { complaints, inParallel, SEED } from "./suite-verdicts.ts";

test("the suite passes a server without faults", { timeout: 300_000 }, async () => {
  const areas = [...new Set(SUITE.map(({ id }) => id.split(".")[0]!))];
  const failures = await inParallel(areas, async (area) => await complaints([], area));
  expect(failures.flat(), `seed ${SEED}`).toEqual([]);
});
