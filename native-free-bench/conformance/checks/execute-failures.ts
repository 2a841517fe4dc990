// Execute: what cannot run, what is missing, what takes too long.

import { Code } from "../../../src/base/status.ts";
import { defineArea, expectCode, expectEqual, expectPresent, expectThat, type Check } from "../check.ts";
import { prepareAction, runAction, startExecution } from "../actions.ts";
import type { Probe } from "../probe.ts";

const CITES = "REv2 Execution.Execute";

const EXECUTION_TIMEOUT_MS = 60_000;

export const executeFailureChecks: readonly Check[] = defineArea(
  "execute",
  ["exec", "cache", "sha256"],
  [
    {
      id: "missing-action",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An action that is not in the CAS is FAILED_PRECONDITION with a PreconditionFailure naming it.",
      cites: `${CITES}: FAILED_PRECONDITION, violations of type MISSING`,
      advice: "Bazel uploads again only when it sees that.",
      run: async (p) => {
        const action = await prepareAction(p, { withhold: "action" });
        await expectMissing(p, action.digest, [action.digest.hash]);
      },
    },
    {
      id: "missing-command",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A command that is not in the CAS is FAILED_PRECONDITION naming it.",
      cites: `${CITES}: FAILED_PRECONDITION, violations of type MISSING`,
      advice: "As for the action.",
      run: async (p) => {
        const action = await prepareAction(p, { withhold: "command" });
        await expectMissing(p, action.digest, [action.commandDigest.hash]);
      },
    },
    {
      id: "missing-root",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An input root that is not in the CAS is FAILED_PRECONDITION naming it.",
      cites: `${CITES}: FAILED_PRECONDITION, violations of type MISSING`,
      advice: "As for the action; in ExecuteResponse.status when it is found late.",
      run: async (p) => {
        const action = await prepareAction(p, { files: { a: p.random.uuid() }, withhold: "root" });
        await expectMissing(p, action.digest, [action.rootDigest.hash]);
      },
    },
    {
      id: "missing-inputs-all",
      level: "CLIENTS",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "All missing input files are named at once.",
      cites: "Bazel uploads what is named and tries again a bounded number of times",
      advice: "Collect every missing digest before answering.",
      run: async (p) => {
        const files = { a: p.random.uuid(), b: p.random.uuid(), c: p.random.uuid() };
        const action = await prepareAction(p, { files, withhold: "files" });
        await expectMissing(
          p,
          action.digest,
          Object.values(files).map((text) => p.blobOf(Buffer.from(text)).digest.hash),
        );
      },
    },
    {
      id: "no-digest",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A request without action_digest is INVALID_ARGUMENT.",
      cites: "REv2 ExecuteRequest.action_digest; BuildStream probes with it",
      advice: "Answer with the call's status.",
      run: async (p) => {
        const stream = await startExecution(p, p.emptyDigest, { actionDigest: undefined });
        await stream.toEnd();
        expectCode(stream.outcome!, [Code.INVALID_ARGUMENT], "Execute without a digest");
      },
    },
    {
      id: "malformed-digest",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A malformed action_digest is INVALID_ARGUMENT.",
      cites: "REv2 ExecuteRequest.action_digest",
      advice: "Validate digests at the edge.",
      run: async (p) => {
        const stream = await (await startExecution(p, { hash: "abc", sizeBytes: 1 })).toEnd();
        expectCode(stream.outcome!, [Code.INVALID_ARGUMENT], "Execute of a malformed digest");
      },
    },
    {
      id: "action-is-no-action",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A blob that is no Action is refused.",
      cites: CITES,
      advice: "INVALID_ARGUMENT (FAILED_PRECONDITION is accepted), on the call or in the response.",
      run: async (p) => {
        const blob = p.blobOf(Buffer.from("\xff\xff\xff\xff", "latin1"));
        await p.store(blob);
        expectCode(
          { code: await finalCode(p, blob.digest), message: "" },
          [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION],
          "Execute of a text",
        );
      },
    },
    {
      id: "no-arguments",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A command without arguments is refused.",
      cites: "REv2 Command.arguments",
      advice: "INVALID_ARGUMENT.",
      run: async (p) => {
        const action = await prepareAction(p, { command: { arguments: [] } });
        expectCode(
          { code: await finalCode(p, action.digest), message: "" },
          [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION],
          "A command without arguments",
        );
      },
    },
    {
      id: "output-outside",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An output path that leaves the input root is refused.",
      cites: "REv2 Command.output_paths",
      advice: "INVALID_ARGUMENT; never read the worker's files.",
      needs: ["output-paths"],
      run: async (p) => {
        const action = await prepareAction(p, { script: "true", outputs: ["../../../../../../etc/hostname"] });
        const stream = await (await startExecution(p, action.digest)).toEnd();
        if (stream.outcome!.code !== Code.OK) return expectCode(stream.outcome!, [Code.INVALID_ARGUMENT], "Execute");
        if (stream.statusCode === Code.OK)
          expectEqual(stream.result.outputFiles.length, 0, "Output files from outside");
        else expectEqual(stream.statusCode, Code.INVALID_ARGUMENT, "ExecuteResponse.status");
      },
    },
    {
      id: "input-name-traversal",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An input root with a name like ../x is refused.",
      cites: "REv2 FileNode.name: one path segment",
      advice: "INVALID_ARGUMENT before staging.",
      run: async (p) => {
        const file = await p.storeNew(10);
        const action = await prepareAction(p, { root: { files: [{ name: "../../escaped", digest: file.digest }] } });
        expectCode(
          { code: await finalCode(p, action.digest), message: "" },
          [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION],
          `An input named "../../escaped"`,
        );
      },
    },
    {
      id: "input-duplicate-name",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An input root with one name twice is refused.",
      cites: "REv2 Directory: names are unique",
      advice: "INVALID_ARGUMENT before staging.",
      run: async (p) => {
        const [one, two] = [await p.storeNew(10), await p.storeNew(10)];
        const action = await prepareAction(p, {
          root: {
            files: [
              { name: "x", digest: one.digest },
              { name: "x", digest: two.digest },
            ],
          },
        });
        expectCode(
          { code: await finalCode(p, action.digest), message: "" },
          [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION],
          "Two inputs named x",
        );
      },
    },
    {
      id: "timeout",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An action that runs beyond its timeout ends with DEADLINE_EXCEEDED in ExecuteResponse.status.",
      cites: "REv2 Action.timeout, ExecuteResponse.status",
      advice: "Kill the whole process tree; the call itself is OK.",
      run: async (p) => {
        const stream = await runAction(p, { script: "sleep 20", action: { timeout: { seconds: 1 } } });
        expectEqual(stream.statusCode, Code.DEADLINE_EXCEEDED, "ExecuteResponse.status");
      },
    },
    {
      id: "timeout-not-cached",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An action that timed out is not in the action cache.",
      cites: "REv2 ExecuteResponse.status: errors are not cached",
      advice: "Store only what ran to its end.",
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 20", action: { timeout: { seconds: 1 } } });
        await (await startExecution(p, action.digest)).toEnd();
        expectCode(await p.getActionResult(action.digest), [Code.NOT_FOUND], "GetActionResult");
      },
    },
    {
      id: "timeout-long-enough",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An action within its timeout is not disturbed.",
      cites: "REv2 Action.timeout",
      advice: "The timeout counts the run alone.",
      run: async (p) =>
        expectEqual(
          (await runAction(p, { script: "sleep 1; exit 5", action: { timeout: { seconds: 30 } } })).result.exitCode,
          5,
          "exit_code",
        ),
    },
    {
      id: "killed-by-signal",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An action that is killed by a signal has a non-zero exit code.",
      cites: "REv2 ActionResult.exit_code; by convention 128 + signal",
      advice: "Never report 0.",
      run: async (p) =>
        expectThat((await runAction(p, { script: "kill -9 $$" })).result.exitCode !== 0, "exit_code is 0"),
    },
  ],
);

/** The code with which an execution failed, wherever it was put. */
async function finalCode(p: Probe, digest: Parameters<typeof startExecution>[1]): Promise<number> {
  const execution = await (await startExecution(p, digest)).toEnd();
  return execution.outcome!.code === Code.OK ? execution.statusCode : execution.outcome!.code;
}

async function expectMissing(
  p: Probe,
  digest: Parameters<typeof startExecution>[1],
  hashes: readonly string[],
): Promise<void> {
  const { PreconditionFailure } = await import("../../../src/proto/error_details.ts");
  const execution = await (await startExecution(p, digest)).toEnd();
  const onCall = execution.outcome!.code !== Code.OK;
  const status = onCall ? execution.outcome!.details : execution.response.status;
  expectCode(
    onCall ? execution.outcome! : { code: status?.code ?? 0, message: status?.message ?? "" },
    [Code.FAILED_PRECONDITION],
    "The execution",
  );
  const detail = status?.details.find(({ typeUrl }) => typeUrl.split("/").at(-1) === PreconditionFailure.typeName);
  const { violations } = PreconditionFailure.decode(expectPresent(detail, "the PreconditionFailure detail").value);
  expectThat(violations.length > 0, "the PreconditionFailure has no violations");
  for (const { type } of violations) expectEqual(type, "MISSING", "A violation's type");
  for (const hash of hashes)
    expectThat(
      violations.some(({ subject }) => subject.startsWith("blobs/") && subject.includes(hash)),
      `no violation has the subject blobs/${hash}/…`,
    );
}
