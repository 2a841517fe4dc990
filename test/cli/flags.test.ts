// The arguments of the program: every flag, its environment variable, and what a mistake answers.

import { execFile } from "node:child_process";
import { availableParallelism } from "node:os";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { environmentName, parseFlags, UsageError, type Flag } from "../../src/cli/flag.ts";
import { helpText } from "../../src/cli/help.ts";
import { readServeArguments } from "../../src/cli/serve-config.ts";
import { parseListenAddress, parseSizeLimit, SERVE_FLAGS } from "../../src/cli/serve-flags.ts";

const run = promisify(execFile);
const main = new URL("../../src/main.ts", import.meta.url).pathname;
const inMemory = ["--data-dir", ":memory:"];

/** A value each flag accepts, and one it does not. */
const EXAMPLES: Record<keyof typeof SERVE_FLAGS, { good: string; bad: string | undefined }> = {
  listen: { good: "0.0.0.0:8980", bad: "8980" },
  portFile: { good: "/tmp/port", bad: "" },
  dataDir: { good: ":memory:", bad: "" },
  maxSize: { good: "10%", bad: "120%" },
  leaseMs: { good: "30m", bad: "soon" },
  durability: { good: "lazy", bad: "none" },
  slots: { good: "0", bad: "-1" },
  sandbox: { good: "require", bad: "yes" },
  bwrapPath: { good: "/usr/bin/bwrap", bad: "" },
  allow: { good: "network", bad: "everything" },
  properties: { good: "Pool=default", bad: "Pool" },
  ignoredProperties: { good: "Pool", bad: "Pool=x" },
  images: { good: "docker://debian:12=/srv/debian", bad: "debian" },
  mounts: { good: "ro:/nix/store", bad: "/nix/store" },
  rootModes: { good: "bst=input-root", bad: "bst=chroot" },
  maxQueueDepth: { good: "5", bad: "many" },
  defaultActionTimeoutMs: { good: "1h", bad: "60" },
  maxActionTimeoutMs: { good: "24h", bad: "0s" },
  maxLogBytes: { good: "1MiB", bad: "0" },
  orphanGraceMs: { good: "0s", bad: "soon" },
  drainTimeoutMs: { good: "250ms", bad: "30" },
  maxConnectionAgeMs: { good: "0", bad: "30" },
  maxConnectionsPerAddress: { good: "0", bad: "some" },
  httpOpaquePrefixes: { good: "/opaque/a", bad: "/cas" },
  tlsCert: { good: "/tmp/cert.pem", bad: "" },
  tlsKey: { good: "/tmp/key.pem", bad: "" },
  tlsClientCa: { good: "/tmp/ca.pem", bad: "" },
  tlsMinVersion: { good: "1.3", bad: "1.1" },
  logLevel: { good: "debug", bad: "loud" },
  logFormat: { good: "json", bad: "xml" },
  installBubblewrap: { good: "true", bad: "perhaps" },
};
const rows = Object.entries(EXAMPLES).map(([key, example]) => {
  return { ...example, flag: SERVE_FLAGS[key as keyof typeof SERVE_FLAGS] as Flag<unknown> };
});

describe("each flag", () => {
  test.each(rows)("--$flag.name takes $good on the command line and in the environment", ({ flag, good }) => {
    const table = { it: flag };
    const args = flag.placeholder === undefined ? [`--${flag.name}`] : [`--${flag.name}`, good];
    const fromArguments = parseFlags(table, args, {});
    expect(fromArguments.it).toHaveLength(1);
    expect(parseFlags(table, [], { [environmentName(flag)]: good })).toEqual(fromArguments);
    if (flag.placeholder !== undefined)
      expect(parseFlags(table, [`--${flag.name}=${good}`], {})).toEqual(fromArguments);
  });

  test.each(rows.filter(({ bad }) => bad !== undefined))(
    "--$flag.name refuses a bad value naming flag, value and what it accepts",
    ({ flag, bad }) => {
      const message = `"${bad}" is not accepted; expected ${flag.accepts}`;
      if (flag.placeholder !== undefined) {
        expect(() => parseFlags({ it: flag }, [`--${flag.name}=${bad}`], {})).toThrow(`--${flag.name}: ${message}`);
      }
      if (bad === "") return; // an empty variable means "not set"
      const variable = environmentName(flag);
      expect(() => parseFlags({ it: flag }, [], { [variable]: bad })).toThrow(`${variable}: ${message}`);
    },
  );

  test.each(rows)("--$flag.name is on the page of --help", ({ flag }) => {
    expect(helpText()).toContain(`--${flag.name}`);
  });
});

describe("parseFlags()", () => {
  test("prefers the command line to the environment", () => {
    const { slots } = parseFlags(SERVE_FLAGS, ["--slots", "3"], { LEDGE_SLOTS: "5" });
    expect(slots).toEqual([3]);
  });

  test("keeps the order of a repeated flag, and splits lists of the environment", () => {
    const addresses = ["127.0.0.1:1", "unix:/tmp/a", "[::1]:2"];
    const repeated = parseFlags(
      SERVE_FLAGS,
      addresses.flatMap((address) => ["--listen", address]),
      {},
    );
    expect(repeated.listen.map(({ kind }) => kind)).toEqual(["tcp", "unix", "tcp"]);
    expect(parseFlags(SERVE_FLAGS, [], { LEDGE_LISTEN: addresses.join(", ") })).toEqual(repeated);
  });

  test.each([
    [["--lisen", "x"], 'Unknown flag "--lisen"; did you mean --listen?'],
    [["--frobnicate"], 'Unknown flag "--frobnicate"'],
    [["-x"], 'Unknown flag "-x"'],
    [["extra"], 'Unexpected argument "extra"'],
    [["--slots"], "--slots needs a value: expected a whole number"],
    [["--slots", "1", "--slots", "2"], "--slots was given twice"],
    [["--install-bubblewrap=yes"], '--install-bubblewrap takes no value, but "yes" was given'],
  ])("answers %j with: %s", (args, message) => {
    expect(() => parseFlags(SERVE_FLAGS, args, {})).toThrow(UsageError);
    expect(() => parseFlags(SERVE_FLAGS, args, {})).toThrow(message);
  });
});

describe("readServeArguments()", () => {
  test("has the documented defaults", () => {
    const { config } = readServeArguments(inMemory, {});
    expect(config).toMatchObject({
      listen: [{ kind: "tcp", host: "127.0.0.1", port: 8980 }],
      slots: availableParallelism(),
      sandbox: "auto",
      drainTimeoutMs: 30_000,
      defaultActionTimeoutMs: 86_400_000,
      orphanGraceMs: 60_000,
      httpOpaquePrefixes: ["/opaque"],
      logLevel: "info",
      logFormat: "text",
      tls: undefined,
    });
  });

  test.each([
    [["--tls-cert", "/c"], "--tls-cert needs --tls-key as well"],
    [["--tls-key", "/k"], "--tls-key needs --tls-cert as well"],
    [["--tls-client-ca", "/a"], "--tls-client-ca needs --tls-cert and --tls-key"],
    [["--default-action-timeout", "2h", "--max-action-timeout", "1h"], "is above --max-action-timeout"],
    [["--max-size", "1MiB"], "--max-size: 1 MiB is too little"],
    [["--sandbox", "require"], "--sandbox=require needs a --data-dir on disk"],
  ])("refuses %j: %s", (args, message) => {
    expect(() => readServeArguments([...inMemory, ...args], {})).toThrow(message);
  });

  test("refuses --sandbox=require where --slots 0 executes nothing", () => {
    const args = ["--data-dir", "/nonexistent", "--sandbox", "require", "--slots", "0"];
    expect(() => readServeArguments(args, {})).toThrow("--sandbox=require needs --slots 1 or more");
  });

  test("accepts on the sockets of socket activation, and takes their variables out of the environment", () => {
    const environment: Record<string, string> = {
      LISTEN_FDS: "2",
      LISTEN_PID: String(process.pid),
      LISTEN_FDNAMES: "a:b",
    };
    const { config } = readServeArguments(inMemory, environment);
    expect(config.listen).toEqual([
      { kind: "fd", fd: 3 },
      { kind: "fd", fd: 4 },
    ]);
    expect(environment).toEqual({});
  });

  test("leaves the sockets that were meant for another process", () => {
    const environment: Record<string, string> = { LISTEN_FDS: "1", LISTEN_PID: String(process.pid + 1) };
    expect(readServeArguments(inMemory, environment).config.listen).toHaveLength(1);
    expect(environment).toEqual({});
  });
});

describe("values", () => {
  test.each([
    ["127.0.0.1:8980", { kind: "tcp", host: "127.0.0.1", port: 8980 }],
    ["localhost:0", { kind: "tcp", host: "localhost", port: 0 }],
    ["[::1]:8980", { kind: "tcp", host: "::1", port: 8980 }],
    ["[fe80::1%eth0]:1", { kind: "tcp", host: "fe80::1%eth0", port: 1 }],
    ["unix:/run/ledge.sock", { kind: "unix", path: "/run/ledge.sock" }],
    ["unix:///run/ledge.sock", { kind: "unix", path: "/run/ledge.sock" }],
    ["::1:8980", undefined],
    ["host:65536", undefined],
    ["host", undefined],
    [":80", undefined],
    ["unix:", undefined],
    ["a b:1", undefined],
  ])("parseListenAddress(%j)", (text, expected) => {
    expect(parseListenAddress(text)).toEqual(expected);
  });

  test.each([
    ["20GiB", { bytes: 20 * 1024 ** 3 }],
    ["500MB", { bytes: 500e6 }],
    ["12.5%", { percent: 12.5 }],
    ["0%", undefined],
    ["0", undefined],
    ["-5GiB", undefined],
    ["1e9", undefined],
  ])("parseSizeLimit(%j)", (text, expected) => {
    expect(parseSizeLimit(text)).toEqual(expected);
  });
});

describe("the program", () => {
  test("exits with 2 and one line for a mistake in the arguments", async () => {
    const failure = run(process.execPath, [main, "serve", "--slots", "two"]);
    await expect(failure).rejects.toMatchObject({
      code: 2,
      stderr: 'ledge: --slots: "two" is not accepted; expected a whole number from 0 to 1024\n',
    });
  });

  test("exits with 2 for a command it does not have", async () => {
    await expect(run(process.execPath, [main, "server"])).rejects.toMatchObject({ code: 2 });
  });

  test("prints --help on one page", async () => {
    const { stdout } = await run(process.execPath, [main, "--help"]);
    const lines = stdout.split("\n");
    expect(lines.length).toBeLessThan(60);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(112);
  });
});
