// BuildStream 2.8 against dist/ledge: elements are built in root file systems of their own, and found in the cache.
//
// It talks through its own buildbox-casd: CAS, action cache and execution, with the input root as `/`. One server serves
// all cases, and Bazel under another instance name beside them.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, readdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { localCount } from "../../examples/process-summary.ts";
import { Bazel } from "../support/bazel.ts";
import { runOrThrow, runToEnd, type ChildOutput } from "../support/child-output.ts";
import { buildStreamForPython, python } from "../support/fetched-clients.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

const instance = "whole-root";
/** A time that no other process on the machine sleeps. */
const SLEEP_SECONDS = 7_000_000 + process.pid;

let server: LedgeServer;
let folder: TemporaryFolder;

beforeAll(async () => {
  const flags = ["--root-mode", `${instance}=input-root`, "--orphan-grace", "5s"];
  [server, folder] = await Promise.all([LedgeServer.start({ flags }), TemporaryFolder.create("buildstream")]);
  await writeProject(folder.path);
  await writeConfiguration(folder.path, server.address);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

describe("BuildStream", () => {
  test(
    "builds elements that depend on each other, and finds them with an empty cache of its own",
    patient,
    async () => {
      await expectSuccess("build", "app.bst");
      expect(await server.executedActions()).toBe(2);
      await rm(join(folder.path, "cache"), { recursive: true });
      await expectSuccess("build", "app.bst");
      expect(await server.executedActions()).toBe(2);

      await expectSuccess("artifact", "checkout", "app.bst", "--deps", "none", "--directory", "out");
      expect(await readFile(join(folder.path, "out/share/app.txt"), "utf8")).toBe("app with library by Linux\n");
      expect(await readlink(join(folder.path, "out/link"))).toBe("/share/app.txt");
    },
  );

  test("is told what a failing element said, and builds on", patient, async () => {
    const failed = await bst("build", "failing.bst");
    expect(failed.exitCode).not.toBe(0);
    expect(failed.stdout + failed.stderr).toContain("this element cannot be built");
    await expectSuccess("build", "app.bst");
  });

  test("cancelled by SIGTERM it leaves nothing running", patient, async () => {
    const child = spawn(python, bstWords("build", "slow.bst"), {
      cwd: folder.path,
      env: { ...process.env, ...(await bstEnvironment()) },
      stdio: "ignore",
    });
    const exited = once(child, "exit");
    await expect.poll(sleepers, { timeout: 60_000, interval: 200 }).toBeGreaterThan(0);
    child.kill("SIGTERM");
    await exited;
    await expect.poll(sleepers, { timeout: 30_000, interval: 200 }).toBe(0);
    await expect.poll(() => server.metric("ledge_actions_executing"), { timeout: 30_000, interval: 200 }).toBe(0);
  });

  // The instance name decides what an action sees as its root, so both live in one server and never share a result.
  test("builds beside Bazel in one server", patient, async () => {
    const before = await server.executedActions();
    const [bazel] = await Promise.all([buildWithBazel(), expectSuccess("build", "beside.bst")]);
    expect(localCount(bazel.processes)).toBe(0);
    const remote = (bazel.processes.get("remote") ?? 0) + (bazel.processes.get("remote cache hit") ?? 0);
    expect(remote).toBeGreaterThan(0);
    expect(await server.executedActions()).toBe(before + remote + 1);
  });
});

async function buildWithBazel(): ReturnType<Bazel["expectSuccess"]> {
  await using bazel = await Bazel.create();
  return await bazel.expectSuccess(
    "build",
    "--config=ledge",
    `--remote_executor=grpc://${server.address}`,
    "//text/...",
  );
}

/** Processes of the action of slow.bst: the shell has the command in its arguments. */
async function sleepers(): Promise<number> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => ""));
  return (await Promise.all(lines)).filter((line) => line.includes(String(SLEEP_SECONDS))).length;
}

/** A root file system made of one static program, and elements that are built in it. */
async function writeProject(path: string): Promise<void> {
  const bin = join(path, "root/bin");
  await mkdir(bin, { recursive: true });
  await copyFile("/bin/busybox", join(bin, "busybox"));
  for (const name of ["sh", "cat", "cp", "ln", "mkdir", "sleep", "uname"])
    await symlink("/bin/busybox", join(bin, name));
  await mkdir(join(path, "elements"));
  await writeFile(join(path, "project.conf"), "name: ledge-test\nmin-version: 2.0\nelement-path: elements\n");
  const base = ["kind: import", "sources:", "- kind: local", "  path: root", "config:", "  target: /", ""];
  await writeFile(join(path, "elements/base.bst"), base.join("\n"));
  await writeElement(path, "library.bst", {
    dependsOn: ["base.bst"],
    build: [`test -x /bin/busybox`, `echo library > library.txt`],
    install: [`mkdir -p "%{install-root}/share"`, `cp library.txt "%{install-root}/share/"`],
  });
  await writeElement(path, "app.bst", {
    dependsOn: ["base.bst", "library.bst"],
    build: [`echo "app with $(cat /share/library.txt) by $(uname)" > app.txt`],
    install: [
      `mkdir -p "%{install-root}/share"`,
      `cp app.txt "%{install-root}/share/"`,
      `ln -s /share/app.txt "%{install-root}/link"`,
    ],
  });
  const none = `mkdir -p "%{install-root}"`;
  const failure = [`echo this element cannot be built`, `cat /no/such/file`];
  await writeElement(path, "failing.bst", { dependsOn: ["base.bst"], build: failure, install: [none] });
  await writeElement(path, "slow.bst", { dependsOn: ["base.bst"], build: [`sleep ${SLEEP_SECONDS}`], install: [none] });
  await writeElement(path, "beside.bst", { dependsOn: ["base.bst"], build: [`echo beside`], install: [none] });
}

interface Element {
  readonly dependsOn: readonly string[];
  readonly build: readonly string[];
  readonly install: readonly string[];
}

async function writeElement(path: string, name: string, element: Element): Promise<void> {
  const list = (indent: string, items: readonly string[]): string =>
    items.map((item) => `${indent}- ${item}\n`).join("");
  const text =
    `kind: manual\nbuild-depends:\n${list("", element.dependsOn)}config:\n` +
    `  build-commands:\n${list("  ", element.build)}  install-commands:\n${list("  ", element.install)}`;
  await writeFile(join(path, "elements", name), text);
}

async function writeConfiguration(path: string, address: string): Promise<void> {
  const service = (name: string, more = ""): string =>
    `  ${name}: {url: "http://${address}", instance-name: ${instance}${more}}\n`;
  const services = [
    service("execution-service"),
    service("storage-service"),
    service("action-cache-service", ", push: true"),
  ];
  const text = `cachedir: ${join(path, "cache")}\nlogdir: ${join(path, "logs")}\nremote-execution:\n`;
  await writeFile(join(path, "user.conf"), text + services.join(""));
}

async function bst(...args: readonly string[]): Promise<ChildOutput> {
  return runToEnd(python, bstWords(...args), { cwd: folder.path, env: await bstEnvironment() });
}

async function expectSuccess(...args: readonly string[]): Promise<void> {
  await runOrThrow(python, bstWords(...args), { cwd: folder.path, env: await bstEnvironment() });
}

function bstWords(...args: readonly string[]): string[] {
  const configuration = join(folder.path, "user.conf");
  return ["-m", "buildstream", "--no-interactive", "--no-colors", "--config", configuration, ...args];
}

async function bstEnvironment(): Promise<Record<string, string>> {
  return { PYTHONPATH: await buildStreamForPython(), HOME: folder.path, PYTHONDONTWRITEBYTECODE: "1" };
}
