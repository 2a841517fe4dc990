// The Runner of the server: keeps one runner process alive and sends it the runs.
//
// When the process dies, another one is started (which kills what the first left behind) and only then are its runs
// reported lost, so that whoever retries them finds their slots empty. Starting it is the only fork of the server.

import { mkdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../telemetry/log.ts";
import { isReachableForOthers } from "../sandbox/reachable-root.ts";
import { identityOfSlot } from "../sandbox/slot-identity.ts";
import {
  type HostUser,
  type PreparedView,
  type Runner,
  RunnerLostError,
  type RunResult,
  type RunSpec,
} from "./runner.ts";
import { RunnerConnection } from "./runner-connection.ts";
import type { RunnerCondition, RunnerConfiguration, WantedSandbox } from "./runner-protocol.ts";

export interface RunnerOptions {
  readonly sandbox: WantedSandbox;
  /** undefined: the `bwrap` in PATH. */
  readonly bwrapPath?: string | undefined;
  /** Everything actions see of ours lies below it; the runner owns `runner` and `runner-probe` in it. Made when absent. */
  readonly buildRootPath: string;
  readonly slots: number;
  /** Whether actions may use the host's network when no network namespace can be made. Default: no. */
  readonly allowSharedNetwork?: boolean;
  /** Whether to use node:ffi where it works. Without it accounting is absent and logs go to files directly. Default: yes. */
  readonly nativeCalls?: boolean;
  readonly logger: Logger;
}

export type StartedRunner =
  | {
      readonly available: true;
      readonly runner: Runner;
      /** What the probe found; `profile` is undefined without a sandbox. */
      readonly condition: RunnerCondition;
      readonly warnings: readonly string[];
    }
  | { readonly available: false; readonly reason: string; readonly remedy: string };

/** A runner that dies at once again and again is restarted ever more slowly; the last delay repeats. */
const RESTART_DELAYS_MS = [0, 100, 500, 2000, 5000];
/** One that lived this long was healthy: the next death starts with the first delay again. */
const HEALTHY_AFTER_MS = 60_000;

/** Starts the runner process and lets it try a real sandbox. Resolves also when this machine cannot run actions. */
export async function startRunner(options: RunnerOptions): Promise<StartedRunner> {
  mkdirSync(options.buildRootPath, { recursive: true, mode: 0o755 });
  const started = await openConnection(options);
  const { connection, condition } = started;
  const { availability } = condition;
  if (!availability.available) {
    await connection.close();
    return availability;
  }
  if (condition.sweptProcesses > 0) {
    options.logger.warn("killed sandboxes of an earlier run", { processes: condition.sweptProcesses });
  }
  return {
    available: true,
    runner: new RunnerClient(options, connection, condition),
    condition,
    warnings: availability.warnings,
  };
}

interface OpenConnection {
  readonly connection: RunnerConnection;
  readonly condition: RunnerCondition;
}

/** With a mount namespace of its own where the build root needs one and the machine allows it. */
async function openConnection(options: RunnerOptions): Promise<OpenConnection> {
  const wantsOwnMounts = process.getuid?.() === 0 && !isReachableForOthers(options.buildRootPath);
  if (wantsOwnMounts && options.sandbox !== "none") {
    try {
      return await connect({ ...configurationOf(options), ownMounts: true });
    } catch (error) {
      // No CAP_SYS_ADMIN, or no util-linux: the probe then says that the build root cannot be reached.
      const reason = error instanceof Error ? error.message : String(error);
      options.logger.warn("the runner cannot have mounts of its own", { reason });
    }
  }
  return connect({ ...configurationOf(options), ownMounts: false });
}

async function connect(configuration: RunnerConfiguration): Promise<OpenConnection> {
  const connection = new RunnerConnection(configuration);
  try {
    return { connection, condition: await connection.condition() };
  } catch (error) {
    connection.kill();
    throw error;
  }
}

function configurationOf(options: RunnerOptions): Omit<RunnerConfiguration, "ownMounts"> {
  return {
    sandbox: options.sandbox,
    bwrapPath: options.bwrapPath,
    allowSharedNetwork: options.allowSharedNetwork ?? false,
    buildRootPath: options.buildRootPath,
    slots: options.slots,
    nativeCalls: options.nativeCalls ?? true,
  };
}

class RunnerClient implements Runner {
  readonly #options: RunnerOptions;
  readonly #condition: RunnerCondition;
  readonly #closing = new AbortController();
  /** The living connection, or the one being started. */
  #connection: Promise<RunnerConnection>;
  #watching: Promise<void>;
  /** Deaths since the last healthy life. */
  #deaths = 0;

  constructor(options: RunnerOptions, connection: RunnerConnection, condition: RunnerCondition) {
    this.#options = options;
    this.#condition = condition;
    this.#connection = Promise.resolve(connection);
    this.#watching = this.#keepAlive(connection);
  }

  async run(spec: RunSpec, options: { readonly signal: AbortSignal }): Promise<RunResult> {
    if (options.signal.aborted) return cancelledBeforeStart();
    const connection = await this.#connection;
    if (this.#closing.signal.aborted) throw new RunnerLostError("The runner is closed");
    const result = await connection.run(spec, options.signal);
    if (result !== undefined) return result;
    await this.#connection.catch(() => undefined); // the next one has killed what this one left
    throw new RunnerLostError(`The runner process ended while action ${spec.id} ran`);
  }

  prepare(view: PreparedView): void {
    // A hint: while the runner is being restarted there is nobody to take it, and nothing is lost.
    void this.#connection.then((connection) => connection.prepare(view)).catch(() => undefined);
  }

  ownerOf(slot: number): HostUser | undefined {
    return identityOfSlot(this.#condition.identities, slot);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    const connection = await this.#connection.catch(() => undefined);
    await connection?.close();
    await this.#watching;
  }

  async #keepAlive(first: RunnerConnection): Promise<void> {
    let connection = first;
    while (!this.#closing.signal.aborted) {
      const how = await this.#endOf(connection, performance.now());
      if (this.#closing.signal.aborted) return;
      this.#options.logger.error("the runner process ended; starting another", { how, deaths: this.#deaths });
      const next = await this.#connection.catch(() => undefined);
      if (next === undefined) return;
      connection = next;
    }
  }

  /** `#connection` is replaced in the same turn in which the death is seen, so no run goes to a dead process. */
  async #endOf(connection: RunnerConnection, startedAtMs: number): Promise<string> {
    return connection.ended.then((how) => {
      if (!this.#closing.signal.aborted) {
        if (performance.now() - startedAtMs > HEALTHY_AFTER_MS) this.#deaths = 0;
        this.#connection = this.#restart(this.#deaths++);
        this.#connection.catch(() => undefined); // every run that waits for it sees the rejection itself
      }
      return how;
    });
  }

  async #restart(attempt: number): Promise<RunnerConnection> {
    const delayMs = RESTART_DELAYS_MS[Math.min(attempt, RESTART_DELAYS_MS.length - 1)] ?? 0;
    await sleep(delayMs);
    if (this.#closing.signal.aborted) throw new RunnerLostError("The runner is closed");
    try {
      const { connection, condition } = await openConnection(this.#options);
      if (condition.availability.available) return connection;
      await connection.close();
      throw new Error(condition.availability.reason);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#options.logger.error("the runner process cannot be started", { reason });
      return this.#restart(attempt + 1);
    }
  }
}

function cancelledBeforeStart(): RunResult {
  const nowMs = Date.now();
  return { outcome: { kind: "cancelled" }, startedAtMs: nowMs, endedAtMs: nowMs, usage: {} };
}
