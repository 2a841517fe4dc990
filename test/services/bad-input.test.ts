// What clients send wrong: one row per case, with the status, the message, and a server that goes on with nothing lost.
//
// Everything goes over a real connection. After each row a witness blob, a witness result and the number of blobs are
// what they were before. Malformed resource names have a table of their own: test/digest/resource-name.test.ts.

import { connect } from "node:net";
import { zstdCompressSync } from "node:zlib";
import { Metadata, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { ByteStream, type WriteRequestInit } from "../../src/proto/bytestream.ts";
import { ActionCache, Capabilities, ContentAddressableStorage, Directory } from "../../src/proto/remote_execution.ts";
import type { ActionResultInit } from "../../src/proto/remote_execution.ts";
import { MAX_BLOB_SIZE_BYTES, Served } from "./served.ts";
import { noise, sample, store } from "./sample-blobs.ts";

const { FindMissingBlobs, BatchUpdateBlobs, BatchReadBlobs, GetTree } = ContentAddressableStorage.methods;
const { Read, Write, QueryWriteStatus } = ByteStream.methods;
const { GetActionResult, UpdateActionResult } = ActionCache.methods;

const MIB = 1024 * 1024;
const witness = sample("the witness");
const { hash } = sample("anything").digest;
const actionDigest = sample("an action").digest;
const GARBAGE = Buffer.from([0x0a, 0xff, 0xff, 0xff, 0x0f, 1]);

let blobs: MemoryBlobStore;
let served: Served;

beforeAll(async () => {
  blobs = new MemoryBlobStore();
  served = await Served.start(blobs);
  await blobs.put(witness.digest, witness.data);
  const actionResult = { stdoutDigest: witness.digest, exitCode: 7 };
  await served.unary(UpdateActionResult, { actionDigest: witness.digest, actionResult });
});

afterAll(async () => {
  await served.close();
});

interface Row {
  readonly name: string;
  readonly call: () => Promise<unknown>;
  readonly code: number;
  readonly message: RegExp;
}

function rows(name: string, table: readonly (readonly [string, () => Promise<unknown>, number, RegExp])[]): void {
  const named: Row[] = table.map(([row, call, code, message]) => ({ name: row, call, code, message }));
  describe(name, () => {
    test.each(named)("$name", async ({ call, code, message }) => {
      const blobsBefore = blobs.count;
      const error = await failureOf(call());
      expect({ code: error.code, details: error.details }).toEqual({ code, details: expect.stringMatching(message) });
      await assertAlive(blobsBefore);
    });
  });
}

async function failureOf(call: Promise<unknown>): Promise<ServiceError> {
  return call.then(
    () => expect.unreachable("the call succeeded"),
    (error: ServiceError) => error,
  );
}

async function assertAlive(blobsBefore: number): Promise<void> {
  expect(blobs.count).toBe(blobsBefore);
  const [response] = await served.stream(Read, [{ resourceName: `blobs/${witness.digest.hash}/11` }]);
  expect(Buffer.from(response!.data).toString()).toBe("the witness");
  expect((await served.unary(GetActionResult, { actionDigest: witness.digest })).exitCode).toBe(7);
}

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

rows(
  "digests in FindMissingBlobs",
  BAD_DIGESTS.map(
    ([name, digest, message]) =>
      [
        name,
        () => served.unary(FindMissingBlobs, { blobDigests: [witness.digest, digest] }),
        Code.INVALID_ARGUMENT,
        new RegExp(`blob_digests\\[1\\].*${message.source}`),
      ] as const,
  ),
);

rows("digests in GetActionResult", [
  ...BAD_DIGESTS.map(
    ([name, digest, message]) =>
      [
        name,
        () => served.unary(GetActionResult, { actionDigest: digest }),
        Code.INVALID_ARGUMENT,
        new RegExp(`action_digest.*${message.source}`),
      ] as const,
  ),
  ["none", () => served.unary(GetActionResult, {}), Code.INVALID_ARGUMENT, /action_digest is missing/],
]);

rows(
  "digests in UpdateActionResult and GetTree",
  BAD_DIGESTS.flatMap(
    ([name, digest, message]) =>
      [
        [
          `${name}, UpdateActionResult`,
          () => served.unary(UpdateActionResult, { actionDigest: digest, actionResult: {} }),
          Code.INVALID_ARGUMENT,
          message,
        ],
        [`${name}, GetTree`, () => served.stream(GetTree, [{ rootDigest: digest }]), Code.INVALID_ARGUMENT, message],
      ] as const,
  ),
);

// In the batch calls each blob has a status of its own, and its neighbour is served.
describe("digests in the batch calls", () => {
  test.each(BAD_DIGESTS)("%s", async (_name, digest, message) => {
    const updated = await served
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
    const read = await served.unary(BatchReadBlobs, { digests: [digest, witness.digest] });
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
    const blobsBefore = blobs.count;
    const { responses } = await served.unary(BatchUpdateBlobs, { requests: [witness, request] });
    expect(responses[0]!.status?.code ?? 0).toBe(Code.OK);
    expect(responses[1]!.status?.code).toBe(Code.INVALID_ARGUMENT);
    expect(responses[1]!.status?.message).toMatch(message);
    await assertAlive(blobsBefore);
  });
});

const tooMany = Array.from({ length: 5 }, (_, i) => sample(noise(MIB, i + 1)));

rows("batches", [
  [
    "an update above the limit",
    () => served.unary(BatchUpdateBlobs, { requests: tooMany }),
    Code.INVALID_ARGUMENT,
    /5242880 bytes of blobs, at most 4128768 are allowed \(max_batch_total_size_bytes\)/,
  ],
  [
    "an update that would be above the limit when decompressed",
    () =>
      served.unary(BatchUpdateBlobs, {
        requests: [
          { digest: { hash, sizeBytes: 10 * MIB }, data: zstdCompressSync(Buffer.alloc(10 * MIB)), compressor: 1 },
        ],
      }),
    Code.INVALID_ARGUMENT,
    /10485760 bytes of blobs, at most 4128768/,
  ],
  [
    "a read above the limit",
    () => served.unary(BatchReadBlobs, { digests: tooMany.map(({ digest }) => digest) }),
    Code.INVALID_ARGUMENT,
    /asks for 5242880 bytes of blobs, at most 4128768/,
  ],
  [
    "a message above the limit of the transport",
    () => served.unary(BatchUpdateBlobs, Buffer.alloc(17 * MIB)),
    Code.RESOURCE_EXHAUSTED,
    /./,
  ],
]);

rows(
  "digest functions that this server lacks",
  ([2, 8, 10, 77] as const).flatMap((digestFunction) => {
    const message = new RegExp(`digest_function ${digestFunction} is not supported: this server offers SHA256`);
    const digest = witness.digest;
    return [
      ["FindMissingBlobs", () => served.unary(FindMissingBlobs, { blobDigests: [digest], digestFunction })],
      ["BatchUpdateBlobs", () => served.unary(BatchUpdateBlobs, { requests: [witness], digestFunction })],
      ["BatchReadBlobs", () => served.unary(BatchReadBlobs, { digests: [digest], digestFunction })],
      ["GetTree", () => served.stream(GetTree, [{ rootDigest: digest, digestFunction }])],
      ["GetActionResult", () => served.unary(GetActionResult, { actionDigest: digest, digestFunction })],
      [
        "UpdateActionResult",
        () => served.unary(UpdateActionResult, { actionDigest: digest, actionResult: {}, digestFunction }),
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

rows(
  "instance names",
  (["a//b", "/a", "a/", "a/blobs", "x".repeat(600)] as const).flatMap((instanceName) => {
    const digest = witness.digest;
    return [
      () => served.unary(FindMissingBlobs, { instanceName, blobDigests: [digest] }),
      () => served.unary(BatchUpdateBlobs, { instanceName }),
      () => served.unary(BatchReadBlobs, { instanceName }),
      () => served.stream(GetTree, [{ instanceName, rootDigest: digest }]),
      () => served.unary(GetActionResult, { instanceName, actionDigest: digest }),
      () => served.unary(UpdateActionResult, { instanceName, actionDigest: digest, actionResult: {} }),
      () => served.unary(Capabilities.methods.GetCapabilities, { instanceName }),
    ].map((call, i) => [`${instanceName.slice(0, 10)} (${i})`, call, Code.INVALID_ARGUMENT, /instance_name/] as const);
  }),
);

rows("bytes that are no message", [
  ["FindMissingBlobs", () => served.unary(FindMissingBlobs, GARBAGE), 3, /Cannot decode .*FindMissingBlobsRequest/],
  ["BatchUpdateBlobs", () => served.unary(BatchUpdateBlobs, GARBAGE), 3, /Cannot decode .*BatchUpdateBlobsRequest/],
  ["BatchReadBlobs", () => served.unary(BatchReadBlobs, GARBAGE), 3, /Cannot decode .*BatchReadBlobsRequest/],
  ["GetTree", () => served.stream(GetTree, [GARBAGE]), 3, /Cannot decode .*GetTreeRequest/],
  ["GetActionResult", () => served.unary(GetActionResult, GARBAGE), 3, /Cannot decode .*GetActionResultRequest/],
  ["UpdateActionResult", () => served.unary(UpdateActionResult, GARBAGE), 3, /Cannot decode .*UpdateActionResult/],
  ["Read", () => served.stream(Read, [GARBAGE]), 3, /Cannot decode google.bytestream.ReadRequest/],
  ["Write", () => served.stream(Write, [GARBAGE]), 3, /Cannot decode google.bytestream.WriteRequest/],
  ["QueryWriteStatus", () => served.unary(QueryWriteStatus, GARBAGE), 3, /Cannot decode .*QueryWriteStatusRequest/],
  ["GetTree without a message", () => served.stream(GetTree, []), 3, /without a request message/],
  ["Write without a message", () => served.stream(Write, []), 3, /without a message/],
]);

describe("GetTree", () => {
  const text = sample("no Directory: \xff");
  const nodeless = sample(Directory.encode({ files: [{ name: "f" }] }));
  beforeAll(async () => {
    await blobs.put(text.digest, text.data);
    await blobs.put(nodeless.digest, nodeless.data);
  });
  const root = () => store(blobs, Directory.encode({ symlinks: [{ name: "a", target: "b" }] }));
  const tree = async (request: object) => served.stream(GetTree, [{ rootDigest: await root(), ...request }]);
  beforeAll(root);
  rows("requests", [
    ["an absent root", () => served.stream(GetTree, [{ rootDigest: { hash, sizeBytes: 5 } }]), 5, /root directory/],
    ["no root", () => served.stream(GetTree, [{}]), 3, /root_digest is missing/],
    [
      "a root that is no Directory",
      () => served.stream(GetTree, [{ rootDigest: text.digest }]),
      3,
      /is not a Directory/,
    ],
    ["a node without digest", () => served.stream(GetTree, [{ rootDigest: nodeless.digest }]), 3, /digest of a file/],
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

const present = () => `blobs/${witness.digest.hash}/${witness.digest.sizeBytes}`;
const compressed = () => `compressed-blobs/zstd/${witness.digest.hash}/${witness.digest.sizeBytes}`;
const read = (request: object) => served.stream(Read, [{ resourceName: present(), ...request }]);

rows("reads", [
  ["an absent blob", () => read({ resourceName: `blobs/${hash}/5` }), Code.NOT_FOUND, /blob .* is not in the CAS|not/],
  ["an absent large blob", () => read({ resourceName: `blobs/${hash}/5000000` }), Code.NOT_FOUND, new RegExp(hash)],
  ["the right hash with another size", () => read({ resourceName: `blobs/${witness.digest.hash}/12` }), 5, /not/],
  ["a negative offset", () => read({ readOffset: -1 }), Code.OUT_OF_RANGE, /read_offset -1 is negative/],
  ["an offset past the end", () => read({ readOffset: 12 }), Code.OUT_OF_RANGE, /read_offset 12 is beyond the end/],
  ["a negative limit", () => read({ readLimit: -1 }), Code.INVALID_ARGUMENT, /read_limit -1 is negative/],
  ["a limit with compression", () => read({ resourceName: compressed(), readLimit: 5 }), 3, /it must be 0/],
  ["no name", () => served.stream(Read, [{}]), Code.INVALID_ARGUMENT, /resource_name is empty/],
  ["an unknown compressor", () => read({ resourceName: `compressed-blobs/lz4/${hash}/5` }), 3, /compressor "lz4"/],
  [
    "a header that names another resource",
    () => {
      const metadata = new Metadata();
      metadata.set("build.bazel.remote.execution.v2.resource-name", "blobs/other");
      return served.stream(Read, [{ resourceName: present() }], { metadata });
    },
    Code.INVALID_ARGUMENT,
    /header .* "blobs\/other" differs from resource_name/,
  ],
]);

const blob = sample(noise(200_000));
let uploads = 0;
/** Writes under a fresh name; the first message gets the name. */
function write(messages: readonly WriteRequestInit[], kind = "blobs", digest = blob.digest): Promise<unknown> {
  const resourceName = `uploads/bad-${uploads++}/${kind}/${digest.hash}/${digest.sizeBytes}`;
  return served.stream(
    Write,
    messages.map((message, i) => (i === 0 ? { resourceName, ...message } : message)),
  );
}
const zstd = zstdCompressSync(blob.data);
const ZSTD = "compressed-blobs/zstd";

rows("writes", [
  ["more bytes than the size", () => write([{ data: Buffer.concat([blob.data, blob.data]) }]), 3, /200000/],
  [
    "more bytes than the size, in one message that finishes",
    () => write([{ data: noise(200_001), finishWrite: true }]),
    3,
    /received 200001 bytes, expected 200000/,
  ],
  [
    "fewer bytes than the size",
    () => write([{ data: noise(5), finishWrite: true }]),
    3,
    /received 5 bytes, expected 200000/,
  ],
  [
    "fewer bytes, over several messages",
    () => write([{ data: noise(5) }, { writeOffset: 5, finishWrite: true }]),
    3,
    /received 5 bytes, expected 200000/,
  ],
  ["another content", () => write([{ data: noise(200_000, 9), finishWrite: true }]), 3, /received bytes are/],
  [
    "another content, over several messages",
    () => write([{ data: noise(100_000, 9) }, { writeOffset: 100_000, data: noise(100_000), finishWrite: true }]),
    3,
    /received bytes are|does not match/,
  ],
  [
    "a first offset to a gap",
    () => write([{ writeOffset: 10, data: noise(5) }]),
    3,
    /begins at write_offset 10, but 0 bytes/,
  ],
  ["a negative offset", () => write([{ writeOffset: -1, data: noise(5) }]), 3, /write_offset -1 is negative/],
  [
    "a later offset to a gap",
    () => write([{ data: noise(5) }, { writeOffset: 6, data: noise(5) }]),
    3,
    /write_offset 6, expected 5/,
  ],
  [
    "a later offset that goes back",
    () => write([{ data: noise(5) }, { writeOffset: 0, data: noise(5) }]),
    3,
    /write_offset 0, expected 5/,
  ],
  [
    "a message after the last",
    () =>
      write([
        { data: blob.data, finishWrite: true },
        { writeOffset: 200_000, data: noise(5) },
      ]),
    3,
    /a message followed the one with finish_write/,
  ],
  [
    "another name in a later message",
    () => write([{ data: noise(5) }, { resourceName: "uploads/x/blobs/y/5", writeOffset: 5 }]),
    3,
    /a later message names another resource/,
  ],
  ["no name", () => served.stream(Write, [{ data: noise(5) }]), 3, /must have a resource_name/],
  ["a name for reading", () => served.stream(Write, [{ resourceName: present() }]), 3, /no segment "uploads"/],
  ["corrupt zstd", () => write([{ data: noise(1000), finishWrite: true }], ZSTD), 3, /corrupt zstd stream/],
  [
    "corrupt zstd, over several messages",
    () => write([{ data: noise(1000) }, { writeOffset: 1000 }], ZSTD),
    3,
    /corrupt/,
  ],
  [
    "zstd cut short",
    () => write([{ data: zstd.subarray(0, 1000) }, { writeOffset: 1000, finishWrite: true }], ZSTD),
    3,
    /middle of a frame/,
  ],
  [
    "a zstd bomb",
    () => write([{ data: zstdCompressSync(Buffer.alloc(1000 * MIB)) }, { writeOffset: 1 }], ZSTD),
    3,
    /more than 200000 bytes/,
  ],
  [
    "zstd of fewer bytes",
    () => write([{ data: zstdCompressSync(noise(9)), finishWrite: true }], ZSTD),
    3,
    /holds 9 bytes/,
  ],
  [
    "a blob above the limit",
    () => write([{ data: noise(5) }], "blobs", { ...blob.digest, sizeBytes: MAX_BLOB_SIZE_BYTES + 1 }),
    3,
    /larger than 50000000 bytes \(max_cas_blob_size_bytes\)/,
  ],
  [
    "a status query for a name for reading",
    () => served.unary(QueryWriteStatus, { resourceName: present() }),
    3,
    /uploads/,
  ],
]);

test("a write abandoned halfway is kept, not visible, and goes on later", async () => {
  const resourceName = `uploads/halfway/blobs/${blob.digest.hash}/200000`;
  const [answer] = await served.stream(Write, [{ resourceName, data: blob.data.subarray(0, 70_000) }]);
  expect(answer?.committedSize).toBe(70_000);
  expect(blobs.has(blob.digest)).toBe(false);
  const rest = { resourceName, writeOffset: 70_000, data: blob.data.subarray(70_000), finishWrite: true };
  expect((await served.stream(Write, [rest]))[0]?.committedSize).toBe(200_000);
});

const update = (actionResult: ActionResultInit) => served.unary(UpdateActionResult, { actionDigest, actionResult });
const digest = witness.digest;

rows("action results", [
  ["none", () => served.unary(UpdateActionResult, { actionDigest }), 3, /action_result is missing/],
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
  ["an absent result", () => served.unary(GetActionResult, { actionDigest }), Code.NOT_FOUND, /no result of action/],
]);

test("a result that names absent blobs is stored, and absent until they are there", async () => {
  const output = sample("an output that comes later");
  const key = { actionDigest: sample("yet another action").digest };
  await served.unary(UpdateActionResult, { ...key, actionResult: { stdoutDigest: output.digest, exitCode: 9 } });
  expect((await failureOf(served.unary(GetActionResult, key))).code).toBe(Code.NOT_FOUND);
  await blobs.put(output.digest, output.data);
  expect((await served.unary(GetActionResult, key)).exitCode).toBe(9);
});

rows("methods and services that do not exist", [
  [
    "a method",
    () => served.unary({ ...Capabilities.methods.GetCapabilities, path: `/${Capabilities.typeName}/X` }, {}),
    12,
    /./,
  ],
  ["a service", () => served.unary({ ...Capabilities.methods.GetCapabilities, path: "/no.Such/X" }, {}), 12, /./],
]);

describe("the empty blob", () => {
  const empty = sample("").digest;
  test("is always present and never stored", async () => {
    const blobsBefore = blobs.count;
    expect((await served.unary(FindMissingBlobs, { blobDigests: [empty] })).missingBlobDigests).toEqual([]);
    await served.unary(BatchUpdateBlobs, { requests: [{ digest: empty }] });
    const resourceName = `uploads/u/blobs/${empty.hash}/0`;
    expect((await served.stream(Write, [{ resourceName, finishWrite: true }]))[0]?.committedSize).toBe(0);
    expect(await served.stream(Read, [{ resourceName: `blobs/${empty.hash}/0` }])).toEqual([]);
    expect(blobs.count).toBe(blobsBefore);
  });
});

describe("HTTP", () => {
  /** Sends bytes as they are; returns status line and body. */
  async function raw(request: string): Promise<string> {
    const socket = connect(served.port, "127.0.0.1");
    socket.write(request, "latin1"); // no half-close: Node takes that for a client that went away
    let text = "";
    for await (const chunk of socket as AsyncIterable<Buffer>) text += chunk.toString("latin1");
    return text;
  }
  const head = (line: string, headers = "") => `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${headers}\r\n`;
  const put = (path: string, body: string, headers = "") =>
    `${head(`PUT ${path}`, `Content-Length: ${body.length}\r\n${headers}`)}${body}`;

  test.each([
    ["a wrong method", head(`POST /cas/${hash}`, "Content-Length: 0\r\n"), 405, /POST is not possible/],
    ["DELETE of a blob", head(`DELETE /cas/${hash}`), 405, /only GET, HEAD, PUT/],
    ["PUT of the status", put("/status", "x"), 405, /only GET, HEAD/],
    ["a path with ..", head(`GET /a/../cas/${hash}`), 400, /segment "\.\."/],
    ["a path with %2e%2e", head(`GET /a/%2e%2E/cas/${hash}`), 400, /segment "\.\."/],
    ["a path with .", head(`GET /./cas/${hash}`), 400, /segment "\."/],
    ["a doubled slash", head(`GET //cas/${hash}`), 400, /empty segment/],
    ["an encoded slash", head(`GET /a%2fb/cas/${hash}`), 400, /contains a slash/],
    ["an encoded NUL", head(`GET /a%00b/cas/${hash}`), 400, /NUL/],
    ["bad percent-encoding", head(`GET /%zz/cas/${hash}`), 400, /not percent-encoded/],
    ["no segment ac or cas", head(`GET /blobs/${hash}`), 400, /no segment "ac" or "cas"/],
    ["no hash", head("GET /cas/"), 400, /one hash must follow "cas"/],
    ["a short hash", head("GET /cas/abc"), 400, /3 characters, expected 64/],
    ["an upper-case hash", head(`GET /cas/${hash.toUpperCase()}`), 400, /lower-case/],
    ["something behind the hash", head(`GET /cas/${hash}/x`), 400, /one hash must follow/],
    ["a reserved instance name", head(`GET /blobs/ac/${hash}`), 400, /reserved segment "blobs"/],
    ["PUT with another content", put(`/cas/${hash}`, "something else"), 400, /received bytes are/],
    ["PUT without a size", head(`PUT /cas/${hash}`), 411, /Content-Length/],
    [
      "PUT with a chunked body and no size",
      head(`PUT /cas/${hash}`, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
      411,
      /./,
    ],
    [
      "sizes that contradict",
      put(`/cas/${hash}`, "abc", "X-Digest-SizeBytes: 4\r\n"),
      400,
      /says 4 bytes, Content-Length 3/,
    ],
    ["a size that is no number", put(`/cas/${hash}`, "abc", "X-Digest-SizeBytes: x\r\n"), 400, /not a decimal number/],
    ["an empty body for a hash", put(`/cas/${hash}`, ""), 400, /size_bytes is 0 but hash/],
    ["an unknown encoding", put(`/cas/${hash}`, "abc", "Content-Encoding: br\r\n"), 400, /"br" is not supported/],
    ["zstd without a size", put(`/cas/${hash}`, "abc", "Content-Encoding: zstd\r\n"), 400, /needs the header X-Digest/],
    [
      "corrupt zstd",
      put(`/cas/${hash}`, "abc", "Content-Encoding: zstd\r\nX-Digest-SizeBytes: 9\r\n"),
      400,
      /zstd stream/,
    ],
    [
      "a chunked body shorter than said",
      `${head(`PUT /cas/${hash}`, "Transfer-Encoding: chunked\r\nX-Digest-SizeBytes: 9\r\n")}3\r\nabc\r\n0\r\n\r\n`,
      400,
      /3 bytes, declared were 9/,
    ],
    [
      "a chunked body longer than said",
      `${head(`PUT /cas/${hash}`, "Transfer-Encoding: chunked\r\nX-Digest-SizeBytes: 2\r\n")}3\r\nabc\r\n0\r\n\r\n`,
      400,
      /longer than the declared 2 bytes/,
    ],
    [
      "a blob above the limit",
      head(`PUT /cas/${hash}`, `Content-Length: ${MAX_BLOB_SIZE_BYTES + 1}\r\n`),
      413,
      /at most/,
    ],
    ["an action result above the limit", head(`PUT /ac/${hash}`, "Content-Length: 99999999\r\n"), 413, /at most/],
    ["an action result that is none", put(`/ac/${hash}`, "\x0a\xff\x01"), 400, /Cannot decode .*ActionResult/],
    ["an action result with an empty path", put(`/ac/${hash}`, "\x12\x00"), 400, /an output file has an empty path/],
    ["an action result in JSON", put(`/ac/${hash}`, "{}", "Content-Type: application/json\r\n"), 400, /JSON/],
    ["a key that is too long", head(`GET /opaque/${"k".repeat(1025)}`), 400, /more than 1024 bytes/],
    ["PUT of an opaque collection", put("/opaque/a/", "x"), 400, /is a collection/],
    ["a wrong method for opaque values", head("PATCH /opaque/a"), 405, /PATCH is not possible/],
  ])("%s", async (_name, request, status, message) => {
    const blobsBefore = blobs.count;
    const text = await raw(request);
    expect(text.slice(0, 12)).toBe(`HTTP/1.1 ${status}`);
    expect(text).toMatch(message);
    expect(text).toMatch(/content-length: \d+/i);
    await assertAlive(blobsBefore);
  });

  test("a Content-Length that lies, body cut", async () => {
    const blobsBefore = blobs.count;
    const { digest: cut } = sample("four score and seven");
    const socket = connect(served.port, "127.0.0.1");
    socket.end(head(`PUT /cas/${cut.hash}`, "Content-Length: 20\r\n") + "four score");
    socket.resume();
    await new Promise((resolve) => socket.once("close", resolve));
    expect(blobs.has(cut)).toBe(false);
    await assertAlive(blobsBefore);
  });
});

describe("a full disk", () => {
  const full = new MemoryBlobStore({ maxBytes: 1000 });
  let fullServed: Served;
  beforeAll(async () => {
    await full.put(witness.digest, witness.data);
    full.pin([witness.digest]);
    fullServed = await Served.start(full);
  });
  afterAll(() => fullServed.close());

  test("refuses writes with RESOURCE_EXHAUSTED while reads go on", async () => {
    const [small, large] = [sample(noise(2000)), sample(noise(200_000))];
    const batch = await fullServed.unary(BatchUpdateBlobs, { requests: [small, witness] });
    expect(batch.responses.map(({ status }) => status?.code ?? 0)).toEqual([Code.RESOURCE_EXHAUSTED, Code.OK]);
    for (const { data, digest: tooLarge } of [small, large]) {
      const resourceName = `uploads/u/blobs/${tooLarge.hash}/${tooLarge.sizeBytes}`;
      const half = Math.floor(data.length / 2);
      for (const messages of [
        [{ resourceName, data, finishWrite: true }],
        [
          { resourceName, data: data.subarray(0, half) },
          { writeOffset: half, data: data.subarray(half), finishWrite: true },
        ],
      ]) {
        expect((await failureOf(fullServed.stream(Write, messages))).code).toBe(Code.RESOURCE_EXHAUSTED);
      }
    }
    const response = await fetch(`http://127.0.0.1:${fullServed.port}/cas/${small.digest.hash}`, {
      method: "PUT",
      body: small.data,
    });
    expect(response.status).toBe(507);
    const [read] = await fullServed.stream(Read, [{ resourceName: present() }]);
    expect(Buffer.from(read!.data).toString()).toBe("the witness");
    expect(fullServed.partialUploads.idleCount).toBe(0);
  });
});
