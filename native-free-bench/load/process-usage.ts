// What a server's process used: CPU seconds, resident memory, bytes written, from /proc.
//
// Linux only; elsewhere, or for a process of somebody else, there is nothing to report.

import { readFileSync } from "node:fs";

export interface ProcessUsage {
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  readonly writtenBytes: number | undefined;
}

/** Ticks of /proc/PID/stat in a second: fixed in the kernel's interface. */
const TICKS_PER_SECOND = 100;

export function readProcessUsage(pid: number): ProcessUsage | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name in parentheses may contain anything; fields are counted after it.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    const residentKib = Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0);
    return {
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
      residentBytes: residentKib * 1024,
      writtenBytes: readWritten(pid),
    };
  } catch {
    return undefined;
  }
}

function readWritten(pid: number): number | undefined {
  try {
    return Number(/^write_bytes: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, "latin1"))?.[1]);
  } catch {
    return undefined;
  }
}
