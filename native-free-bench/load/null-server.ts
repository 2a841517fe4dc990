// A server that answers every call with an empty message at once: what the load generator can do at most.
//
// It shares the event loop with the generator, so the ceiling it gives is a lower bound of the real one.

import { createServer, type AddressInfo, type Socket } from "node:net";
import { CLIENT_PREFACE } from "../../src/http2/preface.ts";
import { Flag, FRAME_HEADER_BYTES, FrameType, SettingId } from "../../src/http2/frame.ts";
import { frame, setting } from "./raw-connection.ts";

export interface NullServer {
  readonly port: number;
  close(): void;
}

export interface NullServerOptions {
  /** Answers this much later: a server of which the latency is known. */
  readonly delayMs?: number;
}

export async function startNullServer(options: NullServerOptions = {}): Promise<NullServer> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    serve(socket, options.delayMs ?? 0);
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
const EMPTY_MESSAGE = Buffer.alloc(5);

function serve(socket: Socket, delayMs: number): void {
  let leftover: Buffer = Buffer.alloc(0);
  let greeted = false;
  socket.write(
    frame(FrameType.SETTINGS, 0, 0, [
      setting(SettingId.INITIAL_WINDOW_SIZE, 2 ** 30),
      setting(SettingId.MAX_CONCURRENT_STREAMS, 100_000),
    ]),
  );
  socket.on("data", (chunk: Buffer) => {
    leftover = leftover.length === 0 ? chunk : Buffer.concat([leftover, chunk]);
    if (!greeted) {
      if (leftover.length < CLIENT_PREFACE.length) return;
      leftover = leftover.subarray(CLIENT_PREFACE.length);
      greeted = true;
    }
    const answers: Buffer[] = [];
    let receivedBytes = 0;
    for (; leftover.length >= FRAME_HEADER_BYTES;) {
      const size = leftover.readUIntBE(0, 3);
      if (leftover.length < FRAME_HEADER_BYTES + size) break;
      const [type, flags, id] = [leftover[3]!, leftover[4]!, leftover.readUInt32BE(5)];
      leftover = leftover.subarray(FRAME_HEADER_BYTES + size);
      if (type === FrameType.SETTINGS && (flags & Flag.ACK) === 0)
        answers.push(frame(FrameType.SETTINGS, Flag.ACK, 0, []));
      if (type !== FrameType.DATA) continue;
      receivedBytes += size;
      if ((flags & Flag.END_STREAM) !== 0) answers.push(answerOf(id));
    }
    if (receivedBytes > 0) answers.push(frame(FrameType.WINDOW_UPDATE, 0, 0, [uint32(receivedBytes)]));
    if (answers.length === 0) return;
    const bytes = Buffer.concat(answers);
    if (delayMs === 0) socket.write(bytes);
    else setTimeout(() => socket.write(bytes), delayMs);
  });
}

function answerOf(id: number): Buffer {
  return Buffer.concat([
    frame(FrameType.HEADERS, Flag.END_HEADERS, id, [HEAD]),
    frame(FrameType.DATA, 0, id, [EMPTY_MESSAGE]),
    frame(FrameType.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, id, [TRAILERS]),
  ]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value, 0);
  return bytes;
}
