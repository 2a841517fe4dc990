// `ledge sandbox [FLAGS] [-- COMMAND…]`: a command, or a shell, in exactly what an action would see.
//
// Takes the flags of `serve`, which decide what actions may have, and flags of its own, which say what the action asks
// for. Both go through the code that serves real actions; the streams are the caller's and nothing is cached or limited.

import { statSync } from "node:fs";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { StatusError } from "../base/status.ts";
import { runSandboxShell, type SandboxShellSpec } from "../runner/sandbox-shell.ts";
import { configuredMounts, platformOffer, rootModeOf } from "../server/platform.ts";
import { MetricsRegistry } from "../telemetry/metrics.ts";
import { actionEnvironment } from "../worker/action-environment.ts";
import { mountsOfAction } from "../worker/action-mounts.ts";
import { interpretPlatform } from "../worker/platform-properties.ts";
import { parseFlags, UsageError, type FlagValues } from "./flag.ts";
import { SANDBOX_FLAGS } from "./sandbox-flags.ts";
import { readPlatform } from "./serve-config.ts";
import { SERVE_FLAGS } from "./serve-flags.ts";

const FLAGS = { ...SERVE_FLAGS, ...SANDBOX_FLAGS };
/** Nothing ran; the number container tools use for that. */
const EXIT_NOT_STARTED = 125;

/** Returns the command's exit code, or 125 when it did not start. */
export async function runSandbox(args: readonly string[]): Promise<number> {
  const separator = args.indexOf("--");
  const flags = separator < 0 ? args : args.slice(0, separator);
  const command = separator < 0 ? [] : args.slice(separator + 1);
  const values = parseFlags(FLAGS, flags, process.env);
  const spec = shellSpec(values, command.length > 0 ? command : ["sh"]);
  const sandbox = values.sandbox[0] === "own" ? "own" : "bwrap";
  const result = await runSandboxShell({ spec, bwrapPath: values.bwrapPath[0], sandbox });
  if (result.kind === "exited") return result.exitCode;
  process.stderr.write(`ledge sandbox: ${result.message}\n`);
  return EXIT_NOT_STARTED;
}

function shellSpec(values: FlagValues<typeof FLAGS>, command: readonly string[]): SandboxShellSpec {
  const platform = readPlatform(values);
  const properties = values.actionProperties;
  const demand = refusalAsUsage(() => {
    const metrics = new MetricsRegistry();
    const counter = (name: string) => metrics.counter(`ignored_total`, "Not shown to anybody", { name });
    return interpretPlatform(properties, platformOffer(hostname(), platform), counter);
  });
  const image = demand.imagePath;
  const rootMode = image === undefined ? rootModeOf(platform, values.instance[0] ?? "") : { image };
  const inputRoot = values.inputRoot[0];
  if (rootMode === "input-root" && inputRoot === undefined) {
    throw new UsageError("Actions of this instance have their input root as /; name one with --input-root DIR");
  }
  return {
    arguments: command,
    rootMode,
    mounts: mountsOfAction(configuredMounts(platform), properties),
    network: demand.network,
    environment: actionEnvironment([...terminal(), ...values.environment], demand.environment),
    ...(inputRoot === undefined ? {} : { inputRootPath: existingDirectory(inputRoot) }),
    ...(demand.inputRootPathInside === undefined ? {} : { inputRootPathInside: demand.inputRootPathInside }),
    ...(demand.unixUid === undefined ? {} : { unixUid: demand.unixUid }),
    ...(demand.unixGid === undefined ? {} : { unixGid: demand.unixGid }),
  };
}

/** An action has no terminal and so no TERM; a person's editor does not start without. */
function terminal(): { name: string; value: string }[] {
  const value = process.env["TERM"];
  return process.stdin.isTTY && value !== undefined ? [{ name: "TERM", value }] : [];
}

/** The words a client would get. */
function refusalAsUsage<T>(interpret: () => T): T {
  try {
    return interpret();
  } catch (error) {
    if (error instanceof StatusError) throw new UsageError(`--action-property: ${error.message}`);
    throw error;
  }
}

function existingDirectory(path: string): string {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return resolve(path);
  throw new UsageError(`--input-root: there is no directory "${path}"`);
}
