// How much address space the process may map, where that is limited (`ulimit -v`, LimitAS=).
//
// V8 and malloc set aside far more than they use, and end the process when they cannot; so whoever needs much of it asks
// here first and says what to do instead.

import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { Code, StatusError } from "./status.ts";
import { formatBytes } from "./units.ts";

const GIB = 2 ** 30;

/** V8 sets 0.86 GiB aside for each thread, whatever it uses of it. */
export const ADDRESS_BYTES_PER_THREAD = GIB;
/** Node itself takes 1.3 GiB, and libuv's 16 threads 72 MiB each, for their stacks and malloc's arenas. */
const PROGRAM_BYTES = 2.5 * GIB;

export interface AddressSpace {
  /** Infinity when nothing limits it. */
  readonly limitBytes: number;
  readonly freeBytes: number;
}

/** The numbers of the kernel; a system without them has no such limit that we know of. */
export function readAddressSpace(directory = "/proc/self"): AddressSpace {
  try {
    const limit = /^Max address space\s+(\d+)\s/m.exec(readFileSync(`${directory}/limits`, "utf8"))?.[1];
    if (limit !== undefined) {
      const used = /^VmSize:\s+(\d+) kB/m.exec(readFileSync(`${directory}/status`, "utf8"))?.[1] ?? "0";
      return { limitBytes: Number(limit), freeBytes: Math.max(0, Number(limit) - Number(used) * 1024) };
    }
  } catch {
    // No such files: nothing is known to be limited.
  }
  return { limitBytes: Number.POSITIVE_INFINITY, freeBytes: Number.POSITIVE_INFINITY };
}

/** Throws FAILED_PRECONDITION when the server would die of the limit as soon as its threads start. */
export function assertAddressSpace(space: AddressSpace = readAddressSpace()): void {
  const threads = availableParallelism();
  const needed = PROGRAM_BYTES + threads * ADDRESS_BYTES_PER_THREAD;
  if (space.limitBytes >= needed) return;
  throw new StatusError(
    Code.FAILED_PRECONDITION,
    `The limit of this process's address space is too low: ${formatBytes(space.limitBytes)}, expected ${formatBytes(needed)} ` +
      `or more for ${threads} threads; raise it (ulimit -v unlimited, LimitAS=infinity in a systemd unit)`,
  );
}
