// What the transport costs and bears: `node native-free-bench/transport/main.ts [FLAGS] [ROW…]`, all rows without names.
//
// Each row starts its servers on core 0, puts its load on core 1, measures all contestants in alternating rounds and
// prints medians, ranges and the ratios asked for. Needs two cores, taskset and, for rows over TLS, openssl.
// Numbers of a busy machine are worth nothing. What it leaves out: disks, networks, and other clients than this one.

import { assertNodeVersion } from "../../src/base/node-version.ts";
import { Arguments, describeFlags, UsageError, withUsageErrors, type FlagTable } from "../arguments.ts";
import { BULK_ROWS } from "./bulk-rows.ts";
import { CONNECTION_ROWS } from "./connection-rows.ts";
import { printRow, type Row } from "./row.ts";
import { pinLoad, ServerFleet } from "./servers.ts";
import { SMALL_CALL_ROWS } from "./small-call-rows.ts";

const FLAGS: FlagTable = {
  rounds: { kind: "text", value: "N", help: "alternating rounds of a row (default: 5)" },
  "bazel-remote": { kind: "text", value: "PATH", help: "a bazel-remote executable to compare with" },
  "grpc-go": { kind: "text", value: "HOST:PORT", help: "a server in Go on core 0 that answers GetCapabilities" },
  help: { kind: "switch", help: "print this" },
};

const ROWS: readonly Row[] = [...SMALL_CALL_ROWS, ...BULK_ROWS, ...CONNECTION_ROWS];

async function main(argv: readonly string[]): Promise<number> {
  const args = new Arguments(argv, FLAGS);
  if (args.has("help")) {
    const rows = ROWS.map(({ name, question }) => `  ${name.padEnd(14)} ${question}`).join("\n");
    process.stdout.write(`Usage: main.ts [FLAGS] [ROW…]\n\n${describeFlags(FLAGS)}\n\nRows:\n${rows}\n`);
    return 0;
  }
  const rounds = Math.floor(args.number("rounds", 5, { min: 1, max: 100 }));
  const grpcGo = parseAddress(args.text("grpc-go"));
  const rows = args.positionals.length === 0 ? ROWS : args.positionals.map(findRow);
  pinLoad();
  for (const row of rows) {
    await using fleet = new ServerFleet({ bazelRemote: args.text("bazel-remote") });
    printRow(row, await row.run({ fleet, rounds, grpcGo }));
  }
  return 0;
}

function findRow(name: string): Row {
  const row = ROWS.find((candidate) => candidate.name === name);
  if (row === undefined) throw new UsageError(`"${name}" is no row, expected ${ROWS.map((r) => r.name).join(", ")}`);
  return row;
}

function parseAddress(text: string | undefined): { host: string; port: number } | undefined {
  if (text === undefined) return undefined;
  const [, host = "", port = ""] = /^(.+):(\d+)$/.exec(text) ?? [];
  if (host === "") throw new UsageError(`--grpc-go: "${text}" is not HOST:PORT`);
  return { host, port: Number(port) };
}

assertNodeVersion();
process.exitCode = await withUsageErrors("transport bench", () => main(process.argv.slice(2)));
