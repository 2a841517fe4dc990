// A soak test to run by hand: `node test/grpc/soak.ts [minutes]`. Mixed load, resets, half-open and vanishing peers
// against a server in a process of its own, whose resident memory and descriptors are printed every half minute.
//
// What to look for: both flat after the first minute, and "left: 0 0 0" (connections, streams, calls) at the end.

import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { createServerTransport } from "../../src/grpc/transport.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { block, data, END_HEADERS, END_STREAM, headers, PREFACE, rst, settings, settingsAck } from "../http2/frames.ts";
import { MAX_REQUEST_BYTES, TestService } from "./test-service.ts";

const asIs = (bytes: Buffer): Buffer => bytes;

async function serve(): Promise<void> {
  const metrics = new MetricsRegistry();
  const transport = createServerTransport({
    services: [new TestService().definition],
    http1: (_request, response) => response.end("plain"),
    defaultMaxRequestBytes: MAX_REQUEST_BYTES,
    logger: silentLogger,
    metrics,
  });
  const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
  process.stdout.write(`${address.kind === "tcp" ? address.port : 0}\n`);
  const gauge = (name: string): number => metrics.samples().find((sample) => sample.name === name)?.value ?? -1;
  process.on("SIGUSR2", () =>
    process.stdout.write(`${gauge("ledge_connections")} ${gauge("ledge_http2_streams")} ${transport.activeCalls}\n`),
  );
}

async function soak(minutes: number): Promise<void> {
  const server = spawn(process.execPath, [fileURLToPath(import.meta.url), "server"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
  const port = Number((await lines.next()).value);
  const endMs = performance.now() + minutes * 60_000;
  const counts = { calls: 0, streams: 0, resets: 0, vanished: 0, failures: 0 };
  const running = (): boolean => performance.now() < endMs;
  const work = [0, 1].map(() => unaryLoop(port, running, counts));
  work.push(streamLoop(port, running, counts), resetLoop(port, running, counts), vanishLoop(port, running, counts));
  const pid = server.pid ?? 0;
  while (running()) {
    await sleep(Math.min(30_000, Math.max(endMs - performance.now(), 0)));
    const descriptors = readdirSync(`/proc/${pid}/fd`).length;
    process.stdout.write(`rss ${residentMiB(pid)} MiB, ${descriptors} descriptors, ${JSON.stringify(counts)}\n`);
  }
  await Promise.all(work);
  // Longer than the most patient of the vanishing peers stays.
  await sleep(8000);
  server.kill("SIGUSR2");
  process.stdout.write(
    `left: ${String((await lines.next()).value)}; rss ${residentMiB(pid)} MiB, ${readdirSync(`/proc/${pid}/fd`).length} descriptors\n`,
  );
  server.kill("SIGKILL");
}

type Counts = Record<"calls" | "streams" | "resets" | "vanished" | "failures", number>;

function residentMiB(pid: number): number {
  const match = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Math.round(Number(match?.[1] ?? 0) / 1024);
}

/** Clients that come, call and go. */
async function unaryLoop(port: number, running: () => boolean, counts: Counts): Promise<void> {
  while (running()) {
    const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
    });
    for (let round = 0; round < 50 && running(); round++) {
      const sizes = [0, 100, 5000, 100_000, 2_000_000];
      await Promise.all(
        sizes.map((size) => {
          const body = Buffer.alloc(size, "s");
          return new Promise<void>((resolve) => {
            client.makeUnaryRequest(
              "/test.Echo/Async",
              asIs,
              asIs,
              body,
              { deadline: Date.now() + 60_000 },
              (error, response) => {
                if (error === null && response?.equals(body) === true) counts.calls++;
                else counts.failures++;
                resolve();
              },
            );
          });
        }),
      );
      await sleep(5);
    }
    client.close();
  }
}

async function streamLoop(port: number, running: () => boolean, counts: Counts): Promise<void> {
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  while (running()) {
    await new Promise<void>((resolve) => {
      const call = client.makeBidiStreamRequest<Buffer, Buffer>("/test.Echo/Chat", asIs, asIs);
      let left = 20;
      call.on("data", () => (left-- > 0 ? call.write(Buffer.alloc(70_000)) : call.end()));
      call.on("error", () => undefined);
      call.on("status", () => {
        counts.streams++;
        resolve();
      });
      call.write(Buffer.alloc(10));
      if (counts.streams % 3 === 0) setTimeout(() => call.cancel(), 3);
    });
    await sleep(5);
  }
  client.close();
}

const call = (method: string): Buffer =>
  block([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", `/test.Echo/${method}`],
    ["content-type", "application/grpc"],
  ]);

/** Opens and resets streams until it is thrown out, and comes again. */
async function resetLoop(port: number, running: () => boolean, counts: Counts): Promise<void> {
  while (running()) {
    const socket = connect(port, "127.0.0.1");
    let open = true;
    socket.on("error", () => undefined).on("close", () => (open = false));
    socket.resume();
    socket.write(Buffer.concat([PREFACE, settings(), settingsAck()]));
    for (let id = 1; open && running() && id < 40_000; id += 40) {
      const parts = Array.from({ length: 20 }, (_, index) => [
        headers(id + 2 * index, call("Hang"), END_HEADERS),
        data(id + 2 * index, Buffer.alloc(5), END_STREAM),
        rst(id + 2 * index),
      ]);
      socket.write(Buffer.concat(parts.flat()));
      counts.resets += 20;
      await sleep(2);
    }
    socket.destroy();
  }
}

/** Peers that stop in the middle: some vanish, some stay silent for a while. */
async function vanishLoop(port: number, running: () => boolean, counts: Counts): Promise<void> {
  const phases = [
    [PREFACE.subarray(0, 7)],
    [PREFACE, settings(), headers(1, call("Sum"), 0)],
    [PREFACE, settings(), headers(1, call("Sum"), END_HEADERS), data(1, Buffer.from([0, 0, 32, 0, 0, 9]))],
    [PREFACE, settings(), headers(1, call("Flood"), END_HEADERS), data(1, Buffer.alloc(5))],
    [Buffer.from("GET / HTTP/1.1\r\nHost:")],
  ];
  while (running()) {
    const phase = phases[counts.vanished % phases.length] ?? [];
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write(Buffer.concat(phase));
    const lingerMs = counts.vanished % 50 === 0 ? 5000 : 10;
    setTimeout(() => (counts.vanished % 2 === 0 ? socket.resetAndDestroy() : socket.destroy()), lingerMs);
    counts.vanished++;
    await sleep(20);
  }
}

if (process.argv[2] === "server") await serve();
else await soak(Number(process.argv[2] ?? "10"));
