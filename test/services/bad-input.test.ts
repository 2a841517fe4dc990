// What clients send wrong: one row per case, with the status, the message, and a server that goes on with nothing lost.
//
// ByteStream has bad-input-byte-stream.test.ts, HTTP test/http-cache/bad-input.test.ts, resource names
// test/digest/resource-name.test.ts, the transport test/grpc and test/http2.

import { zstdCompressSync } from "node:zlib";
import type { ServiceError } from "@grpc/grpc-js";
import { beforeAll, describe, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { ByteStream } from "../../src/proto/bytestream.ts";
import { ActionCache, Capabilities, ContentAddressableStorage, Directory } from "../../src/proto/remote_execution.ts";
import type { ActionResultInit } from "../../src/proto/remote_execution.ts";
import { assertAlive, BadInputServer, failureOf, GARBAGE, hash, MIB, witness } from "./bad-input-table.ts";
import { noise, sample, store } from "./sample-blobs.ts";

const { FindMissingBlobs, BatchUpdateBlobs, BatchReadBlobs, GetTree } = ContentAddressableStorage.methods;
const { Read, Write, QueryWriteStatus } = ByteStream.methods;
const { GetActionResult, UpdateActionResult } = ActionCache.methods;

const actionDigest = sample("an action").digest;

const server = new BadInputServer();

const BAD_DIGESTS = [
  ["a hash that is too short", { hash: hash.slice(1), sizeBytes: 1 }, /63 characters, expected 64/],
  ["a hash that is too long", { hash: `${hash}0`, sizeBytes: 1 }, /65 characters, expected 64/],
  ["an upper-case hash", { hash: hash.toUpperCase(), sizeBytes: 1 }, /is not lower-case hexadecimal/],
  ["a hash with another letter", { hash: `g${hash.slice(1)}`, sizeBytes: 1 }, /is not lower-case hexadecimal/],
  ["a negative size", { hash, sizeBytes: -1 }, /size_bytes -1 is not between 0 and 2\^53-1/],
  ["a huge size", { hash, sizeBytes: 2 ** 62 }, /size_bytes 4611686018427388000 is not between/],
  [
    "size 0 with another hash",
    { hash, sizeBytes: 0 },
    /size_bytes is 0 but hash .* is not the SHA256 hash of the empty/,
  ],
] as const;

server.rows(
  "digests in FindMissingBlobs",
  BAD_DIGESTS.map(
    ([name, digest, message]) =>
      [
        name,
        () => server.served.unary(FindMissingBlobs, { blobDigests: [witness.digest, digest] }),
        Code.INVALID_ARGUMENT,
        new RegExp(`blob_digests\\[1\\].*${message.source}`),
      ] as const,
  ),
);

server.rows("digests in GetActionResult", [
  ...BAD_DIGESTS.map(
    ([name, digest, message]) =>
      [
        name,
        () => server.served.unary(GetActionResult, { actionDigest: digest }),
        Code.INVALID_ARGUMENT,
        new RegExp(`action_digest.*${message.source}`),
      ] as const,
  ),
  ["none", () => server.served.unary(GetActionResult, {}), Code.INVALID_ARGUMENT, /action_digest is missing/],
]);

server.rows(
  "digests in UpdateActionResult and GetTree",
  BAD_DIGESTS.flatMap(
    ([name, digest, message]) =>
      [
        [
          `${name}, UpdateActionResult`,
          () => server.served.unary(UpdateActionResult, { actionDigest: digest, actionResult: {} }),
          Code.INVALID_ARGUMENT,
          message,
        ],
        [
          `${name}, GetTree`,
          () => server.served.stream(GetTree, [{ rootDigest: digest }]),
          Code.INVALID_ARGUMENT,
          message,
        ],
      ] as const,
  ),
);

// In the batch calls each blob has a status of its own, and its neighbour is server.served.
describe("digests in the batch calls", () => {
  test.each(BAD_DIGESTS)("%s", async (_name, digest, message) => {
    const updated = await server.served
      .unary(BatchUpdateBlobs, {
        requests: [{ digest, data: digest.sizeBytes === 1 ? Buffer.from("x") : Buffer.alloc(0) }, witness],
      })
      .catch((error: ServiceError) => error);
    if (digest.sizeBytes > 5 * MIB) {
      // A size that no batch can hold fails the call.
      expect(updated).toMatchObject({ code: Code.INVALID_ARGUMENT });
      return;
    }
    if (updated instanceof Error) throw updated;
    expect(updated.responses[0]!.status?.code).toBe(Code.INVALID_ARGUMENT);
    expect(updated.responses[0]!.status?.message).toMatch(message);
    expect(updated.responses[1]!.status?.code ?? 0).toBe(Code.OK);
    const read = await server.served.unary(BatchReadBlobs, { digests: [digest, witness.digest] });
    expect(read.responses[0]!.status?.code).toBe(Code.INVALID_ARGUMENT);
    expect(read.responses[0]!.status?.message).toMatch(message);
    expect(Buffer.from(read.responses[1]!.data).toString()).toBe("the witness");
  });
});

describe("data in BatchUpdateBlobs", () => {
  const text = sample("some text ".repeat(1000));
  test.each([
    ["another content", { digest: text.digest, data: text.data.map((byte) => byte ^ 1) }, /received bytes are/],
    ["fewer bytes", { digest: text.digest, data: text.data.subarray(1) }, /9999 bytes of data, digest says 10000/],
    ["no digest", { data: text.data }, /requests\[1\]\.digest is missing/],
    ["an unknown compressor", { ...text, compressor: 3 }, /compressor 3 is not supported/],
    ["corrupt zstd", { digest: text.digest, data: text.data, compressor: 1 }, /corrupt zstd stream/],
    [
      "zstd of fewer bytes",
      { digest: text.digest, data: zstdCompressSync(text.data.subarray(1)), compressor: 1 },
      /holds 9999 bytes, expected 10000/,
    ],
    [
      "a zstd bomb",
      { digest: text.digest, data: zstdCompressSync(Buffer.alloc(100 * MIB)), compressor: 1 },
      /more than 10000 bytes/,
    ],
    [
      "zstd of another content",
      { digest: text.digest, data: zstdCompressSync(Buffer.alloc(10_000)), compressor: 1 },
      /received bytes are/,
    ],
  ] as const)("%s", async (_name, request, message) => {
    const blobsBefore = server.blobs.count;
    const { responses } = await server.served.unary(BatchUpdateBlobs, { requests: [witness, request] });
    expect(responses[0]!.status?.code ?? 0).toBe(Code.OK);
    expect(responses[1]!.status?.code).toBe(Code.INVALID_ARGUMENT);
    expect(responses[1]!.status?.message).toMatch(message);
    await assertAlive(server, blobsBefore);
  });
});

const tooMany = Array.from({ length: 5 }, (_, i) => sample(noise(MIB, i + 1)));

server.rows("batches", [
  [
    "an update above the limit",
    () => server.served.unary(BatchUpdateBlobs, { requests: tooMany }),
    Code.INVALID_ARGUMENT,
    /5242880 bytes of blobs, at most 4128768 are allowed \(max_batch_total_size_bytes\)/,
  ],
  [
    "an update that would be above the limit when decompressed",
    () =>
      server.served.unary(BatchUpdateBlobs, {
        requests: [
          { digest: { hash, sizeBytes: 10 * MIB }, data: zstdCompressSync(Buffer.alloc(10 * MIB)), compressor: 1 },
        ],
      }),
    Code.INVALID_ARGUMENT,
    /10485760 bytes of blobs, at most 4128768/,
  ],
  [
    "a read above the limit",
    () => server.served.unary(BatchReadBlobs, { digests: tooMany.map(({ digest }) => digest) }),
    Code.INVALID_ARGUMENT,
    /asks for 5242880 bytes of blobs, at most 4128768/,
  ],
  [
    "a message above the limit of the transport",
    () => server.served.unary(BatchUpdateBlobs, Buffer.alloc(17 * MIB)),
    Code.RESOURCE_EXHAUSTED,
    /./,
  ],
]);

server.rows(
  "digest functions that this server lacks",
  ([2, 8, 10, 77] as const).flatMap((digestFunction) => {
    const message = new RegExp(`digest_function ${digestFunction} is not supported: this server offers SHA256`);
    const digest = witness.digest;
    return [
      ["FindMissingBlobs", () => server.served.unary(FindMissingBlobs, { blobDigests: [digest], digestFunction })],
      ["BatchUpdateBlobs", () => server.served.unary(BatchUpdateBlobs, { requests: [witness], digestFunction })],
      ["BatchReadBlobs", () => server.served.unary(BatchReadBlobs, { digests: [digest], digestFunction })],
      ["GetTree", () => server.served.stream(GetTree, [{ rootDigest: digest, digestFunction }])],
      ["GetActionResult", () => server.served.unary(GetActionResult, { actionDigest: digest, digestFunction })],
      [
        "UpdateActionResult",
        () => server.served.unary(UpdateActionResult, { actionDigest: digest, actionResult: {}, digestFunction }),
      ],
    ].map(
      ([name, call]) =>
        [
          `${digestFunction} in ${String(name)}`,
          call as () => Promise<unknown>,
          Code.INVALID_ARGUMENT,
          message,
        ] as const,
    );
  }),
);

server.rows(
  "instance names",
  (["a//b", "/a", "a/", "a/blobs", "x".repeat(600)] as const).flatMap((instanceName) => {
    const digest = witness.digest;
    return [
      () => server.served.unary(FindMissingBlobs, { instanceName, blobDigests: [digest] }),
      () => server.served.unary(BatchUpdateBlobs, { instanceName }),
      () => server.served.unary(BatchReadBlobs, { instanceName }),
      () => server.served.stream(GetTree, [{ instanceName, rootDigest: digest }]),
      () => server.served.unary(GetActionResult, { instanceName, actionDigest: digest }),
      () => server.served.unary(UpdateActionResult, { instanceName, actionDigest: digest, actionResult: {} }),
      () => server.served.unary(Capabilities.methods.GetCapabilities, { instanceName }),
    ].map((call, i) => [`${instanceName.slice(0, 10)} (${i})`, call, Code.INVALID_ARGUMENT, /instance_name/] as const);
  }),
);

server.rows("bytes that are no message", [
  [
    "FindMissingBlobs",
    () => server.served.unary(FindMissingBlobs, GARBAGE),
    3,
    /Cannot decode .*FindMissingBlobsRequest/,
  ],
  [
    "BatchUpdateBlobs",
    () => server.served.unary(BatchUpdateBlobs, GARBAGE),
    3,
    /Cannot decode .*BatchUpdateBlobsRequest/,
  ],
  ["BatchReadBlobs", () => server.served.unary(BatchReadBlobs, GARBAGE), 3, /Cannot decode .*BatchReadBlobsRequest/],
  ["GetTree", () => server.served.stream(GetTree, [GARBAGE]), 3, /Cannot decode .*GetTreeRequest/],
  ["GetActionResult", () => server.served.unary(GetActionResult, GARBAGE), 3, /Cannot decode .*GetActionResultRequest/],
  [
    "UpdateActionResult",
    () => server.served.unary(UpdateActionResult, GARBAGE),
    3,
    /Cannot decode .*UpdateActionResult/,
  ],
  ["Read", () => server.served.stream(Read, [GARBAGE]), 3, /Cannot decode google.bytestream.ReadRequest/],
  ["Write", () => server.served.stream(Write, [GARBAGE]), 3, /Cannot decode google.bytestream.WriteRequest/],
  [
    "QueryWriteStatus",
    () => server.served.unary(QueryWriteStatus, GARBAGE),
    3,
    /Cannot decode .*QueryWriteStatusRequest/,
  ],
  ["GetTree without a message", () => server.served.stream(GetTree, []), 3, /without a request message/],
  ["Write without a message", () => server.served.stream(Write, []), 3, /without a message/],
]);

describe("GetTree", () => {
  const text = sample("no Directory: \xff");
  const nodeless = sample(Directory.encode({ files: [{ name: "f" }] }));
  beforeAll(async () => {
    await server.blobs.put(text.digest, text.data);
    await server.blobs.put(nodeless.digest, nodeless.data);
  });
  const root = () => store(server.blobs, Directory.encode({ symlinks: [{ name: "a", target: "b" }] }));
  const tree = async (request: object) => server.served.stream(GetTree, [{ rootDigest: await root(), ...request }]);
  beforeAll(root);
  server.rows("requests", [
    [
      "an absent root",
      () => server.served.stream(GetTree, [{ rootDigest: { hash, sizeBytes: 5 } }]),
      5,
      /root directory/,
    ],
    ["no root", () => server.served.stream(GetTree, [{}]), 3, /root_digest is missing/],
    [
      "a root that is no Directory",
      () => server.served.stream(GetTree, [{ rootDigest: text.digest }]),
      3,
      /is not a Directory/,
    ],
    [
      "a node without digest",
      () => server.served.stream(GetTree, [{ rootDigest: nodeless.digest }]),
      3,
      /digest of a file/,
    ],
    [
      "a token that is garbage",
      () => tree({ pageToken: "garbage" }),
      3,
      /page_token "garbage" is not a next_page_token/,
    ],
    [
      "a token that is made up",
      () => tree({ pageToken: `5-${"0".repeat(16)}` }),
      3,
      /page_token .* is not a next_page/,
    ],
    ["a negative page size", () => tree({ pageSize: -1 }), 3, /page_size -1 is negative/],
  ]);
});

const update = (actionResult: ActionResultInit) =>
  server.served.unary(UpdateActionResult, { actionDigest, actionResult });
const digest = witness.digest;

server.rows("action results", [
  ["none", () => server.served.unary(UpdateActionResult, { actionDigest }), 3, /action_result is missing/],
  ["a file without path", () => update({ outputFiles: [{ digest }] }), 3, /an output file has an empty path/],
  ["an absolute file", () => update({ outputFiles: [{ path: "/a", digest }] }), 3, /"\/a": the path must be relative/],
  ["a file without digest", () => update({ outputFiles: [{ path: "a" }] }), 3, /output file "a": digest is missing/],
  [
    "a malformed digest",
    () => update({ outputFiles: [{ path: "a", digest: { hash: "x", sizeBytes: 1 } }] }),
    3,
    /"a": digest/,
  ],
  ["an absolute directory", () => update({ outputDirectories: [{ path: "/", treeDigest: digest }] }), 3, /relative/],
  ["a directory without Tree", () => update({ outputDirectories: [{ path: "d" }] }), 3, /"d": tree_digest is missing/],
  ["a link without target", () => update({ outputSymlinks: [{ path: "l" }] }), 3, /"l" has an empty target/],
  ["a link without path", () => update({ outputFileSymlinks: [{ target: "t" }] }), 3, /symlink has an empty path/],
  ["an absolute link", () => update({ outputDirectorySymlinks: [{ path: "/l", target: "t" }] }), 3, /relative/],
  ["inlined data of another digest", () => update({ stdoutRaw: Buffer.from("x"), stdoutDigest: digest }), 3, /bytes/],
  [
    "an absent result",
    () => server.served.unary(GetActionResult, { actionDigest }),
    Code.NOT_FOUND,
    /no result of action/,
  ],
]);

test("a result that names absent blobs is stored, and absent until they are there", async () => {
  const output = sample("an output that comes later");
  const key = { actionDigest: sample("yet another action").digest };
  await server.served.unary(UpdateActionResult, { ...key, actionResult: { stdoutDigest: output.digest, exitCode: 9 } });
  expect((await failureOf(server.served.unary(GetActionResult, key))).code).toBe(Code.NOT_FOUND);
  await server.blobs.put(output.digest, output.data);
  expect((await server.served.unary(GetActionResult, key)).exitCode).toBe(9);
});

server.rows("methods and services that do not exist", [
  [
    "a method",
    () => server.served.unary({ ...Capabilities.methods.GetCapabilities, path: `/${Capabilities.typeName}/X` }, {}),
    12,
    /./,
  ],
  [
    "a service",
    () => server.served.unary({ ...Capabilities.methods.GetCapabilities, path: "/no.Such/X" }, {}),
    12,
    /./,
  ],
]);

describe("the empty blob", () => {
  const empty = sample("").digest;
  test("is always present and never stored", async () => {
    const blobsBefore = server.blobs.count;
    expect((await server.served.unary(FindMissingBlobs, { blobDigests: [empty] })).missingBlobDigests).toEqual([]);
    await server.served.unary(BatchUpdateBlobs, { requests: [{ digest: empty }] });
    const resourceName = `uploads/u/blobs/${empty.hash}/0`;
    expect((await server.served.stream(Write, [{ resourceName, finishWrite: true }]))[0]?.committedSize).toBe(0);
    expect(await server.served.stream(Read, [{ resourceName: `blobs/${empty.hash}/0` }])).toEqual([]);
    expect(server.blobs.count).toBe(blobsBefore);
  });
});
