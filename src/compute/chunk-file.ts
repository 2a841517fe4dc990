// Cuts a file into content-defined chunks and names each; runs on an ingest thread.

import { closeSync, openSync, readSync } from "node:fs";
import type { DigestFunction } from "../digest/digest.ts";
import { FastCdc, type FastCdcParams } from "./fast-cdc.ts";
import { hashHex } from "./hash.ts";

export interface FileChunk {
  readonly hash: string;
  readonly sizeBytes: number;
}

export function chunkFile(fn: DigestFunction, path: string, params: FastCdcParams): FileChunk[] {
  const cdc = new FastCdc(params);
  const chunks: FileChunk[] = [];
  const file = openSync(path, "r");
  try {
    // Two chunks of the largest size: refilled whenever less than one is left.
    const window = new Uint8Array(cdc.maxBytes * 2);
    let [begin, end, atEnd] = [0, 0, false];
    for (;;) {
      while (!atEnd && end - begin < cdc.maxBytes) {
        window.copyWithin(0, begin, end);
        [begin, end] = [0, end - begin];
        const count = readSync(file, window, end, window.length - end, null);
        atEnd = count === 0;
        end += count;
      }
      if (begin === end) return chunks;
      const sizeBytes = cdc.cut(window.subarray(begin, end));
      chunks.push({ hash: hashHex(fn, window.subarray(begin, begin + sizeBytes)), sizeBytes });
      begin += sizeBytes;
    }
  } finally {
    closeSync(file);
  }
}
