// CRC-32 of each piece of a stream of bytes.

import { crc32 } from "node:zlib";
import { CHECKSUM_PIECE_BYTES } from "./ingest-protocol.ts";

export class PieceChecksums {
  #done: number[] = [];
  #crc = 0;
  #pieceBytes = 0;

  update(data: Uint8Array): void {
    let offset = 0;
    while (offset < data.length) {
      const take = Math.min(CHECKSUM_PIECE_BYTES - this.#pieceBytes, data.length - offset);
      this.#crc = crc32(data.subarray(offset, offset + take), this.#crc);
      this.#pieceBytes += take;
      offset += take;
      if (this.#pieceBytes === CHECKSUM_PIECE_BYTES) this.#endPiece();
    }
  }

  /** One number per piece; the last piece may be shorter. */
  finish(): Uint32Array {
    if (this.#pieceBytes > 0) this.#endPiece();
    return Uint32Array.from(this.#done);
  }

  #endPiece(): void {
    this.#done.push(this.#crc);
    this.#crc = 0;
    this.#pieceBytes = 0;
  }
}
