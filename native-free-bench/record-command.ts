// `ledge record --listen HOST:PORT --upstream grpc://… --out FILE`: a proxy that writes a trace until it is interrupted.

import { closeSync, openSync, writeSync } from "node:fs";
import { Arguments, describeFlags, UsageError, withUsageErrors, type FlagTable } from "./arguments.ts";
import { parseTarget } from "./client/target.ts";
import { startRecordingProxy } from "./trace/recording-proxy.ts";
import { TRACE_FORMAT, type TraceHeader } from "./trace/trace-format.ts";

const FLAGS: FlagTable = {
  listen: { kind: "text", value: "HOST:PORT", help: "where clients connect (default: 127.0.0.1:8981)" },
  upstream: { kind: "text", value: "TARGET", help: "the server, such as grpc://127.0.0.1:8980" },
  out: { kind: "text", value: "FILE", help: "the trace (default: ledge.trace)" },
  "keep-bytes": { kind: "switch", help: "keep the bytes of requests: sources and results of your builds are in them" },
  "tls-ca": { kind: "text", value: "FILE", help: "certificate authority of a grpcs:// upstream" },
  help: { kind: "switch", help: "print this" },
};

export async function runRecord(argv: readonly string[]): Promise<number> {
  return await withUsageErrors("record", async () => await record(argv));
}

async function record(argv: readonly string[]): Promise<number> {
  const args = new Arguments(argv, FLAGS);
  if (args.has("help")) {
    process.stdout.write(`Usage: ledge record [FLAGS] --upstream grpc://HOST:PORT\n\n${describeFlags(FLAGS)}\n`);
    return 0;
  }
  const upstream = args.text("upstream");
  if (upstream === undefined) throw new UsageError("--upstream grpc://HOST:PORT is not given");
  const listen = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(args.text("listen") ?? "127.0.0.1:8981");
  if (listen === null) throw new UsageError(`--listen: "${args.text("listen")}" is not HOST:PORT`);
  const keepBytes = args.has("keep-bytes");
  const path = args.text("out") ?? "ledge.trace";
  const file = openSync(path, "w", 0o600);
  const header: TraceHeader = { format: TRACE_FORMAT, startedAt: new Date().toISOString(), keepsBytes: keepBytes };
  writeSync(file, `${JSON.stringify(header)}\n`);
  let calls = 0;
  try {
    const proxy = await startRecordingProxy({
      upstream: parseTarget(upstream, args.text("tls-ca")),
      host: listen[1] ?? listen[2]!,
      port: Number(listen[3]),
      keepBytes,
      // A line at a time, so that a kill loses at most the call in flight.
      onCall: (call) => {
        calls++;
        writeSync(file, `${JSON.stringify(call)}\n`);
      },
    });
    process.stdout.write(
      `Recording calls to ${upstream}; point clients at grpc://${listen[2] ?? `[${listen[1]}]`}:${proxy.port} and interrupt to end\n`,
    );
    await new Promise<void>((resolve) => {
      process.once("SIGINT", resolve);
      process.once("SIGTERM", resolve);
    });
    await proxy.close();
    process.stdout.write(`${calls} calls in ${path}\n`);
    return 0;
  } catch (error) {
    process.stderr.write(`ledge record: ${error instanceof Error ? error.message : String(error)}\n`);
    return 3;
  } finally {
    closeSync(file);
  }
}
