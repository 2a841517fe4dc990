// Hostile and odd actions in real sandboxes, as root (a user per slot) and as an ordinary user (the server's own).

import { afterAll, beforeAll, describe, test } from "vitest";
import { HOSTILE_CASES } from "./hostile-cases.ts";
import { OrdinaryUserCases } from "./ordinary-user-cases.ts";
import { SandboxWorld } from "./sandbox-world.ts";

describe("as the user of the tests", () => {
  let world: SandboxWorld;
  beforeAll(async () => {
    world = await SandboxWorld.create();
  });
  afterAll(() => world[Symbol.asyncDispose]());

  test.each(HOSTILE_CASES.map(({ name, run }) => [name, run] as const))("an action that %s", async (_name, run) => {
    await run(world);
    world.assertFilesIntact();
  });
});

// Not a skipped suite: who is no root is the ordinary user of the suite above.
if (process.getuid?.() === 0) {
  describe("as an ordinary user", () => {
    let cases: OrdinaryUserCases;
    beforeAll(async () => {
      cases = await OrdinaryUserCases.start();
    });
    afterAll(() => cases.close());

    test.each(HOSTILE_CASES.map(({ name }) => name))("an action that %s", async (name) => {
      await cases.run(name);
    });
  });
}
