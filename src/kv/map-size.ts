// How much address space LMDB's map sets aside: more than the file will ever need, and less than the process may have.
//
// The map's size is fixed while the file is open, so it must hold all that --max-size lets in. Address space costs nothing
// where it is not limited; where it is (`ulimit -v`, LimitAS=), mapping too much makes the package end the process.

import { statSync } from "node:fs";
import { readAddressSpace, type AddressSpace } from "../base/address-space.ts";
import { Code, StatusError } from "../base/status.ts";
import { formatBytes } from "../base/units.ts";

const GIB = 2 ** 30;
/** Where nobody says how large the store may become: far above any index, far below the 128 TiB a process has. */
const DEFAULT_BYTES = 2 ** 40;
const MAX_BYTES = 2 ** 45;
/** A small store's index still needs room for pages that readers of older snapshots hold. */
const MIN_BYTES = GIB;
/** Twice the limit: entries have a share of it, and pages come free late. */
const PER_STORED_BYTE = 2;
/** What an index must be able to grow by; below this the first busy minute would fill the map. */
const MIN_GROWTH_BYTES = 64 * 2 ** 20;
/** What Node maps later on in a process without worker threads: heap, malloc's arenas. */
const DEFAULT_RESERVED_BYTES = GIB / 4;

export interface MapSizeOptions {
  readonly path: string;
  /** The most the whole store may take, of which the index is a part. */
  readonly maxStoredBytes: number | undefined;
  /** What the process is going to map beside the index; without it, worker threads would end the process. */
  readonly reservedBytes?: number | undefined;
}

/** Throws FAILED_PRECONDITION, with what to do, when the limit of the process leaves too little for the file. */
export function chooseMapSize(
  options: MapSizeOptions,
  space: Pick<AddressSpace, "freeBytes"> = readAddressSpace(),
): number {
  const fileBytes = statSync(options.path, { throwIfNoEntry: false })?.size ?? 0;
  const { maxStoredBytes } = options;
  const wanted = maxStoredBytes === undefined ? DEFAULT_BYTES : maxStoredBytes * PER_STORED_BYTE;
  const size = Math.min(MAX_BYTES, Math.max(MIN_BYTES, wanted, fileBytes * 2));
  const left = space.freeBytes - (options.reservedBytes ?? DEFAULT_RESERVED_BYTES);
  if (size <= left) return wholePages(size);
  const least = fileBytes + MIN_GROWTH_BYTES;
  if (left >= least) return wholePages(left);
  throw new StatusError(
    Code.FAILED_PRECONDITION,
    `Cannot open the index "${options.path}": the limit of this process's address space is ${formatBytes(least - left)} too low ` +
      `for it and the worker threads; raise it (ulimit -v unlimited, LimitAS=infinity in a systemd unit)`,
  );
}

/** The largest page size LMDB uses. */
function wholePages(bytes: number): number {
  return Math.floor(bytes / 65_536) * 65_536;
}
