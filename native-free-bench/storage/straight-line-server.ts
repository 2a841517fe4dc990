// The least a durable upload can cost: socket → SHA-256 → file → fdatasync, one thread, no store, no checks.
//
// Answers every call, with the body of its request as the bytes to keep. What a server reaches beside it in one run is
// the cost of being a server. Run as a program: the folder is its argument, its port the line it writes.

import { createHash, type Hash } from "node:crypto";
import { closeSync, fdatasync, openSync, unlinkSync, writeSync } from "node:fs";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { CLIENT_PREFACE } from "../../src/http2/preface.ts";
import { Flag, FRAME_HEADER_BYTES, FrameType, SettingId } from "../../src/http2/frame.ts";
import { frame, setting, windowUpdate } from "../load/raw-frames.ts";

const HEAD = Buffer.concat([Buffer.of(0x88, 0x0f, 31 - 15, 16), Buffer.from("application/grpc")]);
const TRAILERS = Buffer.concat([Buffer.of(0x00, 11), Buffer.from("grpc-status"), Buffer.of(1), Buffer.from("0")]);
const EMPTY_MESSAGE = Buffer.alloc(5);

interface Upload {
  readonly hash: Hash;
  readonly file: number;
  readonly path: string;
}

const folder = process.argv[2] ?? ".";
let files = 0;
const server = createServer({ noDelay: true }, (socket) => serve(socket));
server.listen(0, "127.0.0.1", () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));

function serve(socket: Socket): void {
  const uploads = new Map<number, Upload>();
  let leftover: Buffer = Buffer.alloc(0);
  let greeted = false;
  socket.on("error", () => undefined);
  socket.write(
    Buffer.concat([
      frame(FrameType.SETTINGS, 0, 0, [setting(SettingId.INITIAL_WINDOW_SIZE, 2 ** 30)]),
      windowUpdate(0, 2 ** 30),
    ]),
  );
  socket.on("data", (chunk: Buffer) => {
    leftover = leftover.length === 0 ? chunk : Buffer.concat([leftover, chunk]);
    if (!greeted) {
      if (leftover.length < CLIENT_PREFACE.length) return;
      leftover = leftover.subarray(CLIENT_PREFACE.length);
      greeted = true;
    }
    let receivedBytes = 0;
    while (leftover.length >= FRAME_HEADER_BYTES) {
      const size = leftover.readUIntBE(0, 3);
      if (leftover.length < FRAME_HEADER_BYTES + size) break;
      const [type, flags, id] = [leftover[3]!, leftover[4]!, leftover.readUInt32BE(5)];
      const payload = leftover.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + size);
      leftover = leftover.subarray(FRAME_HEADER_BYTES + size);
      if (type === FrameType.SETTINGS && (flags & Flag.ACK) === 0) socket.write(frame(type, Flag.ACK, 0, []));
      if (type !== FrameType.DATA) continue;
      receivedBytes += size;
      const upload = uploads.get(id) ?? begin();
      uploads.set(id, upload);
      upload.hash.update(payload);
      writeSync(upload.file, payload);
      if ((flags & Flag.END_STREAM) === 0) continue;
      uploads.delete(id);
      end(upload, () => socket.write(answerOf(id)));
    }
    if (receivedBytes > 0) socket.write(windowUpdate(0, receivedBytes));
  });
}

function begin(): Upload {
  const path = join(folder, String(files++));
  return { hash: createHash("sha256"), file: openSync(path, "wx"), path };
}

function end({ hash, file, path }: Upload, onSynced: () => void): void {
  hash.digest();
  fdatasync(file, () => {
    closeSync(file);
    onSynced();
    unlinkSync(path); // the run would fill the disk; the answer is out
  });
}

function answerOf(id: number): Buffer {
  return Buffer.concat([
    frame(FrameType.HEADERS, Flag.END_HEADERS, id, [HEAD]),
    frame(FrameType.DATA, 0, id, [EMPTY_MESSAGE]),
    frame(FrameType.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, id, [TRAILERS]),
  ]);
}
