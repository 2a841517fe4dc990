// Real runners for tests: in this process's name, or as an ordinary user in a process of its own.
//
// Tests run as root start the second kind through runner-host.ts under the user `nobody`; tests that are not root have an
// ordinary user already. A source tree that others cannot enter (below /root) is shown to that user at another place.

import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isReachableForOthers } from "../../src/sandbox/reachable-root.ts";
import { startRunner } from "../../src/runner/runner-client.ts";
import type { WantedSandbox } from "../../src/runner/runner-protocol.ts";
import {
  type HostUser,
  type PreparedView,
  type Runner,
  RunnerLostError,
  type RunResult,
  type RunSpec,
} from "../../src/runner/runner.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import type { RunnerFixture } from "./runner-contract.ts";

const ORDINARY_UID = 65_534;

export interface RealRunnerFixture extends RunnerFixture {
  readonly buildRootPath: string;
  readonly asRoot: boolean;
  /** Pid of the process that called startRunner. */
  readonly serverPid: number;
}

export type RunnerUser = "server's user" | "ordinary user";

/** Who makes the sandboxes of tests that must hold for both: our own builder, and bwrap, which it must equal. */
export const SANDBOX_MAKERS = ["own", "bwrap"] as const satisfies readonly WantedSandbox[];

/** The users this test run can have: root has both. */
export const RUNNER_USERS: readonly RunnerUser[] =
  process.getuid?.() === 0 ? ["server's user", "ordinary user"] : ["server's user"];

export async function makeRealRunner(
  options: { readonly user?: RunnerUser; readonly sandbox?: WantedSandbox; readonly nativeCalls?: boolean } = {},
): Promise<RealRunnerFixture> {
  const base = mkdtempSync(join(tmpdir(), "ledge-runner-"));
  chmodSync(base, 0o755);
  const buildRootPath = join(base, "build");
  const sandbox = options.sandbox ?? "own";
  const ordinary = options.user === "ordinary user";
  const hosted = ordinary ? await startHostedRunner(base, buildRootPath, sandbox) : undefined;
  const runner = hosted?.runner ?? (await startOwnRunner(buildRootPath, sandbox, options.nativeCalls ?? true));
  let count = 0;
  return {
    runner,
    buildRootPath,
    asRoot: !ordinary && process.getuid?.() === 0,
    serverPid: hosted?.pid ?? process.pid,
    newSpec(overrides) {
      const id = `run-${count++}`;
      const directory = join(buildRootPath, id);
      const inputRootPath = join(directory, "root");
      mkdirSync(inputRootPath, { recursive: true });
      const owner = runner.ownerOf(overrides.slot ?? 0);
      if (owner !== undefined) chownSync(inputRootPath, owner.uid, owner.gid);
      if (ordinary) for (const path of [directory, inputRootPath]) chownSync(path, ORDINARY_UID, ORDINARY_UID);
      return { ...defaultSpec(id, directory), ...overrides };
    },
    programs: SHELL_PROGRAMS,
    async close() {
      await runner.close();
      rmSync(base, { recursive: true, force: true });
    },
  };
}

export function shell(script: string): string[] {
  return ["sh", "-c", script];
}

const SHELL_PROGRAMS: RunnerFixture["programs"] = {
  exitWith: (exitCode) => shell(`exit ${exitCode}`),
  print: (stdout, stderr) => shell(`printf %s '${stdout}'; printf %s '${stderr}' >&2`),
  printForever: () => ["yes"],
  waitForever: () => shell("echo waiting; exec sleep 1000"),
  writeFile: (name, content) => shell(`printf %s '${content}' > '${name}'`),
  leaveWriterBehind: (name) =>
    shell(
      `(setsid sh -c 'trap "" HUP TERM; while :; do echo x >> ${name}; done' >/dev/null 2>&1 &) ; while ! [ -s ${name} ]; do :; done`,
    ),
};

function defaultSpec(id: string, directory: string): Omit<RunSpec, "arguments"> {
  return {
    id,
    slot: 0,
    inputRootPath: join(directory, "root"),
    rootMode: "host",
    mounts: [],
    environment: [{ name: "PATH", value: "/usr/local/bin:/usr/bin:/bin" }],
    workingDirectory: "",
    stdoutPath: join(directory, "stdout"),
    stderrPath: join(directory, "stderr"),
    network: "none",
    limits: { timeoutMs: 60_000, maxLogBytes: 1 << 20 },
  };
}

async function startOwnRunner(buildRootPath: string, sandbox: WantedSandbox, nativeCalls: boolean): Promise<Runner> {
  const logger = createLogger({ level: "error", format: "text" });
  const started = await startRunner({ sandbox, buildRootPath, slots: 4, nativeCalls, logger });
  if (!started.available) throw new Error(`No sandbox for tests: ${started.reason}; ${started.remedy}`);
  return started.runner;
}

async function startHostedRunner(
  base: string,
  buildRootPath: string,
  sandbox: WantedSandbox,
): Promise<{ runner: Runner; pid: number }> {
  mkdirSync(buildRootPath);
  chownSync(buildRootPath, ORDINARY_UID, ORDINARY_UID);
  const host = new HostedRunner(spawnHost([buildRootPath, sandbox, String(ORDINARY_UID)], base));
  await host.ready();
  return { runner: host, pid: host.pid };
}

function spawnHost(hostArguments: readonly string[], cwd: string): ChildProcess {
  return spawnForAnyUser("test/runner/runner-host.ts", hostArguments, cwd);
}

/** Starts a script of the repository with an IPC channel; it can still be read after the script has changed its user. */
export function spawnForAnyUser(script: string, hostArguments: readonly string[], cwd: string): ChildProcess {
  const repository = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
  const stdio = ["ignore", "inherit", "inherit", "ipc"] as const;
  const env = { PATH: process.env["PATH"] };
  if (isReachableForOthers(join(repository, "package.json")) && isReachableForOthers(process.execPath)) {
    return spawn(process.execPath, [join(repository, script), ...hostArguments], { cwd, env, stdio: [...stdio] });
  }
  const show = 'mount -t tmpfs tests /media && mkdir /media/repository && mount --rbind "$1" /media/repository';
  const node = `/media/repository${process.execPath.slice(repository.length)}`;
  const script2 = `${show} && shift && exec "$@"`;
  const command = ["sh", "-c", script2, "sh", repository, node, `/media/repository/${script}`, ...hostArguments];
  return spawn("unshare", ["--mount", "--propagation", "slave", "--", ...command], { cwd, env, stdio: [...stdio] });
}

type HostMessage =
  | { readonly type: "ready"; readonly owners: readonly (HostUser | undefined)[] }
  | { readonly type: "unavailable"; readonly reason: string }
  | { readonly type: "result"; readonly id: number; readonly result: RunResult }
  | { readonly type: "lost"; readonly id: number; readonly message: string };

class HostedRunner implements Runner {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, (message: HostMessage | undefined) => void>();
  readonly #ready: Promise<HostMessage | undefined>;
  #nextId = 1;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid ?? 0;
    this.#ready = new Promise((resolve) => this.#pending.set(0, resolve));
    child.on("message", (message: HostMessage) => this.#pending.get("id" in message ? message.id : 0)?.(message));
    child.once("exit", () => {
      for (const resolve of this.#pending.values()) resolve(undefined);
    });
  }

  async ready(): Promise<void> {
    const message = await this.#ready;
    if (message?.type !== "ready") throw new Error(`No sandbox for an ordinary user: ${JSON.stringify(message)}`);
  }

  async run(spec: RunSpec, { signal }: { readonly signal: AbortSignal }): Promise<RunResult> {
    const id = this.#nextId++;
    const answer = new Promise<HostMessage | undefined>((resolve) => this.#pending.set(id, resolve));
    const onAbort = () => void this.#child.send({ type: "abort", id });
    // With the request: an abort behind it may find the run begun.
    this.#child.send({ type: "run", id, spec, isAborted: signal.aborted });
    if (!signal.aborted) signal.addEventListener("abort", onAbort, { once: true });
    const message = await answer;
    signal.removeEventListener("abort", onAbort);
    if (message?.type === "result") return message.result;
    throw new RunnerLostError(message?.type === "lost" ? message.message : "the host ended");
  }

  prepare(view: PreparedView): void {
    this.#child.send({ type: "prepare", view });
  }

  ownerOf(_slot: number): HostUser | undefined {
    return undefined;
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.send({ type: "close" });
    await ended;
  }
}
