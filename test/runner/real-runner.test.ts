// The real runner keeps the contract: as root, as an ordinary user, without a sandbox, and where node:ffi cannot be used.

import { makeRealRunner, RUNNER_USERS } from "./real-runner.ts";
import { describeRunnerContract } from "./runner-contract.ts";

for (const user of RUNNER_USERS) {
  describeRunnerContract(`bwrap, ${user}`, () => makeRealRunner({ user }));
  describeRunnerContract(`no sandbox, ${user}`, () => makeRealRunner({ user, sandbox: "none" }));
}
describeRunnerContract("bwrap, without native calls", () => makeRealRunner({ nativeCalls: false }));
