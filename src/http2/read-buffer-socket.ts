// Sockets that read into one shared buffer (P-1 to P-3): no Buffer, no event and no stream machinery per read.
//
// `net.Server` cannot make such sockets, so the handle of an accepted socket is moved into a new one. That touches
// private fields of Node, here and nowhere else; `canShareReadBuffer` tries it once on a loopback connection, and where
// it fails the driver reads by 'data' events.
//
// Measured on receive (document, section 7.1): 'data' events 1.05 GB/s, one static buffer with a copy 2.7 to 2.9 GB/s.

import { connect, createServer, Socket, type Server } from "node:net";
import { once } from "node:events";

/** One buffer serves all connections: the callback runs to its end before the next read (P-2). */
const READ_BUFFER_BYTES = 512 * 1024;

const readBuffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);

/** Private fields of net.Socket. */
interface SocketInside {
  _handle: unknown;
  _server: unknown;
  server: unknown;
}

/** Gets octets 0 to `count` of `octets`, valid during the call; returns false to stop reading. */
export type OnRead = (octets: Uint8Array, count: number) => boolean;

/** Moves the connection of `socket`, which has no unread octets, into a socket that reads into the shared buffer. */
export function withSharedReadBuffer(socket: Socket, onRead: OnRead): Socket {
  const inside = socket as unknown as SocketInside;
  const handle = inside._handle;
  const server = inside._server;
  if (handle === null || handle === undefined) throw new Error("the socket has closed");
  socket.pause();
  inside._handle = null;
  inside._server = null;
  socket.removeAllListeners();
  const options = {
    handle,
    allowHalfOpen: true,
    onread: { buffer: readBuffer, callback: (count: number) => onRead(readBuffer, count) },
  };
  const moved = new Socket(options as unknown as ConstructorParameters<typeof Socket>[0]);
  const movedInside = moved as unknown as SocketInside;
  // Or the server would count the connection for ever, and its close() would never end.
  movedInside._server = server;
  movedInside.server = server;
  return moved;
}

let possible: Promise<boolean> | undefined;

/** Whether this Node lets us move a handle; found out once, by doing it. */
export function canShareReadBuffer(): Promise<boolean> {
  possible ??= tryOnLoopback().catch(() => false);
  return possible;
}

async function tryOnLoopback(): Promise<boolean> {
  const server: Server = createServer({ allowHalfOpen: true });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") return false;
  const accepted = new Promise<boolean>((resolve) => {
    server.once("connection", (socket) => {
      socket.once("data", (first: Buffer) => {
        socket.pause();
        process.nextTick(() => {
          const moved = withSharedReadBuffer(socket, (octets, count) => {
            resolve(first.toString() === "a" && Buffer.from(octets.subarray(0, count)).toString() === "b");
            return true;
          });
          moved.on("end", () => moved.end());
          moved.resume();
          moved.write("c");
        });
      });
    });
  });
  const client = connect(address.port, "127.0.0.1");
  client.on("error", () => undefined);
  client.write("a");
  client.once("data", () => client.write("b"));
  const works = await Promise.race([
    accepted,
    new Promise<false>((resolve) => setTimeout(resolve, 2000, false).unref()),
  ]);
  client.destroy();
  server.close();
  return works;
}
