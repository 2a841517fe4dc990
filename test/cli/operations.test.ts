// ledge operations: what a server executes and what waits, asked over a real connection.

import { afterEach, expect, test } from "vitest";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { createServerTransport } from "../../src/grpc/transport.ts";
import { createOperationsService } from "../../src/services/operations.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { SchedulerFixture } from "../scheduler/scheduler-fixture.ts";
import { runToEnd } from "../support/child-output.ts";
import { ledgeCommand } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function listed(...args: readonly string[]) {
  const [program = "", ...first] = await ledgeCommand();
  return runToEnd(program, [...first, "operations", ...args]);
}

async function serve({ scheduler, clock, metrics }: SchedulerFixture): Promise<string> {
  const services = [createOperationsService({ scheduler, blobs: new MemoryBlobStore(), clock })];
  const transport = createServerTransport({
    services,
    http1: (_request, response) => response.end(),
    defaultMaxRequestBytes: 64 * 1024,
    logger: silentLogger,
    metrics,
  });
  closing.push(() => transport.close({ signal: AbortSignal.abort() }));
  const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
  if (address.kind !== "tcp") throw new Error("not a TCP address");
  return `127.0.0.1:${address.port}`;
}

test("lists what executes, and what waits with how many are ahead", patient, async () => {
  const fixture = new SchedulerFixture({ slots: 1 });
  const names: string[] = [];
  for (const name of ["a", "b", "c"]) names.push((await fixture.submit(name)).name);
  const { exitCode, stdout, stderr } = await listed("--target", `grpc://${await serve(fixture)}`);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  const rows = stdout.trimEnd().split("\n").slice(1);
  expect(rows.map((row) => row.split(/\s+/).slice(0, 2))).toEqual([
    ["executing", "-"],
    ["queued", "0"],
    ["queued", "1"],
  ]);
  expect(rows.map((row) => row.split(/\s+/).at(-1))).toEqual(names);
  for (const row of rows) expect(row).toMatch(/ \d+\.\ds {2}[0-9a-f]{64}\/\d+ /);
});

test("lists the operations of one instance", patient, async () => {
  const fixture = new SchedulerFixture();
  await fixture.submit("a");
  const { exitCode, stdout } = await listed("--target", `grpc://${await serve(fixture)}`, "--instance", "other");
  expect(exitCode).toBe(0);
  expect(stdout).toMatch(/^STAGE.*\n$/);
});

test("says which server does not answer", patient, async () => {
  const { exitCode, stderr } = await listed("--target", "grpc://127.0.0.1:1");
  expect(exitCode).toBe(1);
  expect(stderr).toContain("127.0.0.1:1");
  expect(await listed("--target", "localhost")).toMatchObject({ exitCode: 2 });
});
