// A mutation fuzzer over recorded client sessions: no input ends the process, leaks a stream or breaks the accounting.
//
// Normal runs take 2 s; LEDGE_FUZZ_SECONDS makes longer ones, LEDGE_FUZZ_SEED repeats one. The seed is in every failure.

import { expect, it } from "vitest";
import { encodeHuffman } from "../../src/http2/huffman.ts";
import type { RequestStream } from "../../src/http2/request-stream.ts";
import {
  block,
  continuation,
  data,
  END_HEADERS,
  END_STREAM,
  frame,
  goaway,
  headers,
  integer,
  PADDED,
  ping,
  priority,
  request,
  rst,
  settings,
  settingsAck,
  uint32,
  windowUpdate,
} from "./frames.ts";
import { echo, MemoryPeer, respondWith } from "./memory-peer.ts";

const SECONDS = Number(process.env["LEDGE_FUZZ_SECONDS"] ?? "2");
const SEED = Number(process.env["LEDGE_FUZZ_SEED"] ?? String(Date.now() % 1_000_000_007));

/** xorshift32: small, and the same everywhere. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0 || 1;
  }

  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % limit;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }
}

const huffmanField = (): Buffer => {
  const name = encodeHuffman(Buffer.from("x-key"));
  const value = encodeHuffman(Buffer.from("some value 123"));
  return Buffer.concat([
    Buffer.from([0x40]),
    integer(name.length, 7, 0x80),
    name,
    integer(value.length, 7, 0x80),
    value,
  ]);
};

/** What real clients do, as frames: first flights, unary calls, uploads, cancellations, pings (section 6.1). */
const SESSIONS: readonly (readonly Buffer[])[] = [
  [
    settings([
      [2, 0],
      [3, 0],
      [4, 1_048_576],
      [6, 8192],
    ]),
    windowUpdate(0, 983_041),
    settingsAck(),
    headers(3, Buffer.concat([uint32(0), Buffer.from([15]), request()]), 0x24),
    data(3, Buffer.from("00000000056162636465", "hex"), END_STREAM),
  ],
  [
    settings(),
    settingsAck(),
    headers(1, request(), END_HEADERS),
    data(1, Buffer.alloc(5000)),
    ping(),
    windowUpdate(1, 10),
    data(1, Buffer.alloc(100), END_STREAM),
    settings([[4, 131_070]]),
    headers(3, Buffer.concat([request(), huffmanField()])),
  ],
  [
    settings([
      [4, 4_194_303],
      [5, 4_194_303],
    ]),
    windowUpdate(0, 4_128_768),
    settingsAck(),
    headers(1, request(), END_HEADERS),
    windowUpdate(1, 5),
    data(1, Buffer.alloc(20)),
    rst(1),
    headers(3, request()),
    headers(5, Buffer.from("be", "hex")),
  ],
  [
    settings(),
    priority(3, 0),
    priority(5, 0),
    settingsAck(),
    headers(13, request().subarray(0, 10), END_STREAM),
    continuation(13, request().subarray(10)),
    goaway(),
  ],
  [
    settings([
      [1, 0],
      [4, 3],
    ]),
    settingsAck(),
    headers(1, Buffer.concat([Buffer.from("203fe11f", "hex"), request()]), END_HEADERS),
    data(1, Buffer.from([3, 1, 2, 0, 0, 0]), PADDED),
    headers(1, block([["trailer", "x"]])),
  ],
  [
    settings(),
    settingsAck(),
    ...Array.from({ length: 12 }, (_, index) => headers(1 + 2 * index, Buffer.concat([request(), huffmanField()]))),
    frame(0x16, 3, 0, Buffer.alloc(30)),
    ping("abcdefgh", 1),
  ],
];

function mutate(random: Random, session: readonly Buffer[]): Buffer[] {
  let frames: Buffer[] = session.map((part) => Buffer.from(part));
  for (let count = random.below(6); count > 0; count--) {
    const index = random.below(Math.max(frames.length, 1));
    const target = frames[index] ?? Buffer.alloc(9);
    switch (random.below(9)) {
      case 0: // a bit anywhere
        if (target.length > 0) target[random.below(target.length)]! ^= 1 << random.below(8);
        break;
      case 1: // a field of the header
        target[random.below(9)] = random.below(256);
        break;
      case 2: // another stream
        if (target.length < 9) break;
        target.writeUInt32BE(random.pick([0, 1, 2, 3, 5, 7, 99, 2 ** 31 - 1]), 5);
        break;
      case 3:
        frames.splice(index, 1);
        break;
      case 4:
        frames.splice(random.below(frames.length + 1), 0, Buffer.from(target));
        break;
      case 5: // a frame of another session
        frames.splice(index, 0, Buffer.from(random.pick(random.pick(SESSIONS))));
        break;
      case 6: // a payload of noise under a right length
        frames.splice(
          index,
          0,
          frame(
            random.below(11),
            random.below(256),
            random.below(8),
            Buffer.from(Array.from({ length: random.below(40) }, () => random.below(256))),
          ),
        );
        break;
      case 7: // a cut tail
        frames = [...frames.slice(0, index), target.subarray(0, random.below(target.length + 1))];
        break;
      default: // flags
        target[4] = random.below(64);
    }
  }
  return frames;
}

/** Handlers of several tempers: they answer, wait, reset, answer early, in a way that the seed decides. */
function handlerFor(random: Random): (stream: RequestStream) => void {
  const kind = random.below(5);
  if (kind === 0) return respondWith(random.below(100_000));
  if (kind === 1) return (stream) => (stream.reset(8) as undefined) ?? stream.release();
  if (kind === 2) {
    return (stream) => {
      stream.expect(random.below(5_000_000));
      stream.attach({
        onData: (chunk) => stream.credit(chunk.length),
        onEnd: () => undefined,
        onAbort: () => stream.release(),
      });
    };
  }
  return echo;
}

/** FC-3: what we granted less what we received is the window, and nothing is held when nobody holds it. */
function checkInvariants(peer: MemoryPeer): void {
  const { windows, slots, live } = peer.connection.streams;
  if (windows.heldBytes < 0) throw new Error(`held ${windows.heldBytes} octets`);
  if (!peer.connection.isOver && windows.windowBytes < 0) throw new Error(`window ${windows.windowBytes}`);
  if (slots < live) throw new Error(`${slots} slots for ${live} streams`);
  if (peer.bugs.length > 0) throw peer.bugs[0];
}

function runOnce(random: Random): void {
  const peer = new MemoryPeer({
    handshake: false,
    maxConcurrentStreams: 1 + random.below(20),
    onRequest: handlerFor(random),
  });
  const octets = Buffer.concat(mutate(random, random.pick(SESSIONS)));
  for (let at = 0; at < octets.length;) {
    const end = Math.min(octets.length, at + 1 + random.below(random.pick([1, 20, 5000])));
    const read = Buffer.from(octets.subarray(at, end));
    peer.send(read);
    // The read buffer is used again; whoever kept a piece of it shows.
    read.fill(0xaa);
    checkInvariants(peer);
    if (random.below(10) === 0) peer.advance(random.below(40_000));
    at = end;
  }
  const goaways = peer.frames().filter(({ type, payload }) => type === 7 && payload.readUInt32BE(4) !== 0);
  if (goaways.length > 1) throw new Error(`${goaways.length} GOAWAY frames`);
  peer.connection.onSocketClosed();
  for (const stream of peer.requests) stream.release();
  checkInvariants(peer);
  if (peer.connection.openStreams !== 0) throw new Error(`${peer.connection.openStreams} streams are left`);
  // DATA beyond the window ends the connection with the accounts open.
  const overrun = peer.connection.streams.windows.windowBytes < 0;
  if (!overrun && peer.connection.streams.windows.heldBytes !== 0)
    throw new Error(`${peer.connection.streams.windows.heldBytes} octets are left`);
}

it(`survives mutated sessions (seed ${SEED})`, { timeout: (SECONDS + 60) * 1000 }, () => {
  const endMs = performance.now() + SECONDS * 1000;
  let runs = 0;
  while (performance.now() < endMs) {
    const seed = (SEED + runs * 2_654_435_761) >>> 0;
    try {
      runOnce(new Random(seed));
    } catch (error) {
      throw new Error(`run ${runs} of seed ${SEED} failed`, { cause: error });
    }
    runs++;
  }
  expect(runs).toBeGreaterThan(0);
});
