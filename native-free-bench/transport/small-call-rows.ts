// Rows of small calls: how many a second, and how soon one alone is answered.

import { Code } from "../../src/base/status.ts";
import { ActionCache, Capabilities, ContentAddressableStorage as Cas } from "../../src/proto/remote_execution.ts";
import { median } from "../load/statistics.ts";
import { prepare } from "../load/prepared-calls.ts";
import type { RunningServer } from "./servers.ts";
import type { Endpoint } from "./load-connection.ts";
import type { SmallRequest } from "./request-template.ts";
import { alternate, ratio, type Contestant, type Row, type RowContext, type RowResult, type Series } from "./row.ts";
import { runSmallCalls, type SmallCallShape } from "./small-calls.ts";

const BUSY: SmallCallShape = { connections: 8, depth: 32, warmUpMs: 400, durationMs: 1600 };
const ALONE: SmallCallShape = { connections: 1, depth: 1, warmUpMs: 400, durationMs: 1600 };

const HASH = "0".repeat(64);
const GET_CAPABILITIES = smallRequest(prepare(Capabilities.methods.GetCapabilities, { instanceName: "" }));
const FIND_MISSING = smallRequest(
  prepare(Cas.methods.FindMissingBlobs, { blobDigests: [{ hash: HASH, sizeBytes: 1000 }] }),
);
const GET_ACTION_RESULT = {
  ...smallRequest(prepare(ActionCache.methods.GetActionResult, { actionDigest: { hash: HASH, sizeBytes: 142 } })),
  status: Code.NOT_FOUND,
};

function smallRequest({ path, body }: { path: string; body: readonly Uint8Array[] }): SmallRequest {
  const octets = Buffer.concat(body);
  const hashAt = octets.indexOf(HASH);
  return { path, body: octets, ...(hashAt < 0 ? {} : { changingHash: hashAt }), metadata: hashAt >= 0 };
}

export const SMALL_CALL_ROWS: readonly Row[] = [
  {
    name: "capabilities",
    question: "GetCapabilities, 8 connections × 32 streams",
    run: (context) => measureBusy(context, GET_CAPABILITIES),
  },
  {
    name: "fmb",
    question: "FindMissingBlobs of 1 random digest, metadata that changes per call, 8 connections × 32 streams",
    run: (context) => measureBusy(context, FIND_MISSING),
  },
  {
    name: "ac-miss",
    question:
      "GetActionResult of 1 random digest that is not there, metadata that changes per call, 8 connections × 32",
    run: measureMisses,
  },
  { name: "latency", question: "GetCapabilities, one call at a time on one connection", run: measureLatency },
];

async function measureBusy({ fleet, rounds }: RowContext, request: SmallRequest): Promise<RowResult> {
  const contestant = (label: string, server: RunningServer): Contestant => busyContestant(label, server, request);
  const contestants = [
    contestant("ledge", await fleet.startLedge({ store: "disk" })),
    contestant("node:http2", await fleet.startReference("node-http2")),
    contestant("@grpc/grpc-js", await fleet.startReference("grpc-js")),
  ];
  if (fleet.hasBazelRemote) contestants.push(contestant("bazel-remote", await fleet.startBazelRemote()));
  contestants.push(contestant("constant answers (the load's ceiling)", await fleet.startBaseline("answers")));
  const series = await alternate(contestants, { rounds, unit: "calls/s", cpuUnit: "µs/call" });
  return {
    series: [...series.values()],
    requirements: [
      ...ratio(series, "ledge", "@grpc/grpc-js", 6),
      ...ratio(series, "ledge", "node:http2", 4),
      ...ratio(series, "ledge", "bazel-remote", 3),
    ],
    notes: fleet.hasBazelRemote ? [] : ["bazel-remote: not compared, --bazel-remote PATH was not given"],
  };
}

/** The test's own servers know no actions. */
async function measureMisses({ fleet, rounds }: RowContext): Promise<RowResult> {
  const contestant = (label: string, server: RunningServer): Contestant =>
    busyContestant(label, server, GET_ACTION_RESULT);
  const contestants = [contestant("ledge", await fleet.startLedge({ store: "disk" }))];
  if (fleet.hasBazelRemote) contestants.push(contestant("bazel-remote", await fleet.startBazelRemote()));
  const series = await alternate(contestants, { rounds, unit: "calls/s", cpuUnit: "µs/call" });
  return { series: [...series.values()], requirements: ratio(series, "ledge", "bazel-remote", 1) };
}

function busyContestant(label: string, server: RunningServer, request: SmallRequest): Contestant {
  return {
    label,
    pid: server.pid,
    measure: async () => {
      const { callsPerSecond, calls } = await runSmallCalls(server, request, BUSY);
      return { perSecond: callsPerSecond, units: calls };
    },
  };
}

async function measureLatency({ fleet, rounds, grpcGo }: RowContext): Promise<RowResult> {
  const servers: [label: string, endpoint: Endpoint][] = [["ledge", await fleet.startLedge({ store: "disk" })]];
  if (grpcGo !== undefined) servers.push(["grpc-go", grpcGo]);
  servers.push(["constant answers (the load's floor)", await fleet.startBaseline("answers")]);
  const series: Series[] = servers.flatMap(([label]) =>
    ["p50", "p99"].map((quantile) => ({ label: `${label}, ${quantile}`, unit: "µs", values: [] as number[] })),
  );
  for (let round = 0; round < rounds; round++) {
    for (const [index, [, endpoint]] of servers.entries()) {
      const { latency } = await runSmallCalls(endpoint, GET_CAPABILITIES, ALONE);
      for (const [at, share] of [0.5, 0.99].entries())
        (series[2 * index + at]!.values as number[]).push(latency.quantile(share));
    }
  }
  if (grpcGo === undefined) return { series, requirements: [], notes: ["not compared: --grpc-go was not given"] };
  const limits = [0, 1].map((at) => median(series[2 + at]!.values));
  return {
    series,
    requirements: ["p50", "p99"].map((quantile, at) => ({
      what: `ledge ${quantile}, against grpc-go's`,
      values: series[at]!.values,
      limit: Math.round(limits[at]!),
      kind: "at most" as const,
      unit: "µs",
    })),
  };
}
