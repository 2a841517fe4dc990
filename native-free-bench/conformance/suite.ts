// All checks in the order in which they run: what others stand on comes first.

import type { Check } from "./check.ts";
import { actionCacheChecks } from "./checks/action-cache.ts";
import { actionCacheRequestChecks } from "./checks/action-cache-requests.ts";
import { byteStreamDuplicateChecks } from "./checks/bytestream-duplicates.ts";
import { batchReadChecks } from "./checks/batch-read.ts";
import { batchUpdateChecks } from "./checks/batch-update.ts";
import { byteStreamReadChecks } from "./checks/bytestream-read.ts";
import { byteStreamWriteChecks } from "./checks/bytestream-write.ts";
import { writeStatusChecks } from "./checks/write-status.ts";
import { capabilitiesChecks } from "./checks/capabilities.ts";
import { digestChecks, instanceChecks } from "./checks/digests.ts";
import { executeChecks } from "./checks/execute.ts";
import { executeFailureChecks } from "./checks/execute-failures.ts";
import { executeOutputChecks } from "./checks/execute-outputs.ts";
import { executeCachingChecks, executeStreamChecks } from "./checks/execute-stream.ts";
import { findMissingChecks } from "./checks/find-missing.ts";
import { getTreeChecks, splitSpliceChecks } from "./checks/get-tree.ts";
import { grpcChecks } from "./checks/grpc-protocol.ts";
import { healthChecks, reflectionChecks } from "./checks/health.ts";
import { metadataChecks } from "./checks/metadata.ts";
import { httpCacheChecks } from "./checks/http-cache.ts";
import { operationsChecks, waitExecutionChecks } from "./checks/operations.ts";
import { concurrencyChecks } from "./checks/concurrency.ts";
import { limitChecks } from "./checks/limits.ts";
import { robustnessChecks } from "./checks/robustness.ts";
import { zstdBatchChecks, zstdChecks } from "./checks/zstd.ts";

export const SUITE: readonly Check[] = [
  ...capabilitiesChecks,
  ...grpcChecks,
  ...findMissingChecks,
  ...batchUpdateChecks,
  ...batchReadChecks,
  ...byteStreamReadChecks,
  ...byteStreamWriteChecks,
  ...byteStreamDuplicateChecks,
  ...writeStatusChecks,
  ...zstdChecks,
  ...zstdBatchChecks,
  ...getTreeChecks,
  ...splitSpliceChecks,
  ...digestChecks,
  ...instanceChecks,
  ...actionCacheChecks,
  ...actionCacheRequestChecks,
  ...executeChecks,
  ...executeOutputChecks,
  ...executeFailureChecks,
  ...executeCachingChecks,
  ...executeStreamChecks,
  ...waitExecutionChecks,
  ...operationsChecks,
  ...httpCacheChecks,
  ...metadataChecks,
  ...limitChecks,
  ...concurrencyChecks,
  ...robustnessChecks,
  ...healthChecks,
  ...reflectionChecks,
];
