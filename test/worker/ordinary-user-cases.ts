// Runs the hostile cases in a process of the user `nobody`: the parent's side of ordinary-user-host.ts.

import { once } from "node:events";
import type { ChildProcess } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnForAnyUser } from "../runner/real-runner.ts";

export interface CaseResult {
  readonly name: string;
  readonly error: string | undefined;
}

export class OrdinaryUserCases {
  readonly #child: ChildProcess;
  readonly #folder: string;

  private constructor(child: ChildProcess, folder: string) {
    this.#child = child;
    this.#folder = folder;
  }

  static async start(): Promise<OrdinaryUserCases> {
    const folder = mkdtempSync(join(tmpdir(), "ledge-ordinary-"));
    chmodSync(folder, 0o777);
    const child = spawnForAnyUser("test/worker/ordinary-user-host.ts", ["65534", folder], folder);
    const cases = new OrdinaryUserCases(child, folder);
    await cases.#next("ready");
    return cases;
  }

  /** Rejects with what the case found. */
  async run(name: string): Promise<void> {
    const answer = this.#next(name);
    this.#child.send(name);
    const { error } = await answer;
    if (error !== undefined) throw new Error(error);
  }

  async close(): Promise<void> {
    const ended = once(this.#child, "exit");
    if (this.#child.connected) this.#child.disconnect();
    await ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #next(name: string): Promise<CaseResult> {
    const stop = new AbortController();
    const { signal } = stop;
    const ended = once(this.#child, "exit", { signal }).then(() => ({
      name,
      error: "the ordinary user's process ended",
    }));
    const answered = once(this.#child, "message", { signal }).then(([message]) => message as CaseResult);
    const result = await Promise.race([answered, ended]);
    stop.abort();
    await Promise.allSettled([ended, answered]);
    if (result.name !== name) throw new Error(`expected an answer to ${name}, got one to ${result.name}`);
    return result;
  }
}
