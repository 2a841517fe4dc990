// ByteStream resource names: the grammar of wire/reapi.md 6.1, and one row per way to break it.

import { describe, expect, test } from "vitest";
import { Code, StatusError } from "../../src/base/status.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { parseInstanceName } from "../../src/digest/instance-name.ts";
import { formatReadName, parseReadName, parseWriteName } from "../../src/digest/resource-name.ts";

const HASH = "0123456789abcdef".repeat(4);
const EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

function messageOf(parse: () => unknown): string {
  try {
    parse();
  } catch (error) {
    if (error instanceof StatusError && error.code === Code.INVALID_ARGUMENT) return error.message;
    throw error;
  }
  throw new Error("it was accepted");
}

describe("parseReadName()", () => {
  test.each([
    [`blobs/${HASH}/5`, "", "identity", DigestFunction.SHA256],
    [`main/blobs/${HASH}/5`, "main", "identity", DigestFunction.SHA256],
    [`a/b/c/blobs/blake3/${HASH}/5`, "a/b/c", "identity", DigestFunction.BLAKE3],
    [`compressed-blobs/zstd/${HASH}/5`, "", "zstd", DigestFunction.SHA256],
    [`a/compressed-blobs/zstd/blake3/${HASH}/5`, "a", "zstd", DigestFunction.BLAKE3],
  ])("takes %s", (name, instanceName, encoding, fn) => {
    expect(parseReadName(name)).toEqual({ instanceName, encoding, digest: { fn, hash: HASH, sizeBytes: 5 } });
  });

  test.each([
    ["", /is empty/],
    [HASH, /no segment "blobs"/],
    [`/blobs/${HASH}/5`, /begins with "\/"/],
    [`//blobs/${HASH}/5`, /empty segment/],
    [`a//b/blobs/${HASH}/5`, /empty segment/],
    [`a/uploads/blobs/${HASH}/5`, /reserved segment "uploads"/],
    [`actions/blobs/${HASH}/5`, /reserved segment "actions"/],
    ["blobs", /hash or size is missing/],
    [`blobs/${HASH}`, /hash or size is missing/],
    [`blobs/${HASH}/`, /size "" is not a decimal/],
    [`blobs/${HASH}/-1`, /size "-1" is not a decimal/],
    [`blobs/${HASH}/1e3`, /size "1e3" is not a decimal/],
    [`blobs/${HASH}/05`, /size "05" is not a decimal/],
    [`blobs/${HASH}/+5`, /size "\+5" is not a decimal/],
    [`blobs/${HASH}/9007199254740993`, /is not between 0 and 2\^53-1/],
    [`blobs/${HASH}/99999999999999999999`, /is not a decimal number between/],
    [`blobs/${HASH}/0`, /not the SHA256 hash of the empty blob/],
    [`blobs/blake3/${EMPTY}/0`, /not the BLAKE3 hash of the empty blob/],
    [`blobs/${HASH}/5/`, /segments after the size/],
    [`blobs/${HASH}/5/more`, /segments after the size/],
    [`blobs/${HASH.toUpperCase()}/5`, /not lower-case hexadecimal/],
    [`blobs/${HASH.slice(1)}/5`, /63 characters, expected 64/],
    [`blobs/${HASH}00/5`, /66 characters, expected 64/],
    [`blobs/sha256/${HASH}/5`, /must be left out/],
    [`blobs/sha256tree/${HASH}/5`, /"sha256tree" is not supported/],
    [`blobs/gitsha1/${HASH.slice(24)}/5`, /"gitsha1" is not supported/],
    [`blobs/BLAKE3/${HASH}/5`, /6 characters, expected 64|size/],
    [`compressed-blobs/${HASH}/5`, /compressor "0123.*" is not supported/],
    [`compressed-blobs/brotli/${HASH}/5`, /compressor "brotli" is not supported, only "zstd"/],
    [`compressed-blobs/identity/${HASH}/5`, /compressor "identity" is not supported/],
    ["compressed-blobs", /compressor "" is not supported/],
    [`uploads/u/blobs/${HASH}/5`, /reserved segment "uploads"/],
    ["x".repeat(5000), /5000 characters, at most 4096/],
  ])("refuses %s", (name, expected) => {
    expect(messageOf(() => parseReadName(name))).toMatch(expected);
  });
});

describe("parseWriteName()", () => {
  test.each([
    [`uploads/u/blobs/${HASH}/5`, "", "u", "identity"],
    [`a/b/uploads/any string/blobs/${HASH}/5`, "a/b", "any string", "identity"],
    [`uploads/u/compressed-blobs/zstd/${HASH}/5`, "", "u", "zstd"],
    [`uploads/u/blobs/${HASH}/5/meta/data/blobs/x`, "", "u", "identity"],
    [`uploads/u/blobs/${HASH}/5/`, "", "u", "identity"],
    [`uploads/blobs/blobs/${HASH}/5`, "", "blobs", "identity"],
  ])("takes %s", (name, instanceName, uuid, encoding) => {
    const digest = { fn: DigestFunction.SHA256, hash: HASH, sizeBytes: 5 };
    expect(parseWriteName(name)).toEqual({ instanceName, uuid, encoding, digest });
  });

  test.each([
    [`blobs/${HASH}/5`, /no segment "uploads"/],
    [`uploads`, /no upload id/],
    [`uploads//blobs/${HASH}/5`, /no upload id/],
    [`uploads/u`, /"" where "blobs" or "compressed-blobs" was expected/],
    [`uploads/u/blob/${HASH}/5`, /"blob" where/],
    [`/uploads/u/blobs/${HASH}/5`, /begins with "\/"/],
    [`blobs/uploads/u/blobs/${HASH}/5`, /reserved segment "blobs"/],
    [`uploads/u/compressed-blobs/deflate/${HASH}/5`, /compressor "deflate"/],
    [`uploads/u/blobs/${HASH}`, /hash or size is missing/],
  ])("refuses %s", (name, expected) => {
    expect(messageOf(() => parseWriteName(name))).toMatch(expected);
  });
});

test("formatReadName() is what parseReadName() takes", () => {
  for (const fn of [DigestFunction.SHA256, DigestFunction.BLAKE3]) {
    for (const encoding of ["identity", "zstd"] as const) {
      const digest = { fn, hash: HASH, sizeBytes: 5 };
      expect(parseReadName(formatReadName(digest, encoding))).toEqual({ instanceName: "", encoding, digest });
    }
  }
});

describe("parseInstanceName()", () => {
  test.each(["", "main", "a/b/c", "ünïcode", "with space", "..", "blob"])("takes %j", (name) => {
    expect(parseInstanceName(name)).toBe(name);
  });

  test.each([
    ["/", /empty segment/],
    ["a/", /empty segment/],
    ["/a", /empty segment/],
    ["a//b", /empty segment/],
    ["blobs", /reserved/],
    ["a/uploads/b", /reserved/],
    ["actionResults", /reserved/],
    ["operations/x", /reserved/],
    ["x/capabilities", /reserved/],
    ["compressed-blobs", /reserved/],
    ["a\0b", /NUL/],
    ["x".repeat(513), /513 bytes, at most 512/],
    ["ü".repeat(300), /600 bytes, at most 512/],
  ])("refuses %j", (name, expected) => {
    expect(messageOf(() => parseInstanceName(name))).toMatch(expected);
  });
});
