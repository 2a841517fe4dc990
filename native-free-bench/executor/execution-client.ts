// The client that measures executors: stores what actions consist of, executes them, keeps what each cost.
//
// Invariant: an action that did not succeed is an error of the measurement, never a fast action. Calls go over raw
// frames (load/raw-connection.ts), so that the client costs a tenth of a millisecond per action and not more than it
// measures.

import { Code } from "../../src/base/status.ts";
import { Operation } from "../../src/proto/operations.ts";
import {
  BatchUpdateBlobsResponse,
  ContentAddressableStorage,
  ExecuteResponse,
  Execution,
  type ActionResult,
} from "../../src/proto/remote_execution.ts";
import type { BlobDigest } from "../digest-functions.ts";
import { MessageReader } from "../client/message-framing.ts";
import type { Target } from "../client/target.ts";
import { prepare, prepareWrite } from "../load/prepared-calls.ts";
import { RawConnection, type CallResult } from "../load/raw-connection.ts";
import type { SampleBlob } from "./sample-actions.ts";

export interface ExecutedAction {
  /** From sending the request until the end of the stream. */
  readonly elapsedMs: number;
  readonly result: ActionResult;
}

/** Below the smallest limit among servers, 4 MiB with everything. */
const BATCH_BYTES = 3 * 1024 * 1024;
const BATCH_BLOBS = 2000;
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

export class ExecutionClient {
  readonly #connection: RawConnection;
  readonly #instanceName: string;

  private constructor(connection: RawConnection, instanceName: string) {
    this.#connection = connection;
    this.#instanceName = instanceName;
  }

  static async open(target: Target, instanceName: string): Promise<ExecutionClient> {
    return new ExecutionClient(await RawConnection.open(target), instanceName);
  }

  close(): void {
    this.#connection.close();
  }

  async store(blobs: readonly SampleBlob[]): Promise<void> {
    let batch: SampleBlob[] = [];
    let bytes = 0;
    for (const blob of blobs) {
      if (blob.data.length > BATCH_BYTES) {
        await this.#write(blob);
        continue;
      }
      if (bytes + blob.data.length > BATCH_BYTES || batch.length >= BATCH_BLOBS) {
        await this.#update(batch);
        batch = [];
        bytes = 0;
      }
      batch.push(blob);
      bytes += blob.data.length;
    }
    if (batch.length > 0) await this.#update(batch);
  }

  /** Throws when the action did not end with exit code 0. */
  async execute(actionDigest: BlobDigest): Promise<ExecutedAction> {
    const request = prepare(Execution.methods.Execute, { instanceName: this.#instanceName, actionDigest });
    const begunMs = performance.now();
    const answer = await this.#connection.callOnce(request);
    const elapsedMs = performance.now() - begunMs;
    return { elapsedMs, result: resultOf(answer) };
  }

  async #update(blobs: readonly SampleBlob[]): Promise<void> {
    const { BatchUpdateBlobs } = ContentAddressableStorage.methods;
    const requests = blobs.map(({ digest, data }) => ({ digest, data }));
    const answer = await this.#connection.callOnce(
      prepare(BatchUpdateBlobs, { instanceName: this.#instanceName, requests }),
    );
    const [message] = messagesOf(answer, "BatchUpdateBlobs");
    for (const { status } of BatchUpdateBlobsResponse.decode(message ?? new Uint8Array()).responses) {
      if ((status?.code ?? 0) !== Code.OK) throw new Error(`a blob was not stored: ${status?.message}`);
    }
  }

  async #write({ digest, data }: SampleBlob): Promise<void> {
    const prefix = this.#instanceName === "" ? "" : `${this.#instanceName}/`;
    const name = `${prefix}uploads/${crypto.randomUUID()}/blobs/${digest.hash}/${digest.sizeBytes}`;
    messagesOf(await this.#connection.callOnce(prepareWrite(name, data)), "ByteStream.Write");
  }
}

function messagesOf({ code, body }: CallResult, method: string): Uint8Array[] {
  if (code !== Code.OK) throw new Error(`${method} ended with status ${code}`);
  return new MessageReader(MAX_MESSAGE_BYTES).push(body ?? Buffer.alloc(0));
}

function resultOf(answer: CallResult): ActionResult {
  const last = messagesOf(answer, "Execute").at(-1);
  const operation = last === undefined ? undefined : Operation.decode(last);
  if (operation?.response === undefined) throw new Error("Execute ended without a response");
  const { status, result } = ExecuteResponse.decode(operation.response.value);
  if ((status?.code ?? 0) !== Code.OK || result === undefined) {
    throw new Error(`an action failed with status ${status?.code}: ${status?.message}`);
  }
  if (result.exitCode !== 0) throw new Error(`an action ended with exit code ${result.exitCode}`);
  return result;
}
