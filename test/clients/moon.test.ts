// moon's remote cache: a client of another family (Rust, tonic) that sends many small messages and whole blobs in zstd.

import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { runOrThrow, runToEnd } from "../support/child-output.ts";
import { moonPath } from "../support/fetched-clients.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

/** What a task makes: numbers that compress, and 9 MB that do not, which is more than a thousand messages of moon's. */
const SCRIPT = `mkdir -p out/sub
seq 100000 > out/numbers.txt
head -c 9000000 /dev/urandom > out/random.bin
echo tool > out/sub/tool
chmod +x out/sub/tool
echo built
`;

const OUTPUTS = ["numbers.txt", "random.bin", "sub/tool"];

interface Workspace {
  readonly path: string;
  readonly app: string;
}

async function makeWorkspace(folder: string, server: LedgeServer, compression: string): Promise<Workspace> {
  const path = join(folder, `workspace-${compression}`);
  const app = join(path, "app");
  await mkdir(join(path, ".moon"), { recursive: true });
  await mkdir(app);
  const remote = [
    `  host: "grpc://${server.address}"`,
    "  cache:",
    `    compression: "${compression}"`,
    `    instanceName: "${compression}"`,
  ];
  const vcs = ["vcs:", '  defaultBranch: "main"'];
  const workspace = ["projects: [app]", "telemetry: false", ...vcs, "remote:", ...remote, ""];
  await writeFile(join(path, ".moon/workspace.yml"), workspace.join("\n"));
  const build = ['    command: "sh make.sh"', '    inputs: ["make.sh"]', '    outputs: ["out"]'];
  await writeFile(join(app, "moon.yml"), ["tasks:", "  build:", ...build, '    toolchains: ["system"]', ""].join("\n"));
  await writeFile(join(app, "make.sh"), SCRIPT);
  // Without version control moon caches nothing.
  const git = (...words: string[]) =>
    runOrThrow("git", ["-C", path, "-c", "user.name=a", "-c", "user.email=a@b", ...words]);
  await writeFile(join(path, ".gitignore"), ".moon/cache\nout\n");
  await git("init", "--quiet", "--initial-branch=main");
  await git("add", ".");
  await git("commit", "--quiet", "--message=first");
  return { path, app };
}

/** Runs the task with nothing kept from before; returns what moon printed. */
async function runTask({ path, app }: Workspace, home: string): Promise<string> {
  await rm(join(path, ".moon/cache"), { recursive: true, force: true });
  await rm(join(app, "out"), { recursive: true, force: true });
  const env = { MOON_HOME: home, HOME: home, MOON_OUTPUT_STYLE: "stream" };
  const { stdout, stderr, exitCode } = await runToEnd(await moonPath(), ["run", "app:build", "--log", "warn"], {
    cwd: path,
    env,
    timeoutMs: 120_000,
  });
  expect(exitCode, `${stdout}\n${stderr}`).toBe(0);
  return `${stdout}\n${stderr}`;
}

async function hashesOf({ app }: Workspace): Promise<string[]> {
  const contents = await Promise.all(OUTPUTS.map((name) => readFile(join(app, "out", name))));
  return contents.map((bytes) => createHash("sha256").update(bytes).digest("hex"));
}

describe("moon", patient, () => {
  test.each(["none", "zstd"])("takes a task's outputs from the cache, compression %s", async (compression) => {
    await using folder = await TemporaryFolder.create("moon");
    await using server = await LedgeServer.start();
    const home = join(folder.path, "home");
    const workspace = await makeWorkspace(folder.path, server, compression);
    const cold = await runTask(workspace, home);
    expect(cold).toContain("built");
    expect(cold).not.toMatch(/WARN|Failed/);
    const made = await hashesOf(workspace);
    const cached = await runTask(workspace, home);
    expect(cached).toContain("cached from remote");
    expect(cached).not.toMatch(/WARN|Failed/);
    expect(await hashesOf(workspace)).toEqual(made);
    await server.kill();
    await server.restart();
    expect(await runTask(workspace, home)).toContain("cached from remote");
    expect(await hashesOf(workspace)).toEqual(made);
  });
});
