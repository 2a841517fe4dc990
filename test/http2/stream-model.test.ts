// Random sequences of frames against the model of stream-model.ts (section 8.4 of the requirements).

import { deepEqual, equal } from "node:assert/strict";
import fc from "fast-check";
import { it } from "vitest";
import { HeaderBlock } from "../../src/http2/header-block.ts";
import type { Http2Stream } from "../../src/http2/stream.ts";
import {
  block,
  data,
  END_HEADERS,
  END_STREAM,
  headers,
  ping,
  priority,
  request,
  rst,
  settings,
  windowUpdate,
  type Frame,
} from "./frames.ts";
import { hang, MemoryPeer } from "./memory-peer.ts";
import { StreamModel, type ClientFrame } from "./stream-model.ts";

const MAX_STREAMS = 6;
const MIB = 2 ** 20;
const PING_INTERVAL_MS = 11_000;
const RESPONSE_HEAD = new HeaderBlock([[":status", "200"]]);

type Step =
  | { readonly by: "client"; readonly frame: ClientFrame; readonly times: number }
  | {
      readonly by: "handler";
      readonly id: number;
      readonly does: "credit" | "respond" | "release";
      readonly sizeBytes: number;
    };

/** Mostly a few low odd ids, so that frames meet; sometimes any. */
const streamId = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: 7 }).map((index) => 2 * index + 1) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 40 }) },
);
const client = (weight: number, frame: fc.Arbitrary<ClientFrame>, maxTimes = 1) => ({
  weight,
  arbitrary: fc.record({ by: fc.constant("client" as const), frame, times: fc.integer({ min: 1, max: maxTimes }) }),
});
const rarely = fc.integer({ min: 0, max: 11 }).map((number) => number === 0);
const HEADERS = fc.record({
  type: fc.constant("HEADERS" as const),
  id: streamId,
  end: fc.boolean(),
  block: fc.constantFrom("request", "request", "request", "trailers"),
});
const sizeBytes = fc.oneof(fc.constant(16_384), fc.integer({ min: 1, max: 16_384 }));
const DATA = fc.record({ type: fc.constant("DATA" as const), id: streamId, sizeBytes, end: rarely });
const RST_STREAM = fc.record({ type: fc.constant("RST_STREAM" as const), id: streamId });
const WINDOW_UPDATE = fc.record({
  type: fc.constant("WINDOW_UPDATE" as const),
  id: streamId,
  increment: fc.oneof(fc.integer({ min: 1, max: 200_000 }), fc.constantFrom(0, 2 ** 31 - 1, 2 ** 31 - 1 - 65_535)),
});
const PRIORITY = fc.record({
  type: fc.constant("PRIORITY" as const),
  id: streamId,
  dependency: fc.integer({ min: 0, max: 40 }),
});
const INITIAL_WINDOW_SIZE = fc.record({
  type: fc.constant("INITIAL_WINDOW_SIZE" as const),
  sizeBytes: fc.oneof(fc.integer({ min: 0, max: 300_000 }), fc.constantFrom(0, 2 ** 31 - 1, 2 ** 31)),
});
const handler = fc.record({
  by: fc.constant("handler" as const),
  id: streamId,
  does: fc.constantFrom("credit", "respond", "release"),
  sizeBytes: fc.oneof(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 200_000 })),
});
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    client(8, HEADERS),
    client(5, DATA, 80),
    client(2, RST_STREAM),
    client(3, WINDOW_UPDATE),
    client(1, PRIORITY),
    client(1, INITIAL_WINDOW_SIZE),
    client(1, fc.constant({ type: "PING" as const })),
    { weight: 8, arbitrary: handler },
  ),
  { minLength: 1, maxLength: 80 },
);

function octetsOf(frame: ClientFrame): Buffer {
  switch (frame.type) {
    case "HEADERS": {
      const flags = END_HEADERS | (frame.end ? END_STREAM : 0);
      return headers(frame.id, frame.block === "request" ? request() : block([["x-trailer", "1"]]), flags);
    }
    case "DATA":
      return data(frame.id, Buffer.alloc(frame.sizeBytes), frame.end ? END_STREAM : 0);
    case "RST_STREAM":
      return rst(frame.id);
    case "WINDOW_UPDATE":
      return windowUpdate(frame.id, frame.increment);
    case "PRIORITY":
      return priority(frame.id, frame.dependency);
    case "INITIAL_WINDOW_SIZE":
      return settings([[4, frame.sizeBytes]]);
    case "PING":
      return ping();
  }
}

/** Both sides of one session: the product's connection and the model, which must agree after every step. */
class Session {
  readonly peer = new MemoryPeer({ onRequest: hang, maxConcurrentStreams: MAX_STREAMS });
  readonly model = new StreamModel({ streamWindow: MIB, maxStreams: MAX_STREAMS });

  constructor() {
    // The connection's window was opened with our SETTINGS, and MemoryPeer has read that.
    this.model.granted(0, 16 * MIB - 65_535);
  }

  run(step: Step): void {
    if (this.model.isOver) return;
    if (step.by === "handler") {
      this.#handle(step);
      return;
    }
    // Pings in quick succession end a connection (L-2), which is a budget and not the model's subject.
    if (step.frame.type === "PING") this.peer.nowMs += PING_INTERVAL_MS;
    for (let time = 0; time < step.times; time++) {
      this.peer.send(octetsOf(step.frame));
      this.#agree(this.model.receive(step.frame));
    }
  }

  /** Clients reset everything, handlers end: nothing may be left. */
  end(): void {
    if (this.model.isOver) this.peer.connection.onSocketClosed();
    for (const id of this.model.live.keys()) this.run({ by: "client", frame: { type: "RST_STREAM", id }, times: 1 });
    for (const stream of this.peer.requests) stream.release();
    const { connection, bugs } = this.peer;
    const left = { bugs, open: connection.openStreams, held: connection.streams.windows.heldBytes };
    deepEqual(left, { bugs: [], open: 0, held: 0 });
    if (!this.model.isOver) equal(connection.streams.windows.windowBytes, this.model.receiveWindow);
  }

  #handle({ id, does, sizeBytes }: Step & { by: "handler" }): void {
    const stream = this.peer.requests.find((one) => one.id === id);
    if (stream === undefined) return;
    const known = this.model.live.get(id);
    if (does === "release") {
      // A handler that has not answered goes on; one whose stream is gone ends, and gives its slot back.
      if (known !== undefined) return;
      stream.release();
      this.model.working.delete(id);
    } else if (does === "credit") {
      stream.credit(known?.held ?? 1000);
      if (known !== undefined) known.held = 0;
    } else {
      this.#respond(stream, sizeBytes);
    }
    this.#agree(undefined);
  }

  #respond(stream: Http2Stream, sizeBytes: number): void {
    const known = this.model.live.get(stream.id);
    if (known !== undefined) known.response ??= sizeBytes;
    stream.respond(RESPONSE_HEAD, { body: Buffer.alloc(sizeBytes) });
  }

  /** What the server sent since the last time follows from `error`, from windows, and from what handlers did. */
  #agree(error: string | undefined): void {
    const due = error === undefined ? [] : [error];
    const found: string[] = [];
    for (const frame of this.peer.frames()) {
      const follows = this.#onFrame(frame, found);
      if (follows !== undefined) due.push(follows);
    }
    deepEqual(found, due);
  }

  #onFrame({ type, flags, streamId: id, payload }: Frame, found: string[]): string | undefined {
    const end = (flags & END_STREAM) !== 0;
    if (type === 0) return this.model.sent(id, payload.length, end);
    if (type === 1) return end ? this.model.responseEnded(id) : undefined;
    if (type === 8) this.model.granted(id, payload.readUInt32BE());
    else if (type === 3) found.push(`RST_STREAM(${id}) ${payload.readUInt32BE()}`);
    else if (type === 7) found.push(`GOAWAY ${payload.readUInt32BE(4)}`);
    return undefined;
  }
}

it("does with every sequence of frames what the model says, and leaves nothing behind (section 8.4)", () => {
  fc.assert(
    fc.property(steps, (sequence) => {
      const session = new Session();
      for (const step of sequence) session.run(step);
      session.end();
    }),
    { numRuns: Number(process.env["LEDGE_MODEL_RUNS"] ?? "1500") },
  );
}, 60_000);
