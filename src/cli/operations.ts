// `ledge operations [--target URL] [--instance NAME]`: what a server executes and what waits, one line each.

import { listOperations, type ListedOperation, type ServerAddress } from "../upstream/operations-client.ts";
import { parseFlags, type Flag } from "./flag.ts";

const target: Flag<ServerAddress> = {
  name: "target",
  placeholder: "URL",
  repeatable: false,
  help: "The server to ask",
  defaultText: "grpc://127.0.0.1:8980",
  accepts: "grpc://HOST:PORT, grpcs://HOST:PORT or unix:PATH",
  parse: parseTarget,
};

const instance: Flag<string> = {
  name: "instance",
  placeholder: "NAME",
  repeatable: false,
  help: "Only operations of this instance",
  defaultText: undefined,
  accepts: "an instance name",
  parse: (text) => text,
};

const FLAGS = { target, instance } as const;
/** Values of ExecutionStage. */
const STAGES = ["unknown", "cache check", "queued", "executing", "completed"];

/** Returns 0, or 1 when the server did not answer. */
export async function runOperations(args: readonly string[]): Promise<number> {
  const values = parseFlags(FLAGS, args, {});
  const server = values.target[0] ?? { address: "127.0.0.1:8980", tls: false };
  process.stdout.write(line("STAGE", "AHEAD", "AGE", "ACTION", "OPERATION"));
  try {
    for await (const operation of listOperations(server, values.instance[0] ?? "")) {
      process.stdout.write(rowOf(operation, Date.now()));
    }
    return 0;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    process.stderr.write(`ledge operations: ${server.address} does not list its operations: ${message}\n`);
    return 1;
  }
}

function rowOf(operation: ListedOperation, nowMs: number): string {
  const { name, isDone, stage, queuedAtMs, actionsAhead, queueDepth, action } = operation;
  const stageName = isDone ? "completed" : (STAGES[stage] ?? `stage ${stage}`);
  const position = actionsAhead ?? (queueDepth === undefined ? undefined : `<${queueDepth}`);
  const age = queuedAtMs === undefined ? "-" : `${Math.max(0, (nowMs - queuedAtMs) / 1000).toFixed(1)}s`;
  return line(stageName, String(position ?? "-"), age, action ?? "-", name);
}

function line(stage: string, ahead: string, age: string, action: string, name: string): string {
  return `${stage.padEnd(11)} ${ahead.padStart(6)} ${age.padStart(9)}  ${action.padEnd(69)} ${name}\n`;
}

function parseTarget(text: string): ServerAddress | undefined {
  if (/^unix:.+$/.test(text)) return { address: text, tls: false };
  const [, scheme, address] = /^(grpcs?):\/\/([^/\s]+:\d{1,5})\/?$/.exec(text) ?? [];
  return address === undefined ? undefined : { address, tls: scheme === "grpcs" };
}
