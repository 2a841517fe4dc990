// A client of raw octets over a socket: sends what it is told, says what came back.

import { connect, type Socket } from "node:net";
import { describeFrame, PREFACE, readFrames, settings, settingsAck, type Frame } from "./frames.ts";

export class SocketPeer {
  readonly socket: Socket;
  readonly frames: Frame[] = [];
  closed = false;
  #partial: Buffer = Buffer.alloc(0);
  #wake: () => void = () => undefined;

  constructor(port: number) {
    this.socket = connect(port, "127.0.0.1");
    this.socket.on("error", () => undefined);
    this.socket.on("close", () => {
      this.closed = true;
      this.#wake();
    });
    this.socket.on("data", (chunk: Buffer) => {
      const { frames, rest } = readFrames(Buffer.concat([this.#partial, chunk]));
      this.frames.push(...frames);
      this.#partial = rest;
      this.#wake();
    });
  }

  /** Connects and exchanges SETTINGS. */
  static async open(port: number): Promise<SocketPeer> {
    const peer = new SocketPeer(port);
    peer.send(PREFACE, settings());
    await peer.until(({ type, flags }) => type === 4 && flags === 0);
    peer.send(settingsAck());
    return peer;
  }

  send(...parts: readonly Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** Resolves with the first frame that fits, or undefined when the connection closes before one comes. */
  async until(fits: (frame: Frame) => boolean): Promise<Frame | undefined> {
    for (;;) {
      const found = this.frames.find(fits);
      if (found !== undefined || this.closed) return found;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  lines(): string[] {
    return this.frames.map(describeFrame);
  }
}
