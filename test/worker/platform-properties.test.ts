// Platform properties: every name seen in use has a row, and each kind of row accepts and refuses what it should.

import { expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { Counter } from "../../src/telemetry/metrics.ts";
import { isaOf, machineIsa } from "../../src/worker/machine-isa.ts";
import { interpretPlatform, type PlatformOffer } from "../../src/worker/platform-properties.ts";
import { PLATFORM_TABLE } from "../../src/worker/platform-table.ts";
import { TEST_OFFER } from "./executor-fixture.ts";

/** Names in use, by whoever uses them (sections 2, 3 and 5.1 of the list that the table follows). */
const NAMES_IN_USE = `OSFamily ISA container-image container-registry-username container-registry-password Pool Worker
  choose-queue dockerNetwork dockerPrivileged dockerRunAsRoot dockerSiblingContainers dockerUseURandom
  dockerAddCapabilities dockerDropCapabilities dockerRuntime dockerShmSize dockerUlimits gceMachineType
  InputRootAbsolutePath network block-network fake-hostname tmpfs linux-sandbox as-nobody process-wrapper min-cores
  max-cores cores min-mem max-mem env-var env-vars debug-before-execution debug-after-execution debug-tests-only
  debug-target persistentWorkerKey persistentWorkerCommand cpu_count memory_kb network_kbps disk_read_iops
  disk_read_bps disk_write_iops disk_write_bps shm_size gpu_count cpu_arch cpu_vendor cpu_model gpu_model
  kernel_version unixUID unixGID remoteApisSocketPath chrootRootDigest OSRelease runner`.split(/\s+/);

const OFFER: PlatformOffer = {
  ...TEST_OFFER,
  properties: new Map([["Pool", ["default", "large"]]]),
  ignored: new Set(["made-up"]),
  images: new Map([
    ["docker://debian:12", "/images/debian"],
    ["alpine", "/images/alpine"],
  ]),
};

const interpret = (properties: Record<string, string> | [string, string][], offer = OFFER) => {
  const pairs = Array.isArray(properties) ? properties : Object.entries(properties);
  return interpretPlatform(
    pairs.map(([name, value]) => ({ name, value })),
    offer,
    () => new Counter(),
  );
};

test.each(NAMES_IN_USE)("the table has a row for %s", (name) => {
  expect(PLATFORM_TABLE.has(name)).toBe(true);
});

test("the table has no row for a name that nobody uses", () => {
  expect([...PLATFORM_TABLE.keys()].filter((name) => !NAMES_IN_USE.includes(name))).toEqual([]);
});

test.each([
  [{}],
  [{ OSFamily: "linux" }],
  [{ OSFamily: "Linux" }],
  [{ ISA: "x86-64" }],
  [{ ISA: "amd64" }],
  [{ ISA: "x86_64" }],
  [{ Pool: "large" }],
  [{ Worker: "test-worker" }],
  [{ cpu_count: "4" }],
  [{ memory_kb: String(8 * 1024 ** 2) }],
  [{ gpu_count: "0" }],
  [{ network: "off" }],
  [{ dockerNetwork: "off" }],
  [{ "block-network": "true" }],
  [{ dockerPrivileged: "false" }],
  [{ "made-up": "anything" }],
  [{ "debug-target": "x" }],
])("interpretPlatform() accepts %j without a demand", (properties) => {
  expect(interpret(properties as Record<string, string>)).toEqual({
    network: "none",
    unixUid: undefined,
    unixGid: undefined,
    imagePath: undefined,
    inputRootPathInside: undefined,
    memoryBytes: undefined,
    environment: [],
  });
});

test.each([
  [{ OSFamily: "windows" }, "offers linux"],
  [{ ISA: "aarch64" }, "offers x86-64, x86-avx2"],
  [{ Pool: "huge" }, "offers default, large"],
  [{ "choose-queue": "a" }, "--property choose-queue=VALUE"],
  [{ Worker: "elsewhere" }, "offers test-worker"],
  [{ cpu_count: "5" }, "at most 4"],
  [{ cpu_count: "many" }, "a whole number"],
  [{ "min-mem": String(9 * 1024 ** 3) }, "at most 8589934592"],
  [{ gpu_count: "1" }, "at most 0"],
  [{ network: "on" }, "--allow network"],
  [{ dockerNetwork: "standard" }, "--allow network"],
  [{ "block-network": "false" }, "--allow network"],
  [{ network: "sometimes" }, "off or on"],
  [{ dockerPrivileged: "true" }, "never get more rights"],
  [{ dockerAddCapabilities: "SYS_ADMIN" }, "never get more rights"],
  [{ "container-image": "docker://ubuntu" }, "docker://debian:12, alpine"],
  [{ unixUID: "root" }, "a decimal number"],
  [{ unixGID: "4294967295" }, "0 to 4294967294"],
  [{ InputRootAbsolutePath: "relative" }, "absolute path"],
  [{ InputRootAbsolutePath: "/a/../etc" }, "absolute path"],
  [{ chrootRootDigest: "ab/1" }, "nothing"],
  [{ remoteApisSocketPath: "run/sock" }, "nothing"],
  [{ "env-vars": "[1]" }, "JSON object"],
  [{ "env-var": "NAME" }, "NAME=VALUE"],
  [
    { unheard: "of" },
    '"unheard"="of" is unknown here; on offer: OSFamily=linux, ISA=x86-64|x86-avx2, Pool=default|large',
  ],
])("interpretPlatform() refuses %j and says what is on offer", (properties, offered) => {
  expect(() => interpret(properties as Record<string, string>)).toThrow(
    expect.objectContaining({ code: Code.FAILED_PRECONDITION, message: expect.stringContaining(offered) }),
  );
});

test("interpretPlatform() wants every ISA that is named and only one OSFamily", () => {
  interpret([
    ["ISA", "x86-64"],
    ["ISA", "x86-avx2"],
  ]);
  expect(() =>
    interpret([
      ["ISA", "x86-64"],
      ["ISA", "x86-avx-512"],
    ]),
  ).toThrow("x86-avx-512");
  expect(() =>
    interpret([
      ["OSFamily", "linux"],
      ["OSFamily", "linux"],
    ]),
  ).toThrow("2 times");
});

test("interpretPlatform() turns properties into what the runner is told", () => {
  const demand = interpret({
    unixUID: "0",
    unixGID: "12345",
    "container-image": "debian:12",
    InputRootAbsolutePath: "/b/f/w",
    "max-mem": "1000000",
    "env-var:A": "1",
    "env-vars": '{"B":"2"}',
  });
  expect(demand).toEqual({
    network: "none",
    unixUid: 0,
    unixGid: 12345,
    imagePath: "/images/debian",
    inputRootPathInside: "/b/f/w",
    memoryBytes: 1_000_000,
    environment: [
      { name: "A", value: "1" },
      { name: "B", value: "2" },
    ],
  });
  expect(interpret({ network: "on" }, { ...OFFER, allowNetwork: true }).network).toBe("host");
  expect(interpret({ dockerRunAsRoot: "true" })).toMatchObject({ unixUid: 0, unixGid: 0 });
});

test("interpretPlatform() counts what it ignores", () => {
  const counters = new Map<string, Counter>();
  const count = (name: string) => {
    const counter = counters.get(name) ?? new Counter();
    counters.set(name, counter);
    return counter;
  };
  const properties = [
    { name: "made-up", value: "" },
    { name: "dockerRuntime", value: "runsc" },
  ];
  interpretPlatform(properties, OFFER, count);
  expect([...counters].map(([name, { value }]) => [name, value])).toEqual([
    ["made-up", 1],
    ["dockerRuntime", 1],
  ]);
});

test("isaOf() names the architecture and the extensions that the CPU has", () => {
  const x86 = "processor: 0\nflags\t\t: fpu sse4_1 sse4_2 avx avx2 sha_ni\n";
  expect(isaOf("x64", x86)).toEqual(["x86-64", "x86-sse4.1", "x86-sse4.2", "x86-avx", "x86-avx2"]);
  expect(isaOf("arm64", "Features\t: fp asimd\n")).toEqual(["arm-a64", "armv8", "arm-neon"]);
  expect(isaOf("riscv64", "")).toEqual(["rv64g"]);
  expect(machineIsa().length).toBeGreaterThan(0);
});

test("an ignored or declared name overrides the table", () => {
  interpret({ chrootRootDigest: "x" }, { ...OFFER, ignored: new Set(["chrootRootDigest"]) });
  expect(() => interpret({ ISA: "x86-64" }, { ...OFFER, properties: new Map([["ISA", ["mips"]]]) })).toThrow("mips");
});
