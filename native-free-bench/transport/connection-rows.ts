// Rows about connections: what an idle one costs, and what a client that resets its streams does to the others.

import { Flag, FrameType } from "../../src/http2/frame.ts";
import { Capabilities } from "../../src/proto/remote_execution.ts";
import { Histogram } from "../load/histogram.ts";
import { prepare } from "../load/prepared-calls.ts";
import { readProcessUsage } from "../load/process-usage.ts";
import { frame } from "../load/raw-frames.ts";
import { RequestHeaderEncoder } from "../load/request-headers.ts";
import { LoadConnection, type Endpoint, type StreamEvents } from "./load-connection.ts";
import { RequestTemplate } from "./request-template.ts";
import type { Requirement, Row, RowContext, RowResult, Series } from "./row.ts";

export const CONNECTION_ROWS: readonly Row[] = [
  { name: "idle", question: "memory of 10,000 idle connections", run: measureIdle },
  {
    name: "resets",
    question: "10,000 streams a second opened and reset by one client, which comes back whenever it is disconnected",
    run: measureResets,
  },
];

const IDLE_CONNECTIONS = 10_000;
/** Until garbage of the start is collected. */
const SETTLE_MS = 2500;

const IGNORED: StreamEvents = {
  onData: () => undefined,
  onHeaders: () => undefined,
  onBroken: () => undefined,
  onReadEnd: () => undefined,
};

async function measureIdle({ fleet, rounds }: RowContext): Promise<RowResult> {
  const values: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const server = await fleet.startLedge({ store: "disk" });
    // What the first connections bring into being is not theirs.
    const first = await openIdle(server, 100);
    await sleep(SETTLE_MS);
    const before = readProcessUsage(server.pid)!.residentBytes;
    const connections = await openIdle(server, IDLE_CONNECTIONS);
    await sleep(SETTLE_MS);
    const after = readProcessUsage(server.pid)!.residentBytes;
    for (const connection of [...first, ...connections]) connection.close();
    values.push((after - before) / IDLE_CONNECTIONS / 1024);
  }
  return {
    series: [],
    requirements: [{ what: "resident memory a connection", values, limit: 30, kind: "at most", unit: "KiB" }],
  };
}

async function openIdle(endpoint: Endpoint, count: number): Promise<LoadConnection[]> {
  const connections: LoadConnection[] = [];
  while (connections.length < count) {
    const batch = Math.min(100, count - connections.length);
    connections.push(
      ...(await Promise.all(Array.from({ length: batch }, () => LoadConnection.open(endpoint, IGNORED)))),
    );
  }
  return connections;
}

const VICTIMS = 8;
/** Calls of all of them together. */
const VICTIM_CALLS_PER_MS = 2;
const RESETS_PER_MS = 10;
const QUIET_MS = 4000;
const ATTACK_MS = 10_000;

async function measureResets({ fleet, rounds }: RowContext): Promise<RowResult> {
  const server = await fleet.startLedge({ store: "disk" });
  const victims = await Promise.all(Array.from({ length: VICTIMS }, () => Victim.open(server)));
  const [quiet, attacked, resets, disconnects]: number[][] = [[], [], [], []];
  await callFor(victims, QUIET_MS, () => undefined);
  for (let round = 0; round < rounds; round++) {
    quiet!.push(await callFor(victims, QUIET_MS, () => undefined));
    const attacker = new Attacker(server);
    attacked!.push(await callFor(victims, ATTACK_MS, () => attacker.attack(RESETS_PER_MS)));
    attacker.close();
    resets!.push((attacker.resets * 1000) / ATTACK_MS);
    disconnects!.push(attacker.disconnects);
  }
  for (const victim of victims) victim.close();
  const microseconds = (label: string, values: readonly number[]): Series => ({ label, unit: "µs", values });
  const requirement: Requirement = {
    what: "p99 of the others, attacked / quiet",
    values: attacked!.map((value, round) => value / quiet![round]!),
    limit: 2,
    kind: "at most",
    unit: "×",
  };
  return {
    series: [
      microseconds("p99 of the others, quiet", quiet!),
      microseconds("p99 of the others, attacked", attacked!),
      { label: "streams opened and reset", unit: "/s", values: resets! },
      { label: "times the attacker was disconnected in 10 s", unit: "", values: disconnects! },
    ],
    requirements: [requirement],
  };
}

/** Lets the victims call at a steady pace, and `besides` act, every millisecond; returns their p99 in microseconds. */
async function callFor(victims: readonly Victim[], durationMs: number, besides: () => void): Promise<number> {
  const latency = new Histogram();
  for (const victim of victims) victim.latency = latency;
  const begunMs = performance.now();
  let turn = 0;
  await new Promise<void>((resolve) => {
    let tick = 0;
    const look = (): void => {
      const passedMs = performance.now() - begunMs;
      for (; tick < Math.min(passedMs, durationMs); tick++) {
        besides();
        for (let call = 0; call < VICTIM_CALLS_PER_MS; call++) victims[turn++ % victims.length]!.call();
      }
      if (passedMs >= durationMs) resolve();
      else setImmediate(look);
    };
    look();
  });
  return latency.quantile(0.99);
}

/** Another client, with at most one call under way. */
class Victim implements StreamEvents {
  latency = new Histogram();
  readonly #template: RequestTemplate;
  readonly #output: Buffer;
  #connection: LoadConnection | undefined;
  #sentAtMs = 0;
  #waiting = false;

  private constructor(endpoint: Endpoint) {
    const { path, body } = prepare(Capabilities.methods.GetCapabilities, { instanceName: "" });
    const request = { path, body: Buffer.concat(body), metadata: false };
    this.#template = new RequestTemplate(request, `${endpoint.host}:${endpoint.port}`);
    this.#output = Buffer.alloc(this.#template.sizeBytes);
  }

  static async open(endpoint: Endpoint): Promise<Victim> {
    const victim = new Victim(endpoint);
    victim.#connection = await LoadConnection.open(endpoint, victim);
    victim.#connection.nextStreamId();
    victim.#connection.socket.write(victim.#template.first);
    return victim;
  }

  call(): void {
    const connection = this.#connection;
    if (connection === undefined || this.#waiting) return;
    this.#waiting = true;
    this.#sentAtMs = performance.now();
    this.#template.write(this.#output, 0, connection.nextStreamId());
    connection.socket.write(this.#output);
  }

  close(): void {
    this.#connection?.close();
  }

  onData(): void {
    // The answer ends with HEADERS.
  }

  onHeaders(_streamId: number, flags: number): void {
    if ((flags & Flag.END_STREAM) === 0 || !this.#waiting) return;
    this.#waiting = false;
    this.latency.record((performance.now() - this.#sentAtMs) * 1000);
  }

  onBroken(reason: string): void {
    throw new Error(`a client that did nothing wrong was disconnected: ${reason}`);
  }

  onReadEnd(): void {
    // Nothing to collect.
  }
}

class Attacker implements StreamEvents {
  resets = 0;
  disconnects = 0;
  readonly #endpoint: Endpoint;
  #connection: LoadConnection | undefined;
  #encoder: RequestHeaderEncoder;
  #opening = false;
  #over = false;

  constructor(endpoint: Endpoint) {
    this.#endpoint = endpoint;
    this.#encoder = new RequestHeaderEncoder(endpoint.host, "http");
  }

  attack(count: number): void {
    if (this.#connection === undefined) return this.#open();
    const frames: Buffer[] = [];
    for (let reset = 0; reset < count; reset++) {
      const id = this.#connection.nextStreamId();
      frames.push(frame(FrameType.HEADERS, Flag.END_HEADERS, id, [this.#encoder.encode(PATH)]));
      frames.push(frame(FrameType.RST_STREAM, 0, id, [CANCEL]));
    }
    this.resets += count;
    this.#connection.socket.write(Buffer.concat(frames));
  }

  close(): void {
    this.#over = true;
    this.#connection?.close();
  }

  onData(): void {
    // Nothing is asked for.
  }

  onHeaders(): void {
    // Nothing is asked for.
  }

  onBroken(): void {
    this.#connection = undefined;
    this.disconnects++;
  }

  onReadEnd(): void {
    // Nothing to collect.
  }

  #open(): void {
    if (this.#opening || this.#over) return;
    this.#opening = true;
    this.#encoder = new RequestHeaderEncoder(this.#endpoint.host, "http");
    LoadConnection.open(this.#endpoint, this).then(
      (connection) => {
        this.#opening = false;
        if (this.#over) connection.close();
        else this.#connection = connection;
      },
      () => (this.#opening = false),
    );
  }
}

const PATH = Capabilities.methods.GetCapabilities.path;
const CANCEL = Buffer.of(0, 0, 0, 8);

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
