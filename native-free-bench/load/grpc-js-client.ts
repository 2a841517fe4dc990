// The second client path, over @grpc/grpc-js: slower, and written by others, to check that both say the same.

import { Client, credentials, Metadata } from "@grpc/grpc-js";
import type { Target } from "../client/target.ts";
import { MessageReader } from "../client/message-framing.ts";
import type { CallResult, PreparedCall } from "./raw-connection.ts";
import type { LoadClient } from "./generator.ts";

export class GrpcJsClient implements LoadClient {
  readonly failure: string | undefined = undefined;
  readonly #client: Client;

  constructor(target: Target) {
    const address = target.socketPath === undefined ? `${target.host}:${target.port}` : `unix:${target.socketPath}`;
    const security = target.tls
      ? credentials.createSsl(target.certificateAuthority ?? null)
      : credentials.createInsecure();
    // Without a pool of their own, clients of one process would share one connection.
    this.#client = new Client(address, security, {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.max_receive_message_length": -1,
    });
  }

  call(prepared: PreparedCall, onDone: (result: CallResult) => void): void {
    const pass = (bytes: Buffer): Buffer => bytes;
    const stream = this.#client.makeBidiStreamRequest<Buffer, Buffer>(prepared.path, pass, pass, new Metadata());
    let receivedBytes = 0;
    stream.on("data", (message: Buffer) => (receivedBytes += message.length + 5));
    stream.on("error", () => undefined);
    stream.on("status", (status: { code: number }) => onDone({ code: status.code, receivedBytes, body: undefined }));
    // grpc-js frames messages itself.
    const reader = new MessageReader(Number.MAX_SAFE_INTEGER);
    for (const part of prepared.body) for (const message of reader.push(part)) stream.write(Buffer.from(message));
    stream.end();
  }

  close(): void {
    this.#client.close();
  }
}
