// Four kinds of HTTP clients in one server at once: Bazel, ccache in two layouts, sccache's WebDAV calls, Gradle's.
//
// "At once" is the point of the first test: each has keys of its own, and none may disturb another.

import { execFileSync } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { localCount } from "../../examples/process-summary.ts";
import { Bazel, everything } from "../support/bazel.ts";
import { runOrThrow, type ChildOutput } from "../support/child-output.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

let server: LedgeServer;

beforeAll(async () => {
  server = await LedgeServer.start();
}, patient.timeout);

afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
}, patient.timeout);

describe("HTTP clients", patient, () => {
  test("Bazel, ccache (layouts bazel and subdirs), WebDAV and Gradle work in one server at once", async () => {
    const clients = [bazelOverHttp(), ccache("bazel"), ccache("subdirs"), webdavLikeSccache(), gradle()];
    await Promise.allSettled(clients); // all clean up before the first failure is reported
    await Promise.all(clients);
    expect((await fetch(`http://${server.address}/status`)).status).toBe(200);
  });

  // Debian 12 builds sccache without it; the calls are made with curl above in any case.
  if (sccacheHasWebdav()) {
    test("sccache finds in ledge what it compiled before its server was stopped", sccache);
  }
});

async function bazelOverHttp(): Promise<void> {
  await using bazel = await Bazel.create();
  const args = [`--remote_cache=http://${server.address}`, everything];
  const cold = await bazel.expectSuccess("build", ...args);
  await bazel.expectSuccess("clean");
  const warm = await bazel.expectSuccess("build", ...args);
  expect(warm.processes.get("remote cache hit")).toBe(localCount(cold.processes));
}

/** Compiles, wipes ccache's own folder, compiles again: the hit can only come from ledge. */
async function ccache(layout: "bazel" | "subdirs"): Promise<void> {
  await using folder = await TemporaryFolder.create("ccache");
  await writeFile(join(folder.path, "a.cc"), `int ${layout}_${randomUUID().replaceAll("-", "_")};\n`);
  const run = async (...args: readonly string[]): Promise<ChildOutput> =>
    runOrThrow("ccache", args, {
      cwd: folder.path,
      env: {
        CCACHE_DIR: join(folder.path, "local"),
        CCACHE_REMOTE_STORAGE: `http://${server.address}/opaque/ccache-${layout}|layout=${layout}`,
      },
    });
  await run("g++", "-c", "a.cc", "-o", "first.o");
  expect(statistics(await run("--print-stats"))).toMatchObject({ cache_miss: 1, remote_storage_hit: 0 });
  await rm(join(folder.path, "local"), { recursive: true });
  await run("g++", "-c", "a.cc", "-o", "second.o");
  const after = statistics(await run("--print-stats"));
  expect(after["remote_storage_hit"]).toBeGreaterThan(0);
  expect(after).toMatchObject({ cache_miss: 0, remote_storage_error: 0, remote_storage_timeout: 0 });
  expect(await readFile(join(folder.path, "second.o"))).toEqual(await readFile(join(folder.path, "first.o")));
}

function statistics(output: ChildOutput): Record<string, number> {
  const lines = output.stdout.trim().split("\n");
  return Object.fromEntries(lines.map((line) => line.split("\t")).map(([name, value]) => [name, Number(value)]));
}

/** What sccache's WebDAV backend does, in its order: the check file, the parents, the object. */
async function webdavLikeSccache(): Promise<void> {
  const endpoint = `http://${server.address}/opaque/sccache`;
  const key = randomBytes(32).toString("hex");
  const parents = [`${key[0]}/`, `${key[0]}/${key[1]}/`, `${key[0]}/${key[1]}/${key[2]}/`];
  const body = randomBytes(100_000);
  await using folder = await TemporaryFolder.create("webdav");
  const bodyFile = join(folder.path, "body");
  await writeFile(bodyFile, body);

  expect(await curlStatus(`${endpoint}/.sccache_check`)).toBe(404);
  expect([200, 201, 204]).toContain(await curlStatus(`${endpoint}/.sccache_check`, "-T", "-", "Hello, World!"));
  expect(await curlStatus(`${endpoint}/.sccache_check`)).toBe(200);
  for (const parent of parents) {
    const propfind = await curl(`${endpoint}/${parent}`, "-X", "PROPFIND", "-H", "Depth: 0");
    expect(propfind.status).toBe(207);
    for (const element of ["multistatus", "response", "href", "propstat", "getlastmodified", "collection"]) {
      expect(propfind.body).toContain(element);
    }
    expect([201, 405]).toContain(await curlStatus(`${endpoint}/${parent}`, "-X", "MKCOL"));
  }
  const object = `${endpoint}/${parents[2]}${key}`;
  expect(await curlStatus(object, "-X", "PROPFIND", "-H", "Depth: 0")).toBe(404);
  expect([200, 201, 204]).toContain(await curlStatus(object, "-T", bodyFile));
  expect(await curlStatus(object, "-X", "PROPFIND", "-H", "Depth: 0")).toBe(207);
  expect(Buffer.from(await (await fetch(object)).arrayBuffer())).toEqual(body);
  const range = await fetch(object, { headers: { Range: "bytes=10-19" } });
  const part = Buffer.from(await range.arrayBuffer());
  expect(part).toEqual(range.status === 206 ? body.subarray(10, 20) : body);
  expect([200, 204]).toContain(await curlStatus(object, "-X", "DELETE"));
  expect(await curlStatus(object)).toBe(404);
}

interface CurlResult {
  readonly status: number;
  readonly body: string;
}

async function curl(url: string, ...args: readonly string[]): Promise<CurlResult> {
  const stdin = args[1] === "-" ? (args[2] ?? "") : "";
  const options = args[1] === "-" ? args.slice(0, 2) : args;
  const output = await runOrThrow("curl", ["-sS", "-w", "\n%{http_code}", ...options, url], { stdin });
  const end = output.stdout.lastIndexOf("\n");
  return { status: Number(output.stdout.slice(end + 1)), body: output.stdout.slice(0, end) };
}

async function curlStatus(url: string, ...args: readonly string[]): Promise<number> {
  return (await curl(url, ...args)).status;
}

/** Gradle's client: a pool of connections, its media type, `Expect: 100-continue`, values that are overwritten. */
async function gradle(): Promise<void> {
  using agent = new GradleAgent();
  const keys = Array.from({ length: 50 }, () => randomBytes(16).toString("hex"));
  await Promise.all(
    keys.map(async (key, i) => {
      const url = `http://${server.address}/opaque/gradle/${key}`;
      expect((await agent.call("GET", url)).status).toBe(404);
      for (const round of [1, 2]) {
        const entry = Buffer.alloc(1000 * (i + 1), `entry ${i} of round ${round} `);
        const stored = await agent.call("PUT", url, entry);
        expect([200, 201, 204]).toContain(stored.status);
        const loaded = await agent.call("GET", url);
        expect(loaded.status).toBe(200);
        expect(loaded.body.equals(entry)).toBe(true);
      }
    }),
  );
}

class GradleAgent {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 8 });

  call(method: "GET" | "PUT", url: string, body?: Buffer): Promise<{ status: number; body: Buffer }> {
    const mediaType = "application/vnd.gradle.build-cache-artifact.v2";
    const headers: Record<string, string | number> =
      body === undefined
        ? { Accept: `${mediaType}, */*` }
        : { "Content-Type": mediaType, "Content-Length": body.length, Expect: "100-continue" };
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: Buffer }>();
    const outgoing = request(url, { method, headers, agent: this.#agent }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }));
      response.on("error", reject);
    });
    outgoing.on("error", reject);
    if (body === undefined) outgoing.end();
    else outgoing.on("continue", () => outgoing.end(body)).flushHeaders();
    return promise;
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}

function sccacheHasWebdav(): boolean {
  return /webdav:\s+true/i.test(execFileSync("sccache", ["--help"], { encoding: "utf8" }));
}

async function sccache(): Promise<void> {
  await using folder = await TemporaryFolder.create("sccache");
  await mkdir(join(folder.path, "local"));
  await writeFile(join(folder.path, "a.cc"), `int sccache_${randomUUID().replaceAll("-", "_")};\n`);
  const env = {
    SCCACHE_WEBDAV_ENDPOINT: `http://${server.address}/opaque/sccache`,
    SCCACHE_WEBDAV_KEY_PREFIX: "real",
    SCCACHE_DIR: join(folder.path, "local"),
    SCCACHE_SERVER_PORT: String(20_000 + (process.pid % 10_000)),
  };
  const run = (...args: readonly string[]): Promise<ChildOutput> =>
    runOrThrow("sccache", args, { cwd: folder.path, env });
  await run("g++", "-c", "a.cc", "-o", "a.o");
  await run("--stop-server");
  await run("g++", "-c", "a.cc", "-o", "a.o");
  const shown = await run("--show-stats");
  await run("--stop-server");
  expect(shown.stdout).toMatch(/Cache hits +1/);
}
