// Load from several processes: each prepares and runs the scenario, and the parent adds their results up.
//
// Invariant: with one process everything happens in this one. Others are this program again with `bench --worker-task`;
// a line on stdin starts a run, a line on stdout is its result, the end of stdin ends the process.

import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runsAsExecutable } from "../../src/base/self.ts";
import { parseTarget, type Target } from "../client/target.ts";
import { Histogram } from "./histogram.ts";
import { PreparedScenario, type Measurement, type MeasurementOptions } from "./measurement.ts";
import type { Scenario } from "./scenarios.ts";

export interface WorkerTask {
  readonly scenario: string;
  readonly target: string;
  readonly options: Omit<MeasurementOptions, "platform"> & {
    readonly platform: readonly (readonly [string, string])[];
  };
}

export interface MeasuringSession {
  run(pid: number | undefined): Promise<Measurement>;
}

export async function measureInProcesses(
  scenario: Scenario,
  target: Target,
  plan: { options: MeasurementOptions; processes: number },
): Promise<MeasuringSession> {
  const own = await PreparedScenario.create(scenario, target, plan.options);
  if (plan.processes === 1) return { run: async (pid) => await own.run(pid) };
  // Rates are divided, connections and depth are per process.
  const ratePerSecond =
    plan.options.ratePerSecond === undefined ? undefined : plan.options.ratePerSecond / plan.processes;
  return {
    run: async (pid) => {
      const others = await Promise.all(
        Array.from({ length: plan.processes - 1 }, async (_, index) => {
          const options = {
            ...plan.options,
            ratePerSecond,
            seed: plan.options.seed + index + 1,
            platform: [...plan.options.platform],
          };
          return await WorkerHandle.start({ scenario: scenario.name, target: target.text, options });
        }),
      );
      try {
        return sum(await Promise.all([own.run(pid), ...others.map(async (worker) => await worker.run())]));
      } finally {
        for (const worker of others) worker.end();
      }
    },
  };
}

/** The other side: what a worker process does. */
export async function runWorkerProcess(task: WorkerTask, scenarios: readonly Scenario[]): Promise<number> {
  const scenario = scenarios.find(({ name }) => name === task.scenario)!;
  const options = {
    ...task.options,
    ratePerSecond: task.options.ratePerSecond,
    platform: new Map(task.options.platform),
  };
  const prepared = await PreparedScenario.create(scenario, parseTarget(task.target), options);
  process.stdout.write("ready\n");
  for await (const _line of createInterface(process.stdin))
    process.stdout.write(`${JSON.stringify(await prepared.run())}\n`);
  return 0;
}

class WorkerHandle {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface(child.stdout!)[Symbol.asyncIterator]();
  }

  static async start(task: WorkerTask): Promise<WorkerHandle> {
    const program = runsAsExecutable ? [] : [fileURLToPath(new URL("../main.ts", import.meta.url))];
    const child = spawn(process.execPath, [...program, "bench", "--worker-task", JSON.stringify(task)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const handle = new WorkerHandle(child);
    await handle.#read();
    return handle;
  }

  async run(): Promise<Measurement> {
    this.#child.stdin!.write("run\n");
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
