// dist/ledge on machines that are less comfortable than a developer's: no Node, no HOME, nothing writable, odd users.
//
// Each case starts the server in the condition and gets an answer from it, so LMDB, BLAKE3, worker threads and the runner
// process have loaded there. Conditions are made with mount namespaces and setpriv, which need root (as in CI).

import { execFile, spawn, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
} from "node:fs";
import { rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { Client, credentials } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Capabilities, ServerCapabilities } from "../../src/proto/remote_execution.ts";
import { ledgeCommand } from "../support/ledge-server.ts";

const run = promisify(execFile);
const STRANGER = 12_345;

let program: string;
let programFolder: string;
/** Writable for everybody, so that any user can be the one who starts the server. */
let folder: string;
const children: ChildProcess[] = [];

beforeAll(async () => {
  const [built = ""] = await ledgeCommand();
  // A clone may lie in a home directory that other users cannot enter; the executable has to be reachable for them.
  programFolder = mkdtempSync(join(tmpdir(), "ledge-executable-"));
  program = join(programFolder, "ledge");
  copyFileSync(built, program);
  chmodSync(program, 0o755);
  chmodSync(programFolder, 0o755);
});

afterAll(() => rmSync(programFolder, { recursive: true, force: true }));

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ledge-condition-"));
  chmodSync(folder, 0o777);
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  rmSync(folder, { recursive: true, force: true });
});

interface Condition {
  /** The whole environment. */
  readonly env?: Record<string, string>;
  /** Words before the program. */
  readonly wrapper?: readonly string[];
  readonly flags?: readonly string[];
  readonly program?: string;
}

interface Started {
  readonly child: ChildProcess;
  readonly address: string;
  readonly output: () => string;
}

async function start(condition: Condition): Promise<Started> {
  const portFile = join(folder, `port-${children.length}`);
  const flags = ["--listen", "127.0.0.1:0", "--port-file", portFile, "--max-size", "1GiB", ...(condition.flags ?? [])];
  const [command = "", ...args] = [...(condition.wrapper ?? []), condition.program ?? program, ...flags];
  const cwd = join(folder, `empty-${children.length}`);
  mkdirSync(cwd);
  const child = spawn(command, args, { cwd, env: condition.env ?? {}, stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  // It accepts before it prints where.
  for (let waited = 0; !existsSync(portFile) || !output.includes("stores in"); waited += 20) {
    if (child.exitCode !== null || waited > 20_000) throw new Error(`no server: ${output}`);
    await sleep(20);
  }
  return { child, address: readFileSync(portFile, "utf8").trim(), output: () => output };
}

/** Starts in `condition`, asks for the capabilities, and stops; returns what the server printed. */
async function serveOnce(condition: Condition): Promise<string> {
  const { child, address, output } = await start(condition);
  const capabilities = await getCapabilities(address);
  expect(capabilities.cacheCapabilities?.digestFunctions.length).toBeGreaterThan(0);
  child.kill("SIGTERM");
  const [code] = (await once(child, "close")) as [number | null]; // behind the last of its output
  expect({ code, output: output() }).toMatchObject({ code: 0 });
  return output();
}

function getCapabilities(address: string): Promise<ServerCapabilities> {
  const client = new Client(address, credentials.createInsecure());
  const { path } = Capabilities.methods.GetCapabilities;
  const identity = (bytes: Buffer): Buffer => bytes;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, identity, identity, Buffer.alloc(0), (error, answer) => {
      client.close();
      if (error === null && answer !== undefined) resolve(ServerCapabilities.decode(answer));
      else reject(error ?? new Error("no answer"));
    });
  });
}

/** Runs the program in a mount namespace where `script` has been run before. */
function afterMounting(script: string): [string, ...string[]] {
  return ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", `set -e; ${script}; exec "$@"`, "sh"];
}

const asStranger = ["/usr/bin/setpriv", `--reuid=${STRANGER}`, `--regid=${STRANGER}`, "--clear-groups"];

describe("dist/ledge", () => {
  test("--version names version, commit and Node", async () => {
    const { stdout } = await run(program, ["--version"], { env: {} });
    expect(stdout).toMatch(/^ledge \d+\.\d+\.\d+ \(commit [0-9a-f]{12}(-dirty)?, Node v26\.\d+\.\d+\)\n$/);
  });

  test("serves in an empty folder without Node, PATH or HOME", async () => {
    const output = await serveOnce({ env: { TMPDIR: folder }, flags: ["--data-dir", join(folder, "data")] });
    expect(output).toContain("executes    ");
  });

  // Node needs libatomic, which a minimal Debian does not have.
  test("serves where there is no libatomic", async () => {
    const { stdout } = await run("/sbin/ldconfig", ["-p"]);
    const libraries = [...stdout.matchAll(/libatomic\.so\.1 .*=> (.*)/g)].map(([, path]) => path);
    expect(libraries.length).toBeGreaterThan(0);
    const wrapper = afterMounting(libraries.map((path) => `mount --bind /dev/null ${path}`).join("; "));
    const env = { HOME: folder, PATH: "/usr/bin:/bin" };
    await expect(run(process.execPath, ["--version"], { env })).resolves.toMatchObject({
      stdout: process.version + "\n",
    });
    const [command, ...args] = wrapper;
    await expect(run(command, [...args, process.execPath, "--version"], { env })).rejects.toThrow(/libatomic/);
    expect(await serveOnce({ wrapper, env })).toContain("executes    ");
  });

  // CI images set NODE_OPTIONS for their own Node: a loader that does not exist here, or a flag that we must not obey.
  test("is not impressed by NODE_OPTIONS", async () => {
    const env = { NODE_OPTIONS: "--require /nonexistent.js --max-old-space-size=1", HOME: folder };
    expect(await serveOnce({ env })).toContain(`stores in   ${folder}/.cache/ledge`);
  });

  // Each version extracts to a folder of its own. Here the running server's is as old as the other one.
  test("a start removes what old versions extracted, but not what a running server uses", async () => {
    const env = { HOME: folder };
    const runtime = join(folder, ".cache", "ledge-runtime");
    const flags = (name: string): string[] => ["--data-dir", join(folder, name)];
    const running = await start({ env, flags: flags("first") });
    const [used = ""] = readdirSync(runtime);
    const stale = "0123456789abcdef0123456789abcdef";
    // As another version would have it: the running server's files, under a name that the next start does not know.
    const renamed = "f".repeat(32);
    renameSync(join(runtime, used), join(runtime, renamed));
    for (const name of [stale, renamed]) {
      mkdirSync(join(runtime, name), { recursive: true });
      utimesSync(join(runtime, name), 1_000_000_000, 1_000_000_000);
    }
    await serveOnce({ env, flags: flags("second") });
    expect(readdirSync(runtime).toSorted()).toEqual([used, renamed].toSorted());
    running.child.kill("SIGKILL");
    await once(running.child, "exit");
    utimesSync(join(runtime, renamed), 1_000_000_000, 1_000_000_000);
    await serveOnce({ env, flags: flags("third") });
    expect(readdirSync(runtime)).toEqual([used]);
  });

  // Worker threads start when they are needed, which may be long after somebody emptied the cache folder.
  test("goes on when the folder it extracted to is removed", async () => {
    const env = { HOME: folder };
    const { address, child } = await start({ env });
    rmSync(join(folder, ".cache", "ledge-runtime"), { recursive: true });
    const data = randomBytes(3_000_000);
    const hash = createHash("sha256").update(data).digest("hex");
    const url = `http://${address}/cas/${hash}`;
    expect((await fetch(url, { method: "PUT", body: data })).status).toBe(200);
    const answer = await fetch(url, { headers: { "Accept-Encoding": "zstd" } });
    expect(answer.headers.get("content-encoding")).toBe("zstd");
    expect(Buffer.from(await answer.arrayBuffer()).equals(data)).toBe(true);
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([0, null]);
  });

  test("serves from a read-only location", async () => {
    const place = join(folder, "read-only");
    mkdirSync(place);
    const wrapper = afterMounting(`mount --bind -o ro ${programFolder} ${place}; mount -o remount,ro,bind ${place}`);
    await serveOnce({ wrapper, program: join(place, "ledge"), env: { HOME: folder, PATH: "/usr/bin:/bin" } });
  });

  test("serves as a user without an entry in the password file", async () => {
    const output = await serveOnce({ wrapper: asStranger, env: { TMPDIR: folder } });
    expect(output).toContain(`stores in   ${folder}/ledge-${STRANGER}`);
    expect(output).toContain("the data directory is");
  });

  test("executes for an ordinary user as it does for root", async () => {
    const env = { HOME: folder, PATH: "/usr/bin:/bin" };
    expect(await serveOnce({ wrapper: asStranger, env })).toMatch(/executes {4}\d+ actions? at once/);
  });

  test("stores elsewhere when HOME is read-only, and says so", async () => {
    const home = join(folder, "home");
    mkdirSync(home);
    const wrapper = afterMounting(`mount -t tmpfs -o ro none ${home}`);
    const output = await serveOnce({ wrapper, env: { HOME: home, TMPDIR: folder, PATH: "/usr/bin:/bin" } });
    expect(output).toContain(`stores in   ${folder}/ledge-0`);
  });

  // The libraries cannot be opened from there, so they go to the next place; blobs may lie on a noexec file system.
  test("serves when HOME is mounted noexec", async () => {
    const home = join(folder, "home");
    mkdirSync(home);
    const wrapper = afterMounting(`mount -t tmpfs -o noexec none ${home}`);
    const output = await serveOnce({ wrapper, env: { HOME: home, TMPDIR: folder, PATH: "/usr/bin:/bin" } });
    expect(output).toContain(`stores in   ${home}/.cache/ledge`);
    expect(readdirSync(join(folder, "ledge-runtime-0"))).toHaveLength(1);
  });

  test("names every place it tried when the libraries cannot be opened from any", async () => {
    const env = { HOME: folder, TMPDIR: folder, PATH: "/usr/bin:/bin" };
    const [command, ...args] = afterMounting(`mount -t tmpfs -o noexec none ${folder}`);
    const flags = ["--listen", "127.0.0.1:0", "--data-dir", `${folder}/data`];
    const failure = run(command, [...args, program, ...flags], { env });
    await expect(failure).rejects.toMatchObject({ code: 1 });
    const { stderr } = await failure.catch((error: unknown) => error as { stderr: string });
    for (const place of [`${folder}/.cache/ledge-runtime`, `${folder}/data/runtime`, `${folder}/ledge-runtime-0`]) {
      expect(stderr).toContain(place);
    }
    expect(stderr).toContain("noexec");
  });

  // A library that does not load says nothing about the index.
  test("leaves a stopped server's index alone when the libraries cannot be opened", async () => {
    const dataDir = join(folder, "data");
    await serveOnce({ env: { HOME: folder, TMPDIR: folder }, flags: ["--data-dir", dataDir] });
    const before = readFileSync(join(dataDir, "index.mdb"));
    const noexec = join(folder, "noexec");
    mkdirSync(noexec);
    const script = `mount -t tmpfs -o noexec none ${noexec}; mount --bind ${dataDir} ${dataDir}; mount -o remount,bind,noexec ${dataDir}`;
    const [command, ...args] = afterMounting(script);
    const flags = ["--listen", "127.0.0.1:0", "--data-dir", dataDir];
    const env = { HOME: noexec, TMPDIR: noexec, PATH: "/usr/bin:/bin" };
    await expect(run(command, [...args, program, ...flags], { env })).rejects.toMatchObject({ code: 1 });
    expect(existsSync(join(dataDir, "quarantine"))).toBe(false);
    expect(readFileSync(join(dataDir, "index.mdb")).equals(before)).toBe(true);
  });

  test("stores in the home of the password file when HOME is empty", async () => {
    const passwd = join(folder, "passwd");
    writeFileSync(passwd, `stranger:x:${STRANGER}:${STRANGER}::${folder}/stranger:/bin/sh\n`);
    mkdirSync(join(folder, "stranger"), { mode: 0o777 });
    chmodSync(join(folder, "stranger"), 0o777);
    const wrapper = [...afterMounting(`mount --bind ${passwd} /etc/passwd`), ...asStranger];
    const output = await serveOnce({ wrapper, env: { HOME: "", TMPDIR: folder, PATH: "/usr/bin:/bin" } });
    expect(output).toContain(`stores in   ${folder}/stranger/.cache/ledge`);
  });

  test("extracts its libraries once though eight start at the same time", async () => {
    const env = { HOME: folder, TMPDIR: folder };
    const starts = Array.from({ length: 8 }, (_, index) =>
      start({ env, flags: ["--data-dir", join(folder, `${index}`)] }),
    );
    await Promise.all((await Promise.all(starts)).map(async ({ address }) => getCapabilities(address)));
    const [contentHash = "", ...others] = readdirSync(join(folder, ".cache/ledge-runtime"));
    expect(others).toEqual([]);
    const extracted = readdirSync(join(folder, ".cache/ledge-runtime", contentHash));
    expect(extracted.filter((name) => name.endsWith(".tmp"))).toEqual([]);
    expect(statSync(join(folder, ".cache/ledge-runtime")).mode & 0o777).toBe(0o700);
  }, 60_000);

  test("replaces a library that an unclean stop truncated", async () => {
    const env = { HOME: folder, TMPDIR: folder };
    await serveOnce({ env });
    const runtime = join(folder, ".cache/ledge-runtime");
    const library = join(runtime, readdirSync(runtime)[0] ?? "", "node.napi.glibc.node");
    writeFileSync(library, "cut off");
    await serveOnce({ env });
    expect(statSync(library).size).toBeGreaterThan(100_000);
  });

  // Whoever can write there chooses what we execute.
  test("does not load libraries from a folder that others can write to", async () => {
    mkdirSync(join(folder, ".cache/ledge-runtime"), { recursive: true });
    chmodSync(join(folder, ".cache/ledge-runtime"), 0o777);
    await serveOnce({ env: { HOME: folder, TMPDIR: join(folder), PATH: "/usr/bin:/bin" } });
    expect(readdirSync(join(folder, ".cache/ledge-runtime"))).toEqual([]);
  });

  test("sizes libuv's thread pool before anything uses it", async () => {
    const { child, address } = await start({ env: { HOME: folder } });
    await getCapabilities(address);
    // A thread of another kind may end while it is looked at.
    const nameOf = (task: string): Promise<string> =>
      readFile(`/proc/${child.pid}/task/${task}/comm`, "utf8").catch(() => "");
    const names = await Promise.all(readdirSync(`/proc/${child.pid}/task`).map(nameOf));
    expect(names.filter((name) => name.startsWith("libuv-worker"))).toHaveLength(16);
  });
});
