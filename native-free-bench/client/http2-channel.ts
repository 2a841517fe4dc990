// gRPC calls over node:http2: the client of the conformance suite, the recorder and the replayer.
//
// It stands on nghttp2 and not on src/http2, so that a mistake shared by this project's server and its codecs cannot
// hide from the suite. Nothing is retried and nothing is interpreted: a call ends with the status that was on the wire,
// or with UNAVAILABLE and `transport` set when there was none. The fast client is load/raw-connection.ts.

import { connect, constants, type ClientHttp2Session, type ClientHttp2Stream } from "node:http2";
import { Code } from "../../src/base/status.ts";
import type { MessageType } from "../../src/proto/wire.ts";
import { Status } from "../../src/proto/status.ts";
import { connectTo, type Target } from "./target.ts";
import { frameMessage, MessageReader } from "./message-framing.ts";

/** How a call ended. */
export interface Outcome {
  readonly code: number;
  readonly message: string;
  /** Decoded `grpc-status-details-bin`. */
  readonly details: Status | undefined;
  /** Set when no grpc-status arrived: what happened instead. */
  readonly transport: string | undefined;
  readonly httpStatus: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly trailers: ReadonlyMap<string, string>;
}

export interface Reply<Output> extends Outcome {
  readonly response: Output | undefined;
}

export interface StreamReply<Output> extends Outcome {
  readonly messages: readonly Output[];
}

export interface Method<Input, Output> {
  readonly path: string;
  readonly input: MessageType<unknown, Input>;
  readonly output: MessageType<Output, never>;
}

export interface CallOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  /** Sent as grpc-timeout; the call is given up locally a second later. */
  readonly deadlineMs?: number;
  /** Gives the call up (RST_STREAM CANCEL). */
  readonly signal?: AbortSignal;
  readonly contentType?: string;
}

/** What a client library takes by default; a longer message fails real clients. */
export const DEFAULT_MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
const WINDOW_BYTES = 4 * 1024 * 1024;

export class Http2Channel {
  readonly target: Target;
  readonly #connectTimeoutMs: number;
  /** Called with the bytes of each request message, so that a budget can be kept. */
  readonly #onSend: (sizeBytes: number) => void;
  readonly #maxMessageBytes: number;
  #session: Promise<ClientHttp2Session> | undefined;

  constructor(
    target: Target,
    options: { connectTimeoutMs?: number; maxMessageBytes?: number; onSend?: (sizeBytes: number) => void } = {},
  ) {
    this.target = target;
    this.#connectTimeoutMs = options.connectTimeoutMs ?? 5000;
    this.#maxMessageBytes = options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES;
    this.#onSend = options.onSend ?? (() => undefined);
  }

  /** Connects when necessary, once for all who ask meanwhile; rejects with a message for people. */
  connect(): Promise<ClientHttp2Session> {
    if (this.#session === undefined) {
      const opening = this.#open();
      this.#session = opening;
      const forget = (): void => {
        if (this.#session === opening) this.#session = undefined;
      };
      opening.then((session) => session.once("close", forget), forget);
    }
    return this.#session;
  }

  close(): void {
    const session = this.#session;
    this.#session = undefined;
    void session?.then(
      (open) => open.destroy(),
      () => undefined,
    );
  }

  async unary<Input, Output>(
    method: Method<Input, Output>,
    request: Input,
    options: CallOptions = {},
  ): Promise<Reply<Output>> {
    return await this.unaryBytes(
      method.path,
      method.input.encode(request),
      (bytes) => method.output.decode(bytes),
      options,
    );
  }

  /** Sends `request` as it is, well-formed or not. */
  async unaryBytes<Output>(
    path: string,
    request: Uint8Array,
    decode: (bytes: Uint8Array) => Output,
    options: CallOptions = {},
  ): Promise<Reply<Output>> {
    const call = await this.start(path, options);
    void call.send(request);
    call.end();
    const messages: Uint8Array[] = [];
    for (let message = await call.receive(); message !== undefined; message = await call.receive())
      messages.push(message);
    const outcome = await call.outcome;
    if (outcome.code === Code.OK && messages.length !== 1) {
      return {
        ...outcome,
        code: Code.INTERNAL,
        message: `OK with ${messages.length} response messages in a unary call`,
        response: undefined,
      };
    }
    return { ...outcome, response: messages[0] === undefined ? undefined : decode(messages[0]) };
  }

  async serverStream<Input, Output>(
    method: Method<Input, Output>,
    request: Input,
    options: CallOptions = {},
  ): Promise<StreamReply<Output>> {
    const call = await this.start(method.path, options);
    void call.send(method.input.encode(request));
    call.end();
    const messages: Output[] = [];
    for (let bytes = await call.receive(); bytes !== undefined; bytes = await call.receive()) {
      messages.push(method.output.decode(bytes));
    }
    return { ...(await call.outcome), messages };
  }

  /** Opens a call whose messages are sent and received by hand. */
  async start(path: string, options: CallOptions = {}): Promise<Call> {
    const session = await this.connect();
    const stream = session.request(
      {
        ":method": "POST",
        ":path": path,
        ":scheme": this.target.tls ? "https" : "http",
        ":authority": this.target.authority,
        te: "trailers",
        "content-type": options.contentType ?? "application/grpc",
        "user-agent": "ledge-conformance/1",
        ...(options.deadlineMs === undefined ? {} : { "grpc-timeout": `${Math.ceil(options.deadlineMs)}m` }),
        ...options.metadata,
      },
      { endStream: false },
    );
    return new Call(stream, this.#maxMessageBytes, this.#onSend, options);
  }

  async #open(): Promise<ClientHttp2Session> {
    const socket = await connectTo(this.target, this.#connectTimeoutMs);
    const session = connect(`${this.target.tls ? "https" : "http"}://${this.target.authority}`, {
      createConnection: () => socket,
      settings: { initialWindowSize: WINDOW_BYTES, enablePush: false },
    });
    session.on("error", () => undefined);
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => done("it sent no HTTP/2 SETTINGS: not a gRPC server, or it hangs"),
        this.#connectTimeoutMs,
      );
      const done = (problem: string | undefined): void => {
        clearTimeout(timer);
        if (problem === undefined) return resolve();
        session.destroy();
        reject(new Error(`Cannot talk to "${this.target.text}": ${problem}`));
      };
      session.once("remoteSettings", () => done(undefined));
      session.once("error", (error: Error) => done(describeHandshakeError(error)));
      session.once("close", () => done("it closed the connection before HTTP/2 began"));
    });
    session.setLocalWindowSize(16 * 1024 * 1024);
    return session;
  }
}

/** One call. Messages that arrived are queued up to a bound; then the stream's window closes. */
export class Call {
  readonly outcome: Promise<Outcome>;
  readonly #stream: ClientHttp2Stream;
  readonly #onSend: (sizeBytes: number) => void;
  readonly #reader: MessageReader;
  readonly #queue: Uint8Array[] = [];
  #wake: () => void = () => undefined;
  #ended = false;
  #failure: string | undefined;

  constructor(
    stream: ClientHttp2Stream,
    maxMessageBytes: number,
    onSend: (sizeBytes: number) => void,
    options: CallOptions,
  ) {
    this.#stream = stream;
    this.#onSend = onSend;
    this.#reader = new MessageReader(maxMessageBytes);
    this.outcome = this.#follow();
    const signal = options.signal;
    if (signal !== undefined) {
      const onAbort = (): void => this.cancel();
      if (signal.aborted) onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      void this.outcome.then(() => signal.removeEventListener("abort", onAbort));
    }
    if (options.deadlineMs !== undefined) {
      const timer = setTimeout(() => this.cancel("no answer a second after the deadline"), options.deadlineMs + 1000);
      void this.outcome.then(() => clearTimeout(timer));
    }
  }

  /** Whether the server has ended the call. */
  get isOver(): boolean {
    return this.#ended;
  }

  /** Resolves once the connection took the bytes, or the call is over. */
  async send(message: Uint8Array): Promise<void> {
    this.#onSend(message.length);
    await this.sendRaw(frameMessage(message));
  }

  /** Sends bytes without a prefix of ours. */
  async sendRaw(bytes: Uint8Array): Promise<void> {
    if (this.#stream.destroyed || this.#stream.writableEnded) return;
    await new Promise<void>((resolve) => {
      // A call that ended answers nobody's write, so its end must release the writer as well.
      this.#stream.once("close", resolve);
      this.#stream.write(bytes, () => {
        this.#stream.off("close", resolve);
        resolve();
      });
    });
  }

  end(): void {
    if (!this.#stream.destroyed) this.#stream.end();
  }

  cancel(why?: string): void {
    this.#failure ??= why;
    if (!this.#stream.destroyed) this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  /** The next message, or undefined after the last one. */
  async receive(): Promise<Uint8Array | undefined> {
    for (;;) {
      const message = this.#queue.shift();
      if (message !== undefined) {
        if (this.#queue.length === 0) this.#stream.resume();
        return message;
      }
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async #follow(): Promise<Outcome> {
    const stream = this.#stream;
    let headers = new Map<string, string>();
    let trailers = new Map<string, string>();
    stream.on("response", (fields) => (headers = toMap(fields)));
    stream.on("trailers", (fields) => (trailers = toMap(fields)));
    stream.on("error", (error: Error) => (this.#failure ??= error.message));
    stream.on("data", (chunk: Buffer) => this.#onData(chunk));
    await new Promise<void>((resolve) => stream.once("close", resolve));
    if (this.#failure === undefined && this.#reader.isInsideMessage && trailers.get("grpc-status") === "0") {
      this.#failure = "the response ended inside a message";
    }
    // A second tick: 'close' may be emitted before the reader has taken the last 'data'.
    this.#ended = true;
    this.#wake();
    const status = trailers.get("grpc-status") ?? headers.get("grpc-status");
    const holder = trailers.has("grpc-status") ? trailers : headers;
    const failure =
      this.#failure ??
      (status === undefined
        ? `the stream ended without grpc-status (HTTP ${headers.get(":status") ?? "?"}, reset code ${stream.rstCode})`
        : undefined);
    return {
      code: failure === undefined ? Number(status) : Code.UNAVAILABLE,
      message: failure ?? decodeMessage(holder.get("grpc-message") ?? ""),
      details: decodeDetails(holder.get("grpc-status-details-bin")),
      transport: failure,
      httpStatus: Number(headers.get(":status") ?? 0),
      headers,
      trailers: holder === trailers ? trailers : new Map(),
    };
  }

  #onData(chunk: Buffer): void {
    try {
      this.#queue.push(...this.#reader.push(chunk));
    } catch (error) {
      this.cancel(error instanceof Error ? error.message : String(error));
    }
    // 64 messages of at most the message limit: enough to keep a stream busy, little enough for memory.
    if (this.#queue.length > 64) this.#stream.pause();
    this.#wake();
  }
}

function toMap(fields: object): Map<string, string> {
  const map = new Map<string, string>();
  for (const [name, value] of Object.entries(fields))
    map.set(name, Array.isArray(value) ? value.join(", ") : String(value));
  return map;
}

function decodeMessage(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A server that does not escape is told so by a check; the text is still the best we have.
    return text;
  }
}

function decodeDetails(base64: string | undefined): Status | undefined {
  if (base64 === undefined) return undefined;
  try {
    return Status.decode(Buffer.from(base64, "base64"));
  } catch {
    return undefined;
  }
}

function describeHandshakeError(error: Error): string {
  return `${error.message}; is it an HTTP/1.1 server, or does it want TLS (grpcs://)?`;
}
