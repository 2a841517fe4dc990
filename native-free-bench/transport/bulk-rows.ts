// Rows of 64 MiB: read and written, in the clear and over TLS 1.3, against what a plain socket moves.

import { BigBlob, BLOB_BYTES, measurePlainReceive, measurePlainSend, measureRead, measureWrite } from "./bulk.ts";
import { alternate, ratio, type Contestant, type Measured, type Row, type RowContext, type RowResult } from "./row.ts";
import type { LedgeOptions, RunningServer, ServerFleet, TlsFiles } from "./servers.ts";

/** Blobs per measurement: about a quarter of a second. */
const BLOBS = 8;

export const BULK_ROWS: readonly Row[] = [
  { name: "read", question: "ByteStream.Read of 64 MiB from memory", run: (context) => compareReads(context) },
  { name: "write", question: "ByteStream.Write of 64 MiB to memory", run: (context) => compareWrites(context) },
  {
    name: "tls-read",
    question: "ByteStream.Read of 64 MiB from memory over TLS 1.3",
    run: (context) => compareReads(context, context.fleet.makeCertificate()),
  },
  {
    name: "tls-write",
    question: "ByteStream.Write of 64 MiB to memory over TLS 1.3",
    run: (context) => compareWrites(context, context.fleet.makeCertificate()),
  },
];

const GIGA = 1e9;

async function compareReads({ fleet, rounds }: RowContext, tls?: TlsFiles): Promise<RowResult> {
  const blob = new BigBlob();
  const hash = blob.renew();
  const [ledge, plain] = [await fleet.startLedge(inMemory(tls)), await fleet.startBaseline("send", tls)];
  const reader = (label: string, server: RunningServer, streams: number): Contestant => ({
    label,
    pid: server.pid,
    measure: () => moving(measureRead(server, { hash, streams, repeats: BLOBS / streams })),
  });
  await measureWrite(ledge, blob, { repeats: 1, hash });
  const contestants = [reader("ledge, one stream", ledge, 1), reader("ledge, eight streams", ledge, 8)];
  if (tls === undefined && fleet.hasBazelRemote) {
    const peer = await fleet.startBazelRemote();
    await measureWrite(peer, blob, { repeats: 1, hash });
    contestants.push(reader("bazel-remote, one stream", peer, 1), reader("bazel-remote, eight streams", peer, 8));
  }
  contestants.push({
    label: "plain socket",
    pid: plain.pid,
    measure: () => moving(measurePlainReceive(plain, BLOBS * BLOB_BYTES)),
  });
  const series = await alternate(contestants, { rounds, unit: "B/s", cpuUnit: "s/GB" });
  return {
    series: [...series.values()].map(inGigabytes),
    requirements: ["one stream", "eight streams"].flatMap((streams) => [
      ...ratio(series, `ledge, ${streams}`, `bazel-remote, ${streams}`, 1.7),
      ...ratio(series, `ledge, ${streams}`, "plain socket", 0.8),
    ]),
  };
}

async function compareWrites({ fleet, rounds }: RowContext, tls?: TlsFiles): Promise<RowResult> {
  const blob = new BigBlob();
  const hash = tls === undefined ? await fleet.startHashing() : undefined;
  const [one, both] = [await fleet.startLedge(inMemory(tls)), await startOnBothCores(fleet, tls)];
  const plain = await fleet.startBaseline("receive", tls);
  const contestants: Contestant[] = [
    { label: "ledge on one core", pid: one.pid, measure: () => moving(measureWrite(one, blob, { repeats: BLOBS })) },
    {
      label: "ledge on both cores",
      pid: both.pid,
      measure: () => moving(measureWrite(both, blob, { repeats: BLOBS })),
    },
    {
      label: "ledge on both cores, eight streams",
      pid: both.pid,
      measure: () => moving(measureWrite(both, blob, { streams: BLOBS, repeats: 1 })),
    },
    { label: "plain socket", pid: plain.pid, measure: () => moving(measurePlainSend(plain, blob, BLOBS)) },
  ];
  if (hash !== undefined) contestants.push({ label: "SHA-256", measure: () => moving(hash()) });
  const series = await alternate(contestants, { rounds, unit: "B/s", cpuUnit: "s/GB" });
  const [receive, hashed] = [series.get("plain socket")!.values, series.get("SHA-256")?.values];
  const least = receive.map((value, round) => Math.min(value, hashed?.[round] ?? Infinity));
  const bound = tls === undefined ? "min(SHA-256, plain socket)" : "plain socket";
  series.set(bound, { label: bound, unit: "B/s", values: least });
  return {
    series: [...series.values()].map(inGigabytes),
    requirements: ["one core", "both cores", "both cores, eight streams"].flatMap((cores) =>
      ratio(series, `ledge on ${cores}`, bound, tls === undefined ? 0.7 : 0.8),
    ),
    notes: ["on one core, hashing and receiving share that core; on both, they share one with the load"],
  };
}

/** A rate at which BLOBS blobs were moved. */
async function moving(rate: Promise<number>): Promise<Measured> {
  return { perSecond: await rate, units: BLOBS * BLOB_BYTES };
}

function startOnBothCores(fleet: ServerFleet, tls: TlsFiles | undefined): Promise<RunningServer> {
  return fleet.startLedge({ ...inMemory(tls), pinned: false });
}

function inMemory(tls: TlsFiles | undefined): LedgeOptions {
  return tls === undefined ? { store: "memory" } : { store: "memory", tls };
}

function inGigabytes<S extends { readonly values: readonly number[] }>(series: S): S & { readonly unit: string } {
  return { ...series, unit: "GB/s", values: series.values.map((value) => value / GIGA) };
}
