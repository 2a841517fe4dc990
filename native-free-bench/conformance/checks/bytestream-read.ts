// ByteStream.Read of uncompressed blobs: ranges, sizes, names.

import { Code } from "../../../src/base/status.ts";
import { ByteStream, ReadResponse } from "../../../src/proto/bytestream.ts";
import {
  defineArea,
  expectBytes,
  expectCode,
  expectEqual,
  expectOk,
  expectThat,
  type Check,
  type CheckBody,
} from "../check.ts";

const CITES = "google.bytestream ByteStream.Read, ReadRequest";
const NAMES = "REv2 ContentAddressableStorage: resource names of blobs";

/** Names that no blob can have; `make` gets the hash and size of a stored blob. */
const MALFORMED_NAMES: readonly (readonly [id: string, what: string, make: (hash: string, size: number) => string])[] =
  [
    ["empty", "an empty name", () => ""],
    ["no-size", "a name without a size", (hash) => `blobs/${hash}`],
    ["no-hash", `"blobs" alone`, () => "blobs"],
    ["bad-size", "a size that is not a number", (hash) => `blobs/${hash}/12x`],
    ["negative-size", "a negative size", (hash) => `blobs/${hash}/-1`],
    ["short-hash", "a hash of 63 digits", (hash, size) => `blobs/${hash.slice(1)}/${size}`],
    ["upper-case-hash", "an upper-case hash", (hash, size) => `blobs/${"A".repeat(4)}${hash.slice(4)}/${size}`],
    ["traversal", "a path out of the store", () => "blobs/../../etc/passwd/10"],
    ["unknown-kind", "a name without a known keyword", (hash, size) => `things/${hash}/${size}`],
  ];

const malformedChecks: CheckBody[] = MALFORMED_NAMES.map(([id, what, make]) => ({
  id: `name.${id}`,
  level: "SHOULD",
  says: `Reading ${what} is INVALID_ARGUMENT.`,
  cites: NAMES,
  advice: "Parse names strictly at the edge; NOT_FOUND hides the mistake from the client's author.",
  run: async (p) => {
    const { digest } = await p.storeNew(40);
    const name = make(digest.hash, digest.sizeBytes);
    expectCode(
      await p.read(name === "" ? name : p.instancePrefix + name),
      [Code.INVALID_ARGUMENT],
      `Reading "${name}"`,
    );
  },
}));

export const byteStreamReadChecks: readonly Check[] = defineArea(
  "read",
  ["cache", "sha256"],
  [
    {
      id: "small",
      level: "MUST",
      says: "A small blob is read with its bytes.",
      cites: CITES,
      advice: "Send the bytes and end with OK.",
      run: async (p) => {
        const blob = await p.storeNew(1234);
        const read = await p.read(p.readName(blob.digest));
        expectOk(read, "Read");
        expectBytes(read.data, blob.data, "The bytes");
      },
    },
    {
      id: "large",
      level: "MUST",
      says: "A blob of 8 MiB is read with its bytes.",
      cites: CITES,
      advice: "Split it into messages that any client takes.",
      run: async (p) => {
        const blob = await p.storeNew(8 * 1024 * 1024 + 3);
        const read = await p.read(p.readName(blob.digest));
        expectOk(read, "Read");
        expectBytes(read.data, blob.data, "The bytes");
      },
    },
    {
      id: "message-size",
      level: "CLIENTS",
      says: "No message of a large read is above 4 MiB.",
      cites: "client libraries refuse messages above 4 MiB by default",
      advice: "Use chunks of 64 KiB to 2 MiB.",
      run: async (p) => {
        const blob = await p.storeNew(9 * 1024 * 1024);
        const read = await p.read(p.readName(blob.digest));
        expectOk(read, "Read");
        expectThat(
          Math.max(...read.messageSizes) <= 4 * 1024 * 1024 - 64,
          `a message has ${Math.max(...read.messageSizes)} bytes of data`,
        );
      },
    },
    {
      id: "absent",
      level: "MUST",
      says: "An absent blob is NOT_FOUND.",
      cites: `${CITES}; REv2: NOT_FOUND`,
      advice: "Clients upload again on NOT_FOUND and give up on anything else.",
      run: async (p) =>
        expectCode(await p.read(p.readName(p.absentDigest())), [Code.NOT_FOUND], "Read of an absent blob"),
    },
    {
      id: "absent-no-data",
      level: "MUST",
      says: "An absent blob sends no data before the status.",
      cites: CITES,
      advice: "Look before the first message.",
      run: async (p) =>
        expectEqual((await p.read(p.readName(p.absentDigest()))).data.length, 0, "Bytes of an absent blob"),
    },
    {
      id: "empty",
      level: "MUST",
      says: "The empty blob is read as an empty stream with OK.",
      cites: "REv2 ContentAddressableStorage: the empty blob is always present",
      advice: "Answer before asking the store.",
      run: async (p) => {
        const read = await p.read(p.readName(p.emptyDigest));
        expectOk(read, "Read of the empty blob");
        expectEqual(read.data.length, 0, "Bytes");
      },
    },
    {
      id: "offset",
      level: "MUST",
      says: "read_offset skips exactly that many bytes.",
      cites: "google.bytestream ReadRequest.read_offset",
      advice: "Clients resume broken downloads with it; a shifted byte corrupts the file.",
      run: async (p) => {
        const blob = await p.storeNew(10_000);
        for (const offset of [1, 4095, 4096, 9999]) {
          const read = await p.read(p.readName(blob.digest), { offset });
          expectOk(read, `Read from ${offset}`);
          expectBytes(read.data, blob.data.subarray(offset), `The bytes from ${offset}`);
        }
      },
    },
    {
      id: "offset-large",
      level: "MUST",
      says: "read_offset inside a blob of several messages is exact.",
      cites: "google.bytestream ReadRequest.read_offset",
      advice: "Look at offsets around the chunk size.",
      run: async (p) => {
        const blob = await p.storeNew(3 * 1024 * 1024);
        for (const offset of [65_535, 65_536, 1024 * 1024, 2 * 1024 * 1024 + 1, 3 * 1024 * 1024 - 1]) {
          const read = await p.read(p.readName(blob.digest), { offset });
          expectOk(read, `Read from ${offset}`);
          expectBytes(read.data, blob.data.subarray(offset), `The bytes from ${offset}`);
        }
      },
    },
    {
      id: "offset-at-end",
      level: "MUST",
      says: "read_offset equal to the size is an empty stream with OK.",
      cites: "google.bytestream ReadRequest.read_offset",
      advice: "Only beyond the end is OUT_OF_RANGE.",
      run: async (p) => {
        const { digest } = await p.storeNew(500);
        const read = await p.read(p.readName(digest), { offset: 500 });
        expectOk(read, "Read at the end");
        expectEqual(read.data.length, 0, "Bytes");
      },
    },
    {
      id: "offset-beyond",
      level: "MUST",
      says: "read_offset beyond the size is OUT_OF_RANGE.",
      cites: "google.bytestream ReadRequest.read_offset",
      advice: "Compare with the size before reading.",
      run: async (p) => {
        const { digest } = await p.storeNew(500);
        expectCode(await p.read(p.readName(digest), { offset: 501 }), [Code.OUT_OF_RANGE], "Read from 501 of 500");
      },
    },
    {
      id: "offset-negative",
      level: "MUST",
      says: "A negative read_offset is OUT_OF_RANGE.",
      cites: "google.bytestream ReadRequest.read_offset",
      advice: "Check both ends. INVALID_ARGUMENT is accepted here as well.",
      run: async (p) => {
        const { digest } = await p.storeNew(500);
        expectCode(
          await p.read(p.readName(digest), { offset: -1 }),
          [Code.OUT_OF_RANGE, Code.INVALID_ARGUMENT],
          "Read from -1",
        );
      },
    },
    {
      id: "limit",
      level: "MUST",
      says: "read_limit sends exactly that many bytes while there are enough.",
      cites: "google.bytestream ReadRequest.read_limit",
      advice: "Stop at the limit, also in the middle of a chunk.",
      run: async (p) => {
        const blob = await p.storeNew(200_000);
        for (const limit of [1, 1000, 65_537, 199_999]) {
          const read = await p.read(p.readName(blob.digest), { limit });
          expectOk(read, `Read with limit ${limit}`);
          expectBytes(read.data, blob.data.subarray(0, limit), `The bytes with limit ${limit}`);
        }
      },
    },
    {
      id: "offset-and-limit",
      level: "MUST",
      says: "read_offset and read_limit together cut the range out.",
      cites: "google.bytestream ReadRequest",
      advice: "The limit counts from the offset.",
      run: async (p) => {
        const blob = await p.storeNew(200_000);
        const read = await p.read(p.readName(blob.digest), { offset: 70_001, limit: 60_000 });
        expectOk(read, "Read");
        expectBytes(read.data, blob.data.subarray(70_001, 130_001), "The bytes");
      },
    },
    {
      id: "limit-beyond-end",
      level: "MUST",
      says: "read_limit beyond the end sends the rest with OK.",
      cites: "google.bytestream ReadRequest.read_limit",
      advice: "Fewer bytes only because the resource ends.",
      run: async (p) => {
        const blob = await p.storeNew(100);
        const read = await p.read(p.readName(blob.digest), { offset: 90, limit: 100 });
        expectOk(read, "Read");
        expectBytes(read.data, blob.data.subarray(90), "The bytes");
      },
    },
    {
      id: "limit-zero",
      level: "MUST",
      says: "read_limit 0 means no limit.",
      cites: "google.bytestream ReadRequest.read_limit",
      advice: "0 is the default of the field.",
      run: async (p) => {
        const blob = await p.storeNew(100);
        const read = await p.read(p.readName(blob.digest), { offset: 10, limit: 0 });
        expectOk(read, "Read");
        expectEqual(read.data.length, 90, "Bytes");
      },
    },
    {
      id: "limit-negative",
      level: "MUST",
      says: "A negative read_limit is refused.",
      cites: "google.bytestream ReadRequest.read_limit: an error",
      advice: "INVALID_ARGUMENT.",
      run: async (p) => {
        const { digest } = await p.storeNew(100);
        expectCode(
          await p.read(p.readName(digest), { limit: -1 }),
          [Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE],
          "Read with limit -1",
        );
      },
    },
    {
      id: "limit-negative-code",
      level: "SHOULD",
      says: "A negative read_limit is INVALID_ARGUMENT or OUT_OF_RANGE and sends nothing.",
      cites: "google.bytestream ReadRequest.read_limit",
      advice: "Check the request before the first message.",
      run: async (p) => {
        const { digest } = await p.storeNew(100);
        expectEqual((await p.read(p.readName(digest), { limit: -5 })).data.length, 0, "Bytes");
      },
    },
    {
      id: "wrong-size",
      level: "MUST",
      says: "A stored hash under another size is not served.",
      cites: "REv2 Digest: hash and size belong together",
      advice: "NOT_FOUND or INVALID_ARGUMENT.",
      run: async (p) => {
        const { digest } = await p.storeNew(100);
        expectCode(
          await p.read(p.readName({ ...digest, sizeBytes: 99 })),
          [Code.NOT_FOUND, Code.INVALID_ARGUMENT],
          "Read with size 99 of 100",
        );
      },
    },
    {
      id: "name.extra-segment",
      level: "SHOULD",
      says: "A read name with a segment after the size is INVALID_ARGUMENT.",
      cites: NAMES,
      advice: "Only upload names may go on after the size. NOT_FOUND is accepted here as well.",
      run: async (p) => {
        const { digest } = await p.storeNew(40);
        expectCode(
          await p.read(`${p.readName(digest)}/extra`),
          [Code.INVALID_ARGUMENT, Code.NOT_FOUND],
          "Read with an extra segment",
        );
      },
    },
    {
      id: "name.upload",
      level: "SHOULD",
      says: "Reading an upload name is refused.",
      cites: NAMES,
      advice: "Uploads have no readable state of their own.",
      run: async (p) => {
        const blob = await p.storeNew(40);
        expectCode(
          await p.read(p.writeName(blob.digest)),
          [Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNIMPLEMENTED],
          "Read of an upload name",
        );
      },
    },
    {
      id: "name.unknown-compressor",
      level: "SHOULD",
      says: "A compressor nobody defined is INVALID_ARGUMENT.",
      cites: NAMES,
      advice: "UNIMPLEMENTED is accepted here as well.",
      run: async (p) => {
        const { digest } = await p.storeNew(40);
        expectCode(
          await p.read(p.readName(digest, "lzma")),
          [Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.NOT_FOUND],
          "Compressor lzma",
        );
      },
    },
    ...malformedChecks,
    {
      id: "slow-reader",
      level: "SHOULD",
      says: "A reader that pauses for a second still gets the whole blob.",
      cites: "RFC 9113 section 5.2: flow control",
      advice: "Wait for credit; do not buffer the blob and do not give up after a moment.",
      run: async (p) => {
        const blob = await p.storeNew(6 * 1024 * 1024);
        const call = await p.options.channel.start(ByteStream.methods.Read.path, { signal: p.signal });
        void call.send(ByteStream.methods.Read.input.encode({ resourceName: p.readName(blob.digest) }));
        call.end();
        const parts: Uint8Array[] = [];
        const first = await call.receive();
        if (first !== undefined) parts.push(ReadResponse.decode(first).data);
        await p.pause(1000);
        for (let bytes = await call.receive(); bytes !== undefined; bytes = await call.receive())
          parts.push(ReadResponse.decode(bytes).data);
        expectOk(await call.outcome, "Read");
        expectBytes(Buffer.concat(parts), blob.data, "The bytes");
      },
    },
    {
      id: "cancelled-reader",
      level: "SHOULD",
      says: "A reader that gives up in the middle does not disturb the next one.",
      cites: "gRPC over HTTP/2: cancellation is RST_STREAM",
      advice: "Release what the stream held; do not close the connection.",
      run: async (p) => {
        const blob = await p.storeNew(6 * 1024 * 1024);
        const call = await p.options.channel.start(ByteStream.methods.Read.path, { signal: p.signal });
        void call.send(ByteStream.methods.Read.input.encode({ resourceName: p.readName(blob.digest) }));
        call.end();
        await call.receive();
        call.cancel();
        const read = await p.read(p.readName(blob.digest));
        expectOk(read, "The next Read on the same connection");
        expectBytes(read.data, blob.data, "Its bytes");
      },
    },
  ],
);
