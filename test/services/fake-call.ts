// A Call without a transport: handlers are called with bytes and what they write is collected.
//
// Messages are decoded with the codecs of the product; that these are right is test/proto's subject.

import { strict as assert } from "node:assert";
import { Code, Failure, StatusError } from "../../src/base/status.ts";
import type { Service, StreamCall } from "../../src/grpc/service.ts";
import type { MessageType } from "../../src/proto/wire.ts";

export interface FakeCallOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  readonly binaryMetadata?: Readonly<Record<string, Uint8Array>>;
}

/** A call whose requests are fed one by one. */
export class FakeCall implements StreamCall {
  readonly path: string;
  readonly peer = "127.0.0.1:5555";
  readonly connectionId = 1;
  readonly deadlineMs = undefined;
  readonly clientCertificate = undefined;
  readonly written: Uint8Array[] = [];
  readonly #options: FakeCallOptions;
  readonly #abort = new AbortController();
  #requests: Uint8Array[] = [];
  #isEnded = false;
  #waiting: (() => void) | undefined;

  constructor(path: string, options: FakeCallOptions = {}) {
    this.path = path;
    this.#options = options;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  metadata(name: string): string | undefined {
    return this.#options.metadata?.[name];
  }

  binaryMetadata(name: string): Uint8Array | undefined {
    return this.#options.binaryMetadata?.[name];
  }

  /** Makes a message available. Messages of a real transport are the handler's: so is this one, being a copy. */
  send(message: Uint8Array): void {
    this.#requests.push(new Uint8Array(message));
    this.#waiting?.();
  }

  halfClose(): void {
    this.#isEnded = true;
    this.#waiting?.();
  }

  /** The client goes away. */
  cancel(): void {
    this.#abort.abort();
    this.#waiting?.();
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#abort.signal.aborted) throw new StatusError(Code.CANCELLED, "the client cancelled");
      const message = this.#requests.shift();
      if (message !== undefined) return message;
      if (this.#isEnded) return undefined;
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
  }

  async write(message: Uint8Array | readonly Uint8Array[]): Promise<void> {
    if (this.#abort.signal.aborted) throw new StatusError(Code.CANCELLED, "the client cancelled");
    this.written.push(message instanceof Uint8Array ? new Uint8Array(message) : Buffer.concat(message));
  }
}

interface MethodDescriptor<I, II, O, OI> {
  readonly path: string;
  readonly input: MessageType<I, II>;
  readonly output: MessageType<O, OI>;
}

/** Calls the methods of some services directly. */
export class FakeClient {
  readonly #services: readonly Service[];

  constructor(...services: readonly Service[]) {
    this.#services = services;
  }

  async unary<I, II, O, OI>(
    method: MethodDescriptor<I, II, O, OI>,
    request: II | Uint8Array,
    options: FakeCallOptions = {},
  ): Promise<O> {
    const found = this.#find(method.path);
    if (found.kind !== "unary") throw new Error(`${method.path} is not unary`);
    const bytes = request instanceof Uint8Array ? request : method.input.encode(request);
    const answer = await found.handler(bytes, new FakeCall(method.path, options));
    if (answer instanceof Failure) throw new StatusError(answer.code, answer.message);
    return method.output.decode(answer);
  }

  /** Sends all requests, half-closes, and returns all responses. */
  async stream<I, II, O, OI>(
    method: MethodDescriptor<I, II, O, OI>,
    requests: readonly (II | Uint8Array)[],
    options: FakeCallOptions = {},
  ): Promise<O[]> {
    const { call, done } = this.open(method, options);
    for (const request of requests) call.send(request instanceof Uint8Array ? request : method.input.encode(request));
    call.halfClose();
    await done;
    await this.#assertSameAtOnce(method, requests, { call, options });
    return call.written.map((bytes) => method.output.decode(bytes));
  }

  /** What a method answers at once is what its handler has written. */
  async #assertSameAtOnce<II>(
    method: MethodDescriptor<unknown, II, unknown, unknown>,
    requests: readonly (II | Uint8Array)[],
    { call, options }: { readonly call: FakeCall; readonly options: FakeCallOptions },
  ): Promise<void> {
    const found = this.#find(method.path);
    const [request] = requests;
    if (found.kind !== "stream" || requests.length !== 1 || request === undefined) return;
    const bytes = request instanceof Uint8Array ? request : method.input.encode(request);
    const atOnce = await found.answerAtOnce?.(bytes, new FakeCall(method.path, options));
    if (atOnce !== undefined)
      assert.deepEqual(
        [Buffer.from(atOnce)],
        call.written.map((written) => Buffer.from(written)),
      );
  }

  /** Begins a call whose messages the test sends itself. */
  open<I, II, O, OI>(
    method: MethodDescriptor<I, II, O, OI>,
    options: FakeCallOptions = {},
  ): { readonly call: FakeCall; readonly done: Promise<void> } {
    const found = this.#find(method.path);
    if (found.kind !== "stream") throw new Error(`${method.path} is not a stream`);
    const call = new FakeCall(method.path, options);
    const done = found.handler(call);
    done.catch(() => undefined); // the test awaits it later
    return { call, done };
  }

  #find(path: string) {
    const method = this.#services.flatMap((service) => service.methods).find((candidate) => candidate.path === path);
    if (method === undefined) throw new Error(`no method ${path}`);
    return method;
  }
}

/** The status of a call that failed; fails the test when it did not. */
export async function statusOf(call: Promise<unknown>): Promise<StatusError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof StatusError) return error;
    throw error;
  }
  throw new Error("the call succeeded");
}
