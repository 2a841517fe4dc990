// Inherited listening sockets: a server that takes over loses no connection.

import { spawn, type ChildProcess } from "node:child_process";
import { get } from "node:http";
import { connect, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";

const CHILD = fileURLToPath(new URL("inherited-socket-child.ts", import.meta.url));

/** Holds a listening socket and starts servers on it; Node itself cannot hold one without accepting. */
const HOLDER = `
import socket, subprocess, sys
held = socket.socket()
held.bind(("127.0.0.1", 0))
held.listen(512)
print(held.getsockname()[1], flush=True)
for line in sys.stdin:
    subprocess.Popen([sys.argv[1], sys.argv[2], str(held.fileno())], pass_fds=[held.fileno()])
`;

function fetchText(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ port, host: "127.0.0.1", agent: false }, (response) => void text(response).then(resolve, reject)).on(
      "error",
      reject,
    );
  });
}

describe("listen() on an inherited socket", () => {
  let holder: ChildProcess | undefined;
  let serverPid = 0;
  afterEach(() => {
    holder?.kill("SIGKILL");
    if (serverPid !== 0) process.kill(serverPid, "SIGKILL");
  });

  // Issue 4, deliverable 6: the kernel's backlog holds connections while one server ends and the next one starts.
  it("accepts what it was given, and refuses no connection while the next server takes over", async () => {
    holder = spawn("python3", ["-c", HOLDER, process.execPath, CHILD], { stdio: ["pipe", "pipe", "inherit"] });
    const { stdin, stdout } = holder;
    if (stdin === null || stdout === null) throw new Error("unreachable: both are pipes");
    const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
    const nextLine = async (): Promise<number> => Number((await lines.next()).value);
    const startServer = async (): Promise<void> => {
      stdin.write("start\n");
      serverPid = await nextLine();
    };
    const port = await nextLine();
    await startServer();
    expect(await fetchText(port)).toBe(`inherited by ${serverPid}`);
    process.kill(serverPid, "SIGKILL");
    const waiting = Array.from({ length: 200 }, () => fetchText(port));
    await startServer();
    expect(new Set(await Promise.all(waiting))).toEqual(new Set([`inherited by ${serverPid}`]));
  });
});

describe("listen() with few descriptors", () => {
  let server: ChildProcess | undefined;
  afterEach(() => void server?.kill("SIGKILL"));

  // connections must leave descriptors for files, and the server must go on accepting when others have closed.
  it("closes connections above its share, serves those it has, and accepts again", async () => {
    server = spawn("sh", ["-c", 'ulimit -n 200 && exec "$0" "$1"', process.execPath, CHILD], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines = createInterface({ input: server.stdout! })[Symbol.asyncIterator]();
    const port = Number((await lines.next()).value);
    const sockets = await Promise.all(Array.from({ length: 180 }, () => openSocket(port)));
    await expect(fetchText(port)).rejects.toThrow();
    const open = (): number => sockets.filter((socket) => !socket.destroyed).length;
    await expect.poll(open, { timeout: 10_000 }).toBe(100);
    for (const socket of sockets) socket.destroy();
    await expect.poll(() => fetchText(port).catch(() => ""), { timeout: 10_000 }).toContain(`by ${server.pid}`);
  });
});

function openSocket(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => resolve(socket));
    socket.on("error", reject);
    socket.resume();
  });
}
