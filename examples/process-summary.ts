// Reads the line in which Bazel says where its actions ran: "INFO: 59 processes: 5 internal, 54 remote."

/** The parts of the last such line in Bazel's output; empty when it ran nothing. */
export function parseProcesses(text: string): Map<string, number> {
  const parts = new Map<string, number>();
  const line = [...text.matchAll(/INFO: \d+ process(?:es)?: (.*)\./g)].at(-1)?.[1] ?? "";
  for (const [, count, kind] of line.matchAll(/(\d+) ([^,]+)/g)) parts.set(kind ?? "", Number(count));
  return parts;
}

/** Actions that ran on the machine of the user, under Bazel's control: "local", "worker", "linux-sandbox". */
export function localCount(processes: ReadonlyMap<string, number>): number {
  let count = 0;
  for (const [kind, n] of processes) if (/local|worker|sandbox/.test(kind)) count += n;
  return count;
}
