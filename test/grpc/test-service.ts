// The service of the transport contract: each method provokes one behaviour.

import { Code, codeName, Failure, StatusError, toStatusError } from "../../src/base/status.ts";
import type { Call, Method, Service, StreamCall, UnaryHandler } from "../../src/grpc/service.ts";

export const MAX_REQUEST_BYTES = 8 * 1024 * 1024;

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

export class TestService {
  /** Of messages above 64 KiB: whether their buffer is hardly larger, and no other message's. */
  readonly largeBuffersOwned: boolean[] = [];
  readonly #buffers = new Set<ArrayBufferLike>();
  floodedMessages = 0;
  #starts = new Mailbox<string>();
  #aborts = new Mailbox<string>();
  #gathered: (() => void)[] = [];
  #gatherCount = 1;
  #release = Promise.withResolvers<void>();

  readonly definition: Service = {
    name: "test.Echo",
    methods: [
      unary("Sync", (request) => request.slice()),
      unary("Async", async (request) => {
        const copy = request.slice();
        await new Promise((resolve) => setImmediate(resolve));
        return copy;
      }),
      unary("Fail", (request) => {
        const details = [{ typeUrl: "type.googleapis.com/test.Detail", value: encode("detail") }];
        throw new StatusError(Code.FAILED_PRECONDITION, Buffer.from(request).toString(), { details });
      }),
      unary("Miss", (request) => new Failure(Code.NOT_FOUND, Buffer.from(request).toString())),
      unary("FailLarge", () => {
        const details = [{ typeUrl: "type.googleapis.com/test.Detail", value: new Uint8Array(100_000) }];
        throw new StatusError(Code.INVALID_ARGUMENT, "☃".repeat(5000), { details });
      }),
      unary("Bug", () => {
        throw new TypeError("secret");
      }),
      unary("Metadata", (_request, call) =>
        encode(
          JSON.stringify({
            text: call.metadata("x-text"),
            binary: Buffer.from(call.binaryMetadata("x-data-bin") ?? []).toString("hex"),
            path: call.path,
            peer: call.peer,
            peerIsLocal: call.peer.startsWith("127.0.0.1:"),
            connectionId: call.connectionId,
          }),
        ),
      ),
      unary("Hang", (_request, call) => this.#hang(call)),
      stream("HangStream", async (call) => {
        await call.read();
        await this.#hang(call);
      }),
      unary("Released", async (request) => {
        const copy = request.slice();
        this.#starts.put("Released");
        await this.#release.promise;
        return copy;
      }),
      unary("Gather", async (request) => {
        const copy = request.slice();
        await new Promise<void>((resolve) => {
          this.#gathered.push(resolve);
          if (this.#gathered.length === this.#gatherCount) for (const wake of this.#gathered.splice(0)) wake();
        });
        return copy;
      }),
      { ...unary("Small", (request) => request.slice()), maxRequestBytes: 1024 },
      stream("Count", async (call) => {
        const count = Number(Buffer.from((await call.read()) ?? []).toString());
        for (let index = 0; index < count; index++) await call.write(encode(String(index)));
      }),
      stream("Sum", async (call) => {
        let sizeBytes = 0;
        for (let message = await call.read(); message !== undefined; message = await call.read()) {
          sizeBytes += message.length;
          if (message.length > 65_536) this.#noteBuffer(message);
        }
        await call.write(encode(String(sizeBytes)));
      }),
      stream("Chat", async (call) => {
        try {
          for (let message = await call.read(); message !== undefined; message = await call.read()) {
            const half = message.length >> 1;
            await call.write([message.subarray(0, half), message.subarray(half)]);
            this.#starts.put("Chat");
          }
        } catch (error) {
          this.#aborts.put(codeName(toStatusError(error).code));
          throw error;
        }
      }),
      stream("Early", async (call) => {
        await call.read();
        await call.write(encode("enough"));
      }),
      stream("NeverReads", async (call) => this.#hang(call)),
      stream("Flood", async (call) => {
        this.#starts.put("Flood");
        const message = new Uint8Array(64 * 1024);
        try {
          for (;;) {
            await call.write(message);
            this.floodedMessages++;
          }
        } catch (error) {
          this.#aborts.put(codeName(toStatusError(error).code));
          throw error;
        }
      }),
    ],
  };

  #noteBuffer({ buffer, byteLength }: Uint8Array): void {
    this.largeBuffersOwned.push(buffer.byteLength < byteLength + 65_536 && !this.#buffers.has(buffer));
    this.#buffers.add(buffer);
  }

  /** Resolves when a handler that reports it has started. */
  nextStart(): Promise<string> {
    return this.#starts.take();
  }

  /** Resolves to the code with which a handler was aborted. */
  nextAbort(): Promise<string> {
    return this.#aborts.take();
  }

  /** Gather answers nobody until `count` calls have come together. */
  holdUntil(count: number): void {
    this.#gatherCount = count;
  }

  /** Lets Released answer. */
  release(): void {
    this.#release.resolve();
  }

  async #hang(call: Call): Promise<never> {
    const { signal } = call;
    this.#starts.put("Hang");
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve());
    });
    const status = toStatusError(signal.reason);
    this.#aborts.put(codeName(status.code));
    throw status;
  }
}

/** Puts and takes meet in order, whichever comes first. */
class Mailbox<T> {
  #values: T[] = [];
  #takers: ((value: T) => void)[] = [];

  put(value: T): void {
    const taker = this.#takers.shift();
    if (taker === undefined) this.#values.push(value);
    else taker(value);
  }

  take(): Promise<T> {
    const value = this.#values.shift();
    if (value !== undefined) return Promise.resolve(value);
    return new Promise((resolve) => this.#takers.push(resolve));
  }
}

function unary(name: string, handler: UnaryHandler): Method {
  return { kind: "unary", path: `/test.Echo/${name}`, handler };
}

function stream(name: string, handler: (call: StreamCall) => Promise<void>): Method {
  return { kind: "stream", path: `/test.Echo/${name}`, handler };
}
