// Execute: the stream of Operations, and what of a result is cached.

import { Code } from "../../../src/base/status.ts";
import { ExecutionStage_Value as Stage } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectCode, expectEqual, expectOk, expectPresent, expectThat, type Check } from "../check.ts";
import { metadataOf, prepareAction, runAction, startExecution } from "../actions.ts";

const CITES = "REv2 Execution.Execute";

const EXECUTION_TIMEOUT_MS = 60_000;

export const executeCachingChecks: readonly Check[] = defineArea(
  "execute",
  ["exec", "cache", "sha256"],
  [
    {
      id: "cached",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A second Execute of a successful action is served from the cache.",
      cites: "REv2 ExecuteResponse.cached_result, ExecuteRequest.skip_cache_lookup",
      advice: "Store the result before reporting completion.",
      run: async (p) => {
        const action = await prepareAction(p, { script: "date +%s%N > o", outputs: ["o"] });
        const first = await (await startExecution(p, action.digest)).toEnd();
        expectEqual(first.response.cachedResult, false, "cached_result of the first run");
        const second = await (await startExecution(p, action.digest)).toEnd();
        expectEqual(second.response.cachedResult, true, "cached_result of the second run");
        expectEqual(
          second.result.outputFiles[0]?.digest?.hash,
          first.result.outputFiles[0]?.digest?.hash,
          "The output's digest",
        );
      },
    },
    {
      id: "get-action-result",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "After a successful Execute GetActionResult finds the result.",
      cites: "REv2 Execution, ActionCache",
      advice: "One action cache behind both.",
      run: async (p) => {
        const action = await prepareAction(p, { script: "true" });
        expectEqual((await (await startExecution(p, action.digest)).toEnd()).result.exitCode, 0, "exit_code");
        expectOk(await p.getActionResult(action.digest), "GetActionResult");
      },
    },
    {
      id: "skip-cache-lookup",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "With skip_cache_lookup the action runs again.",
      cites: "REv2 ExecuteRequest.skip_cache_lookup",
      advice: "Do not answer from results that were visible before the request.",
      run: async (p) => {
        const action = await prepareAction(p, { script: "date +%s%N > o", outputs: ["o"] });
        const first = await (await startExecution(p, action.digest)).toEnd();
        const second = await (await startExecution(p, action.digest, { skipCacheLookup: true })).toEnd();
        expectEqual(second.response.cachedResult, false, "cached_result");
        expectThat(
          first.result.outputFiles[0]?.digest?.hash !== second.result.outputFiles[0]?.digest?.hash,
          "the second run gave the first one's output",
        );
      },
    },
    {
      id: "skip-cache-overwrites",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "The result of a run with skip_cache_lookup replaces the cached one.",
      cites: "REv2 ExecuteRequest.skip_cache_lookup",
      advice: "Store it as any other.",
      run: async (p) => {
        const action = await prepareAction(p, { script: "date +%s%N > o", outputs: ["o"] });
        await (await startExecution(p, action.digest)).toEnd();
        const second = await (await startExecution(p, action.digest, { skipCacheLookup: true })).toEnd();
        const cached = await p.getActionResult(action.digest);
        expectEqual(
          cached.response?.outputFiles[0]?.digest?.hash,
          second.result.outputFiles[0]?.digest?.hash,
          "The cached output",
        );
      },
    },
    {
      id: "do-not-cache",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An action with do_not_cache runs every time and is not stored.",
      cites: "REv2 Action.do_not_cache",
      advice: "Neither look up nor store nor merge.",
      run: async (p) => {
        const action = await prepareAction(p, {
          script: "date +%s%N > o",
          outputs: ["o"],
          action: { doNotCache: true },
        });
        const first = await (await startExecution(p, action.digest)).toEnd();
        expectCode(await p.getActionResult(action.digest), [Code.NOT_FOUND], "GetActionResult");
        const second = await (await startExecution(p, action.digest)).toEnd();
        expectEqual(second.response.cachedResult, false, "cached_result");
        expectThat(
          first.result.outputFiles[0]?.digest?.hash !== second.result.outputFiles[0]?.digest?.hash,
          "both runs gave the same output",
        );
      },
    },
    {
      id: "failure-not-served-as-cached",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A failed action runs again when it is asked again.",
      cites: "REv2 Action: only successful results are worth keeping",
      advice: "Store results with exit code 0 only, unless configured otherwise.",
      run: async (p) => {
        const action = await prepareAction(p, { script: "exit 9" });
        await (await startExecution(p, action.digest)).toEnd();
        const second = await (await startExecution(p, action.digest)).toEnd();
        expectEqual(second.response.cachedResult, false, "cached_result");
        expectEqual(second.result.exitCode, 9, "exit_code");
      },
    },
    {
      id: "salt",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Actions that differ in salt alone are different actions.",
      cites: "REv2 Action.salt",
      advice: "The key is the digest of the Action.",
      run: async (p) => {
        const first = await runAction(p, { script: "true" });
        const second = await runAction(p, { script: "true" });
        expectEqual(first.response.cachedResult || second.response.cachedResult, false, "cached_result");
      },
    },
  ],
);

export const executeStreamChecks: readonly Check[] = defineArea(
  "execute",
  ["exec", "cache", "sha256"],
  [
    {
      id: "name",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Every Operation of a stream has the same non-empty name.",
      cites: "google.longrunning Operation.name",
      advice: "Assign it before the first message.",
      run: async (p) => {
        const { operations } = await runAction(p, { script: "true" });
        expectThat(operations.length > 0, "no Operation at all");
        expectThat(operations[0]!.name !== "", "the name is empty");
        for (const { name } of operations) expectEqual(name, operations[0]!.name, "The name");
      },
    },
    {
      id: "metadata",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Operations carry ExecuteOperationMetadata with the action's digest.",
      cites: "REv2 ExecuteOperationMetadata",
      advice: "Set it in every Operation, the last one included.",
      run: async (p) => {
        const action = await prepareAction(p, { script: "true" });
        const { operations } = await (await startExecution(p, action.digest)).toEnd();
        for (const operation of operations) {
          const metadata = expectPresent(metadataOf(operation), "ExecuteOperationMetadata");
          expectEqual(metadata.actionDigest?.hash, action.digest.hash, "action_digest");
        }
      },
    },
    {
      id: "completed-last",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "The stage is COMPLETED exactly in the Operation that is done.",
      cites: "REv2 ExecutionStage.COMPLETED",
      advice: "One last Operation with both.",
      run: async (p) => {
        const { operations } = await runAction(p, { script: "true" });
        for (const operation of operations) {
          expectEqual(metadataOf(operation)?.stage === Stage.COMPLETED, operation.done, "stage is COMPLETED");
        }
      },
    },
    {
      id: "ends-after-done",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "The stream ends with OK right after the Operation that is done.",
      cites: CITES,
      advice: "Close the stream; clients wait for it.",
      run: async (p) => {
        const { operations, outcome } = await runAction(p, { script: "true" });
        expectOk(outcome!, "The stream");
        expectEqual(operations.filter(({ done }) => done).length, 1, "Operations that are done");
        expectEqual(operations.at(-1)!.done, true, "The last one's done");
      },
    },
    {
      id: "first-prompt",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "The first Operation arrives before the action has ended.",
      cites: CITES,
      advice: "Clients need the name to resume; send it at once.",
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 3" });
        const execution = await startExecution(p, action.digest);
        const first = await execution.next();
        expectThat(first !== undefined && !first.done, "the first Operation is the last one");
        await execution.toEnd();
      },
    },
    {
      id: "executing-seen",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A running action is reported in stage EXECUTING.",
      cites: "REv2 ExecutionStage.EXECUTING",
      advice: "Send an Operation when the stage changes.",
      run: async (p) =>
        expectThat(
          (await runAction(p, { script: "sleep 2" })).stages.includes(Stage.EXECUTING),
          "EXECUTING was never reported",
        ),
    },
    {
      id: "stages-known",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Stages are defined values, never UNKNOWN.",
      cites: "REv2 ExecutionStage.Value",
      advice: "Start with CACHE_CHECK or QUEUED.",
      run: async (p) => {
        for (const stage of (await runAction(p, { script: "sleep 1" })).stages)
          expectThat(stage >= 1 && stage <= 4, `stage ${stage}`);
      },
    },
    {
      id: "error-never-set",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Operation.error is never set, also for failed actions.",
      cites: "REv2 Execution: errors are in ExecuteResponse.status",
      advice: "Always set response.",
      run: async (p) => {
        const stream = await runAction(p, { script: "sleep 9", action: { timeout: { seconds: 1 } } });
        for (const { error } of stream.operations) expectThat(error === undefined, "Operation.error is set");
        expectPresent(stream.operations.at(-1)?.response, "the last Operation's response");
      },
    },
    {
      id: "metadata-timestamps",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "execution_metadata has the worker and ordered timestamps.",
      cites: "REv2 ExecutedActionMetadata",
      advice: "Queued, worker start, input fetch, execution, output upload, worker completed.",
      run: async (p) => {
        const { result } = await runAction(p, { script: "true" });
        const metadata = expectPresent(result.executionMetadata, "execution_metadata");
        expectThat(metadata.worker !== "", "worker is empty");
        const order = [
          metadata.queuedTimestamp,
          metadata.workerStartTimestamp,
          metadata.executionStartTimestamp,
          metadata.executionCompletedTimestamp,
          metadata.workerCompletedTimestamp,
        ];
        const times = order
          .map((timestamp) => expectPresent(timestamp, "a timestamp"))
          .map(({ seconds, nanos }) => seconds * 1e3 + nanos / 1e6);
        for (const [index, time] of times.entries())
          expectThat(index === 0 || time >= times[index - 1]!, "the timestamps are not in order");
      },
    },
    {
      id: "execution-metadata-set",
      level: "CLIENTS",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Every result has execution_metadata.",
      cites: "Buck2 fails without it",
      advice: "Set at least the worker's name.",
      run: async (p) =>
        void expectPresent((await runAction(p, { script: "true" })).result.executionMetadata, "execution_metadata"),
    },
  ],
);
