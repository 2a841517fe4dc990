// What `ledge bench` says, keeps and ends with when a target or its user does not let it finish.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { BenchReport } from "../../native-free-bench/load/report.ts";
import { startNullServerProcess } from "../../native-free-bench/load/null-server-process.ts";
import { startBrokenServer } from "./broken-server/broken-server.ts";
import type { FakeServer } from "./broken-server/fake-grpc.ts";
import { run } from "./run-command.ts";

let folder: string;
let server: FakeServer;
let listener: Server | undefined;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ledge-bench-test-"));
  server = await startBrokenServer();
});
afterEach(() => listener?.close());
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

const target = (): string => `grpc://127.0.0.1:${server.port}`;
const SHORT = ["--runs", "1", "--duration", "200ms", "--warm-up", "50ms"];

describe("a target of bench", () => {
  test("is one of two targets of bench: 3, and the other is measured", async () => {
    const path = join(folder, "bench.json");
    const flags = [
      "--scenario",
      "capabilities",
      "--runs",
      "1",
      "--duration",
      "200ms",
      "--warm-up",
      "50ms",
      "--json",
      path,
    ];
    const { code, stdout } = await run(
      "bench",
      ...flags,
      "--target",
      `good=${target()}`,
      "--target",
      "gone=grpc://127.0.0.1:1",
    );
    expect(code).toBe(3);
    expect(stdout).toMatch(/good +[\d.]+ k? ?calls\/s/);
    expect(stdout).toContain("nothing listens there");
    expect(JSON.parse(await readFile(path, "utf8"))).toMatchObject({ format: "ledge-bench/1" });
  });

  test.each([
    ["hangs", () => undefined, "it hangs, or speaks another protocol"],
    ["speaks HTTP/1.1", (socket: Socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"), "HTTP/1.1, not HTTP/2"],
    ["speaks TLS", (socket: Socket) => socket.end(Buffer.of(0x15, 3, 1, 0, 2, 2, 70, 0, 0)), "try grpcs://"],
    ["says nonsense", (socket: Socket) => socket.end("220 mail.example ESMTP"), "is not HTTP/2"],
    ["hangs up", (socket: Socket) => socket.destroy(), "closed the connection|the connection broke"],
  ])("%s: 3, and says so within seconds", async (_, onConnection, message) => {
    listener = createServer((socket) => {
      socket.on("error", () => undefined);
      onConnection(socket);
    });
    await new Promise<void>((resolve) => listener!.listen(0, "127.0.0.1", resolve));
    const address = `127.0.0.1:${(listener.address() as AddressInfo).port}`;
    const { code, stdout } = await run(
      "bench",
      ...SHORT,
      "--scenario",
      "capabilities",
      "--target",
      `a=grpc://${address}`,
    );
    expect(stdout).toMatch(new RegExp(`not \\(fully\\) measured: .*(${message})`));
    expect(code).toBe(3);
  });

  // It answers OK and sends no bytes: as fast as no server that reads its disk.
  test("lies about what it sends: nothing counts as read", async () => {
    const lying = await startNullServerProcess();
    const flags = [...SHORT, "--scenario", "read-1k", "--target", `a=grpc://127.0.0.1:${lying.port}`];
    const { code, stdout } = await run("bench", ...flags);
    lying.close();
    expect(stdout).toMatch(/no call succeeded \(\d+ × short: .*answered OK with 5 bytes, expected 1024/);
    expect(code).toBe(3);
  });

  test("dies in the middle: 3, and what was measured before is kept", async () => {
    const dying = await startBrokenServer();
    const path = join(folder, "dying.json");
    const flags = [...SHORT, "--scenario", "capabilities,fmb-small", "--working-set", "100", "--json", path];
    const { code, stdout } = await run("bench", ...flags, "--target", `a=grpc://127.0.0.1:${dying.port}`, {
      onStdout: (text) => /capabilities:.*\n +a +[\d.]+/.test(text) && void dying.close(),
    });
    expect(code).toBe(3);
    expect(stdout).toMatch(/fmb-small[\s\S]*not \(fully\) measured: /);
    const report = JSON.parse(await readFile(path, "utf8")) as BenchReport;
    expect(report.scenarios[0]!.targets[0]!.runs[0]!.calls).toBeGreaterThan(0);
    expect(report.scenarios[1]!.targets[0]!.problem).toBeDefined();
  });
});

describe("an interrupt of bench", () => {
  test.each(["SIGINT", "SIGTERM"] as const)("%s: 130, and what was measured is kept", async (signal) => {
    const [json, html] = [join(folder, `${signal}.json`), join(folder, `${signal}.html`)];
    const flags = ["--runs", "1000", "--duration", "200ms", "--warm-up", "10ms", "--json", json, "--html", html];
    const started = performance.now();
    let sent = false;
    const { code, stderr } = await run("bench", ...flags, "--scenario", "capabilities", "--target", `a=${target()}`, {
      onStdout: (text, child) => {
        if (sent || !text.includes("Ceiling")) return;
        sent = true;
        // Several runs are over by then.
        setTimeout(() => child.kill(signal), 1500);
      },
    });
    expect(code).toBe(130);
    expect(stderr).toContain("interrupted; the reports have what was measured");
    expect(performance.now() - started).toBeLessThan(60_000);
    const [row] = (JSON.parse(await readFile(json, "utf8")) as BenchReport).scenarios[0]!.targets;
    expect(row!.problem).toBe("interrupted");
    expect(row!.runs.length).toBeGreaterThan(0);
    expect(await readFile(html, "utf8")).toContain("uPlot");
  });
});
