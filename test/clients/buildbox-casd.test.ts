// buildbox-casd (grpc-c++) twice over: as a caching client in front of dist/ledge, and as a server whose answers to a
// fixed list of questions are compared with ledge's.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runToEnd } from "../support/child-output.ts";
import { buildboxCasdPath } from "../support/fetched-clients.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { runPythonScript } from "../support/python-script.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

let server: LedgeServer;
let folder: TemporaryFolder;

beforeAll(async () => {
  [server, folder] = await Promise.all([LedgeServer.start(), TemporaryFolder.create("casd"), buildboxCasdPath()]);
}, patient.timeout);

afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await folder?.[Symbol.asyncDispose]();
}, patient.timeout);

test("what one casd captures into ledge, another one with an empty cache stages and finds", patient, async () => {
  const source = join(folder.path, "source");
  await mkdir(join(source, "deep/er"), { recursive: true });
  await mkdir(join(source, "empty"));
  await writeFile(join(source, "small.txt"), "small");
  await writeFile(join(source, "deep/er/large.bin"), Buffer.alloc(6_000_000, "large "));
  await writeFile(join(source, "deep/run.sh"), "#!/bin/sh\n", { mode: 0o755 });
  await symlink("deep/run.sh", join(source, "link"));
  const target = join(folder.path, "target");
  await mkdir(target);
  const remotes = ["--cas-remote", "--ac-remote", "--exec-remote"].map((flag) => `${flag}=http://${server.address}`);
  await using first = await Casd.start(join(folder.path, "casd1"), remotes);
  await using second = await Casd.start(join(folder.path, "casd2"), remotes);
  const output = await runPythonScript("casd_client", server.address, first.address, second.address, source, target);
  expect(output.exitCode, `${output.stdout}\n${output.stderr}\n${first.log}\n${second.log}`).toBe(0);
});

// Every answer is the same: status codes, sizes, bytes (as digests), what is missing, what a tree holds.
test("ledge answers as casd does", patient, async () => {
  await using casd = await Casd.start(join(folder.path, "casd3"), []);
  const salt = `salt-${process.hrtime.bigint()}`;
  const [ours, theirs] = await Promise.all([
    runPythonScript("answers", server.address, salt),
    runPythonScript("answers", casd.address, salt),
  ]);
  expect(ours.stderr).toBe("");
  expect(theirs.stderr).toBe("");
  const answers = ours.stdout.trim().split("\n");
  expect(answers.length).toBeGreaterThan(20);
  expect(answers).toEqual(theirs.stdout.trim().split("\n"));
});

class Casd implements AsyncDisposable {
  readonly address: string;
  log = "";
  readonly #child: ChildProcess;

  private constructor(address: string, child: ChildProcess) {
    this.address = address;
    this.#child = child;
    const collect = (chunk: Buffer): void => void (this.log += chunk.toString());
    child.stdout?.on("data", collect);
    child.stderr?.on("data", collect);
  }

  static async start(cacheFolder: string, args: readonly string[]): Promise<Casd> {
    const address = `127.0.0.1:${await freePort()}`;
    const quota = ["--quota-high=2G", "--reserved=1G"];
    const child = spawn(await buildboxCasdPath(), [`--bind=${address}`, ...quota, ...args, cacheFolder]);
    const casd = new Casd(address, child);
    // It writes no port file: it is up when curl gets a connection.
    for (let waitedMs = 0; waitedMs < 10_000; waitedMs += 50) {
      const probe = await runToEnd("curl", ["-s", "--http2-prior-knowledge", `http://${address}/`]);
      if (probe.exitCode !== 7) return casd;
      await sleep(50);
    }
    await casd[Symbol.asyncDispose]();
    throw new Error(`buildbox-casd does not listen: ${casd.log}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#child, "exit");
    if (this.#child.kill("SIGTERM")) await ended;
    // casd leaves files of mode 0444 in folders that are writable: removing the folder needs no chmod.
  }
}

/** A port that is free now: casd has no port 0. */
async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}
