// One scenario against one target: connections, preparation, load, and what the server's process used meanwhile.
//
// Invariant: what a preparation learns and makes is used by all runs, so data stay new from run to run. Before anything
// else the server is asked for its capabilities: one that hangs or speaks another protocol is found within seconds.

import { createHash } from "node:crypto";
import { Capabilities } from "../../src/proto/remote_execution.ts";
import type { BenchTarget } from "./bench-target.ts";
import type { FindMissingOptions } from "./find-missing-scenarios.ts";
import { generateLoad, type LoadClient, type LoadResult } from "./generator.ts";
import { GrpcJsClient } from "./grpc-js-client.ts";
import { HttpLoadClient } from "./http-client.ts";
import { LoadSetup, type SetupConnection } from "./load-setup.ts";
import { prepare } from "./prepared-calls.ts";
import { readProcessUsage } from "./process-usage.ts";
import { RawConnection } from "./raw-connection.ts";
import type { ClientShape, Load, Scenario } from "./scenario.ts";

export interface MeasurementOptions extends ClientShape {
  readonly client: "raw" | "grpc-js";
  readonly ratePerSecond: number | undefined;
  readonly warmUpMs: number;
  readonly durationMs: number;
  readonly seed: number;
  readonly instanceName: string;
  readonly compressibleShare: number;
  readonly platform: ReadonlyMap<string, string>;
  readonly findMissing: FindMissingOptions;
}

export interface RunOptions {
  /** Of the server's process. */
  readonly pid?: number | undefined;
  /** In place of the scenario's own and the command line's. */
  readonly shape?: ClientShape | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Measurement extends LoadResult {
  readonly unitsPerCall: number;
  /** Of the server's process, per unit. */
  readonly cpuMicrosecondsPerCall: number | undefined;
  readonly residentBytes: number | undefined;
  readonly writtenBytesPerCall: number | undefined;
}

/** A server that does not answer its first call by then hangs. */
const FIRST_ANSWER_MS = 5000;

/**
 * The seed of a scenario's own data: with the same one for all, `write-1k` would upload what `batch-update` has uploaded
 * before, and measure how fast a server finds blobs it has.
 */
export function scenarioSeed(seed: number, scenario: string): number {
  return createHash("sha256").update(`${seed} ${scenario}`).digest().readUInt32LE(0);
}

/** A scenario made ready on a target; `run` may be called several times. */
export class PreparedScenario {
  readonly scenario: Scenario;
  readonly #target: BenchTarget;
  readonly #load: Load;
  readonly #options: MeasurementOptions;

  private constructor(scenario: Scenario, target: BenchTarget, load: Load, options: MeasurementOptions) {
    this.scenario = scenario;
    this.#target = target;
    this.#load = load;
    this.#options = options;
  }

  static async create(
    scenario: Scenario,
    target: BenchTarget,
    options: MeasurementOptions & { readonly signal?: AbortSignal | undefined },
  ): Promise<PreparedScenario> {
    const isHttp = scenario.protocol === "http";
    const connection: SetupConnection & { close(): void } = isHttp
      ? await HttpLoadClient.open(target, 1)
      : await RawConnection.open(target.grpc);
    try {
      const maxBatchBytes = isHttp ? undefined : await greet(connection, options);
      const seed = scenarioSeed(options.seed, scenario.name);
      const setup = new LoadSetup(connection, {
        ...options,
        seed,
        ...(maxBatchBytes === undefined ? {} : { maxBatchBytes }),
      });
      return new PreparedScenario(scenario, target, await scenario.prepare(setup), options);
    } finally {
      connection.close();
    }
  }

  async run({ pid, shape, signal }: RunOptions): Promise<Measurement> {
    const { connections, depth } = shape ?? this.scenario.shape ?? this.#options;
    const clients: LoadClient[] = [];
    try {
      for (let index = 0; index < connections; index++) clients.push(await this.#open(depth));
      const before = pid === undefined ? undefined : readProcessUsage(pid);
      const begunMs = performance.now();
      const durationMs = Math.max(this.#options.durationMs, this.scenario.leastDurationMs ?? 0);
      const result = await generateLoad(clients, this.#load.next, { ...this.#options, durationMs, depth, signal });
      const after = pid === undefined ? undefined : readProcessUsage(pid);
      // Usage includes the warm-up, so it is divided by the calls of the whole time.
      const share = (performance.now() - begunMs) / result.durationMs;
      const perCall = (used: number | undefined): number | undefined =>
        used === undefined || result.calls === 0 ? undefined : used / (result.calls * share);
      return {
        ...result,
        unitsPerCall: this.#load.unitsPerCall,
        cpuMicrosecondsPerCall: before && after && perCall((after.cpuSeconds - before.cpuSeconds) * 1e6),
        residentBytes: after?.residentBytes,
        writtenBytesPerCall:
          before?.writtenBytes === undefined || after?.writtenBytes === undefined
            ? undefined
            : perCall(after.writtenBytes - before.writtenBytes),
      };
    } finally {
      for (const client of clients) client.close();
    }
  }

  async #open(depth: number): Promise<LoadClient> {
    if (this.scenario.protocol === "http") return await HttpLoadClient.open(this.#target, depth);
    if (this.#options.client === "grpc-js") return new GrpcJsClient(this.#target.grpc);
    return await RawConnection.open(this.#target.grpc);
  }
}

/** Returns what the server takes in one batch, when it says so. A server without capabilities is measured as well. */
async function greet(
  connection: SetupConnection,
  { instanceName, signal }: { readonly instanceName: string; readonly signal?: AbortSignal | undefined },
): Promise<number | undefined> {
  const { GetCapabilities } = Capabilities.methods;
  const timeout = AbortSignal.timeout(FIRST_ANSWER_MS);
  const ended = new Promise<never>((_, reject) => {
    const message = `nothing was answered within ${FIRST_ANSWER_MS / 1000} s: it hangs, or speaks another protocol`;
    timeout.addEventListener("abort", () => reject(new Error(message)), { once: true });
    signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true, signal: timeout });
  });
  const answer = await Promise.race([connection.callOnce(prepare(GetCapabilities, { instanceName })), ended]);
  if (connection.failure !== undefined) throw new Error(connection.failure);
  if (answer.code !== 0 || answer.body === undefined) return undefined;
  const { cacheCapabilities } = GetCapabilities.output.decode(answer.body.subarray(5));
  const maxBytes = cacheCapabilities?.maxBatchTotalSizeBytes ?? 0;
  return maxBytes > 0 ? maxBytes : undefined;
}
