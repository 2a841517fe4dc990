// Reads an strace log into events and says which acknowledgements came before their bytes were durable.
//
// A sync covers a write when it began after the write had returned. A call that strace shows in two lines (unfinished,
// resumed) began at the first and ended at the second.

export interface TraceEvent {
  readonly type: "write" | "sync" | "rename" | "begin" | "done" | "create";
  /** The file; for begin and done what was stored. */
  readonly path: string;
  readonly to?: string;
  /** The write is durable when it returns (O_DSYNC). */
  readonly isSyncWrite?: boolean;
  readonly beganAt: number;
  readonly endedAt: number;
}

export function parseTrace(text: string): TraceEvent[] {
  const events: TraceEvent[] = [];
  const unfinished = new Map<string, { line: string; at: number }>();
  const syncDescriptors = new Set<string>();
  for (const [at, raw] of text.split("\n").entries()) {
    const match = /^(\d+) +(.*)$/.exec(raw);
    if (match === null) continue;
    const [, thread = "", call = ""] = match;
    if (call.endsWith("<unfinished ...>")) {
      unfinished.set(thread, { line: call.slice(0, -"<unfinished ...>".length), at });
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(call);
    const begin = resumed === null ? undefined : unfinished.get(thread);
    if (resumed !== null) unfinished.delete(thread);
    const whole = begin === undefined ? call : begin.line + (resumed?.[1] ?? "");
    const event = parseCall(whole, begin?.at ?? at, at, syncDescriptors);
    if (event !== undefined) events.push(event);
  }
  return events.toSorted((a, b) => a.endedAt - b.endedAt);
}

function parseCall(
  call: string,
  beganAt: number,
  endedAt: number,
  syncDescriptors: Set<string>,
): TraceEvent | undefined {
  if (/= -1 E/.test(call)) return undefined;
  const times = { beganAt, endedAt };
  const said = /^write\(1<[^>]*>, "(begin|done) ([^"\\]+)/.exec(call);
  if (said !== null) return { type: said[1] as "begin" | "done", path: said[2] ?? "", ...times };
  const opened = /^openat\(.*, "[^"]*", ([A-Z_|]+)(?:, \d+)?\) = (\d+)<([^>]+)>/.exec(call);
  if (opened !== null) {
    const [, flags = "", descriptor = "", path = ""] = opened;
    if (flags.includes("O_DSYNC")) syncDescriptors.add(`${descriptor} ${path}`);
    else syncDescriptors.delete(`${descriptor} ${path}`);
    return flags.includes("O_CREAT") ? { type: "create", path, ...times } : undefined;
  }
  const renamed = /^rename\("([^"]+)", "([^"]+)"\)/.exec(call);
  if (renamed !== null) return { type: "rename", path: renamed[1] ?? "", to: renamed[2] ?? "", ...times };
  const onFile = /^(write|pwrite64|pwritev|writev|fdatasync|fsync)\((\d+)<([^>]+)>/.exec(call);
  if (onFile === null) return undefined;
  const [, name = "", descriptor = "", path = ""] = onFile;
  if (name.endsWith("sync")) return { type: "sync", path, ...times };
  return { type: "write", path, isSyncWrite: syncDescriptors.has(`${descriptor} ${path}`), ...times };
}

/** One sentence for each acknowledgement that came too early. */
export function findEarlyAcknowledgements(events: readonly TraceEvent[], dataDir: string): string[] {
  const index = `${dataDir}/index.mdb`;
  const problems: string[] = [];
  const created = events.find((event) => event.type === "create" && event.path === index);
  for (const done of events.filter((event) => event.type === "done")) {
    const begin = events.find((event) => event.type === "begin" && event.path === done.path);
    const known = events.filter((event) => event.endedAt < done.beganAt);
    const say = (what: string) => problems.push(`${done.path}: ${what}`);
    let after = begin?.endedAt ?? 0;
    if (created === undefined || !known.some((event) => isSync(event, dataDir, created.endedAt))) {
      say("the index file's own name is not synced");
    }
    if (done.path.startsWith("file ")) {
      const renamed = known.find((event) => event.type === "rename" && event.to?.endsWith(done.path.slice(5)));
      if (renamed?.to === undefined) {
        say("its file was never renamed");
        continue;
      }
      const lastWrite = known.findLast((event) => event.type === "write" && event.path === renamed.path);
      const synced = known.find((event) => isSync(event, renamed.path, lastWrite?.endedAt ?? 0));
      if (lastWrite === undefined || synced === undefined || synced.endedAt > renamed.beganAt)
        say("its bytes are not synced");
      const directory = renamed.to.slice(0, renamed.to.lastIndexOf("/"));
      const directorySynced = known.find((event) => isSync(event, directory, renamed.endedAt));
      if (directorySynced === undefined) say("its directory is not synced");
      after = directorySynced?.endedAt ?? renamed.endedAt;
    }
    const record = known.find((event) => event.type === "write" && event.path === index && event.beganAt > after);
    const flushed = known.find((event) => record !== undefined && isSync(event, index, record.endedAt));
    if (flushed === undefined) say("the pages of its record are not synced");
    const committed = known.find(
      (event) => event.path === index && event.isSyncWrite === true && event.beganAt > (flushed?.endedAt ?? Infinity),
    );
    if (committed === undefined) say("the commit of its record is not synced");
  }
  return problems;
}

function isSync(event: TraceEvent, path: string, after: number): boolean {
  return event.type === "sync" && event.path === path && event.beganAt > after;
}
