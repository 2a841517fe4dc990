// Whether a server executes is decided by running a real sandbox: what --sandbox makes of one that does not work.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { runToEnd } from "../support/child-output.ts";
import { ledgeCommand, LedgeServer } from "../support/ledge-server.ts";
import { RemoteClient } from "./remote-client.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ledge-sandbox-"));
  chmodSync(folder, 0o755);
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function until(condition: () => boolean): Promise<void> {
  for (let waitedMs = 0; !condition(); waitedMs += 20) {
    if (waitedMs > 30_000) throw new Error("it did not happen within 30 s");
    await sleep(20);
  }
}

/** A bwrap that is installed and fails as bubblewrap does where user namespaces are forbidden. */
function failingBwrap(): string {
  const path = join(folder, "bwrap");
  const words = "bwrap: No permissions to create new namespace, likely because the kernel does not allow it";
  const version = '[ "$1" = --version ] && echo "bubblewrap 0.8.0" && exit 0';
  writeFileSync(path, `#!/bin/sh\n${version}\necho "${words}" >&2\nexit 1\n`, { mode: 0o755 });
  return path;
}

const SITUATIONS = [
  { situation: "bubblewrap is not installed", bwrap: () => join(folder, "absent"), remedy: "install bubblewrap" },
  { situation: "user namespaces are forbidden", bwrap: failingBwrap, remedy: "kernel.unprivileged_userns_clone" },
];

describe.each(SITUATIONS)("where $situation", ({ bwrap, remedy }) => {
  test("--sandbox=auto serves as a cache, and tells operator and clients why", async () => {
    await using server = await LedgeServer.start({ flags: ["--bwrap-path", bwrap()] });
    expect(server.log).toContain(remedy);
    using client = new RemoteClient(server.address);
    const capabilities = await client.capabilities();
    expect(capabilities.cacheCapabilities).toBeDefined();
    expect(capabilities.executionCapabilities).toBeUndefined();
    const execute = client.execute(await client.uploadAction("true"));
    await expect(execute).rejects.toMatchObject({
      code: status.FAILED_PRECONDITION,
      details: expect.stringContaining(remedy) as string,
    });
  });

  test("--sandbox=require refuses to start, with the remedy", async () => {
    const [program = "", ...args] = await ledgeCommand();
    const flags = ["--listen", "127.0.0.1:0", "--data-dir", join(folder, "data"), "--bwrap-path", bwrap()];
    const { exitCode, stderr } = await runToEnd(program, [...args, ...flags, "--sandbox", "require"]);
    expect(exitCode).toBe(1);
    expect(stderr).toContain("--sandbox=require");
    expect(stderr).toContain(remedy);
  });
});

describe("--sandbox=none", () => {
  test("runs actions and warns loudly", async () => {
    await using server = await LedgeServer.start({
      flags: ["--sandbox", "none", "--bwrap-path", join(folder, "absent")],
    });
    expect(server.log).toMatch(/warn .*--sandbox=none/);
    await until(() => server.log.includes("WITHOUT any isolation")); // the banner comes after the port file
    using client = new RemoteClient(server.address);
    expect((await client.capabilities()).executionCapabilities?.execEnabled).toBe(true);
    const { result } = await client.execute(await client.uploadAction("echo out"));
    expect(Buffer.from(result?.stdoutRaw ?? []).toString()).toBe("out\n");
  });
});

describe("--slots 0", () => {
  test("serves as a cache and says that this was wanted", async () => {
    await using server = await LedgeServer.start({ flags: ["--slots", "0"] });
    using client = new RemoteClient(server.address);
    expect((await client.capabilities()).executionCapabilities).toBeUndefined();
    const execute = client.execute(await client.uploadAction("true"));
    await expect(execute).rejects.toMatchObject({
      code: status.FAILED_PRECONDITION,
      details: expect.stringContaining("--slots 0") as string,
    });
  });
});
