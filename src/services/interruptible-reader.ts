// Reads the messages of a call while something else may happen that ends the waiting.
//
// Invariant: one promise per read. Racing each read against one long-lived promise would pile up a reaction per message
// on it, which is a leak the length of the upload.

import type { StreamCall } from "../grpc/service.ts";

/** Why a read ended without a message: the blob was stored by another writer, another call took over, time is up. */
export type Interruption = "stored" | "superseded" | "late";

export class InterruptibleReader {
  readonly #call: StreamCall;
  #interruption: Interruption | undefined;
  #wake: ((event: Interruption) => void) | undefined;

  constructor(call: StreamCall) {
    this.#call = call;
  }

  /** Ends the read under way, or the next one. Only the first interruption counts. */
  interrupt(reason: Interruption): void {
    this.#interruption ??= reason;
    this.#wake?.(this.#interruption);
  }

  /** The next message, undefined at the half-close, or what came in between. Not to be called again after that. */
  next(): Promise<Uint8Array | undefined | Interruption> {
    if (this.#interruption !== undefined) return Promise.resolve(this.#interruption);
    return new Promise((resolve, reject) => {
      this.#wake = resolve;
      this.#call.read().then(resolve, reject);
    });
  }
}
