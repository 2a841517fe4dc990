// /status: a JSON object with the names of bazel-remote, for whoever watches one already.

export interface StorageStatus {
  readonly currentBytes: number;
  readonly reservedBytes: number;
  readonly maxBytes: number;
  readonly entryCount: number;
}

export interface StatusFacts {
  readonly storage: StorageStatus;
  readonly nowMs: number;
  readonly version: string;
  readonly gitCommit: string;
}

/** Blobs are stored as they are, so both sizes are one; event loops are what comes closest to goroutines. */
export function renderStatus(facts: StatusFacts): string {
  const { storage } = facts;
  return JSON.stringify({
    CurrSize: storage.currentBytes,
    UncompressedSize: storage.currentBytes,
    ReservedSize: storage.reservedBytes,
    MaxSize: storage.maxBytes,
    NumFiles: storage.entryCount,
    ServerTime: Math.floor(facts.nowMs / 1000),
    GitCommit: facts.gitCommit,
    GitTags: facts.version,
    NumGoroutines: 1,
  });
}
