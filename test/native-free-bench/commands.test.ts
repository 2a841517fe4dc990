// The commands as a user meets them: exit codes, messages, reports that are kept, servers that misbehave.

import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { TraceIndex } from "../../native-free-bench/trace/trace-index.ts";
import { startBrokenServer } from "./broken-server/broken-server.ts";
import type { FakeServer } from "./broken-server/fake-grpc.ts";
import { run, type Ended } from "./run-command.ts";

let folder: string;
let server: FakeServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ledge-bench-test-"));
  server = await startBrokenServer();
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

const target = (): string => `grpc://127.0.0.1:${server.port}`;

describe("conformance", () => {
  test("lists its checks without a server, one a line, at least 250 and each once", async () => {
    const { code, stdout } = await run("conformance", "--list");
    expect(code).toBe(0);
    const ids = stdout
      .trimEnd()
      .split("\n")
      .map((line) => line.split(" ")[0]);
    expect(ids.length).toBeGreaterThanOrEqual(250);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("passes and ends with 0 and one line", async () => {
    const { code, stdout } = await run("conformance", "--only", "capabilities", target());
    expect(code).toBe(0);
    expect(stdout.trimEnd().split("\n").at(-1)).toMatch(/^conformance grpc:.*MUST \d+\/\d+.* 0 failed/);
  });

  test("fails with 1, and writes JSON, JUnit and TAP that agree", async () => {
    const broken = await startBrokenServer("find-missing.size-lost");
    const paths = ["json", "junit", "tap"].map((form) => join(folder, `report.${form}`));
    const flags = ["--json", paths[0]!, "--junit", paths[1]!, "--tap", paths[2]!];
    const { code, stdout } = await run(
      "conformance",
      "--quiet",
      "--only",
      "find-missing",
      ...flags,
      `grpc://127.0.0.1:${broken.port}`,
    );
    await broken.close();
    expect(code).toBe(1);
    expect(stdout).toMatch(/FAIL find-missing.echo-size[\s\S]*advice/);
    const [json, junit, tap] = await Promise.all(paths.map(async (path) => await readFile(path, "utf8")));
    const report = JSON.parse(json!) as { counts: { failed: number }; checks: unknown[] };
    expect(report.counts.failed).toBe(1);
    expect(junit).toContain(`tests="${report.checks.length}" failures="1"`);
    expect(tap!.match(/^not ok/gm)).toHaveLength(1);
  });

  test("counts an expected failure as neither", async () => {
    const broken = await startBrokenServer("find-missing.size-lost");
    const { code, stdout } = await run(
      "conformance",
      "--only",
      "find-missing.echo-size",
      "--expect-fail",
      "find-missing.echo-size=known",
      `grpc://127.0.0.1:${broken.port}`,
    );
    await broken.close();
    expect(code).toBe(0);
    expect(stdout).toContain("1 expected");
  });

  test.each([
    [["--only", "no.such.check", "grpc://127.0.0.1:1"], `no check matches "no.such.check"`],
    [["--expect-fail", "read.small=", "grpc://127.0.0.1:1"], "gives no reason"],
    [["--timeout", "soon", "grpc://127.0.0.1:1"], `"soon" is not a duration`],
    [["localhost:8980"], `"localhost:8980" is not "grpc://HOST:PORT"`],
    [[], "expected one target"],
    [["--nonsense"], "--nonsense"],
  ])("refuses %j with 2", async (argv, message) => {
    const { code, stderr } = await run("conformance", ...argv);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});

describe("a server that misbehaves", () => {
  let listener: Server | undefined;
  afterEach(() => listener?.close());

  async function listen(onConnection: (socket: import("node:net").Socket) => void): Promise<string> {
    listener = createServer((socket) => {
      socket.on("error", () => undefined);
      onConnection(socket);
    });
    await new Promise<void>((resolve) => listener!.listen(0, "127.0.0.1", resolve));
    return `127.0.0.1:${(listener.address() as AddressInfo).port}`;
  }

  test("is not there: 3 and a clear message", async () => {
    const { code, stderr } = await run("conformance", "grpc://127.0.0.1:1");
    expect(code).toBe(3);
    expect(stderr).toContain(`Cannot connect to "grpc://127.0.0.1:1": nothing listens there`);
  });

  test("does not speak TLS: 3 and what to try", async () => {
    const address = await listen((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    const { code, stderr } = await run("conformance", `grpcs://${address}`);
    expect(code).toBe(3);
    expect(stderr).toContain("try grpc://");
  });

  test("hangs before HTTP/2 begins: 3, within seconds", async () => {
    const { code, stderr } = await run("conformance", `grpc://${await listen(() => undefined)}`);
    expect(code).toBe(3);
    expect(stderr).toContain("it hangs");
  });

  test("speaks HTTP/1.1: 3", async () => {
    const address = await listen((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    const { code, stderr } = await run("conformance", `grpc://${address}`);
    expect(code).toBe(3);
    expect(stderr).toContain("Cannot talk to");
  });

  test("dies in the middle: 3, and what was found is kept", async () => {
    const dying = await startBrokenServer();
    const path = join(folder, "dying.json");
    const ended = run(
      "conformance",
      "--json",
      path,
      "--only",
      "capabilities,find-missing,write",
      `grpc://127.0.0.1:${dying.port}`,
      { onStdout: (text) => text.includes("find-missing.present") && void dying.close() },
    );
    const { code, stderr } = await ended;
    expect(code === 3 || code === 1).toBe(true);
    expect(stderr).toContain("the target is gone");
    const report = JSON.parse(await readFile(path, "utf8")) as {
      lostTarget: string;
      counts: { passed: number; undecided: number };
    };
    expect(report.lostTarget).toContain("nothing listens there");
    expect(report.counts.passed).toBeGreaterThan(20);
    expect(report.counts.undecided).toBeGreaterThan(10);
  });
});

describe("bench", () => {
  test("measures with several processes and judges rules with 1", async () => {
    const flags = [
      "--scenario",
      "capabilities",
      "--runs",
      "1",
      "--duration",
      "200ms",
      "--warm-up",
      "50ms",
      "--processes",
      "2",
    ];
    const { code, stderr } = await run(
      "bench",
      ...flags,
      "--target",
      `a=${target()}`,
      "--fail-if",
      "a.capabilities.rate < 1000000000",
    );
    expect(stderr).toContain("--fail-if a.capabilities.rate < 1000000000");
    expect(code).toBe(1);
  });

  test.each([
    [["--scenario", "nothing", "--target", "a=grpc://127.0.0.1:1"], `there is no "nothing"`],
    [["--target", "grpc://127.0.0.1:1"], "is not NAME=VALUE"],
    [[], "no --target"],
  ])("refuses %j with 2", async (argv, message) => {
    const { code, stderr } = await run("bench", ...argv);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});

describe("record and replay", () => {
  test("keep digests and sizes, no headers, and play back with the recorded codes", async () => {
    const path = join(folder, "a.trace");
    let judged: Promise<Ended> | undefined;
    const recording = run("record", "--listen", "127.0.0.1:0", "--upstream", target(), "--out", path, {
      onStdout: (text, child) => {
        const port = /grpc:\/\/127\.0\.0\.1:(\d+) and interrupt/.exec(text)?.[1];
        if (port === undefined || judged !== undefined) return;
        judged = run(
          "conformance",
          "--http",
          "none",
          "--only",
          "read.small,find-missing.mixed,metadata.request-metadata,write.duplicate-early",
          `grpc://127.0.0.1:${port}`,
        );
        void judged.then(() => child.kill("SIGINT"));
      },
    });
    expect((await recording).code).toBe(0);
    expect((await judged)?.code).toBe(0);
    const trace = await readFile(path, "utf8");
    expect(trace).toContain("ByteStream/Read");
    expect(trace).not.toContain("requestmetadata");
    const { code, stdout } = await run("replay", "--target", target(), "--speed", "max", path);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\d+ calls in .*, 0 with another status than recorded/);
  });

  test("take HTTP requests on the same port, without prefix, query or headers", async () => {
    const path = join(folder, "http.trace");
    const body = Buffer.from("a blob that came by HTTP");
    const hash = createHash("sha256").update(body).digest("hex");
    const absent = "0".repeat(64);
    let asked: Promise<number[]> | undefined;
    const recording = run("record", "--listen", "127.0.0.1:0", "--upstream", target(), "--out", path, {
      onStdout: (text, child) => {
        const port = /grpc:\/\/127\.0\.0\.1:(\d+) and interrupt/.exec(text)?.[1];
        if (port === undefined || asked !== undefined) return;
        const base = `http://127.0.0.1:${port}/someone`;
        asked = (async () => {
          const put = await fetch(`${base}/cas/${hash}`, { method: "PUT", body, headers: { authorization: "secret" } });
          const got = await fetch(`${base}/cas/${hash}`);
          expect(await got.text()).toBe(body.toString());
          const missed = await fetch(`${base}/ac/${absent}`);
          return [put.status, got.status, missed.status];
        })();
        void asked.finally(() => child.kill("SIGINT"));
      },
    });
    expect((await recording).code).toBe(0);
    expect(await asked).toEqual([200, 200, 404]);
    const lines = (await readFile(path, "utf8")).trimEnd().split("\n").slice(1);
    expect(lines.map((line) => JSON.parse(line) as unknown)).toMatchObject([
      { method: "PUT", path: "/cas", code: 200, sent: [body.length], digests: [{ hash, size: body.length }] },
      { method: "GET", path: "/cas", code: 200, received: body.length, digests: [{ hash, size: body.length }] },
      { method: "GET", path: "/ac", code: 404, digests: [{ hash: absent, size: 0 }] },
    ]);
    expect(lines.join()).not.toMatch(/secret|someone/);
    const { code, stdout } = await run("replay", "--target", target(), "--speed", "max", path);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^3 calls in .*, 0 with another status than recorded, 0 left out/);
  });

  // A trace is in the order in which calls ended.
  test("play calls in the order in which they began", async () => {
    const path = join(folder, "order.trace");
    const [hash, size] = ["ab".repeat(32), 1000];
    const call = (at: number, took: number, path: string) =>
      JSON.stringify({ at, took, connection: 0, path, code: 0, sent: [1], received: 1, digests: [{ hash, size }] });
    // The blob is read after it was written: the write began first and its line is second.
    const lines = [
      call(30, 1, "/google.bytestream.ByteStream/Read"),
      call(10, 50, "/google.bytestream.ByteStream/Write"),
    ];
    await writeFile(path, `{"format":"ledge-trace/1"}\n${lines.join("\n")}\n`);
    const index = await TraceIndex.open(path, () => undefined);
    const order = [...index.calls()].map(({ at }) => at);
    index.close();
    expect(order).toEqual([10, 30]);
  });

  test("refuse a file that is no trace", async () => {
    const { code, stderr } = await run("replay", "--target", target(), join(import.meta.dirname, "commands.test.ts"));
    expect(code).toBe(3);
    expect(stderr).toContain("line 1 is not a JSON object");
  });
});
