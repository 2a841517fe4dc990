// Decompresses one stream that comes in pieces of any size, into slabs that the caller asks for one by one.
//
// Invariant: between two calls nothing is made: a piece that holds gigabytes is worth one slab per call. Two frames may
// meet anywhere in a piece. Whether all that was declared came is for the caller: the native decoder does not miss the
// rest of a frame of which it saw no more than three bytes. Source of the format: RFC 8878.

import { ZstdContext } from "./zstd-context.ts";
import { garbageAfter } from "./zstd-whole.ts";

export class ZstdDecoder {
  readonly #context: ZstdContext;
  #input: Uint8Array = new Uint8Array(0);
  #isLast = false;
  #readBytes = 0;

  constructor(sizeBytes: number) {
    this.#context = ZstdContext.decoder(sizeBytes);
  }

  /** Gives the next piece, which becomes the decoder's. What the piece before holds has been taken with `fill`. */
  feed(piece: Uint8Array, isLast: boolean): void {
    this.#input = piece;
    this.#isLast = isLast;
  }

  /**
   * Writes what comes next into `output` and returns how many bytes; fewer than it has room for means that another piece
   * is needed, or that all is done. Throws ZstdError when the stream is corrupt, cut or followed by garbage.
   */
  fill(output: Uint8Array): number {
    let made = 0;
    while (made < output.length) {
      const { read, written } = this.#context.step(this.#input, output.subarray(made), this.#isLast);
      this.#input = this.#input.subarray(read);
      this.#readBytes += read;
      made += written;
      if (read > 0 || written > 0) continue;
      // Room for output, and it does not want what is left of the input: the bytes after a frame begin no other.
      if (this.#input.length > 0) throw garbageAfter(this.#readBytes);
      break;
    }
    return made;
  }

  close(): void {
    this.#context.close();
  }
}
