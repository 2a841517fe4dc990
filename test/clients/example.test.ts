// `npm run example`, as a newcomer sees it: with a server that runs already, and without one.

import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { runToEnd, type ChildOutput } from "../support/child-output.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";

const script = join(import.meta.dirname, "../../examples/run.ts");

function runExample(address: string): Promise<ChildOutput> {
  return runToEnd(process.execPath, [script], { env: { LEDGE_EXAMPLE_ADDRESS: address } });
}

function expectReport(output: ChildOutput, origin: string): void {
  expect(output).toMatchObject({ exitCode: 0 });
  expect(output.stderr).toBe("");
  const [server, first, second] = output.stdout.split("\n");
  expect(server).toContain(origin);
  expect(first).toMatch(/^First build: (\d+) actions ran in ledge, 0 came from its cache, 0 ran here/);
  const actions = /First build: (\d+)/.exec(first ?? "")?.[1];
  expect(second).toContain(`: 0 actions ran in ledge, ${actions} came from its cache, 0 ran here`);
}

describe("the example", patient, () => {
  test("builds in the server that is running, and leaves it running", async () => {
    await using server = await LedgeServer.start();
    expectReport(await runExample(server.address), "was running already");
    expect((await fetch(`http://${server.address}/status`)).status).toBe(200);
  });

  test("starts a server from the sources where none is running", async () => {
    // Port 1 (tcpmux): nobody answers there.
    expectReport(await runExample("127.0.0.1:1"), "started for this example");
  });

  test("names the Debian packages when Bazel is missing", async () => {
    // An empty folder in the place of Bazel's, in a mount namespace of its own.
    const namespaces = process.getuid?.() === 0 ? ["--mount"] : ["--user", "--map-root-user", "--mount"];
    const hide = `mount -t tmpfs tmpfs /usr/share/bazel && exec "$@"`;
    const output = await runToEnd("unshare", [...namespaces, "sh", "-c", hide, "sh", process.execPath, script]);
    expect(output.exitCode).toBe(1);
    expect(output.stderr).toContain("apt-get install bazel-skylib bazel-platforms bazel-rules-java bazel-rules-proto");
  });
});
