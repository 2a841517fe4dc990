// Does GetCapabilities tell the truth, in the form clients read it?
//
// What is advertised is tried out by the other areas; here it is compared with itself and with what clients refuse.

import {
  Capabilities,
  Compressor_Value,
  DigestFunction_Value,
  SymlinkAbsolutePathStrategy_Value,
} from "../../../src/proto/remote_execution.ts";
import { defineArea, expectCode, expectEqual, expectOk, expectPresent, expectThat, type Check } from "../check.ts";
import { Code } from "../../../src/base/status.ts";
import type { Probe } from "../probe.ts";

const CITES = "REv2 ServerCapabilities and its messages";
const KNOWN_FUNCTIONS = Object.values(DigestFunction_Value).filter((value) => value !== 0) as readonly number[];

const version = (semver: { major: number; minor: number } | undefined): number =>
  semver === undefined ? -1 : semver.major * 1000 + semver.minor;

export const capabilitiesChecks: readonly Check[] = defineArea(
  "capabilities",
  [],
  [
    {
      id: "answers",
      level: "MUST",
      says: "GetCapabilities answers OK for the instance under test.",
      cites: "REv2 Capabilities.GetCapabilities",
      advice: "Serve the method without conditions; every client calls it first.",
      run: async (p) => expectOk(await ask(p, p.instanceName), "GetCapabilities"),
    },
    {
      id: "some-service",
      level: "MUST",
      says: "At least one of cache_capabilities and execution_capabilities is set.",
      cites: `${CITES}: which endpoint fills which`,
      advice: "Set cache_capabilities on a cache, execution_capabilities on an execution endpoint, both on both.",
      run: async (p) => {
        expectThat(
          p.capabilities.cacheCapabilities !== undefined || p.capabilities.executionCapabilities !== undefined,
          "neither is set",
        );
      },
    },
    {
      id: "stable",
      level: "SHOULD",
      says: "Two calls get the same answer.",
      cites: "REv2 Capabilities.GetCapabilities: clients may cache it",
      advice: "Derive the answer from configuration, not from load.",
      run: async (p) => {
        const { output } = Capabilities.methods.GetCapabilities;
        const [first, second] = [await ask(p, p.instanceName), await ask(p, p.instanceName)];
        expectThat(
          Buffer.compare(output.encode(first.response!), output.encode(second.response!)) === 0,
          "two answers in a row differ",
        );
      },
    },
    {
      id: "api-version-range",
      level: "MUST",
      says: "low_api_version and high_api_version are set and ordered.",
      cites: "REv2 ServerCapabilities.low_api_version, high_api_version",
      advice: "Announce the range of protocol versions that is really implemented, as major.minor.patch.",
      run: async (p) => {
        const low = version(expectPresent(p.capabilities.lowApiVersion, "low_api_version"));
        const high = version(expectPresent(p.capabilities.highApiVersion, "high_api_version"));
        expectThat(low <= high, `low_api_version is above high_api_version`);
        expectThat(low >= 2000, "low_api_version is below 2.0");
      },
    },
    {
      id: "api-version-2.0",
      level: "CLIENTS",
      says: "Clients of version 2.0 are let in (low or deprecated version at most 2.0).",
      cites: "Bazel up to 8 and recc speak 2.0; Bazel stops when its version is outside the range",
      advice: "Set low_api_version (or deprecated_api_version) to 2.0 and honour output_files and output_directories.",
      run: async (p) => {
        const lows = [p.capabilities.lowApiVersion, p.capabilities.deprecatedApiVersion].filter(
          (v) => v !== undefined && (v.major > 0 || v.minor > 0),
        );
        expectThat(
          lows.some((low) => version(low) <= 2000),
          "every client of version 2.0 is refused",
        );
      },
    },
    {
      id: "deprecated-below-low",
      level: "MUST",
      says: "deprecated_api_version, when set, is not above low_api_version.",
      cites: "REv2 ServerCapabilities.deprecated_api_version",
      advice: "It names versions below low_api_version that are still accepted with a warning; leave it out otherwise.",
      run: async (p) => {
        const deprecated = p.capabilities.deprecatedApiVersion;
        if (deprecated !== undefined)
          expectThat(version(deprecated) <= version(p.capabilities.lowApiVersion), "it is above low_api_version");
      },
    },
    {
      id: "digest-functions-set",
      level: "MUST",
      says: "cache_capabilities.digest_functions names at least one function and never UNKNOWN.",
      cites: "REv2 CacheCapabilities.digest_functions; DigestFunction.Value.UNKNOWN",
      advice: "List what the store accepts; UNKNOWN is only for requests.",
      needs: ["cache"],
      run: async (p) => {
        const functions = p.capabilities.cacheCapabilities!.digestFunctions;
        expectThat(functions.length > 0, "the list is empty");
        expectThat(!functions.includes(DigestFunction_Value.UNKNOWN), "the list contains UNKNOWN");
      },
    },
    {
      id: "digest-functions-known",
      level: "SHOULD",
      says: "digest_functions holds defined values, each once.",
      cites: "REv2 DigestFunction.Value",
      advice: "Do not announce numbers of your own; clients compare with the enum.",
      needs: ["cache"],
      run: async (p) => {
        const functions = p.capabilities.cacheCapabilities!.digestFunctions;
        for (const value of functions) expectThat(KNOWN_FUNCTIONS.includes(value), `${value} is not defined`);
        expectEqual(new Set(functions).size, functions.length, "Different functions in the list");
      },
    },
    {
      id: "sha256",
      level: "CLIENTS",
      says: "SHA256 is among the digest functions.",
      cites: "the default of Bazel, Buck2, reclient, BuildStream",
      advice: "Serve SHA256, alone or among others.",
      needs: ["cache"],
      run: async (p) => expectThat(p.has("sha256"), "SHA256 is not in digest_functions"),
    },
    {
      id: "compressors-known",
      level: "SHOULD",
      says: "supported_compressors holds defined values, each once.",
      cites: "REv2 Compressor.Value",
      advice: "IDENTITY need not be listed; ZSTD, DEFLATE and BROTLI may.",
      needs: ["cache"],
      run: async (p) => {
        const list = p.capabilities.cacheCapabilities!.supportedCompressors;
        const known = Object.values(Compressor_Value) as readonly number[];
        for (const value of list) expectThat(known.includes(value), `${value} is not defined`);
        expectEqual(new Set(list).size, list.length, "Different compressors in the list");
      },
    },
    {
      id: "batch-compressors-known",
      level: "SHOULD",
      says: "supported_batch_update_compressors holds defined values, each once.",
      cites: "REv2 CacheCapabilities.supported_batch_update_compressors",
      advice: "List only what BatchUpdateBlobs decompresses.",
      needs: ["cache"],
      run: async (p) => {
        const list = p.capabilities.cacheCapabilities!.supportedBatchUpdateCompressors;
        const known = Object.values(Compressor_Value) as readonly number[];
        for (const value of list) expectThat(known.includes(value), `${value} is not defined`);
        expectEqual(new Set(list).size, list.length, "Different compressors in the list");
      },
    },
    {
      id: "batch-limit-fits",
      level: "CLIENTS",
      says: "max_batch_total_size_bytes leaves room in a gRPC message of 4 MiB.",
      cites:
        "client libraries refuse messages above 4 MiB by default; casd and Buck2 fill batches to the announced limit",
      advice: "Announce a limit of some 64 KiB below 4 MiB, unless the server tells its clients about larger messages.",
      needs: ["cache"],
      run: async (p) => {
        const limit = p.capabilities.cacheCapabilities!.maxBatchTotalSizeBytes;
        expectThat(limit > 0, "no limit is announced, so clients fill messages beyond what they can receive");
        expectThat(
          limit < 4 * 1024 * 1024,
          `a batch of ${limit} bytes does not fit a message of 4194304 with its digests`,
        );
      },
    },
    {
      id: "batch-limit-useful",
      level: "SHOULD",
      says: "max_batch_total_size_bytes is not negative and lets at least 64 KiB through.",
      cites: "REv2 CacheCapabilities.max_batch_total_size_bytes",
      advice: "A tiny limit turns every small upload into a ByteStream call.",
      needs: ["batch-limit"],
      run: async (p) =>
        expectThat(p.capabilities.cacheCapabilities!.maxBatchTotalSizeBytes >= 65_536, "the limit is below 64 KiB"),
    },
    {
      id: "blob-limit-sane",
      level: "MUST",
      says: "max_cas_blob_size_bytes, when set, is not below what a batch may carry.",
      cites: "REv2 CacheCapabilities.max_cas_blob_size_bytes",
      advice: "0 means no limit; anything else bounds every upload path.",
      needs: ["blob-limit"],
      run: async (p) => {
        const { maxCasBlobSizeBytes, maxBatchTotalSizeBytes } = p.capabilities.cacheCapabilities!;
        expectThat(
          maxCasBlobSizeBytes >= Math.min(maxBatchTotalSizeBytes, 65_536),
          `a blob may have ${maxCasBlobSizeBytes} bytes only`,
        );
      },
    },
    {
      id: "symlink-strategy-known",
      level: "SHOULD",
      says: "symlink_absolute_path_strategy says ALLOWED or DISALLOWED.",
      cites: "REv2 SymlinkAbsolutePathStrategy.Value",
      advice: "UNKNOWN leaves clients guessing whether their trees will be refused.",
      needs: ["cache"],
      run: async (p) => {
        const strategy = p.capabilities.cacheCapabilities!.symlinkAbsolutePathStrategy;
        expectThat(
          strategy === SymlinkAbsolutePathStrategy_Value.ALLOWED ||
            strategy === SymlinkAbsolutePathStrategy_Value.DISALLOWED,
          `it is ${strategy}`,
        );
      },
    },
    {
      id: "ac-update-set",
      level: "SHOULD",
      says: "action_cache_update_capabilities is set, whatever it says.",
      cites:
        "REv2 CacheCapabilities.action_cache_update_capabilities; Bazel reads update_enabled before it uploads results",
      advice: "Set the message even when update_enabled is false.",
      needs: ["cache"],
      run: async (p) => {
        expectPresent(
          p.capabilities.cacheCapabilities!.actionCacheUpdateCapabilities,
          "action_cache_update_capabilities",
        );
      },
    },
    {
      id: "priority-ranges-ordered",
      level: "MUST",
      says: "Every announced priority range has min_priority at most max_priority.",
      cites: "REv2 PriorityCapabilities.PriorityRange",
      advice: "Both ends are inclusive; a smaller number is more urgent.",
      run: async (p) => {
        const cache = p.capabilities.cacheCapabilities?.cachePriorityCapabilities?.priorities ?? [];
        const execution = p.capabilities.executionCapabilities?.executionPriorityCapabilities?.priorities ?? [];
        for (const range of [...cache, ...execution]) {
          expectThat(
            range.minPriority <= range.maxPriority,
            `a range goes from ${range.minPriority} to ${range.maxPriority}`,
          );
        }
      },
    },
    {
      id: "priority-includes-default",
      level: "CLIENTS",
      says: "Announced execution priorities include 0, the default.",
      cites: "REv2 ExecutionPolicy.priority: 0 is the default; Bazel checks its option against the ranges",
      advice: "Announce one range around 0, such as -1000 to 1000.",
      needs: ["exec"],
      run: async (p) => {
        const ranges = p.capabilities.executionCapabilities!.executionPriorityCapabilities?.priorities ?? [];
        if (ranges.length === 0) return;
        expectThat(
          ranges.some((range) => range.minPriority <= 0 && range.maxPriority >= 0),
          "0 is in no range",
        );
      },
    },
    {
      id: "exec-digest-function",
      level: "MUST",
      says: "execution_capabilities.digest_function is not UNKNOWN.",
      cites: "REv2 ExecutionCapabilities.digest_function",
      advice: "Old clients read the singular field only.",
      needs: ["exec"],
      run: async (p) =>
        expectThat(
          p.capabilities.executionCapabilities!.digestFunction !== DigestFunction_Value.UNKNOWN,
          "it is UNKNOWN",
        ),
    },
    {
      id: "exec-digest-functions-agree",
      level: "MUST",
      says: "execution_capabilities.digest_functions, when set, contains digest_function.",
      cites: "REv2 ExecutionCapabilities.digest_functions",
      advice: "Put the singular value into the list.",
      needs: ["exec"],
      run: async (p) => {
        const { digestFunction, digestFunctions } = p.capabilities.executionCapabilities!;
        if (digestFunctions.length > 0)
          expectThat(digestFunctions.includes(digestFunction), "the list does not contain the singular value");
      },
    },
    {
      id: "exec-functions-stored",
      level: "SHOULD",
      says: "Every digest function of execution is one the cache stores.",
      cites: "REv2 ExecutionCapabilities.digest_functions, CacheCapabilities.digest_functions",
      advice: "An action's inputs must be in the CAS under the function of the action.",
      needs: ["exec", "cache"],
      run: async (p) => {
        const stored = p.capabilities.cacheCapabilities!.digestFunctions;
        for (const value of p.capabilities.executionCapabilities!.digestFunctions)
          expectThat(stored.includes(value), `function ${value} is not stored`);
      },
    },
    {
      id: "chunking-params-in-range",
      level: "MUST",
      says: "Chunking parameters, when set, are in the allowed ranges.",
      cites:
        "REv2 FastCdc2020Params.avg_chunk_size_bytes (1 KiB to 1 MiB), RepMaxCdcParams.min_chunk_size_bytes (at least 64)",
      advice: "Clients ignore parameters outside the range and with them the feature.",
      needs: ["cache"],
      run: async (p) => {
        const { fastCdc2020Params: fast, repMaxCdcParams: rep } = p.capabilities.cacheCapabilities!;
        if (fast !== undefined)
          expectThat(
            fast.avgChunkSizeBytes >= 1024 && fast.avgChunkSizeBytes <= 1024 * 1024,
            `avg_chunk_size_bytes is ${fast.avgChunkSizeBytes}`,
          );
        if (rep !== undefined)
          expectThat(rep.minChunkSizeBytes >= 64, `min_chunk_size_bytes is ${rep.minChunkSizeBytes}`);
      },
    },
    {
      id: "unknown-instance",
      level: "SHOULD",
      says: "An instance name that was never configured gets an answer or a clear refusal, not a crash.",
      cites: "REv2 GetCapabilitiesRequest.instance_name",
      advice: "Answer as for any instance, or INVALID_ARGUMENT, NOT_FOUND or PERMISSION_DENIED naming it.",
      run: async (p) => {
        const reply = await ask(p, `conformance-${p.random.uuid()}`);
        expectCode(
          reply,
          [Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.PERMISSION_DENIED],
          "GetCapabilities of an unknown instance",
        );
      },
    },
  ],
);

async function ask(p: Probe, instanceName: string) {
  return await p.call(Capabilities.methods.GetCapabilities, { instanceName });
}
