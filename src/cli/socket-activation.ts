// Sockets handed over by systemd or another parent: LISTEN_FDS descriptors from 3 on, meant for process LISTEN_PID.
//
// Invariant: the variables are gone from the environment afterwards, so that no child takes the sockets for its own.
// Source: sd_listen_fds(3).

import { UsageError } from "./flag.ts";

const FIRST_FD = 3;
const MAX_SOCKETS = 64;

/** The descriptors to accept on; empty when nothing was handed to this process. */
export function takeActivatedSockets(
  environment: Record<string, string | undefined>,
  pid: number = process.pid,
): number[] {
  const count = environment["LISTEN_FDS"];
  const owner = environment["LISTEN_PID"];
  for (const name of ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"]) delete environment[name];
  if (count === undefined || Number(owner) !== pid) return [];
  const sockets = /^\d+$/.test(count) ? Number(count) : -1;
  if (sockets < 0 || sockets > MAX_SOCKETS) {
    throw new UsageError(`LISTEN_FDS: "${count}" is not accepted; expected a whole number from 0 to ${MAX_SOCKETS}`);
  }
  return Array.from({ length: sockets }, (_, index) => FIRST_FD + index);
}
