// Execute: actions that are never cached, so that each call runs a process.
//
// Invariant: a call is Execute alone (commands, inputs and actions are stored beforehand), and one action has been run
// and looked at before: an executor that fails every action at once must not be measured as a fast one.

import { codeName } from "../../src/base/status.ts";
import { Operation } from "../../src/proto/operations.ts";
import { Action, Command, Directory, ExecuteResponse, Execution } from "../../src/proto/remote_execution.ts";
import type { BlobDigest } from "../digest-functions.ts";
import { MessageReader } from "../client/message-framing.ts";
import type { LoadSetup } from "./load-setup.ts";
import { prepare } from "./prepared-calls.ts";
import type { PreparedCall } from "./raw-connection.ts";
import { cycle, type Scenario } from "./scenario.ts";

/** Actions that take turns; a server that runs 1,000 a second meets each again after three. */
const ACTIONS = 3000;

export const EXECUTE_SCENARIOS: readonly Scenario[] = [
  execute("execute-trivial", "/bin/true, never cached", { inputs: 1, outputs: 0 }),
  execute("execute-inputs", "1,000 unchanged input files", { inputs: 1000, outputs: 0 }),
  execute("execute-outputs", "100 output files", { inputs: 1, outputs: 100 }),
];

function execute(name: string, what: string, { inputs, outputs }: { inputs: number; outputs: number }): Scenario {
  return {
    name,
    question: `How many actions a second: ${what}?`,
    unit: "actions",
    shape: { connections: 1, depth: 8 },
    prepare: async (setup) => {
      const outputPaths = Array.from({ length: outputs }, (_, index) => `o${String(index).padStart(3, "0")}`);
      const commandDigest = await storeCommand(setup, outputPaths);
      const inputRootDigest = await storeInputRoot(setup, inputs);
      const properties = [...setup.platform].map(([property, value]) => ({ name: property, value }));
      const actions = Array.from({ length: ACTIONS }, () =>
        setup.blobOf(
          Action.encode({
            commandDigest,
            inputRootDigest,
            salt: setup.random.bytes(12),
            doNotCache: true,
            platform: { properties },
          }),
        ),
      );
      await setup.store(actions);
      const calls = actions.map(({ digest }) => executeCall(setup, digest));
      assertExecuted(await setup.expectOk(calls[0]!), outputs);
      return { unitsPerCall: 1, next: cycle(calls) };
    },
  };
}

function executeCall({ instanceName }: LoadSetup, actionDigest: BlobDigest): PreparedCall {
  return prepare(Execution.methods.Execute, { instanceName, actionDigest });
}

async function storeCommand(setup: LoadSetup, outputPaths: readonly string[]): Promise<BlobDigest> {
  const script = `for n in ${outputPaths.join(" ")}; do echo $n > $n; done`;
  return await setup.storeMessage(Command, {
    arguments: outputPaths.length === 0 ? ["/bin/true"] : ["/bin/sh", "-c", script],
    outputPaths: [...outputPaths],
    environmentVariables: [{ name: "PATH", value: "/usr/bin:/bin" }],
  });
}

async function storeInputRoot(setup: LoadSetup, inputs: number): Promise<BlobDigest> {
  const files = Array.from({ length: inputs }, (_, index) => ({
    name: `f${String(index).padStart(4, "0")}`,
    blob: setup.blob(100),
  }));
  await setup.store(files.map(({ blob }) => blob));
  return await setup.storeMessage(Directory, {
    files: files.map(({ name, blob }) => ({ name, digest: blob.digest })),
  });
}

function assertExecuted(body: Buffer, outputs: number): void {
  const last = new MessageReader(Number.MAX_SAFE_INTEGER).push(body).at(-1);
  const response = last === undefined ? undefined : Operation.decode(last).response;
  if (response === undefined) throw new Error("preparing: Execute ended without a response");
  const { status, result } = ExecuteResponse.decode(response.value);
  const code = status?.code ?? 0;
  if (code !== 0) throw new Error(`preparing: the action ended with ${codeName(code)}: ${status?.message}`);
  if (result?.exitCode !== 0 || result.outputFiles.length !== outputs)
    throw new Error(
      `preparing: the action ended with exit code ${result?.exitCode} and ${result?.outputFiles.length} output files, expected 0 and ${outputs}`,
    );
}
