// Actions for the target to run: small shell scripts, and what came back of them.
//
// Invariant: scripts use /bin/sh and the POSIX tools only, and end by themselves within seconds. Every action carries a
// fresh salt, so that nothing was ever cached unless a check ran it before.

import {
  Action,
  Command,
  Directory,
  ExecuteOperationMetadata,
  ExecuteResponse,
  Execution,
} from "../../src/proto/remote_execution.ts";
import type {
  ActionInit,
  ActionResult,
  CommandInit,
  DirectoryInit,
  ExecuteRequestInit,
} from "../../src/proto/remote_execution.ts";
import { Operation } from "../../src/proto/operations.ts";
import type { Call, Outcome } from "../client/http2-channel.ts";
import type { BlobDigest } from "../digest-functions.ts";
import { expectEqual, expectOk, expectPresent, expectThat } from "./check.ts";
import type { Probe } from "./probe.ts";

export interface ActionOptions {
  readonly script?: string;
  readonly command?: Partial<CommandInit>;
  readonly action?: Partial<ActionInit>;
  readonly outputs?: readonly string[];
  /** Files of the input root: path of one segment → content. */
  readonly files?: Readonly<Record<string, string>>;
  readonly root?: DirectoryInit;
  /** Left out of the CAS, for checks of missing inputs. */
  readonly withhold?: "action" | "command" | "root" | "files";
}

export interface PreparedAction {
  readonly digest: BlobDigest;
  readonly commandDigest: BlobDigest;
  readonly rootDigest: BlobDigest;
}

const PATH = "/usr/local/bin:/usr/bin:/bin";

/** Builds an action and stores what it consists of. */
export async function prepareAction(probe: Probe, options: ActionOptions): Promise<PreparedAction> {
  const properties = [...probe.options.platform].map(([name, value]) => ({ name, value }));
  const platform = { properties };
  const command = probe.blobOf(
    Command.encode({
      arguments: ["/bin/sh", "-c", options.script ?? `: ${probe.random.uuid()}`],
      environmentVariables: [{ name: "PATH", value: PATH }],
      outputPaths: [...(options.outputs ?? [])].sort(),
      platform,
      ...options.command,
    }),
  );
  const files = Object.entries(options.files ?? {}).map(([name, text]) => ({
    name,
    blob: probe.blobOf(Buffer.from(text)),
  }));
  const root = probe.blobOf(
    Directory.encode({
      files: files
        .map(({ name, blob }) => ({ name, digest: blob.digest }))
        .sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name))),
      ...options.root,
    }),
  );
  const action = probe.blobOf(
    Action.encode({
      commandDigest: command.digest,
      inputRootDigest: root.digest,
      salt: probe.random.bytes(16),
      platform,
      ...options.action,
    }),
  );
  const parts = [
    ...(options.withhold === "command" ? [] : [command]),
    ...(options.withhold === "action" ? [] : [action]),
    ...(options.withhold === "root" ? [] : [root]),
    ...(options.withhold === "files" ? [] : files.map(({ blob }) => blob)),
  ];
  await probe.store(...parts.filter(({ data }) => data.length > 0));
  return { digest: action.digest, commandDigest: command.digest, rootDigest: root.digest };
}

/** One stream of Operations, as it was received. */
export class ExecutionStream {
  readonly operations: Operation[] = [];
  readonly call: Call;
  outcome: Outcome | undefined;

  constructor(call: Call) {
    this.call = call;
  }

  /** The next Operation, undefined after the last one. */
  async next(): Promise<Operation | undefined> {
    const bytes = await this.call.receive();
    if (bytes === undefined) {
      this.outcome = await this.call.outcome;
      return undefined;
    }
    const operation = Operation.decode(bytes);
    this.operations.push(operation);
    return operation;
  }

  async toEnd(): Promise<this> {
    while ((await this.next()) !== undefined);
    return this;
  }

  /** Reads on until an Operation with a name has arrived. */
  async untilNamed(): Promise<string> {
    for (;;) {
      const operation = await this.next();
      if (operation === undefined) {
        expectOk(this.outcome!, "Execute");
        expectThat(false, "the stream ended without an Operation that has a name");
      } else if (operation.name !== "") return operation.name;
    }
  }

  /** Reads on until the stage is reached, or the end. */
  async untilStage(stage: number): Promise<void> {
    for (;;) {
      const operation = await this.next();
      if (operation === undefined || operation.done || metadataOf(operation)?.stage === stage) return;
    }
  }

  get stages(): number[] {
    return this.operations.map((operation) => metadataOf(operation)?.stage ?? 0);
  }

  /** The ExecuteResponse of the last Operation; the check fails when there is none. */
  get response(): ExecuteResponse {
    if (this.outcome !== undefined) expectOk(this.outcome, "The stream of Operations");
    const last = expectPresent(this.operations.at(-1), "the last Operation");
    expectEqual(last.done, true, "The last Operation's done");
    expectThat(
      last.error === undefined,
      `Operation.error is set (${last.error?.message}); REAPI puts errors into ExecuteResponse.status`,
    );
    const response = expectPresent(last.response, "the last Operation's response");
    expectEqual(
      response.typeUrl.split("/").at(-1),
      ExecuteResponse.typeName,
      "The type of the last Operation's response",
    );
    return ExecuteResponse.decode(response.value);
  }

  /** The result of an action that ran to its end. */
  get result(): ActionResult {
    const response = this.response;
    expectOk({ code: response.status?.code ?? 0, message: response.status?.message ?? "" }, "ExecuteResponse.status");
    return expectPresent(response.result, "ExecuteResponse.result");
  }

  get statusCode(): number {
    return this.response.status?.code ?? 0;
  }
}

export async function startExecution(
  probe: Probe,
  actionDigest: BlobDigest,
  request: Partial<ExecuteRequestInit> = {},
): Promise<ExecutionStream> {
  const call = await probe.options.channel.start(Execution.methods.Execute.path, { signal: probe.signal });
  void call.send(
    Execution.methods.Execute.input.encode({
      instanceName: probe.instanceName,
      digestFunction: probe.fn.segment === "" ? 0 : probe.fn.value,
      actionDigest,
      ...request,
    }),
  );
  call.end();
  return new ExecutionStream(call);
}

export async function waitExecution(probe: Probe, name: string): Promise<ExecutionStream> {
  const call = await probe.options.channel.start(Execution.methods.WaitExecution.path, { signal: probe.signal });
  void call.send(Execution.methods.WaitExecution.input.encode({ name }));
  call.end();
  return new ExecutionStream(call);
}

/** Prepares an action, runs it and reads the stream to its end. */
export async function runAction(
  probe: Probe,
  options: ActionOptions,
  request: Partial<ExecuteRequestInit> = {},
): Promise<ExecutionStream> {
  const action = await prepareAction(probe, options);
  return await (await startExecution(probe, action.digest, request)).toEnd();
}

export function metadataOf(operation: Operation): ExecuteOperationMetadata | undefined {
  const metadata = operation.metadata;
  if (metadata === undefined || metadata.typeUrl.split("/").at(-1) !== ExecuteOperationMetadata.typeName)
    return undefined;
  return ExecuteOperationMetadata.decode(metadata.value);
}

/** What the action wrote to stdout, wherever the server put it. */
export async function stdoutOf(probe: Probe, result: ActionResult): Promise<string> {
  return await logOf(probe, result.stdoutDigest, result.stdoutRaw);
}

export async function stderrOf(probe: Probe, result: ActionResult): Promise<string> {
  return await logOf(probe, result.stderrDigest, result.stderrRaw);
}

async function logOf(
  probe: Probe,
  digest: { hash: string; sizeBytes: number } | undefined,
  raw: Uint8Array,
): Promise<string> {
  if (digest === undefined || digest.sizeBytes === 0) return Buffer.from(raw).toString();
  return (await contentOf(probe, digest, "a log")).toString();
}

/** Reads a blob that a result names. */
export async function contentOf(
  probe: Probe,
  digest: { hash: string; sizeBytes: number } | undefined,
  what: string,
): Promise<Buffer> {
  const present = expectPresent(digest, `the digest of ${what}`);
  if (present.sizeBytes === 0) return Buffer.alloc(0);
  const read = await probe.read(probe.readName(present));
  expectOk(read, `Reading ${what}, which the result names`);
  return read.data;
}
