// Starting and ending dist/ledge: port file, signals, draining, one server per data directory, handed-over sockets.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { runToEnd } from "../support/child-output.ts";
import { ledgeCommand, LedgeServer } from "../support/ledge-server.ts";
import { RemoteClient } from "./remote-client.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ledge-lifecycle-"));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let waitedMs = 0; !(await condition()); waitedMs += 20) {
    if (waitedMs > 30_000) throw new Error("it did not happen within 30 s");
    await sleep(20);
  }
}

/** What runs on this machine. */
function commandLines(): string[] {
  return readdirSync("/proc").flatMap((pid) => {
    try {
      return /^\d+$/.test(pid) ? [readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ")] : [];
    } catch {
      return []; // it has just ended
    }
  });
}

/** Resolves when a server tries to own the data directory: for some milliseconds it has a socket of its own there. */
async function untilCandidate(): Promise<void> {
  const isTrying = () => readdirSync(join(folder, "data")).some((name) => name.startsWith("candidate."));
  for (let waited = 0; !isTrying(); waited++) {
    if (waited > 20_000) throw new Error("no server tries to own the data directory");
    await sleep(1);
  }
}

describe("the port file", () => {
  test("has one line for each address in the order of --listen, and goes when the server ends", async () => {
    const portFile = join(folder, "second-port-file");
    const socket = join(folder, "ledge.sock");
    const [program = "", ...args] = await ledgeCommand();
    const addresses = ["127.0.0.1:0", `unix:${socket}`, "[::1]:0"];
    const listen = addresses.flatMap((address) => ["--listen", address]);
    const flags = [...listen, "--port-file", portFile, "--data-dir", join(folder, "data"), "--slots", "0"];
    const child = spawn(program, [...args, ...flags], { stdio: "ignore" });
    try {
      await until(() => existsSync(portFile));
      const lines = readFileSync(portFile, "utf8").split("\n");
      expect(lines).toEqual([
        expect.stringMatching(/^127\.0\.0\.1:\d+$/),
        `unix:${socket}`,
        expect.stringMatching(/^\[::1\]:\d+$/),
        "",
      ]);
      for (const line of lines.slice(0, 3)) {
        using client = new RemoteClient(line);
        await client.capabilities();
      }
    } finally {
      child.kill("SIGTERM");
      expect(await once(child, "exit")).toEqual([0, null]);
    }
    expect(existsSync(portFile)).toBe(false);
  });

  test("is not written when one of the addresses cannot be had", async () => {
    await using server = await LedgeServer.start({ flags: ["--slots", "0"] });
    const portFile = join(folder, "port");
    const [program = "", ...args] = await ledgeCommand();
    const listen = ["--listen", "127.0.0.1:0", "--listen", server.address];
    const flags = [...listen, "--port-file", portFile, "--data-dir", join(folder, "data"), "--slots", "0"];
    const { exitCode, stderr } = await runToEnd(program, [...args, ...flags]);
    expect(exitCode).toBe(1);
    expect(stderr).toContain(`Cannot listen on ${server.address}`);
    expect(existsSync(portFile)).toBe(false);
  });
});

describe("one server per data directory", () => {
  test("the second one exits and names the pid of the first", async () => {
    await using server = await LedgeServer.start({ flags: ["--slots", "0"] });
    const [program = "", ...args] = await ledgeCommand();
    const flags = ["--listen", "127.0.0.1:0", "--data-dir", server.dataDir];
    const { exitCode, stderr } = await runToEnd(program, [...args, ...flags]);
    expect(exitCode).toBe(1);
    expect(stderr).toContain(`is in use by ledge with pid ${server.pid}`);
    using client = new RemoteClient(server.address);
    await client.capabilities();
  });

  test("starts again after kill -9", async () => {
    await using server = await LedgeServer.start({ flags: ["--slots", "0"] });
    await server.kill();
    await server.restart();
    using client = new RemoteClient(server.address);
    await client.capabilities();
  });
});

describe("SIGTERM", () => {
  test.each(["SIGTERM", "SIGINT"] as const)("ends an idle server with exit code 0 (%s)", async (signal) => {
    await using server = await LedgeServer.start();
    using client = new RemoteClient(server.address);
    await client.capabilities(); // its connection stays open
    process.kill(server.pid, signal);
    expect(await server.exited()).toEqual({ code: 0, signal: null });
  });

  test("ends a server that is still starting with exit code 0", async () => {
    // It waits for the data directory, since the socket that was handed to it says that it follows another server.
    await using holder = await SocketHolder.start(folder);
    const first = await holder.startLedge();
    await first.accepting();
    const second = await holder.startLedge();
    await untilCandidate();
    expect(await second.stop()).toBe(0);
    expect(existsSync(second.portFile)).toBe(false);
    expect(await first.stop()).toBe(0);
  });

  test("lets an action under way finish and its client hear of it", async () => {
    await using server = await LedgeServer.start({ flags: ["--sandbox", "require"] });
    using client = new RemoteClient(server.address);
    const response = client.execute(await client.uploadAction("sleep 2; echo done"));
    await until(async () => (await server.metric("ledge_actions_executing")) === 1);
    process.kill(server.pid, "SIGTERM");
    const { result } = await response;
    expect(result?.exitCode).toBe(0);
    expect(Buffer.from(result?.stdoutRaw ?? []).toString()).toBe("done\n");
    expect(await server.exited()).toEqual({ code: 0, signal: null });
  });

  test("accepts nothing new while it drains", async () => {
    await using server = await LedgeServer.start({ flags: ["--sandbox", "require"] });
    using client = new RemoteClient(server.address);
    const response = client.execute(await client.uploadAction("sleep 2"));
    await until(async () => (await server.metric("ledge_actions_executing")) === 1);
    process.kill(server.pid, "SIGTERM");
    await until(() => server.log.includes("stops accepting"));
    using late = new RemoteClient(server.address);
    await expect(late.capabilities()).rejects.toMatchObject({ code: status.UNAVAILABLE });
    await response;
    await server.exited();
  });

  test("kills what is still running after --drain-timeout, tells the client, and exits with 0", async () => {
    await using server = await LedgeServer.start({ flags: ["--sandbox", "require", "--drain-timeout", "300ms"] });
    using client = new RemoteClient(server.address);
    const marker = `sleep ${3600 + Math.floor(Math.random() * 1000)}.25`;
    const response = client.execute(await client.uploadAction(marker)).then(
      ({ status: answer }) => answer?.code,
      (error: { code: number }) => error.code,
    );
    await until(async () => (await server.metric("ledge_actions_executing")) === 1);
    process.kill(server.pid, "SIGTERM");
    expect(await server.exited()).toEqual({ code: 0, signal: null });
    expect([status.UNAVAILABLE, status.CANCELLED]).toContain(await response);
    expect(commandLines().filter((line) => line.includes(marker))).toEqual([]);
  });

  test.each([
    ["SIGTERM", 143],
    ["SIGINT", 130],
  ] as const)("exits at once when a second signal comes (%s)", async (signal, code) => {
    await using server = await LedgeServer.start({ flags: ["--sandbox", "require", "--drain-timeout", "1h"] });
    using client = new RemoteClient(server.address);
    const response = client.execute(await client.uploadAction("sleep 3600")).catch(() => undefined);
    await until(async () => (await server.metric("ledge_actions_executing")) === 1);
    process.kill(server.pid, "SIGTERM");
    await until(() => server.log.includes("stops accepting"));
    await sleep(100);
    process.kill(server.pid, signal);
    expect(await server.exited()).toEqual({ code, signal: null });
    await response;
  });

  // timeout(1) sends SIGTERM to its child and then to the group that the child is in.
  test("takes the same signal twice at the same moment for one", async () => {
    await using server = await LedgeServer.start({ flags: ["--slots", "0"] });
    process.kill(server.pid, "SIGTERM");
    process.kill(server.pid, "SIGTERM");
    expect(await server.exited()).toEqual({ code: 0, signal: null });
  });
});

describe("a socket that was handed over", () => {
  test("is accepted on, and named in the port file by its address", async () => {
    await using holder = await SocketHolder.start(folder);
    const server = await holder.startLedge();
    await server.accepting();
    expect(readFileSync(server.portFile, "utf8")).toBe(`${holder.address}\n`);
    using client = new RemoteClient(holder.address);
    await client.capabilities();
    expect(await server.stop()).toBe(0);
  });

  test("refuses none of 200 clients that connect while one server follows another", async () => {
    await using holder = await SocketHolder.start(folder);
    const first = await holder.startLedge();
    await first.accepting();
    let isOver = false;
    let answered = 0;
    const refusals: string[] = [];
    const clients = Array.from({ length: 200 }, async () => {
      while (!isOver) {
        using client = new RemoteClient(holder.address);
        await client.capabilities().then(
          () => answered++,
          (error: { code: number; message: string }) => {
            // A call that the ending server did not answer may be retried; a refused connection is what must not be.
            if (error.code !== status.UNAVAILABLE || error.message.includes("ECONNREFUSED"))
              refusals.push(error.message);
          },
        );
        await sleep(100);
      }
    });
    await until(() => answered > 200);
    const second = await holder.startLedge();
    expect(await first.stop()).toBe(0);
    await second.accepting();
    const before = answered;
    await until(() => answered > before + 200);
    isOver = true;
    await Promise.all(clients);
    expect(refusals).toEqual([]);
    expect(await second.stop()).toBe(0);
  }, 60_000);
});

/**
 * Holds a listening socket that it never accepts on, and starts servers with it as descriptor 3, as systemd does.
 * In Python, because a listening socket of Node accepts by itself.
 */
const HOLDER_SCRIPT = `
import socket, subprocess, sys
held = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(held.getsockname()[1], flush=True)
script = f'exec 3<&{held.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
servers = {}
for line in sys.stdin:
    verb, argument = line.split()
    if verb == "start":
        command = ["/bin/sh", "-c", script, "sh", *sys.argv[1:], "--port-file", argument]
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server = subprocess.Popen(command, pass_fds=[held.fileno()], **quiet)
        servers[str(server.pid)] = server
        print(server.pid, flush=True)
    else:
        print(servers[argument].wait(), flush=True)
`;

interface HeldLedge {
  readonly portFile: string;
  accepting(): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number>;
}

class SocketHolder implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #answers: AsyncIterator<string>;
  readonly #pids: number[] = [];
  address = "";

  private constructor(child: ChildProcess, folder: string, answers: AsyncIterator<string>) {
    this.#child = child;
    this.#folder = folder;
    this.#answers = answers;
  }

  static async start(folder: string): Promise<SocketHolder> {
    const flags = ["serve", "--data-dir", join(folder, "data"), "--slots", "0"];
    const args = ["-c", HOLDER_SCRIPT, ...(await ledgeCommand()), ...flags];
    const child = spawn("python3", args, { stdio: ["pipe", "pipe", "inherit"] });
    const holder = new SocketHolder(child, folder, createInterface(child.stdout)[Symbol.asyncIterator]());
    holder.address = `127.0.0.1:${await holder.#answer()}`;
    return holder;
  }

  async startLedge(): Promise<HeldLedge> {
    const portFile = join(this.#folder, `port-${this.#pids.length}`);
    const pid = Number(await this.#ask(`start ${portFile}`));
    this.#pids.push(pid);
    return {
      portFile,
      accepting: () => until(() => existsSync(portFile)),
      stop: async () => {
        process.kill(pid, "SIGTERM");
        return Number(await this.#ask(`wait ${pid}`));
      },
    };
  }

  async #ask(question: string): Promise<string> {
    this.#child.stdin?.write(`${question}\n`);
    return this.#answer();
  }

  async #answer(): Promise<string> {
    const { value, done } = await this.#answers.next();
    if (done === true) throw new Error("the holder of the socket ended");
    return value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.#pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended, as it should.
      }
    }
    this.#child.kill("SIGKILL");
    await once(this.#child, "close");
  }
}
