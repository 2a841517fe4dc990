// Which invocation the work at hand belongs to, as the number its lease has in the table of invocations.
//
// Whoever serves a call says so once, and everything the call touches is leased to it, without a parameter in each
// signature on the way. Work that ends before anything else runs uses the cheap form (10 ns); what waits in between uses the
// other one (0.7 µs), which follows promises.

import { AsyncLocalStorage } from "node:async_hooks";

const acrossWaits = new AsyncLocalStorage<number>();
let untilReturn = 0;

/** What calls that name no invocation are leased to; after a restart the same name is another connection's. */
export const CONNECTION_PREFIX = "connection ";

/** Nobody's: what is touched keeps the lease it has. */
export const NO_LEASE = 0;

export function currentLease(): number {
  return untilReturn !== NO_LEASE ? untilReturn : (acrossWaits.getStore() ?? NO_LEASE);
}

/** Leases what `task` touches before it returns; what it does after its first `await` is not meant. */
export function withLease<T>(lease: number, task: () => T): T {
  const outer = untilReturn;
  untilReturn = lease;
  try {
    return task();
  } finally {
    untilReturn = outer;
  }
}

/** Leases what `task` touches, however long it takes. */
export function withLeaseAcrossWaits<T>(lease: number, task: () => T): T {
  return acrossWaits.run(lease, task);
}
