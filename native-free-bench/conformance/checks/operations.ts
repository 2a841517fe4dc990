// WaitExecution and google.longrunning.Operations: executions that outlive the stream that began them.

import { Code } from "../../../src/base/status.ts";
import { Operations } from "../../../src/proto/operations.ts";
import { ExecuteResponse, ExecutionStage_Value as Stage } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectCode, expectEqual, expectOk, expectThat, type Check } from "../check.ts";
import { prepareAction, runAction, startExecution, stdoutOf, waitExecution } from "../actions.ts";

const WAIT = "REv2 Execution.WaitExecution";
const TIMEOUT_MS = 60_000;

export const waitExecutionChecks: readonly Check[] = defineArea(
  "wait-execution",
  ["exec", "cache", "sha256"],
  [
    {
      id: "unknown",
      level: "MUST",
      says: "An unknown operation is NOT_FOUND.",
      cites: `${WAIT}: the client then calls Execute again`,
      advice: "Not UNIMPLEMENTED: BuildStream takes that as fatal.",
      run: async (p) => {
        const stream = await (await waitExecution(p, `${p.instancePrefix}operations/${p.random.uuid()}`)).toEnd();
        expectCode(stream.outcome!, [Code.NOT_FOUND], "WaitExecution");
      },
    },
    {
      id: "empty-name",
      level: "SHOULD",
      says: "An empty name is NOT_FOUND or INVALID_ARGUMENT.",
      cites: "REv2 WaitExecutionRequest.name",
      advice: "Do not wait for ever.",
      run: async (p) =>
        expectCode(
          (await (await waitExecution(p, "")).toEnd()).outcome!,
          [Code.NOT_FOUND, Code.INVALID_ARGUMENT],
          "WaitExecution",
        ),
    },
    {
      id: "running",
      level: "MUST",
      says: "Waiting for a running operation sends its state at once and ends with its result.",
      cites: WAIT,
      advice: "Attach the stream to the running execution.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 3; printf waited" });
        const first = await startExecution(p, action.digest);
        const name = await first.untilNamed();
        const second = await waitExecution(p, name);
        const operation = await second.next();
        expectThat(
          operation !== undefined && !operation.done,
          "the first Operation of WaitExecution is not the running state",
        );
        expectEqual(operation.name, name, "The name");
        await Promise.all([first.toEnd(), second.toEnd()]);
        expectEqual(await stdoutOf(p, second.result), "waited", "stdout");
      },
    },
    {
      id: "after-drop",
      level: "CLIENTS",
      says: "An execution goes on when its stream breaks, and WaitExecution finds it.",
      cites: "Bazel resumes with WaitExecution after every broken stream",
      advice: "Keep it for a grace period of tens of seconds.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 3; printf resumed" });
        const first = await startExecution(p, action.digest);
        const name = await first.untilNamed();
        first.call.cancel();
        await p.pause(500);
        const second = await (await waitExecution(p, name)).toEnd();
        expectOk(second.outcome!, "WaitExecution after the stream broke");
        expectEqual(await stdoutOf(p, second.result), "resumed", "stdout");
      },
    },
    {
      id: "after-completion",
      level: "SHOULD",
      says: "A finished operation is found for a while.",
      cites: `${WAIT}; a client whose stream broke at the end needs the result`,
      advice: "Keep finished operations for some minutes.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const done = await runAction(p, { script: "printf late" });
        const again = await (await waitExecution(p, done.operations[0]!.name)).toEnd();
        expectOk(again.outcome!, "WaitExecution after completion");
        expectEqual(await stdoutOf(p, again.result), "late", "stdout");
      },
    },
    {
      id: "same-result",
      level: "MUST",
      says: "All streams of one operation get the same result.",
      cites: WAIT,
      advice: "One execution, many listeners.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 2; date +%s%N" });
        const first = await startExecution(p, action.digest);
        const name = await first.untilNamed();
        const others = await Promise.all([waitExecution(p, name), waitExecution(p, name)]);
        await Promise.all([first, ...others].map(async (stream) => await stream.toEnd()));
        for (const stream of others)
          expectEqual(stream.result.stdoutDigest?.hash, first.result.stdoutDigest?.hash, "stdout_digest");
      },
    },
    {
      id: "other-connection",
      level: "MUST",
      says: "An operation is found from another connection.",
      cites: WAIT,
      advice: "Names belong to the service, not to the connection.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 2" });
        const first = await startExecution(p, action.digest);
        const name = await first.untilNamed();
        const second = await (await waitExecution(p.newConnection(), name)).toEnd();
        expectOk(second.outcome!, "WaitExecution");
        expectEqual(second.result.exitCode, 0, "exit_code");
        await first.toEnd();
      },
    },
  ],
);

export const operationsChecks: readonly Check[] = defineArea(
  "operations",
  ["exec", "cache", "sha256", "operations"],
  [
    {
      id: "get-unknown",
      level: "SHOULD",
      says: "GetOperation of an unknown name is NOT_FOUND.",
      cites: "google.longrunning Operations.GetOperation",
      advice: "INVALID_ARGUMENT is accepted for names of another form.",
      run: async (p) =>
        expectCode(
          await p.call(Operations.methods.GetOperation, { name: `operations/${p.random.uuid()}` }),
          [Code.NOT_FOUND, Code.INVALID_ARGUMENT],
          "GetOperation",
        ),
    },
    {
      id: "get-running",
      level: "SHOULD",
      says: "GetOperation of a running execution returns it, not done.",
      cites: "google.longrunning Operations.GetOperation",
      advice: "The same Operation as in the stream.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 3" });
        const stream = await startExecution(p, action.digest);
        const name = await stream.untilNamed();
        const reply = await p.call(Operations.methods.GetOperation, { name });
        if (reply.code === Code.UNIMPLEMENTED) return;
        expectOk(reply, "GetOperation");
        expectEqual(reply.response?.name, name, "The name");
        expectEqual(reply.response?.done, false, "done");
        await stream.toEnd();
      },
    },
    {
      id: "get-done",
      level: "SHOULD",
      says: "GetOperation of a finished execution returns its response.",
      cites: "google.longrunning Operations.GetOperation",
      advice: "Keep finished operations for some minutes.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const done = await runAction(p, { script: "exit 4" });
        const reply = await p.call(Operations.methods.GetOperation, { name: done.operations[0]!.name });
        if (reply.code === Code.UNIMPLEMENTED) return;
        expectOk(reply, "GetOperation");
        expectEqual(reply.response?.done, true, "done");
        expectEqual(ExecuteResponse.decode(reply.response!.response!.value).result?.exitCode, 4, "exit_code");
      },
    },
    {
      id: "cancel",
      level: "CLIENTS",
      says: "CancelOperation ends a running action with CANCELLED in ExecuteResponse.status.",
      cites: "BuildStream and recc cancel on interrupt; REv2 ExecuteResponse.status",
      advice: "Kill the process tree; end the streams.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 25" });
        const stream = await startExecution(p, action.digest);
        const name = await stream.untilNamed();
        await stream.untilStage(Stage.EXECUTING);
        const reply = await p.call(Operations.methods.CancelOperation, { name });
        if (reply.code === Code.UNIMPLEMENTED) return stream.call.cancel();
        expectOk(reply, "CancelOperation");
        const begun = Date.now();
        await stream.toEnd();
        expectThat(Date.now() - begun < 15_000, "the action ran on for 15 s");
        if (stream.outcome!.code === Code.OK) expectEqual(stream.statusCode, Code.CANCELLED, "ExecuteResponse.status");
        else expectCode(stream.outcome!, [Code.CANCELLED], "The stream");
      },
    },
    {
      id: "cancel-not-cached",
      level: "MUST",
      says: "A cancelled action is not in the action cache.",
      cites: "REv2 ExecuteResponse.status: errors are not cached",
      advice: "Store only what ran to its end.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 25" });
        const stream = await startExecution(p, action.digest);
        const name = await stream.untilNamed();
        const reply = await p.call(Operations.methods.CancelOperation, { name });
        if (reply.code !== Code.OK) return stream.call.cancel();
        await stream.toEnd();
        expectCode(await p.getActionResult(action.digest), [Code.NOT_FOUND], "GetActionResult");
      },
    },
    {
      id: "cancel-unknown",
      level: "SHOULD",
      says: "CancelOperation of an unknown name is NOT_FOUND.",
      cites: "google.longrunning Operations.CancelOperation",
      advice: "INVALID_ARGUMENT and UNIMPLEMENTED are accepted.",
      run: async (p) => {
        const reply = await p.call(Operations.methods.CancelOperation, { name: `operations/${p.random.uuid()}` });
        expectCode(reply, [Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED], "CancelOperation");
      },
    },
    {
      id: "cancel-leaves-others",
      level: "SHOULD",
      says: "Cancelling one action does not disturb another.",
      cites: "google.longrunning Operations.CancelOperation",
      advice: "Kill only what belongs to the operation.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const [one, two] = [
          await prepareAction(p, { script: "sleep 25" }),
          await prepareAction(p, { script: "sleep 2; printf fine" }),
        ];
        const first = await startExecution(p, one.digest);
        const second = await startExecution(p, two.digest);
        const name = await first.untilNamed();
        if ((await p.call(Operations.methods.CancelOperation, { name })).code !== Code.OK) first.call.cancel();
        await second.toEnd();
        expectEqual(await stdoutOf(p, second.result), "fine", "stdout of the other action");
        await first.toEnd();
      },
    },
    {
      id: "list",
      level: "MAY",
      says: "ListOperations lists a running operation.",
      cites: "google.longrunning Operations.ListOperations",
      advice: "UNIMPLEMENTED is accepted.",
      timeoutMs: TIMEOUT_MS,
      run: async (p) => {
        const action = await prepareAction(p, { script: "sleep 2" });
        const stream = await startExecution(p, action.digest);
        const name = await stream.untilNamed();
        const reply = await p.call(Operations.methods.ListOperations, { name: p.instanceName });
        if (reply.code !== Code.UNIMPLEMENTED && reply.code !== Code.PERMISSION_DENIED) {
          expectOk(reply, "ListOperations");
          expectThat(
            reply.response!.operations.some((operation) => operation.name === name) ||
              reply.response!.nextPageToken !== "",
            "the running operation is not listed",
          );
        }
        await stream.toEnd();
      },
    },
  ],
);
