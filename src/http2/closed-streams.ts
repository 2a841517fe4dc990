// Remembers how recent streams ended, to tell late frames from wrong ones (F-22 to F-24).
//
// A ring of slots chosen by stream id: consecutive ids fill it without collisions, so it holds the last 512 streams of
// a client that does not skip ids. 2 KiB, made when the first stream closes.

export const StreamEnd = { UNKNOWN: 0, ENDED: 1, RESET_BY_US: 2 } as const;
export type StreamEnd = (typeof StreamEnd)[keyof typeof StreamEnd];

const SLOTS = 512;

export class ClosedStreams {
  /** Stream id with its reserved top bit used for "reset by us". */
  #slots: Uint32Array | undefined;

  record(streamId: number, end: StreamEnd): void {
    this.#slots ??= new Uint32Array(SLOTS);
    this.#slots[(streamId >>> 1) % SLOTS] = end === StreamEnd.RESET_BY_US ? streamId + 2 ** 31 : streamId;
  }

  find(streamId: number): StreamEnd {
    const slot = this.#slots?.[(streamId >>> 1) % SLOTS];
    if (slot === streamId) return StreamEnd.ENDED;
    return slot === streamId + 2 ** 31 ? StreamEnd.RESET_BY_US : StreamEnd.UNKNOWN;
  }
}
