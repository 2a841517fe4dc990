// When each part of an action happened and what it used, as ExecutedActionMetadata.
//
// Source: wire/reapi.md 5.6; POSIXResourceUsage is Buildbarn's message (wire/workers.md A4), which viewers understand. What
// it has no field for, the limit that struck above all, is in a message of our own beside it.

import { ExecutionUsage, ExecutionUsage_Limit as Limit } from "../proto/execution_usage.ts";
import type { ExecutedActionMetadataInit } from "../proto/remote_execution.ts";
import type { ResourceUsage, RunOutcome, RunResult } from "../runner/runner.ts";

export const RESOURCE_USAGE_TYPE_URL = "type.googleapis.com/buildbarn.resourceusage.POSIXResourceUsage";
export const EXECUTION_USAGE_TYPE_URL = `type.googleapis.com/${ExecutionUsage.typeName}`;

/** Points of time in epoch milliseconds, in the order in which they come; absent ones were not reached. */
export class ExecutionTimeline {
  readonly queuedAtMs: number;
  readonly workerStartedAtMs: number;
  inputFetchStartedAtMs: number | undefined;
  inputFetchedAtMs: number | undefined;
  run: RunResult | undefined;
  outputUploadStartedAtMs: number | undefined;
  outputUploadedAtMs: number | undefined;

  constructor(queuedAtMs: number, workerStartedAtMs: number) {
    this.queuedAtMs = queuedAtMs;
    this.workerStartedAtMs = workerStartedAtMs;
  }
}

export function executionMetadata(
  worker: string,
  timeline: ExecutionTimeline,
  completedAtMs: number,
): ExecutedActionMetadataInit {
  const { run } = timeline;
  const { startedAtMs, endedAtMs } = run ?? {};
  const ranMs = startedAtMs === undefined || endedAtMs === undefined ? undefined : Math.max(0, endedAtMs - startedAtMs);
  return {
    worker,
    queuedTimestamp: timestamp(timeline.queuedAtMs),
    workerStartTimestamp: timestamp(timeline.workerStartedAtMs),
    workerCompletedTimestamp: timestamp(completedAtMs),
    inputFetchStartTimestamp: timestamp(timeline.inputFetchStartedAtMs),
    inputFetchCompletedTimestamp: timestamp(timeline.inputFetchedAtMs),
    executionStartTimestamp: timestamp(startedAtMs),
    executionCompletedTimestamp: timestamp(endedAtMs),
    outputUploadStartTimestamp: timestamp(timeline.outputUploadStartedAtMs),
    outputUploadCompletedTimestamp: timestamp(timeline.outputUploadedAtMs),
    virtualExecutionDuration: ranMs === undefined ? undefined : duration(ranMs),
    auxiliaryMetadata: run === undefined ? [] : auxiliaryMetadata(run),
  };
}

function auxiliaryMetadata(run: RunResult) {
  return [
    { typeUrl: RESOURCE_USAGE_TYPE_URL, value: encodeResourceUsage(run.usage) },
    { typeUrl: EXECUTION_USAGE_TYPE_URL, value: encodeExecutionUsage(run) },
  ];
}

function encodeExecutionUsage({ usage, logBytes, outcome }: RunResult): Uint8Array {
  const { userMs, systemMs, peakMemoryBytes, readBytes, writtenBytes } = usage;
  return ExecutionUsage.encode({
    userMicroseconds: userMs === undefined ? undefined : Math.round(userMs * 1000),
    systemMicroseconds: systemMs === undefined ? undefined : Math.round(systemMs * 1000),
    peakMemoryBytes,
    readBytes,
    writtenBytes,
    logBytes,
    limit: limitOf(outcome),
  });
}

const LIMITS = { "log-bytes": Limit.LOG_BYTES, disk: Limit.DISK, memory: Limit.MEMORY } as const;

function limitOf(outcome: RunOutcome): Limit {
  if (outcome.kind === "timeout") return Limit.WALL_TIME;
  return outcome.kind === "limit" ? LIMITS[outcome.limit] : Limit.LIMIT_UNSPECIFIED;
}

function timestamp(atMs: number | undefined): { seconds: number; nanos: number } | undefined {
  return atMs === undefined ? undefined : duration(atMs);
}

/** Also right for points of time; `ms` is not negative. */
function duration(ms: number): { seconds: number; nanos: number } {
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: Math.min(999_999_999, Math.round((ms - seconds * 1000) * 1e6)) };
}

/** POSIXResourceUsage: user_time 1, system_time 2, maximum_resident_set_size 3, block operations 9 and 10. */
function encodeResourceUsage(usage: ResourceUsage): Uint8Array {
  const bytes: number[] = [];
  for (const [field, ms] of [
    [1, usage.userMs],
    [2, usage.systemMs],
  ] as const) {
    if (ms === undefined) continue;
    const { seconds, nanos } = duration(ms);
    const value = [...varintField(1, seconds), ...varintField(2, nanos)];
    bytes.push((field << 3) | 2, value.length, ...value);
  }
  bytes.push(...varintField(3, usage.peakMemoryBytes ?? 0));
  bytes.push(...varintField(9, Math.floor((usage.readBytes ?? 0) / BLOCK_BYTES)));
  bytes.push(...varintField(10, Math.floor((usage.writtenBytes ?? 0) / BLOCK_BYTES)));
  return Uint8Array.from(bytes);
}

/** The unit of ru_inblock and ru_oublock. */
const BLOCK_BYTES = 512;

function varintField(field: number, value: number): number[] {
  if (value === 0) return [];
  const bytes = [field << 3];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  bytes.push(rest);
  return bytes;
}
