// One scenario against one target: connections, preparation, load, and what the server's process used meanwhile.

import type { Target } from "../client/target.ts";
import { generateLoad, type LoadClient, type LoadResult } from "./generator.ts";
import { GrpcJsClient } from "./grpc-js-client.ts";
import { LoadSetup } from "./load-setup.ts";
import { readProcessUsage } from "./process-usage.ts";
import { RawConnection } from "./raw-connection.ts";
import type { Load, Scenario } from "./scenarios.ts";

export interface MeasurementOptions {
  readonly client: "raw" | "grpc-js";
  readonly connections: number;
  readonly depth: number;
  readonly ratePerSecond: number | undefined;
  readonly warmUpMs: number;
  readonly durationMs: number;
  readonly seed: number;
  readonly instanceName: string;
  readonly compressibleShare: number;
  readonly platform: ReadonlyMap<string, string>;
}

export interface Measurement extends LoadResult {
  readonly unitsPerCall: number;
  /** Of the server's process, per unit. */
  readonly cpuMicrosecondsPerCall: number | undefined;
  readonly residentBytes: number | undefined;
  readonly writtenBytesPerCall: number | undefined;
}

/** A scenario made ready on a target; `run` may be called several times. */
export class PreparedScenario {
  readonly scenario: Scenario;
  readonly #target: Target;
  readonly #load: Load;
  readonly #options: MeasurementOptions;

  private constructor(scenario: Scenario, target: Target, load: Load, options: MeasurementOptions) {
    this.scenario = scenario;
    this.#target = target;
    this.#load = load;
    this.#options = options;
  }

  static async create(scenario: Scenario, target: Target, options: MeasurementOptions): Promise<PreparedScenario> {
    const connection = await RawConnection.open(target);
    try {
      return new PreparedScenario(
        scenario,
        target,
        await scenario.prepare(new LoadSetup(connection, options)),
        options,
      );
    } finally {
      connection.close();
    }
  }

  async run(pid?: number): Promise<Measurement> {
    const { connections, depth } = this.scenario.shape ?? this.#options;
    const clients: LoadClient[] = [];
    for (let index = 0; index < connections; index++) {
      clients.push(
        this.#options.client === "raw" ? await RawConnection.open(this.#target) : new GrpcJsClient(this.#target),
      );
    }
    const before = pid === undefined ? undefined : readProcessUsage(pid);
    const begunMs = performance.now();
    try {
      const result = await generateLoad(clients, this.#load.next, { ...this.#options, depth });
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
}
