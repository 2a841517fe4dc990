// The calls of a trace in the order in which they began, read one at a time.
//
// Invariant: memory grows by 20 bytes a call, however large the calls are: a trace is in the order in which calls ended,
// so the first pass notes when each began and where its line is, and the second reads the lines in that order.

import { closeSync, openSync, readSync } from "node:fs";
import { parseTraceCall, readTrace, type TraceCall } from "./trace-format.ts";

export class TraceIndex {
  readonly #path: string;
  readonly #file: number;
  readonly #offsets: readonly number[];
  readonly #lengths: readonly number[];
  readonly #order: Uint32Array;

  private constructor(path: string, lines: { beginsAt: number[]; offsets: number[]; lengths: number[] }) {
    this.#path = path;
    this.#offsets = lines.offsets;
    this.#lengths = lines.lengths;
    const beginsAt = Float64Array.from(lines.beginsAt);
    this.#order = Uint32Array.from(beginsAt.keys()).sort((a, b) => beginsAt[a]! - beginsAt[b]! || a - b);
    this.#file = openSync(path, "r");
  }

  /** Shows each call to `onCall`, in the order of the file. */
  static async open(path: string, onCall: (call: TraceCall) => void): Promise<TraceIndex> {
    const lines = { beginsAt: [] as number[], offsets: [] as number[], lengths: [] as number[] };
    for await (const { call, offset, length } of readTrace(path)) {
      lines.beginsAt.push(call.at);
      lines.offsets.push(offset);
      lines.lengths.push(length);
      onCall(call);
    }
    return new TraceIndex(path, lines);
  }

  *calls(): Generator<TraceCall> {
    for (const [position, line] of this.#order.entries()) {
      const bytes = Buffer.allocUnsafe(this.#lengths[line]!);
      const read = readSync(this.#file, bytes, 0, bytes.length, this.#offsets[line]!);
      if (read < bytes.length) throw new Error(`"${this.#path}" became shorter while it was replayed`);
      yield parseTraceCall(bytes.toString(), `"${this.#path}" call ${position + 1}`);
    }
  }

  close(): void {
    closeSync(this.#file);
  }
}
