// Load from several processes: each prepares and runs the scenario, and the parent adds their results up.
//
// Invariant: with one process everything happens in this one. Others are this program again with `bench --worker-task`;
// a line on stdin starts a run, a line on stdout is its result, the end of stdin ends the process.

import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runsAsExecutable } from "../../src/base/self.ts";
import { parseBenchTarget, type BenchTarget, type BenchTargetText } from "./bench-target.ts";
import { Histogram } from "./histogram.ts";
import { PreparedScenario, type Measurement, type MeasurementOptions, type RunOptions } from "./measurement.ts";
import type { ClientShape, Scenario } from "./scenario.ts";

export interface WorkerTask {
  readonly scenario: string;
  readonly target: BenchTargetText;
  readonly options: Omit<MeasurementOptions, "platform"> & {
    readonly platform: readonly (readonly [string, string])[];
  };
}

export interface MeasuringSession {
  run(options: RunOptions): Promise<Measurement>;
  close(): void;
}

export async function measureInProcesses(
  scenario: Scenario,
  target: BenchTarget,
  plan: { options: MeasurementOptions; processes: number; signal: AbortSignal | undefined },
): Promise<MeasuringSession> {
  const others: WorkerHandle[] = [];
  const close = (): void => others.forEach((worker) => worker.end());
  // Rates are divided, connections and depth are per process.
  const { ratePerSecond } = plan.options;
  const options = {
    ...plan.options,
    ratePerSecond: ratePerSecond === undefined ? undefined : ratePerSecond / plan.processes,
  };
  const own = await PreparedScenario.create(scenario, target, { ...options, signal: plan.signal });
  try {
    for (let index = 1; index < plan.processes; index++) {
      const otherOptions = { ...options, seed: options.seed + index, platform: [...options.platform] };
      others.push(
        await WorkerHandle.start({ scenario: scenario.name, target: target.text, options: otherOptions }, plan.signal),
      );
    }
  } catch (error) {
    close();
    throw error;
  }
  return {
    close,
    run: async (run) =>
      sum(await Promise.all([own.run(run), ...others.map(async (worker) => await worker.run(run.shape))])),
  };
}

/** The other side: what a worker process does. */
export async function runWorkerProcess(task: WorkerTask, scenarios: readonly Scenario[]): Promise<number> {
  const scenario = scenarios.find(({ name }) => name === task.scenario)!;
  const options = { ...task.options, platform: new Map(task.options.platform) };
  const prepared = await PreparedScenario.create(scenario, parseBenchTarget(task.target), options);
  process.stdout.write("ready\n");
  for await (const line of createInterface(process.stdin)) {
    const run = JSON.parse(line) as RunOptions;
    process.stdout.write(`${JSON.stringify(await prepared.run(run))}\n`);
  }
  return 0;
}

class WorkerHandle {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface(child.stdout!)[Symbol.asyncIterator]();
  }

  /** `signal` ends the process, whatever it does. */
  static async start(task: WorkerTask, signal: AbortSignal | undefined): Promise<WorkerHandle> {
    const program = runsAsExecutable ? [] : [fileURLToPath(new URL("../main.ts", import.meta.url))];
    const child = spawn(process.execPath, [...program, "bench", "--worker-task", JSON.stringify(task)], {
      stdio: ["pipe", "pipe", "inherit"],
      ...(signal === undefined ? {} : { signal }),
      // An interrupt of the terminal is for the parent.
      detached: true,
    });
    // Killed by the signal: reading its output says so.
    child.on("error", () => undefined);
    child.stdin.on("error", () => undefined);
    const handle = new WorkerHandle(child);
    await handle.#read();
    return handle;
  }

  async run(shape: ClientShape | undefined): Promise<Measurement> {
    const options: RunOptions = { shape };
    this.#child.stdin!.write(`${JSON.stringify(options)}\n`);
    const result = JSON.parse(await this.#read()) as Measurement;
    return { ...result, latency: Histogram.fromJSON(result.latency as unknown as ReturnType<Histogram["toJSON"]>) };
  }

  end(): void {
    this.#child.stdin!.end();
  }

  async #read(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("a process that generates load has ended; its message is above");
    return value;
  }
}

function sum(parts: readonly Measurement[]): Measurement {
  const [first, ...rest] = parts as [Measurement, ...Measurement[]];
  const latency = new Histogram();
  for (const part of parts) latency.add(part.latency);
  const errors: Record<string, number> = {};
  for (const part of parts)
    for (const [code, count] of Object.entries(part.errors)) errors[code] = (errors[code] ?? 0) + count;
  const total = (pick: (part: Measurement) => number): number => parts.reduce((all, part) => all + pick(part), 0);
  return {
    ...first,
    calls: total(({ calls }) => calls),
    shed: total(({ shed }) => shed),
    receivedBytes: total(({ receivedBytes }) => receivedBytes),
    errors,
    latency,
    timeline: first.timeline.map((count, slot) => rest.reduce((all, part) => all + (part.timeline[slot] ?? 0), count)),
    failure: parts.find(({ failure }) => failure !== undefined)?.failure,
    firstError: parts.find(({ firstError }) => firstError !== undefined)?.firstError,
    generatorBusy:
      first.generatorBusy === undefined ? undefined : Math.max(...parts.map(({ generatorBusy = 0 }) => generatorBusy)),
    cpuMicrosecondsPerCall: scale(
      first.cpuMicrosecondsPerCall,
      first.calls,
      total(({ calls }) => calls),
    ),
    writtenBytesPerCall: scale(
      first.writtenBytesPerCall,
      first.calls,
      total(({ calls }) => calls),
    ),
  };
}

/** Usage was divided by this process's calls; it belongs to all. */
function scale(perCall: number | undefined, ownCalls: number, allCalls: number): number | undefined {
  return perCall === undefined || allCalls === 0 ? undefined : (perCall * ownCalls) / allCalls;
}
