// A real executor for one list of cases: shell scripts as actions, and what must be true after each of them.

import { createHash } from "node:crypto";
import { lstatSync, readFileSync, readdirSync } from "node:fs";
import type { Digest } from "../../src/digest/digest.ts";
import type { ActionInit, CommandInit } from "../../src/proto/remote_execution.ts";
import type { ActionExecutorOptions } from "../../src/worker/action-executor.ts";
import type { TreeSpec } from "./action-builder.ts";
import { ExecutorFixture, type ReadOutcome } from "./executor-fixture.ts";

export interface ScriptOptions {
  readonly inputs?: TreeSpec | Digest | Promise<Digest>;
  readonly outputs?: readonly string[];
  readonly command?: CommandInit;
  readonly action?: ActionInit;
  readonly instanceName?: string;
  readonly slot?: number;
  readonly signal?: AbortSignal;
}

export interface ScriptOutcome extends ReadOutcome {
  readonly stdout: string;
  readonly stderr: string;
}

export class SandboxWorld implements AsyncDisposable {
  readonly fixture: ExecutorFixture;
  #salt = 0;

  private constructor(fixture: ExecutorFixture) {
    this.fixture = fixture;
  }

  /** The input root of instance "bst" is the root file system. */
  static async create(executor: Partial<ActionExecutorOptions> = {}): Promise<SandboxWorld> {
    const rootModeOf = (name: string) => (name === "bst" ? "input-root" : "host");
    return new SandboxWorld(
      await ExecutorFixture.create({ isReal: true, slots: 2, executor: { rootModeOf, ...executor } }),
    );
  }

  /** Actions have a user of their own; otherwise they have the server's. */
  get hasOwnUsers(): boolean {
    return this.fixture.runner.ownerOf(0) !== undefined;
  }

  /** Runs a shell script as an action that nobody ran before. */
  async script(script: string, options: ScriptOptions = {}): Promise<ScriptOutcome> {
    return this.command(["/bin/sh", "-c", script], options);
  }

  async command(args: readonly string[], options: ScriptOptions = {}): Promise<ScriptOutcome> {
    const { build } = this.fixture;
    const job = await build.job({
      command: { arguments: args, outputPaths: options.outputs, ...options.command },
      inputs: (await options.inputs) ?? {},
      action: { salt: Buffer.from(String(this.#salt++)), ...options.action },
      ...(options.instanceName === undefined ? {} : { instanceName: options.instanceName }),
    });
    const outcome = await this.fixture.run(job, options);
    const read = async (wire: { hash: string; sizeBytes: number } | undefined) =>
      wire === undefined ? "" : this.fixture.text(wire);
    const stdout = await read(outcome.result?.stdoutDigest);
    return { ...outcome, stdout, stderr: await read(outcome.result?.stderrDigest) };
  }

  /** Every file that input roots may link to still has the bytes and the mode it was made with. */
  assertFilesIntact(): void {
    const { execPath } = this.fixture;
    for (const path of listFiles(`${execPath}/files`)) {
      const hash = path.slice(path.lastIndexOf("/") + 1).split("-")[0]!;
      assertIntact(path, hash);
    }
    for (const path of listFiles(`${execPath}/../files/sha256`))
      assertIntact(path, path.slice(path.lastIndexOf("/") + 1));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.fixture[Symbol.asyncDispose]();
  }
}

function assertIntact(path: string, hash: string): void {
  const actual = createHash("sha256").update(readFileSync(path)).digest("hex");
  if (actual !== hash) throw new Error(`${path} was altered: its hash is ${actual}`);
  const stats = lstatSync(path);
  if ((stats.mode & 0o222) !== 0) throw new Error(`${path} was made writable: ${(stats.mode & 0o7777).toString(8)}`);
  if (stats.uid !== process.getuid?.()) throw new Error(`${path} belongs to ${stats.uid}`);
}

function listFiles(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath}/${entry.name}`);
}
