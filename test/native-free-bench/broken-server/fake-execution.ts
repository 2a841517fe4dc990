// Execution of the fake server: actions run as plain child processes in temporary folders, with faults on the way.

import { spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  readlink,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { PreconditionFailure } from "../../../src/proto/error_details.ts";
import { Code, StatusError, invalidArgument } from "../../../src/base/status.ts";
import { Operation, Operations } from "../../../src/proto/operations.ts";
import {
  Action,
  ActionResult,
  Command,
  Directory,
  ExecuteOperationMetadata,
  ExecuteResponse,
  Execution,
  ExecutionStage_Value as Stage,
  Tree,
} from "../../../src/proto/remote_execution.ts";
import type {
  ActionResultInit,
  Digest,
  DirectoryInit,
  ExecuteResponseInit,
} from "../../../src/proto/remote_execution.ts";
import type { FakeCall, Handler } from "./fake-grpc.ts";
import type { FakeStore, Key } from "./fake-store.ts";

interface FakeOperation {
  readonly name: string;
  readonly actionDigest: Digest;
  stage: number;
  response: ExecuteResponseInit | undefined;
  cancelled: boolean;
  process: ChildProcess | undefined;
  listeners: Set<() => void>;
  streams: number;
}

export function executionHandlers(store: FakeStore): Map<string, Handler> {
  const operations = new Map<string, FakeOperation>();
  const find = (name: string): FakeOperation => {
    const operation = operations.get(name);
    if (operation === undefined) throw new StatusError(Code.NOT_FOUND, `no operation "${name}"`);
    return operation;
  };
  const { GetOperation, CancelOperation, ListOperations } = Operations.methods;
  return new Map<string, Handler>([
    [
      Execution.methods.Execute.path,
      async (call) => {
        const request = Execution.methods.Execute.input.decode(await call.request());
        if (request.actionDigest === undefined) throw invalidArgument("action_digest is not set");
        const key = store.keyOf(request.actionDigest, request.digestFunction);
        const operation: FakeOperation = {
          name: `operations/${randomUUID()}`,
          actionDigest: request.actionDigest,
          stage: Stage.QUEUED,
          response: undefined,
          cancelled: false,
          process: undefined,
          listeners: new Set(),
          streams: 0,
        };
        const cached =
          request.skipCacheLookup && !store.has("execute.skip-cache-ignored")
            ? undefined
            : store.findResult(request.instanceName, key);
        const action = decodeInput(Action, requireInput(store, [key])[0]!, "the Action");
        if (cached !== undefined && (!action.doNotCache || store.has("execute.do-not-cache-ignored")))
          operation.response = { result: cached, cachedResult: true };
        else {
          const commandKey = store.keyOf(action.commandDigest, key.fn.value);
          const command = decodeInput(Command, requireInput(store, [commandKey])[0]!, "the Command");
          if (command.arguments.length === 0) throw invalidArgument("the command has no arguments");
          void execute(store, operation, { action, command, key, instance: request.instanceName });
        }
        operations.set(operation.name, operation);
        await follow(store, call, operation);
      },
    ],
    [
      Execution.methods.WaitExecution.path,
      async (call) => {
        if (store.has("wait-execution.unknown-is-unimplemented")) throw new StatusError(Code.UNIMPLEMENTED, "not here");
        await follow(store, call, find(Execution.methods.WaitExecution.input.decode(await call.request()).name));
      },
    ],
    [
      GetOperation.path,
      async (call) => await call.write(encode(store, find(GetOperation.input.decode(await call.request()).name))),
    ],
    [
      CancelOperation.path,
      async (call) => {
        const operation = find(CancelOperation.input.decode(await call.request()).name);
        if (!store.has("operations.cancel-ignored")) cancel(operation);
        await call.write(new Uint8Array(0));
      },
    ],
    [
      ListOperations.path,
      async (call) => {
        ListOperations.input.decode(await call.request());
        await call.write(
          ListOperations.output.encode({ operations: [...operations.keys()].map((name) => ({ name })) }),
        );
      },
    ],
  ]);
}

function cancel(operation: FakeOperation): void {
  operation.cancelled = true;
  if (operation.process?.pid !== undefined) process.kill(-operation.process.pid, "SIGKILL");
}

async function follow(store: FakeStore, call: FakeCall, operation: FakeOperation): Promise<void> {
  operation.streams++;
  let wake: () => void = () => undefined;
  const listener = (): void => wake();
  operation.listeners.add(listener);
  call.stream.once("close", listener);
  for (let last = -1; !call.cancelled;) {
    const stage = operation.response === undefined ? operation.stage : Stage.COMPLETED;
    if (stage !== last && !(store.has("execute.first-operation-late") && operation.response === undefined))
      await call.write(encode(store, operation));
    last = stage;
    if (stage === Stage.COMPLETED) break;
    await new Promise<void>((resolve) => {
      wake = resolve;
      if (call.cancelled || (operation.response === undefined ? operation.stage : Stage.COMPLETED) !== last) resolve();
    });
  }
  operation.listeners.delete(listener);
  if (--operation.streams === 0 && store.has("wait-execution.dies-with-stream")) cancel(operation);
}

function encode(store: FakeStore, operation: FakeOperation): Uint8Array {
  const done = operation.response !== undefined;
  const stage = done ? (store.has("execute.completed-skipped") ? Stage.EXECUTING : Stage.COMPLETED) : operation.stage;
  const metadata = {
    typeUrl: `type.googleapis.com/${ExecuteOperationMetadata.typeName}`,
    value: ExecuteOperationMetadata.encode({ stage, actionDigest: operation.actionDigest }),
  };
  const status = operation.response?.status;
  if (done && store.has("execute.error-set") && (status?.code ?? 0) !== 0)
    return Operation.encode({ name: operation.name, metadata, done, error: status });
  const response = done
    ? { typeUrl: `type.googleapis.com/${ExecuteResponse.typeName}`, value: ExecuteResponse.encode(operation.response!) }
    : undefined;
  return Operation.encode({ name: operation.name, metadata, done, response });
}

/** The bytes of `keys`, or FAILED_PRECONDITION naming all that are absent. */
function requireInput(store: FakeStore, keys: readonly Key[]): Buffer[] {
  const missing = keys.filter((key) => store.find(key) === undefined);
  if (missing.length === 0) return keys.map((key) => store.get(key));
  if (store.has("execute.missing-is-not-found")) throw new StatusError(Code.NOT_FOUND, "an input is missing");
  const named = store.has("execute.missing-first-only") ? missing.slice(0, 1) : missing;
  const violations = named.map(({ hash, sizeBytes }) => ({ type: "MISSING", subject: `blobs/${hash}/${sizeBytes}` }));
  const value = PreconditionFailure.encode({ violations });
  throw new StatusError(Code.FAILED_PRECONDITION, "inputs are missing", {
    details: [{ typeUrl: `type.googleapis.com/${PreconditionFailure.typeName}`, value }],
  });
}

function decodeInput<T>(type: { decode(bytes: Uint8Array): T }, bytes: Uint8Array, what: string): T {
  try {
    return type.decode(bytes);
  } catch {
    throw invalidArgument(`${what} is not what it should be`);
  }
}

interface Job {
  readonly action: Action;
  readonly command: Command;
  readonly key: Key;
  readonly instance: string;
}

async function execute(store: FakeStore, operation: FakeOperation, job: Job): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "ledge-fake-"));
  const notify = (): void => {
    for (const listener of operation.listeners) listener();
  };
  try {
    operation.response = await run(store, operation, job, folder, notify);
  } catch (error) {
    const status = error instanceof StatusError ? error : new StatusError(Code.INTERNAL, String(error));
    operation.response = { status: { code: status.code, message: status.message, details: status.details } };
  }
  // Before anybody hears of the end: the test may be over with it, and this process as well.
  await rm(folder, { recursive: true, force: true });
  notify();
}

async function run(
  store: FakeStore,
  operation: FakeOperation,
  job: Job,
  folder: string,
  notify: () => void,
): Promise<ExecuteResponseInit> {
  const { command, action, key } = job;
  const fn = key.fn;
  const times = { queued: now() };
  await stage(store, store.keyOf(action.inputRootDigest, fn.value), folder);
  const work = join(folder, command.workingDirectory);
  const outputs =
    command.outputPaths.length > 0 ? command.outputPaths : [...command.outputFiles, ...command.outputDirectories];
  for (const path of outputs) {
    if (!join(work, path).startsWith(folder)) throw invalidArgument(`the output "${path}" is outside`);
    if (!store.has("execute.no-parents")) await mkdir(dirname(join(work, path)), { recursive: true });
  }
  operation.stage = Stage.EXECUTING;
  notify();
  const started = now();
  const environment = Object.fromEntries(command.environmentVariables.map(({ name, value }) => [name, value]));
  const leaked = store.has("execute.environment-leaks") ? process.env : {};
  const child = spawn(command.arguments[0]!, command.arguments.slice(1), {
    cwd: work,
    env: { ...leaked, ...environment },
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  operation.process = child;
  const logs: Record<"stdout" | "stderr", Buffer[]> = { stdout: [], stderr: [] };
  child.stdout.on("data", (chunk: Buffer) => logs.stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) =>
    logs[store.has("execute.stderr-merged") ? "stdout" : "stderr"].push(chunk),
  );
  let timedOut = false;
  const timeoutMs = action.timeout === undefined ? 60_000 : action.timeout.seconds * 1000;
  const timer = setTimeout(() => {
    timedOut = true;
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  }, timeoutMs);
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.on("error", (error) => reject(invalidArgument(`cannot start "${command.arguments[0]}": ${error.message}`)));
    child.on("close", (code, signal) => resolve(code ?? (signal === null ? 1 : 137)));
  }).finally(() => clearTimeout(timer));
  if (operation.cancelled) return { status: { code: Code.CANCELLED, message: "cancelled" } };
  const result: ActionResultInit = {
    exitCode: store.has("execute.exit-code-lost") ? 0 : exitCode,
    stdoutDigest: store.storeMessage(fn, Buffer.concat(logs.stdout)),
    stderrDigest: store.storeMessage(fn, Buffer.concat(logs.stderr)),
    ...(await collect(store, job, work, outputs)),
    ...(store.has("execute.metadata-missing")
      ? {}
      : {
          executionMetadata: {
            worker: "fake",
            queuedTimestamp: times.queued,
            workerStartTimestamp: times.queued,
            executionStartTimestamp: started,
            executionCompletedTimestamp: now(),
            workerCompletedTimestamp: now(),
          },
        }),
  };
  const isWorthKeeping =
    (exitCode === 0 && !timedOut) ||
    (timedOut ? store.has("execute.timeout-cached") : store.has("execute.failure-cached"));
  if (isWorthKeeping && (!action.doNotCache || store.has("execute.do-not-cache-ignored")))
    store.putResult(job.instance, key, ActionResult.decode(ActionResult.encode(result)));
  if (timedOut && !store.has("execute.timeout-is-ok"))
    return { result, status: { code: Code.DEADLINE_EXCEEDED, message: "timeout" } };
  return { result };
}

async function stage(store: FakeStore, key: Key, folder: string): Promise<void> {
  const directory = decodeInput(Directory, requireInput(store, [key])[0]!, "the input root");
  const names = [...directory.files, ...directory.directories, ...directory.symlinks].map(({ name }) => name);
  for (const name of names)
    if (name === "" || name === "." || name === ".." || name.includes("/"))
      throw invalidArgument(`the input name "${name}"`);
  if (new Set(names).size !== names.length) throw invalidArgument("a name occurs twice");
  const contents = requireInput(
    store,
    directory.files.map(({ digest }) => store.keyOf(digest, key.fn.value)),
  );
  await mkdir(folder, { recursive: true });
  for (const [index, file] of directory.files.entries()) {
    await writeFile(join(folder, file.name), contents[index]!);
    await chmod(join(folder, file.name), file.isExecutable ? 0o755 : 0o644);
  }
  for (const { name, target } of directory.symlinks) await symlink(target, join(folder, name));
  for (const { name, digest } of directory.directories)
    await stage(store, store.keyOf(digest, key.fn.value), join(folder, name));
  await utimes(folder, 0, 0);
}

async function collect(
  store: FakeStore,
  job: Job,
  work: string,
  requested: readonly string[],
): Promise<ActionResultInit> {
  const paths = store.has("execute.returns-everything")
    ? [...new Set([...requested, ...(await readdir(work))])]
    : requested;
  const result = { outputFiles: [] as object[], outputDirectories: [] as object[], outputSymlinks: [] as object[] };
  const upload = (data: Buffer): Digest => {
    const digest = { hash: job.key.fn.hash(data), sizeBytes: data.length };
    return store.has("execute.outputs-not-uploaded") ? digest : store.storeMessage(job.key.fn, data);
  };
  const readTree = async (path: string, children: DirectoryInit[]): Promise<DirectoryInit> => {
    const directory = { files: [] as object[], directories: [] as object[], symlinks: [] as object[] };
    for (const name of (await readdir(path)).sort()) {
      const info = await lstat(join(path, name));
      if (info.isSymbolicLink()) directory.symlinks.push({ name, target: await readlink(join(path, name)) });
      else if (info.isFile())
        directory.files.push({
          name,
          digest: upload(await readFile(join(path, name))),
          isExecutable: (info.mode & 0o100) !== 0,
        });
      else {
        const child = await readTree(join(path, name), children);
        children.push(child);
        directory.directories.push({ name, digest: upload(Buffer.from(Directory.encode(child))) });
      }
    }
    return directory;
  };
  for (const path of paths) {
    const full = join(work, path);
    const info = await (store.has("execute.follows-symlinks") ? stat(full) : lstat(full)).catch(() => undefined);
    if (info === undefined) continue;
    if (info.isSymbolicLink()) result.outputSymlinks.push({ path, target: await readlink(full) });
    else if (info.isDirectory()) {
      const children: DirectoryInit[] = [];
      const root = await readTree(full, children);
      const rootDirectoryDigest = upload(Buffer.from(Directory.encode(root)));
      result.outputDirectories.push({
        path,
        treeDigest: upload(Buffer.from(Tree.encode({ root, children }))),
        rootDirectoryDigest,
      });
    } else {
      const isExecutable = (info.mode & 0o100) !== 0 && !store.has("execute.executable-bit-lost");
      result.outputFiles.push({ path, digest: upload(await readFile(full)), isExecutable });
    }
  }
  return result;
}

function now(): { seconds: number; nanos: number } {
  const ms = Date.now();
  return { seconds: Math.floor(ms / 1000), nanos: (ms % 1000) * 1_000_000 };
}
