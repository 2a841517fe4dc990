// What the harness computes from measurements, and that it measures a known answer.

import { afterEach, describe, expect, test } from "vitest";
import { parseTarget } from "../../native-free-bench/client/target.ts";
import { UsageError } from "../../native-free-bench/arguments.ts";
import { generateLoad } from "../../native-free-bench/load/generator.ts";
import { GrpcJsClient } from "../../native-free-bench/load/grpc-js-client.ts";
import { Histogram } from "../../native-free-bench/load/histogram.ts";
import { scenarioSeed, type Measurement } from "../../native-free-bench/load/measurement.ts";
import { startNullServer, type NullServer } from "../../native-free-bench/load/null-server.ts";
import { formatPage } from "../../native-free-bench/load/page.ts";
import { RawConnection } from "../../native-free-bench/load/raw-connection.ts";
import { RequestHeaderEncoder } from "../../native-free-bench/load/request-headers.ts";
import { formatMarkdown, type BenchReport } from "../../native-free-bench/load/report.ts";
import { meanInterval, median, ratioInterval } from "../../native-free-bench/load/statistics.ts";
import { judgeThreshold, parseThreshold } from "../../native-free-bench/load/thresholds.ts";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { SCENARIOS } from "../../native-free-bench/load/scenarios.ts";
import { RandomData } from "../../native-free-bench/random-data.ts";

const SEED = 20261121;
const NULL_CALL = { path: "/ledge.bench.Null/Call", body: [Buffer.alloc(5)] };

describe("Histogram", () => {
  test("gives quantiles within 1 % of the sorted values", () => {
    const random = new RandomData(SEED);
    const values = Array.from({ length: 20_000 }, () => 10 + 100_000 * random.fraction() ** 4);
    const histogram = new Histogram();
    for (const value of values) histogram.record(value);
    values.sort((a, b) => a - b);
    for (const share of [0.1, 0.5, 0.9, 0.99, 0.999]) {
      const exact = values[Math.ceil(share * values.length) - 1]!;
      // A bucket is at most 1/128 wide; below 128 µs it is one microsecond.
      expect(Math.abs(histogram.quantile(share) - exact), `quantile ${share}, seed ${SEED}`).toBeLessThanOrEqual(
        Math.max(1, exact * 0.01),
      );
    }
  });

  test("is the same after JSON, and adds up", () => {
    const [one, two] = [new Histogram(), new Histogram()];
    for (let value = 1; value < 1000; value++) (value % 2 === 0 ? one : two).record(value);
    const sum = Histogram.fromJSON(JSON.parse(JSON.stringify(one)) as ReturnType<Histogram["toJSON"]>);
    sum.add(two);
    expect(sum.count).toBe(999);
    expect(sum.max).toBe(999);
    expect(Math.abs(sum.quantile(0.5) - 500)).toBeLessThan(5);
  });
});

describe("statistics", () => {
  test("median() takes the middle, or the mean of the two in the middle", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
  });

  test("meanInterval() is Student's interval", () => {
    const { estimate, low, high } = meanInterval([10, 12, 14]);
    expect(estimate).toBe(12);
    // 4.303 * 2 / sqrt(3)
    expect(high - low).toBeCloseTo(2 * 4.969, 2);
  });

  test("ratioInterval() pairs runs, so that what both met cancels out", () => {
    const { estimate, low, high } = ratioInterval([200, 20, 2000], [100, 10, 1000]);
    expect(estimate).toBeCloseTo(2, 9);
    expect([low, high].every((end) => Math.abs(end - 2) < 1e-9)).toBe(true);
  });
});

describe("generateLoad()", () => {
  let server: NullServer | undefined;
  afterEach(() => server?.close());

  // The delay bounds latency from below and the closed loop's rate from above, whatever else the machine does.
  test.each(["raw", "grpc-js"] as const)("finds an injected delay of 5 ms (%s)", async (kind) => {
    server = await startNullServer({ delayMs: 5 });
    const target = parseTarget(`grpc://127.0.0.1:${server.port}`);
    const client = kind === "raw" ? await RawConnection.open(target) : new GrpcJsClient(target);
    const result = await generateLoad([client], () => NULL_CALL, {
      depth: 4,
      ratePerSecond: undefined,
      warmUpMs: 100,
      durationMs: 500,
    });
    client.close();
    expect(result.errors).toEqual({});
    expect(result.calls).toBeGreaterThan(0);
    // Timers of Node are a fraction of a millisecond early.
    expect(result.latency.quantile(0.01)).toBeGreaterThan(3900);
    expect(result.calls).toBeLessThanOrEqual((4 * 500) / 3.9);
  });

  // Between two calls nothing is in flight: that was taken for the end.
  test("goes on to the end with one connection of depth 1", async () => {
    server = await startNullServer();
    const client = await RawConnection.open(parseTarget(`grpc://127.0.0.1:${server.port}`));
    const begunMs = performance.now();
    const result = await generateLoad([client], () => NULL_CALL, {
      depth: 1,
      ratePerSecond: undefined,
      warmUpMs: 50,
      durationMs: 200,
    });
    const tookMs = performance.now() - begunMs;
    client.close();
    expect(result.calls).toBeGreaterThan(0);
    expect(tookMs).toBeGreaterThanOrEqual(250);
  });

  test("counts latency from the intended start in the open loop", async () => {
    server = await startNullServer({ delayMs: 300 });
    const client = await RawConnection.open(parseTarget(`grpc://127.0.0.1:${server.port}`));
    const result = await generateLoad([client], () => NULL_CALL, {
      depth: 1,
      ratePerSecond: 100,
      warmUpMs: 0,
      durationMs: 500,
    });
    client.close();
    // All 50 arrivals are counted, although the server answers long after their time is over.
    expect(result.calls).toBeGreaterThanOrEqual(49);
    expect(result.latency.quantile(0.5)).toBeGreaterThan(290_000);
  });

  test("reports a server that goes away, with what was measured before", async () => {
    server = await startNullServer();
    const client = await RawConnection.open(parseTarget(`grpc://127.0.0.1:${server.port}`));
    setTimeout(() => server?.close(), 300);
    const result = await generateLoad([client], () => NULL_CALL, {
      depth: 4,
      ratePerSecond: undefined,
      warmUpMs: 0,
      durationMs: 5000,
    });
    expect(result.failure).toMatch(/closed|ECONNRESET/);
    expect(result.calls).toBeGreaterThan(0);
  });
});

describe("RequestHeaderEncoder", () => {
  // Several methods on one connection move each other's indexes.
  test("says the right fields for any order of methods, as our decoder reads them", () => {
    const encoder = new RequestHeaderEncoder("host:1", "http");
    const decoder = new HpackDecoder();
    const random = new RandomData(SEED);
    for (let round = 0; round < 500; round++) {
      const path = `/service/Method${random.below(12)}`;
      const block = encoder.encode(path);
      const fields: string[] = [];
      decoder.decode(block, 0, block.length, { onField: (name, value) => fields.push(`${name}: ${value}`) });
      const expected = [
        ":method: POST",
        ":scheme: http",
        `:path: ${path}`,
        ":authority: host:1",
        "te: trailers",
        "content-type: application/grpc",
      ];
      expect(fields, `round ${round}, seed ${SEED}`).toEqual(expected);
    }
  });
});

describe("reports", () => {
  const measurement = (calls: number, latencyUs: number): Measurement => {
    const latency = new Histogram();
    for (let call = 0; call < 100; call++) latency.record(latencyUs);
    return {
      calls,
      errors: {},
      shed: 0,
      durationMs: 1000,
      receivedBytes: 0,
      latency,
      timeline: [1, 2],
      failure: undefined,
      firstError: undefined,
      generatorBusy: undefined,
      unitsPerCall: 10,
      cpuMicrosecondsPerCall: undefined,
      residentBytes: undefined,
      writtenBytesPerCall: undefined,
    };
  };
  const report: BenchReport = {
    format: "ledge-bench/1",
    startedAt: "2026-11-21T00:00:00.000Z",
    command: "ledge bench </script>",
    machine: "2 × processor",
    seed: 1,
    ceilingPerSecond: 1000,
    scenarios: [
      {
        scenario: "fmb",
        question: "?",
        unit: "digests",
        targets: [
          { target: "a", runs: [measurement(100, 4000), measurement(120, 4000)], problem: undefined },
          { target: "b", runs: [measurement(200, 2000), measurement(240, 2000)], problem: undefined },
          { target: "c", runs: [], problem: "nothing listens there" },
        ],
      },
    ],
  };

  test("have a row for each target, also for one that could not be measured", () => {
    const text = formatMarkdown(report);
    expect(text).toContain("| fmb | a | 1100 digests/s |");
    expect(text).toContain("| 2.00 (2.00 to 2.00) |");
    expect(text).toContain("not measured: nothing listens there");
  });

  test("as a page hold everything, and no end of script from outside", () => {
    const page = formatPage(report);
    expect(page).toContain("uPlot");
    expect(page).not.toMatch(/<(script|link|img)[^>]+(src|href)=/);
    expect(page).not.toContain("bench </script>");
  });

  // What was measured in two shapes is a curve; in one it is not.
  test("as a page have a curve for each scenario that was measured in several shapes", () => {
    const [fmb] = report.scenarios;
    const shaped = [
      { connections: 4, depth: 16 },
      { connections: 1, depth: 1 },
    ].map((shape) => ({ ...fmb!, scenario: `fmb@${shape.connections}x${shape.depth}`, shape }));
    const page = formatPage({ ...report, scenarios: shaped });
    expect(page).toContain('"title":"fmb","x":"calls in flight"');
    expect(page).toContain('"data":[[1,64],[1100,1100],[2200,2200],[null,null]]');
    expect(formatPage({ ...report, scenarios: [shaped[0]!] })).not.toContain("calls in flight");
  });

  test.each([
    ["a.fmb@4x16.rate > 1", true],
    ["a.fmb.p99 > 1.5*b", true],
    ["a.fmb.p99 > 3*b", false],
    ["b.fmb.rate < a", false],
    ["a.fmb.rate < 5000", true],
    ["c.fmb.rate < 1", true],
    ["a.nothing.rate < 1", true],
  ])("judge %s", (rule, isBroken) => {
    expect(judgeThreshold(parseThreshold(rule), report) !== undefined).toBe(isBroken);
  });

  test("refuse a rule that is none", () => {
    expect(() => parseThreshold("a.fmb.p98 > 1")).toThrow(UsageError);
    expect(() => parseThreshold("p99 > 1")).toThrow(/TARGET.SCENARIO.METRIC/);
  });
});

// Seen: write-1k uploaded what batch-update had uploaded before it, and was three times as fast as it is.
test("each scenario has data of its own, in each process that makes load", () => {
  const seeds = SCENARIOS.flatMap(({ name }) => [SEED, SEED + 1, SEED + 2].map((seed) => scenarioSeed(seed, name)));
  expect(new Set(seeds).size).toBe(seeds.length);
  expect(scenarioSeed(SEED, "write-1k")).toBe(scenarioSeed(SEED, "write-1k"));
  const first = SCENARIOS.map(({ name }) => new RandomData(scenarioSeed(SEED, name)).bytes(16).toString("hex"));
  expect(new Set(first).size).toBe(first.length);
});
