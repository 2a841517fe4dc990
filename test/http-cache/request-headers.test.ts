// What headers mean, one row per form. RFC 9110.

import { describe, expect, test } from "vitest";
import {
  acceptsZstd,
  bodyEncoding,
  declaredSize,
  matchesETag,
  parseRange,
} from "../../src/http-cache/request-headers.ts";

describe("acceptsZstd()", () => {
  test.each([
    [undefined, false],
    ["", false],
    ["gzip, deflate, br", false],
    ["zstd", true],
    ["ZSTD", true],
    ["gzip;q=1.0, zstd;q=0.5", true],
    ["gzip, zstd ; q=0.001", true],
    ["zstd;q=0", false],
    ["zstd;q=0.0", false],
    ["zstd;q=0, *", false],
    ["*", true],
    ["*;q=0", false],
    ["*;q=0, zstd", true],
    ["zstd;q=nonsense", false],
    ["xzstd, zstdx", false],
  ])("%j is %j", (header, expected) => {
    expect(acceptsZstd(header)).toBe(expected);
  });
});

describe("parseRange()", () => {
  test.each([
    [undefined, undefined],
    ["bytes=0-0", { start: 0, end: 0 }],
    ["bytes=0-", { start: 0, end: 99 }],
    ["bytes=99-", { start: 99, end: 99 }],
    ["bytes=10-1000", { start: 10, end: 99 }],
    ["bytes=-10", { start: 90, end: 99 }],
    ["bytes=-1000", { start: 0, end: 99 }],
    ["bytes=100-", "unsatisfiable"],
    ["bytes=-0", "unsatisfiable"],
    ["bytes=5-4", undefined],
    ["bytes=-", undefined],
    ["bytes=0-1,3-4", undefined],
    ["bytes=a-b", undefined],
    ["lines=0-1", undefined],
    ["bytes = 0-1", undefined],
  ])("%j of 100 bytes is %j", (header, expected) => {
    expect(parseRange(header, 100)).toEqual(expected);
  });

  test("nothing of an empty content can be asked for", () => {
    expect(parseRange("bytes=0-", 0)).toBe("unsatisfiable");
    expect(parseRange("bytes=-5", 0)).toBe("unsatisfiable");
  });
});

test("matchesETag() knows lists, weak tags and the star", () => {
  for (const header of ['"a"', 'W/"a"', '"b", "a"', "*"]) expect(matchesETag(header, '"a"')).toBe(true);
  for (const header of [undefined, "", '"b"', "a", '"aa"']) expect(matchesETag(header, '"a"')).toBe(false);
});

test("declaredSize() prefers the digest's size and refuses contradictions", () => {
  const size = (headers: Record<string, string>) => declaredSize(headers, bodyEncoding(headers));
  expect(size({})).toBeUndefined();
  expect(size({ "content-length": "5" })).toBe(5);
  expect(size({ "x-digest-sizebytes": "5" })).toBe(5);
  expect(size({ "content-length": "5", "x-digest-sizebytes": "5" })).toBe(5);
  expect(size({ "content-encoding": "zstd", "content-length": "5", "x-digest-sizebytes": "50" })).toBe(50);
  expect(size({ "content-encoding": " Identity ", "content-length": "0" })).toBe(0);
  for (const headers of [
    { "content-length": "5", "x-digest-sizebytes": "6" },
    { "x-digest-sizebytes": "-1" },
    { "x-digest-sizebytes": "1e3" },
    { "x-digest-sizebytes": "99999999999999999" },
    { "content-encoding": "zstd", "content-length": "5" },
    { "content-encoding": "gzip", "content-length": "5" },
  ]) {
    expect(() => size(headers as Record<string, string>)).toThrow(/Size|Content/);
  }
});
