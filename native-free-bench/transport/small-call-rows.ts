// Rows of small calls: how many a second, and how soon one alone is answered.

import { Capabilities, ContentAddressableStorage as Cas } from "../../src/proto/remote_execution.ts";
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
  { name: "latency", question: "GetCapabilities, one call at a time on one connection", run: measureLatency },
];

async function measureBusy({ fleet, rounds }: RowContext, request: SmallRequest): Promise<RowResult> {
  const contestant = (label: string, server: RunningServer): Contestant => ({
    label,
    pid: server.pid,
    measure: async () => (await runSmallCalls(server, request, BUSY)).callsPerSecond,
  });
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
