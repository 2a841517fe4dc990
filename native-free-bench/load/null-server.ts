// A server that answers every call with an empty message: what the load generator can do at most, and known answers.
//
// Invariant: with `delayMs` no answer leaves earlier, and with `busyMicroseconds` each call keeps the only thread that
// long, so latency and rate are known before they are measured. It reads frames and no headers. Source: RFC 9113.

import { createServer, type AddressInfo, type Socket } from "node:net";
import { CLIENT_PREFACE } from "../../src/http2/preface.ts";
import { Flag, FRAME_HEADER_BYTES, FrameType, SettingId } from "../../src/http2/frame.ts";
import { frame, setting, windowUpdate } from "./raw-frames.ts";

export interface NullServer {
  readonly port: number;
  close(): void;
}

export interface NullServerOptions {
  /** Answers this much later, to a few microseconds: a server of which the latency is known. */
  readonly delayMs?: number;
  /** Time of the processor that a call takes: a server of which the rate is known. */
  readonly busyMicroseconds?: number;
}

export async function startNullServer(options: NullServerOptions = {}): Promise<NullServer> {
  const sockets = new Set<Socket>();
  const answers = new DelayedAnswers(options.delayMs ?? 0);
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    serve(socket, options.busyMicroseconds ?? 0, answers);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

// :status 200 (static 8), content-type literal; grpc-status 0 literal; neither is indexed, so that every answer is equal.
const HEAD = Buffer.concat([Buffer.of(0x88, 0x0f, 31 - 15, 16), Buffer.from("application/grpc")]);
const TRAILERS = Buffer.concat([Buffer.of(0x00, 11), Buffer.from("grpc-status"), Buffer.of(1), Buffer.from("0")]);
const ANSWER = Buffer.concat([
  frame(FrameType.HEADERS, Flag.END_HEADERS, 0, [HEAD]),
  frame(FrameType.DATA, 0, 0, [Buffer.alloc(5)]),
  frame(FrameType.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 0, [TRAILERS]),
]);
/** Where the stream ids of the three frames are. */
const ID_OFFSETS = [5, FRAME_HEADER_BYTES + HEAD.length + 5, 2 * FRAME_HEADER_BYTES + HEAD.length + 5 + 5] as const;

function serve(socket: Socket, busyMicroseconds: number, delayed: DelayedAnswers): void {
  let leftover: Buffer = Buffer.alloc(0);
  let greeted = false;
  socket.write(
    frame(FrameType.SETTINGS, 0, 0, [
      setting(SettingId.INITIAL_WINDOW_SIZE, 2 ** 30),
      setting(SettingId.MAX_CONCURRENT_STREAMS, 100_000),
    ]),
  );
  socket.on("data", (chunk: Buffer) => {
    const bytes = leftover.length === 0 ? chunk : Buffer.concat([leftover, chunk]);
    let at = 0;
    if (!greeted) {
      if (bytes.length < CLIENT_PREFACE.length) return void (leftover = bytes);
      at = CLIENT_PREFACE.length;
      greeted = true;
    }
    const answers: Buffer[] = [];
    let receivedBytes = 0;
    while (at + FRAME_HEADER_BYTES <= bytes.length) {
      const size = bytes.readUIntBE(at, 3);
      const end = at + FRAME_HEADER_BYTES + size;
      if (bytes.length < end) break;
      const [type, flags, id] = [bytes[at + 3]!, bytes[at + 4]!, bytes.readUInt32BE(at + 5)];
      const isAck = (flags & Flag.ACK) !== 0;
      if (type === FrameType.SETTINGS && !isAck) answers.push(frame(FrameType.SETTINGS, Flag.ACK, 0, []));
      if (type === FrameType.PING && !isAck)
        answers.push(frame(FrameType.PING, Flag.ACK, 0, [bytes.subarray(at + FRAME_HEADER_BYTES, end)]));
      if (type === FrameType.DATA) receivedBytes += size;
      if ((type === FrameType.DATA || type === FrameType.HEADERS) && (flags & Flag.END_STREAM) !== 0) {
        if (busyMicroseconds > 0) spin(busyMicroseconds);
        answers.push(answerOf(id));
      }
      at = end;
    }
    leftover = bytes.subarray(at);
    if (receivedBytes > 0) answers.push(windowUpdate(0, receivedBytes));
    if (answers.length > 0) delayed.send(socket, answers.length === 1 ? answers[0]! : Buffer.concat(answers));
  });
}

function answerOf(id: number): Buffer {
  const answer = Buffer.from(ANSWER);
  for (const offset of ID_OFFSETS) answer.writeUInt32BE(id, offset);
  return answer;
}

function spin(microseconds: number): void {
  const untilMs = performance.now() + microseconds / 1000;
  while (performance.now() < untilMs);
}

/** Timers of Node are up to a millisecond late: what is due soon is waited for by looking again. */
class DelayedAnswers {
  readonly #delayMs: number;
  readonly #waiting: { dueMs: number; socket: Socket; bytes: Buffer }[] = [];

  constructor(delayMs: number) {
    this.#delayMs = delayMs;
  }

  send(socket: Socket, bytes: Buffer): void {
    if (this.#delayMs === 0) return void socket.write(bytes);
    this.#waiting.push({ dueMs: performance.now() + this.#delayMs, socket, bytes });
    if (this.#waiting.length === 1) this.#await();
  }

  #await(): void {
    const nowMs = performance.now();
    while (this.#waiting.length > 0 && this.#waiting[0]!.dueMs <= nowMs) {
      const { socket, bytes } = this.#waiting.shift()!;
      socket.write(bytes);
    }
    const [next] = this.#waiting;
    if (next === undefined) return;
    if (next.dueMs - nowMs > 2.5) setTimeout(() => this.#await(), next.dueMs - nowMs - 1.5);
    else setImmediate(() => this.#await());
  }
}
