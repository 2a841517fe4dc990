// A small client of the server under test, on @grpc/grpc-js: capabilities, uploads, and one Execute at a time.

import { createHash } from "node:crypto";
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { Operation } from "../../src/proto/operations.ts";
import {
  Action,
  BatchUpdateBlobsRequest,
  Capabilities,
  Command,
  ContentAddressableStorage,
  Directory,
  ExecuteRequest,
  ExecuteResponse,
  Execution,
  ServerCapabilities,
} from "../../src/proto/remote_execution.ts";

const identity = (bytes: Buffer): Buffer => bytes;
const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

interface WireDigest {
  readonly hash: string;
  readonly sizeBytes: number;
}

export class RemoteClient implements Disposable {
  readonly #client: Client;

  constructor(address: string) {
    // Fresh connections: grpc-js shares one among clients of an address, and these tests are about connecting.
    this.#client = new Client(address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });
  }

  async capabilities(): Promise<ServerCapabilities> {
    return ServerCapabilities.decode(await this.unary(Capabilities.methods.GetCapabilities.path, new Uint8Array(0)));
  }

  unary(path: string, request: Uint8Array): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(path, identity, identity, asBuffer(request), (error, answer) => {
        if (error === null && answer !== undefined) resolve(answer);
        else reject(error ?? new Error("no answer"));
      });
    });
  }

  /** Uploads an action that runs `script` by sh; returns its digest. */
  async uploadAction(script: string): Promise<WireDigest> {
    const command = Command.encode({ arguments: ["/bin/sh", "-c", script] });
    const root = Directory.encode({});
    // The salt keeps the action cache and deduplication out of it.
    const salt = Buffer.from(String(Math.random()));
    const action = Action.encode({ commandDigest: digestOf(command), inputRootDigest: digestOf(root), salt });
    const requests = [command, root, action].map((data) => ({ digest: digestOf(data), data }));
    await this.unary(
      ContentAddressableStorage.methods.BatchUpdateBlobs.path,
      BatchUpdateBlobsRequest.encode({ requests }),
    );
    return digestOf(action);
  }

  /** Resolves with the final response; `onOperation` sees every state before it. Rejects with the status of the call. */
  execute(actionDigest: WireDigest, onOperation: (operation: Operation) => void = () => {}): Promise<ExecuteResponse> {
    const request = asBuffer(ExecuteRequest.encode({ actionDigest, inlineStdout: true }));
    const call = this.#client.makeServerStreamRequest(Execution.methods.Execute.path, identity, identity, request);
    return new Promise((resolve, reject) => {
      call.on("data", (bytes: Buffer) => {
        const operation = Operation.decode(bytes);
        onOperation(operation);
        if (operation.response !== undefined) resolve(ExecuteResponse.decode(operation.response.value));
      });
      call.on("error", (error: ServiceError) => reject(error));
      call.on("end", () => reject(new Error("the stream ended without a response")));
    });
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function digestOf(data: Uint8Array): WireDigest {
  return { hash: createHash("sha256").update(data).digest("hex"), sizeBytes: data.length };
}
