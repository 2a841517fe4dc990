// The current Operation is repeated every 20 s, seen by a real client during an action of 90 s.

import { expect, test } from "vitest";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { runPythonScript } from "../support/python-script.ts";

// Runs in a file of its own, so that the other files run meanwhile: it takes 90 s of waiting and no work.
test("an action of 90 s repeats its Operation every 20 s and then brings its result", patient, async () => {
  await using server = await LedgeServer.start();
  const output = await runPythonScript("long_action", server.address, "90");
  expect(output.exitCode, `${output.stdout}\n${output.stderr}`).toBe(0);
});
