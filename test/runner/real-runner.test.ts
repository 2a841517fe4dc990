// The real runner keeps the contract: as root, as an ordinary user, without a sandbox, and where node:ffi cannot be used.

import { makeRealRunner, RUNNER_USERS, SANDBOX_MAKERS } from "./real-runner.ts";
import { describeRunnerContract } from "./runner-contract.ts";

for (const user of RUNNER_USERS) {
  for (const sandbox of SANDBOX_MAKERS) {
    describeRunnerContract(`${sandbox}, ${user}`, () => makeRealRunner({ user, sandbox }));
  }
  describeRunnerContract(`no sandbox, ${user}`, () => makeRealRunner({ user, sandbox: "none" }));
}
// Our own builder needs them, so these are bwrap's.
describeRunnerContract("without native calls", () => makeRealRunner({ nativeCalls: false }));
