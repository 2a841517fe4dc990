// HTTP/1.1 requests of the cache protocol, for load: one request in flight on each of `depth` kept connections.
//
// Invariant: a call ends exactly once: 2xx as OK, other answers by their status, a broken connection as UNAVAILABLE. A
// connection that the server closes between two requests is opened again, as clients do. A prepared call's path is
// "METHOD /path", its body goes out as it is. Source: RFC 9112.

import type { Socket } from "node:net";
import { Code } from "../../src/base/status.ts";
import { connectTo } from "../client/target.ts";
import type { BenchTarget } from "./bench-target.ts";
import type { LoadClient } from "./generator.ts";
import { HttpResponseReader } from "./http-response-reader.ts";
import type { CallResult, PreparedCall } from "./raw-connection.ts";

interface Waiting {
  readonly prepared: PreparedCall;
  readonly onDone: (result: CallResult) => void;
}

const CONNECT_TIMEOUT_MS = 5000;
const BROKEN: CallResult = { code: Code.UNAVAILABLE, receivedBytes: 0, body: undefined };

export class HttpLoadClient implements LoadClient {
  readonly #target: BenchTarget;
  readonly #idle: HttpConnection[] = [];
  readonly #all = new Set<HttpConnection>();
  /** In the open loop more calls may be due than connections are free; the generator bounds them. */
  readonly #waiting: Waiting[] = [];
  #failure: string | undefined;

  private constructor(target: BenchTarget) {
    this.#target = target;
  }

  static async open(target: BenchTarget, depth: number): Promise<HttpLoadClient> {
    const client = new HttpLoadClient(target);
    for (let index = 0; index < depth; index++) await client.#connect();
    return client;
  }

  get failure(): string | undefined {
    return this.#failure;
  }

  call(prepared: PreparedCall, onDone: (result: CallResult) => void): void {
    if (this.#failure !== undefined) return void setImmediate(onDone, BROKEN);
    this.#waiting.push({ prepared, onDone });
    this.#next();
  }

  async callOnce(prepared: PreparedCall): Promise<CallResult> {
    return await new Promise((resolve) => this.call(prepared, resolve));
  }

  close(): void {
    this.#failure ??= "closed";
    for (const connection of this.#all) connection.close();
    for (const { onDone } of this.#waiting.splice(0)) onDone(BROKEN);
  }

  #next(): void {
    while (this.#waiting.length > 0 && this.#idle.length > 0) {
      const { prepared, onDone } = this.#waiting.shift()!;
      const connection = this.#idle.pop()!;
      connection.send(prepared, (result, isReusable) => {
        if (isReusable) this.#idle.push(connection);
        else {
          this.#all.delete(connection);
          void this.#connectAgain();
        }
        onDone(result);
        this.#next();
      });
    }
  }

  async #connect(): Promise<void> {
    const socket = await connectTo(this.#target.http, CONNECT_TIMEOUT_MS, "http/1.1");
    const connection = new HttpConnection(socket, this.#target);
    this.#all.add(connection);
    socket.on("close", () => {
      // Closed while idle: not an answer of any call.
      const at = this.#idle.indexOf(connection);
      if (at < 0) return;
      this.#idle.splice(at, 1);
      this.#all.delete(connection);
      void this.#connectAgain();
    });
    this.#idle.push(connection);
  }

  async #connectAgain(): Promise<void> {
    if (this.#failure !== undefined) return;
    try {
      await this.#connect();
      this.#next();
    } catch (error) {
      this.#failure = error instanceof Error ? error.message : String(error);
      this.close();
    }
  }
}

class HttpConnection {
  readonly #socket: Socket;
  readonly #target: BenchTarget;
  readonly #reader = new HttpResponseReader();
  #onDone: ((result: CallResult, isReusable: boolean) => void) | undefined;

  constructor(socket: Socket, target: BenchTarget) {
    this.#socket = socket;
    this.#target = target;
    socket.on("data", (chunk: Buffer) => this.#onBytes(chunk));
    socket.on("close", () => this.#finish({ ...BROKEN, receivedBytes: this.#reader.bodyBytes }, false));
  }

  send({ path, body }: PreparedCall, onDone: (result: CallResult, isReusable: boolean) => void): void {
    this.#onDone = onDone;
    const cut = path.indexOf(" ");
    const method = path.slice(0, cut);
    this.#reader.begin(method);
    const sizeBytes = body.reduce((sum, { length }) => sum + length, 0);
    const length = method === "PUT" ? `content-length: ${sizeBytes}\r\n` : "";
    const head = `${method} ${this.#target.httpPrefix}${path.slice(cut + 1)} HTTP/1.1\r\nhost: ${this.#target.http.authority}\r\n${length}\r\n`;
    this.#socket.cork();
    this.#socket.write(head, "latin1");
    for (const part of body) this.#socket.write(part);
    this.#socket.uncork();
  }

  close(): void {
    this.#socket.destroy();
  }

  #onBytes(chunk: Buffer): void {
    if (this.#onDone === undefined) return;
    try {
      if (!this.#reader.push(chunk)) return;
    } catch (error) {
      // What is no HTTP response ends the connection, and the call with it.
      this.#socket.destroy(error instanceof Error ? error : undefined);
      return;
    }
    const { status, bodyBytes, closes } = this.#reader;
    if (closes) this.#socket.destroy();
    const code = status >= 200 && status < 300 ? Code.OK : status;
    this.#finish({ code, receivedBytes: bodyBytes, body: undefined }, !closes);
  }

  #finish(result: CallResult, isReusable: boolean): void {
    const onDone = this.#onDone;
    this.#onDone = undefined;
    onDone?.(result, isReusable);
  }
}
