// What can be measured: one entry a scenario, with its question and its unit.
//
// This file has the calls one by one; FindMissingBlobs, Execute and HTTP have files of their own, mixtures are in
// build-mixes.ts.

import { Code } from "../../src/base/status.ts";
import { ByteStream } from "../../src/proto/bytestream.ts";
import {
  ActionCache,
  Capabilities,
  ContentAddressableStorage as Cas,
  Directory,
} from "../../src/proto/remote_execution.ts";
import type { BlobDigest } from "../digest-functions.ts";
import { EXECUTE_SCENARIOS } from "./execute-scenarios.ts";
import { FIND_MISSING_SCENARIOS } from "./find-missing-scenarios.ts";
import { HTTP_SCENARIOS } from "./http-scenarios.ts";
import type { LoadSetup } from "./load-setup.ts";
import { prepare, prepareWrite } from "./prepared-calls.ts";
import type { PreparedCall } from "./raw-connection.ts";
import { cycle, type Load, type Scenario } from "./scenario.ts";
import { LEAST_TEMPLATE_BYTES, UploadTemplate } from "./upload-template.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
/** A slow disk takes a second for 64 MiB. */
const LARGE_MS = 4000;
export const SCENARIOS: readonly Scenario[] = [
  {
    name: "capabilities",
    question: "What does a call cost that needs no storage?",
    unit: "calls",
    prepare: async ({ instanceName }) => fixed(prepare(Capabilities.methods.GetCapabilities, { instanceName })),
  },
  ...FIND_MISSING_SCENARIOS,
  {
    name: "batch-update",
    question: "How fast are 100 new blobs of 1 KiB uploaded in a call?",
    unit: "blobs",
    prepare: async (setup) => {
      const template = setup.blob(KIB).data;
      return {
        unitsPerCall: 100,
        next: () =>
          prepare(Cas.methods.BatchUpdateBlobs, {
            instanceName: setup.instanceName,
            requests: Array.from({ length: 100 }, () => setup.variantOf(template)),
          }),
      };
    },
  },
  {
    name: "batch-read",
    question: "How fast are 100 blobs of 1 KiB read in a call?",
    unit: "blobs",
    prepare: async (setup) => {
      const blobs = Array.from({ length: 2000 }, () => setup.blob(KIB));
      await setup.store(blobs);
      const calls = chunked(blobs, 100).map((part) => ({
        ...prepare(Cas.methods.BatchReadBlobs, {
          instanceName: setup.instanceName,
          digests: part.map(({ digest }) => digest),
        }),
        leastBytes: 100 * KIB,
      }));
      return { unitsPerCall: 100, next: cycle(calls) };
    },
  },
  read("read-1k", "1 KiB", KIB, 500),
  read("read-1m", "1 MiB", MIB, 16, { connections: 4, depth: 2 }),
  { ...read("read-64m", "64 MiB", 64 * MIB, 1, { connections: 2, depth: 1 }), leastDurationMs: LARGE_MS },
  read("read-offset", "the second half of 1 MiB", MIB, 16, { connections: 4, depth: 2 }, { offset: MIB / 2 }),
  read("read-zstd", "1 MiB, compressed", MIB, 16, { connections: 4, depth: 2 }, { compressor: "zstd" }),
  write("write-1k", "1 KiB", KIB),
  write("write-1m", "1 MiB", MIB, { connections: 4, depth: 2 }),
  { ...write("write-64m", "64 MiB", 64 * MIB, { connections: 2, depth: 1 }), leastDurationMs: LARGE_MS },
  {
    name: "write-zstd",
    question: "How fast are new blobs of 1 MiB uploaded compressed?",
    unit: "bytes",
    shape: { connections: 4, depth: 2 },
    prepare: async (setup) => {
      const template = setup.blob(MIB).data;
      const next = (): PreparedCall => {
        const { data, digest } = setup.variantOf(template);
        return prepareWrite(setup.writeName(digest, "zstd"), setup.zstd(data));
      };
      return { unitsPerCall: MIB, next };
    },
  },
  {
    name: "ac-hit",
    question: "How fast is a complete action result found?",
    unit: "calls",
    prepare: async (setup) => {
      const actions = Array.from({ length: 1000 }, () => setup.absent(140));
      const file = setup.blob(500);
      await setup.store([file]);
      for (const action of actions)
        await setup.storeResult(action, {
          outputFiles: [{ path: "out/a.o", digest: file.digest }],
          stdoutDigest: file.digest,
        });
      return {
        unitsPerCall: 1,
        next: cycle(
          actions.map((actionDigest) =>
            prepare(ActionCache.methods.GetActionResult, { instanceName: setup.instanceName, actionDigest }),
          ),
        ),
      };
    },
  },
  {
    name: "ac-miss",
    question: "How fast is the absence of an action result found?",
    unit: "calls",
    prepare: async (setup) => {
      const { GetActionResult } = ActionCache.methods;
      const request = () => ({ instanceName: setup.instanceName, actionDigest: setup.absent(140) });
      return { unitsPerCall: 1, next: () => ({ ...prepare(GetActionResult, request()), accepts: Code.NOT_FOUND }) };
    },
  },
  {
    name: "ac-incomplete",
    question: "How fast is a result found incomplete, of which one of ten files is absent?",
    unit: "calls",
    prepare: async (setup) => {
      const { GetActionResult } = ActionCache.methods;
      const files = Array.from({ length: 9 }, () => setup.blob(100));
      await setup.store(files);
      const digests = [...files.map(({ digest }) => digest), setup.absent(100)];
      const actionDigest = setup.absent(140);
      await setup.storeResult(actionDigest, {
        outputFiles: digests.map((digest, index) => ({ path: `o${index}`, digest })),
      });
      const call = {
        ...prepare(GetActionResult, { instanceName: setup.instanceName, actionDigest }),
        accepts: Code.NOT_FOUND,
      };
      return fixed(call);
    },
  },
  {
    name: "ac-update",
    question: "How fast is an action result stored?",
    unit: "calls",
    prepare: async (setup) => {
      const file = setup.blob(500);
      await setup.store([file]);
      const actionResult = {
        outputFiles: [{ path: "out/a.o", digest: file.digest }],
        executionMetadata: { worker: "bench" },
      };
      return {
        unitsPerCall: 1,
        next: () =>
          prepare(ActionCache.methods.UpdateActionResult, {
            instanceName: setup.instanceName,
            actionDigest: setup.absent(140),
            actionResult,
          }),
      };
    },
  },
  tree("tree-wide", "1,000 subdirectories of one directory", async (setup) => {
    const directories = [];
    for (let index = 0; index < 1000; index++)
      directories.push({
        name: `d${String(index).padStart(4, "0")}`,
        blob: setup.blobOf(Directory.encode({ symlinks: [{ name: "s", target: setup.random.uuid() }] })),
      });
    await setup.store(directories.map(({ blob }) => blob));
    return await setup.storeMessage(Directory, {
      directories: directories.map(({ name, blob }) => ({ name, digest: blob.digest })),
    });
  }),
  tree("tree-deep", "a chain of 100 directories", async (setup) => {
    let digest = await setup.storeMessage(Directory, { symlinks: [{ name: "s", target: setup.random.uuid() }] });
    for (let level = 0; level < 100; level++)
      digest = await setup.storeMessage(Directory, { directories: [{ name: "d", digest }] });
    return digest;
  }),
  ...HTTP_SCENARIOS,
  ...EXECUTE_SCENARIOS,
];

function fixed(call: PreparedCall): Load {
  return { unitsPerCall: 1, next: () => call };
}

function read(
  name: string,
  what: string,
  sizeBytes: number,
  count: number,
  shape?: Scenario["shape"],
  options: { offset?: number; compressor?: string } = {},
): Scenario {
  return {
    name,
    question: `How fast is ByteStream.Read of ${what}?`,
    unit: "bytes",
    ...(shape === undefined ? {} : { shape }),
    prepare: async (setup) => {
      const blobs = Array.from({ length: count }, () => setup.blob(sizeBytes));
      await setup.store(blobs);
      const unitsPerCall = sizeBytes - (options.offset ?? 0);
      const calls = blobs.map(({ digest }) => ({
        ...prepare(ByteStream.methods.Read, {
          resourceName: setup.readName(digest, options.compressor),
          readOffset: options.offset,
        }),
        leastBytes: options.compressor === undefined ? unitsPerCall : 1,
      }));
      return { unitsPerCall, next: cycle(calls) };
    },
  };
}

function write(name: string, what: string, sizeBytes: number, shape?: Scenario["shape"]): Scenario {
  return {
    name,
    question: `How fast are new blobs of ${what} uploaded by ByteStream.Write?`,
    unit: "bytes",
    ...(shape === undefined ? {} : { shape }),
    prepare: async (setup) => {
      const template = setup.blob(sizeBytes).data;
      if (sizeBytes >= LEAST_TEMPLATE_BYTES) {
        const large = new UploadTemplate(template);
        return { unitsPerCall: sizeBytes, next: () => large.next(setup) };
      }
      const next = (): PreparedCall => {
        const { data, digest } = setup.variantOf(template);
        return prepareWrite(setup.writeName(digest), data);
      };
      return { unitsPerCall: sizeBytes, next };
    },
  };
}

function tree(name: string, what: string, make: (setup: LoadSetup) => Promise<BlobDigest>): Scenario {
  return {
    name,
    question: `How fast is GetTree of ${what}?`,
    unit: "calls",
    shape: { connections: 2, depth: 4 },
    prepare: async (setup) =>
      fixed(prepare(Cas.methods.GetTree, { instanceName: setup.instanceName, rootDigest: await make(setup) })),
  };
}

function chunked<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.floor(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
