// What the rows are compared with, in a process of its own: `node baseline-server.ts ROLE [CERT KEY]`.
//
//   answers   HTTP/2 that answers every request with constant octets: what the load generator can do at most
//   send      a plain socket that sends 64 MiB, cut as HTTP/2 frames are cut, for every octet it gets
//   receive   a plain socket that reads, and answers one octet for every 64 MiB in frames
//   hash      no server: prints the SHA-256 rate of 64 MiB in slabs of 512 KiB, five times, for each line it gets
//
// Prints its port (hash: "0") when it is ready. Nothing here protects itself against anything.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { createInterface } from "node:readline";
import { DEFAULT_MAX_FRAME_BYTES, Flag, FRAME_HEADER_BYTES, FrameType, SettingId } from "../../src/http2/frame.ts";
import { CLIENT_PREFACE } from "../../src/http2/preface.ts";
import { withSharedReadBuffer } from "../../src/http2/read-buffer-socket.ts";
import { frame, setting, windowUpdate } from "../load/raw-frames.ts";
import { RandomData } from "../random-data.ts";
import { BLOB_BYTES } from "./bulk.ts";
import { FrameReader } from "./frame-reader.ts";

const HASH_SLAB_BYTES = 512 * 1024;
/** As much as our server hands to the kernel at once. */
const WRITE_BYTES = 256 * 1024;
const FRAMES = BLOB_BYTES / DEFAULT_MAX_FRAME_BYTES;

// :status 200 (static 8), content-type literal; grpc-status 0 literal; neither is indexed, so that every answer is equal.
const HEAD = Buffer.concat([Buffer.of(0x88, 0x0f, 31 - 15, 16), Buffer.from("application/grpc")]);
const TRAILERS = Buffer.concat([Buffer.of(0x00, 11), Buffer.from("grpc-status"), Buffer.of(1), Buffer.from("0")]);
const ANSWER = Buffer.concat([
  frame(FrameType.HEADERS, Flag.END_HEADERS, 1, [HEAD]),
  frame(FrameType.DATA, 0, 1, [Buffer.alloc(100)]),
  frame(FrameType.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1, [TRAILERS]),
]);
const ANSWER_IDS = [5, FRAME_HEADER_BYTES + HEAD.length + 5, 2 * FRAME_HEADER_BYTES + HEAD.length + 100 + 5];

function serveAnswers(socket: Socket): void {
  let output: Buffer = Buffer.allocUnsafe(64 * 1024);
  let end = 0;
  let receivedBytes = 0;
  let skip = CLIENT_PREFACE.length;
  socket.write(
    frame(FrameType.SETTINGS, 0, 0, [
      setting(SettingId.INITIAL_WINDOW_SIZE, 2 ** 30),
      setting(SettingId.MAX_CONCURRENT_STREAMS, 100_000),
    ]),
  );
  const reader = new FrameReader({
    onFrame: (type, flags) => {
      if (type === FrameType.SETTINGS && (flags & Flag.ACK) === 0)
        moved.write(frame(FrameType.SETTINGS, Flag.ACK, 0, []));
    },
    onData: (streamId, sizeBytes, flags) => {
      receivedBytes += sizeBytes;
      if ((flags & Flag.END_STREAM) === 0) return;
      output.set(ANSWER, end);
      for (const at of ANSWER_IDS) output.writeUInt32BE(streamId, end + at);
      end += ANSWER.length;
    },
  });
  const moved = withSharedReadBuffer(socket, (octets, count) => {
    const skipped = Math.min(skip, count);
    skip -= skipped;
    reader.push(octets.subarray(skipped), count - skipped);
    if (receivedBytes > 16_384) {
      moved.write(windowUpdate(0, receivedBytes));
      receivedBytes = 0;
    }
    if (end === 0) return true;
    moved.write(output.subarray(0, end));
    if (moved.writableLength > 0) output = Buffer.allocUnsafe(64 * 1024);
    end = 0;
    return true;
  });
  moved.on("error", () => moved.destroy());
  moved.resume();
}

function serveSend(socket: Socket): void {
  const blob = new RandomData(1).bytes(BLOB_BYTES);
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  let left = 0;
  const pump = (): void => {
    while (left > 0) {
      socket.cork();
      for (let bytes = 0; bytes < WRITE_BYTES && left > 0; bytes += DEFAULT_MAX_FRAME_BYTES, left--) {
        const at = (left % FRAMES) * DEFAULT_MAX_FRAME_BYTES;
        socket.write(header);
        socket.write(blob.subarray(at, at + DEFAULT_MAX_FRAME_BYTES));
      }
      socket.uncork();
      if (socket.writableNeedDrain) return;
    }
  };
  socket.on("drain", pump);
  socket.on("data", (chunk: Buffer) => {
    left += chunk.length * FRAMES;
    pump();
  });
}

/** A blob and the headers of its frames. */
const FRAMED_BYTES = BLOB_BYTES + FRAMES * FRAME_HEADER_BYTES;

function serveReceive(socket: Socket): void {
  let receivedBytes = 0;
  const count = (bytes: number): void => {
    const blobs = Math.floor(receivedBytes / FRAMED_BYTES);
    receivedBytes += bytes;
    for (let more = Math.floor(receivedBytes / FRAMED_BYTES) - blobs; more > 0; more--) from.write("x");
  };
  let from = socket;
  if ("encrypted" in socket) {
    socket.on("data", (chunk: Buffer) => count(chunk.length));
    return;
  }
  from = withSharedReadBuffer(socket, (_octets, bytes) => {
    count(bytes);
    return true;
  });
  from.on("error", () => from.destroy());
  from.resume();
}

async function hashForever(): Promise<void> {
  const blob = new RandomData(1).bytes(BLOB_BYTES);
  process.stdout.write("0\n");
  for await (const _line of createInterface(process.stdin)) {
    const begunMs = performance.now();
    for (let round = 0; round < 5; round++) {
      const hash = createHash("sha256");
      for (let at = 0; at < BLOB_BYTES; at += HASH_SLAB_BYTES) hash.update(blob.subarray(at, at + HASH_SLAB_BYTES));
      hash.digest();
    }
    process.stdout.write(`${(5 * BLOB_BYTES * 1000) / (performance.now() - begunMs)}\n`);
  }
}

const SERVE: Readonly<Record<string, (socket: Socket) => void>> = {
  answers: serveAnswers,
  send: serveSend,
  receive: serveReceive,
};

const [role = "", cert, key] = process.argv.slice(2);
const serve = SERVE[role];
if (role === "hash") await hashForever();
else if (serve === undefined) throw new Error(`role "${role}", expected answers, send, receive or hash`);
else {
  const accept = (socket: Socket): void => {
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    serve(socket);
  };
  const server: Server =
    cert === undefined || key === undefined
      ? createServer(accept)
      : createTlsServer({ cert: readFileSync(cert), key: readFileSync(key), ALPNProtocols: ["h2"] }, accept);
  server.listen(0, "127.0.0.1", () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));
}
