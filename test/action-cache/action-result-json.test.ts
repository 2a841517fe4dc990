// ActionResult as JSON: the text that Python's protobuf writes for the same message, and random messages there and back.

import { assert, bigInt, boolean, integer, option, record, string, uint8Array, array, property } from "fast-check";
import { describe, expect, test } from "vitest";
import { actionResultFromJson, actionResultToJson } from "../../src/action-cache/action-result-json.ts";
import { ActionResult, type ActionResultInit } from "../../src/proto/remote_execution.ts";

const digest = { hash: "ab".repeat(32), sizeBytes: 5_000_000_000 };

const SAMPLE: ActionResultInit = {
  outputFiles: [
    {
      path: "a/b.o",
      digest,
      isExecutable: true,
      contents: Uint8Array.of(0xfb, 0xff, 1),
      nodeProperties: { unixMode: 0 },
    },
  ],
  outputDirectories: [{ path: "d", treeDigest: digest, rootDirectoryDigest: digest, isTopologicallySorted: true }],
  outputSymlinks: [{ path: "l", target: "../ü" }],
  exitCode: -1,
  stdoutRaw: Buffer.from("hello"),
  executionMetadata: {
    worker: "w",
    queuedTimestamp: { seconds: 1_700_000_000, nanos: 0 },
    workerStartTimestamp: { seconds: 1_700_000_000, nanos: 120_000_000 },
    executionStartTimestamp: { seconds: -1, nanos: 1 },
    virtualExecutionDuration: { seconds: 3, nanos: 1000 },
    auxiliaryMetadata: [{ typeUrl: "type.example/x.Y", value: Uint8Array.of(8, 1) }],
  },
};

/** As `google.protobuf.json_format.MessageToDict` gives it, but for the Any, whose type it does not know either. */
const SAMPLE_JSON = {
  outputFiles: [
    {
      path: "a/b.o",
      digest: { hash: digest.hash, sizeBytes: "5000000000" },
      isExecutable: true,
      contents: "+/8B",
      nodeProperties: { unixMode: 0 },
    },
  ],
  outputDirectories: [
    {
      path: "d",
      treeDigest: { hash: digest.hash, sizeBytes: "5000000000" },
      rootDirectoryDigest: { hash: digest.hash, sizeBytes: "5000000000" },
      isTopologicallySorted: true,
    },
  ],
  outputSymlinks: [{ path: "l", target: "../ü" }],
  exitCode: -1,
  stdoutRaw: "aGVsbG8=",
  executionMetadata: {
    worker: "w",
    queuedTimestamp: "2023-11-14T22:13:20Z",
    workerStartTimestamp: "2023-11-14T22:13:20.120Z",
    executionStartTimestamp: "1969-12-31T23:59:59.000000001Z",
    virtualExecutionDuration: "3.000001s",
    auxiliaryMetadata: [{ "@type": "type.example/x.Y", value: "CAE=" }],
  },
};

describe("ActionResult as JSON", () => {
  test("is what the mapping of protocol buffers says", () => {
    expect(JSON.parse(actionResultToJson(ActionResult.encode(SAMPLE)))).toEqual(SAMPLE_JSON);
    expect(actionResultToJson(ActionResult.encode({}))).toBe("{}");
  });

  test("leaves out a time that JSON cannot say", () => {
    for (const seconds of [253_402_300_800, -62_135_596_801, 9e15]) {
      const bytes = ActionResult.encode({ executionMetadata: { worker: "w", queuedTimestamp: { seconds } } });
      expect(actionResultToJson(bytes)).toBe('{"executionMetadata":{"worker":"w"}}');
    }
  });

  test("is read back to the same message", () => {
    expect(ActionResult.decode(actionResultFromJson(JSON.stringify(SAMPLE_JSON)))).toEqual(
      ActionResult.decode(ActionResult.encode(SAMPLE)),
    );
  });

  test("takes the other spellings that the mapping allows", () => {
    const text = `{"exit_code": "7", "stdout_raw": "-_8B", "stderrDigest": null, "outputFiles": [],
      "executionMetadata": {"queued_timestamp": "2023-11-15T00:13:20.5+02:00", "virtualExecutionDuration": "-1.5s"}}`;
    const result = ActionResult.decode(actionResultFromJson(text));
    expect(result).toMatchObject({ exitCode: 7, stderrDigest: undefined, outputFiles: [] });
    expect([...result.stdoutRaw]).toEqual([0xfb, 0xff, 1]);
    expect(result.executionMetadata?.queuedTimestamp).toEqual({ seconds: 1_700_000_000, nanos: 500_000_000 });
    expect(result.executionMetadata?.virtualExecutionDuration).toEqual({ seconds: -1, nanos: -500_000_000 });
  });

  test.each([
    ["{", /not JSON/],
    ["[]", /ActionResult is \[\], expected an object/],
    ['{"exitcode": 1}', /ActionResult has no field "exitcode"/],
    ['{"__proto__": 1}', /no field/],
    ['{"exitCode": 1, "exit_code": 2}', /exitCode is there twice/],
    ['{"exitCode": 1.5}', /exitCode is 1.5, expected a whole number/],
    ['{"exitCode": 2147483648}', /expected a whole number/],
    ['{"stdoutRaw": "é"}', /stdoutRaw is "é", expected base64/],
    ['{"outputFiles": {}}', /outputFiles is \{\}, expected an array/],
    ['{"outputFiles": [{"path": 1}]}', /outputFiles\[0\].path is 1, expected a string/],
    ['{"outputFiles": [{"isExecutable": "true"}]}', /expected true or false/],
    ['{"executionMetadata": {"queuedTimestamp": "yesterday"}}', /queuedTimestamp is "yesterday", expected a time/],
    ['{"executionMetadata": {"queuedTimestamp": "2023-13-14T22:13:20Z"}}', /expected a time/],
    ['{"executionMetadata": {"virtualExecutionDuration": 3}}', /expected a duration/],
    ['{"executionMetadata": {"auxiliaryMetadata": [{"value": ""}]}}', /expected an object of "@type"/],
  ])("refuses %s", (text, message) => {
    expect(() => actionResultFromJson(text)).toThrow(message);
  });

  test("random messages come back", () => {
    const seed = Number(process.env["LEDGE_TEST_SEED"] ?? Date.now() % 1_000_000_007);
    process.stdout.write(`seed ${seed}\n`);
    const time = record({
      seconds: integer({ min: -60_000_000_000, max: 200_000_000_000 }),
      nanos: integer({ min: 0, max: 999_999_999 }),
    });
    const anyDigest = record({ hash: string(), sizeBytes: bigInt(0n, 2n ** 53n - 1n).map(Number) });
    const file = record({
      path: string(),
      digest: option(anyDigest, { nil: undefined }),
      isExecutable: boolean(),
      contents: uint8Array(),
    });
    const message = record({
      outputFiles: array(file, { maxLength: 3 }),
      exitCode: integer(),
      stderrRaw: uint8Array(),
      executionMetadata: record({ worker: string(), workerStartTimestamp: time }),
    });
    assert(
      property(message, (init) => {
        const bytes = ActionResult.encode(init);
        expect(Buffer.compare(actionResultFromJson(actionResultToJson(bytes)), bytes)).toBe(0);
      }),
      { seed },
    );
  });
});
