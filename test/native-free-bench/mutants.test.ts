// Does the conformance suite notice? Each single fault of a server must be caught; prints the kill table.

import { expect, test } from "vitest";
import { FAULTS, type Fault } from "./broken-server/faults.ts";
import { complaints, inParallel, SEED } from "./suite-verdicts.ts";

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
