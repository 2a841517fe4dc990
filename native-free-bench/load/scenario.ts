// What a scenario is: a question, a unit, and how its calls are made on a server that was prepared for it.
//
// Invariant: `next` is cheap beside the call that it makes (uploads excepted: they hash what they make up, about
// 1.5 GB/s); all data follow from the setup's seed.

import type { LoadSetup } from "./load-setup.ts";
import type { PreparedCall } from "./raw-connection.ts";

export interface Load {
  readonly next: () => PreparedCall;
  /** What one call counts for: digests, blobs, bytes. */
  readonly unitsPerCall: number;
}

/** Connections, and calls in flight on each. */
export interface ClientShape {
  readonly connections: number;
  readonly depth: number;
}

export interface Scenario {
  readonly name: string;
  readonly question: string;
  readonly unit: "calls" | "digests" | "blobs" | "bytes" | "actions";
  /** In place of the command line's, for calls that are large or slow. */
  readonly shape?: ClientShape;
  /** A run is at least this long: calls that take seconds must end within it. */
  readonly leastDurationMs?: number;
  /** gRPC unless said otherwise. */
  readonly protocol?: "http";
  readonly prepare: (setup: LoadSetup) => Promise<Load>;
}

/** The items in turn, for ever. */
export function cycle<T>(items: readonly T[]): () => T {
  let index = 0;
  return () => items[index++ % items.length]!;
}
