// Waits for the octets that tell HTTP/2 from HTTP/1.1 on a new socket (F-1, F-8, P-40).

import type { Socket } from "node:net";
import { sniffProtocol } from "../http2/preface.ts";

const PREFACE_TIMEOUT_MS = 10_000;

/**
 * Calls `decided` once with the octets read so far, in the turn after the last of them, with the socket paused and none
 * of our listeners on it. A socket that says nothing for 10 s, or ends, is destroyed.
 */
export function sniffFirstOctets(socket: Socket, decided: (protocol: "http2" | "http1", octets: Buffer) => void): void {
  let octets: Buffer = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), PREFACE_TIMEOUT_MS);
  timer.unref();
  const stop = (): void => {
    clearTimeout(timer);
    socket.off("data", onData);
    socket.off("end", onEnd);
    socket.off("close", stop);
  };
  const onEnd = (): void => void socket.destroy();
  const onData = (chunk: Buffer): void => {
    octets = octets.length === 0 ? chunk : Buffer.concat([octets, chunk]);
    const protocol = sniffProtocol(octets);
    if (protocol === "undecided") return;
    stop();
    socket.pause();
    process.nextTick(() => {
      if (socket.destroyed) return;
      // Whatever arrived between the last event and the pause.
      const unread = socket.read() as Buffer | null;
      decided(protocol, unread === null ? octets : Buffer.concat([octets, unread]));
    });
  };
  socket.on("data", onData);
  socket.on("end", onEnd);
  socket.on("close", stop);
  socket.on("error", () => socket.destroy());
}
