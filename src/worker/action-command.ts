// From the bytes of an Action and a Command to a value that cannot be malformed: what to run, where, which outputs.
//
// Invariant: everything the client wrote that ends in an argument vector, an environment, a path or a limit is checked
// here, once. Platform properties are platform-properties.ts; whether files exist shows when the input root is built.
// Source: wire/reapi.md 4.1 and 5.2. Unsorted environments are accepted: BuildStream sends them.

import { invalidArgument } from "../base/status.ts";
import { parseDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import { Action, Command, Command_OutputDirectoryFormat, type Platform_Property } from "../proto/remote_execution.ts";
import { ProtoError, type MessageType } from "../proto/wire.ts";
import { assertPlainText, clip, parseOutputPath, parseWorkingDirectory, type OutputPath } from "./output-paths.ts";

export interface EnvironmentVariable {
  readonly name: string;
  readonly value: string;
}

export interface ActionFields {
  readonly commandDigest: Digest;
  readonly inputRootDigest: Digest;
  /** As requested; undefined when the server chooses. */
  readonly timeoutMs: number | undefined;
  readonly doNotCache: boolean;
  /** undefined when the Action has none and the Command's counts. */
  readonly platform: readonly Platform_Property[] | undefined;
}

export interface CommandFields {
  readonly arguments: readonly string[];
  readonly environment: readonly EnvironmentVariable[];
  readonly workingDirectory: readonly string[];
  readonly outputs: RequestedOutputs;
  readonly platform: readonly Platform_Property[];
}

/** `paths` for clients of API 2.1 and newer, `typed` for the two lists of 2.0. */
export interface RequestedOutputs {
  readonly form: "paths" | "typed";
  /** Whatever is found there (2.1). */
  readonly paths: readonly OutputPath[];
  /** Must be files, or symlinks to files (2.0). */
  readonly files: readonly OutputPath[];
  /** Must be directories, or symlinks to directories (2.0). */
  readonly directories: readonly OutputPath[];
  /** Directories are stored as blobs of their own too, and root_directory_digest is set. */
  readonly withDirectoryBlobs: boolean;
  readonly nodeProperties: { readonly mtime: boolean; readonly unixMode: boolean };
}

/** Counts far above what clients send, far below what would hurt: one Command message is at most 4 MiB anyway. */
const MAX_OUTPUTS = 100_000;
/** One string may have 128 KiB (MAX_ARG_STRLEN of Linux); the kernel's own message would not name it. */
const MAX_ARGUMENT_BYTES = 128 * 1024 - 1;
/** Largest value a Duration can have in milliseconds without losing precision: 10,000 years. */
const MAX_DURATION_SECONDS = 315_576_000_000;

export const SUPPORTED_NODE_PROPERTIES: readonly string[] = ["mtime", "unix_mode"];

/** Decodes and checks an Action. Throws INVALID_ARGUMENT. */
export function parseAction(fn: DigestFunction, bytes: Uint8Array): ActionFields {
  const action = decode(Action, bytes, "Action");
  return {
    commandDigest: parseDigest(fn, action.commandDigest, "Action.command_digest"),
    inputRootDigest: parseDigest(fn, action.inputRootDigest, "Action.input_root_digest"),
    timeoutMs: parseTimeoutMs(action.timeout),
    doNotCache: action.doNotCache,
    platform: action.platform?.properties,
  };
}

/** Decodes and checks a Command. Throws INVALID_ARGUMENT. */
export function parseCommand(bytes: Uint8Array): CommandFields {
  const command = decode(Command, bytes, "Command");
  const workingDirectory = parseWorkingDirectory(command.workingDirectory);
  return {
    arguments: parseArguments(command.arguments),
    environment: parseEnvironment(command.environmentVariables),
    workingDirectory,
    outputs: parseOutputs(command, workingDirectory),
    platform: command.platform?.properties ?? [],
  };
}

/** Decodes a message that the client stored as a blob; what is not one is the client's error. */
export function decode<M, Init>(type: MessageType<M, Init>, bytes: Uint8Array, what: string): M {
  try {
    return type.decode(bytes);
  } catch (error) {
    if (error instanceof ProtoError) throw invalidArgument(`${what}: ${error.message}`, error);
    throw error;
  }
}

/** Zero means the same as absent: no client asks for an action that is killed at once. */
function parseTimeoutMs(timeout: { readonly seconds: number; readonly nanos: number } | undefined): number | undefined {
  if (timeout === undefined || (timeout.seconds === 0 && timeout.nanos === 0)) return undefined;
  const { seconds, nanos } = timeout;
  const isValid =
    seconds >= 0 && seconds <= MAX_DURATION_SECONDS && nanos >= 0 && nanos < 1e9 && Number.isInteger(seconds);
  if (!isValid) {
    throw invalidArgument(`Action.timeout of ${seconds} s and ${nanos} ns is not a positive duration`);
  }
  return seconds * 1000 + nanos / 1e6;
}

function parseArguments(args: readonly string[]): readonly string[] {
  if (args.length === 0) {
    throw invalidArgument("Command.arguments is empty: expected at least the program to run");
  }
  if (args[0] === "") throw invalidArgument("Command.arguments[0] is empty: expected the program to run");
  args.forEach((argument, index) => assertArgument(argument, `Command.arguments[${index}]`));
  return args;
}

function parseEnvironment(variables: readonly EnvironmentVariable[]): readonly EnvironmentVariable[] {
  const values = new Map<string, string>();
  for (const { name, value } of variables) {
    assertVariableName(name);
    assertArgument(value, `Command.environment_variables: value of ${JSON.stringify(name)}`);
    values.set(name, value); // the last one wins, as with putenv; no client is known to repeat a name
  }
  return [...values].map(([name, value]) => ({ name, value }));
}

/** An empty name, `=` or NUL in it would let one variable become another, or an option of the sandbox. */
export function assertVariableName(name: string): void {
  if (name === "" || name.includes("=") || name.includes("\0")) {
    throw invalidArgument(
      `Command.environment_variables: the name ${JSON.stringify(clip(name))} is empty or contains "=" or NUL`,
    );
  }
}

export function assertArgument(text: string, field: string): void {
  assertPlainText(text, field);
  if (text.length <= MAX_ARGUMENT_BYTES / 3) return;
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_ARGUMENT_BYTES) {
    throw invalidArgument(`${field} has ${bytes} bytes, Linux takes at most ${MAX_ARGUMENT_BYTES} in one string`);
  }
}

function parseOutputs(command: Command, workingDirectory: readonly string[]): RequestedOutputs {
  const count = command.outputPaths.length + command.outputFiles.length + command.outputDirectories.length;
  if (count > MAX_OUTPUTS) {
    throw invalidArgument(`Command asks for ${count} outputs, at most ${MAX_OUTPUTS} are accepted`);
  }
  const parse = (paths: readonly string[], field: string) =>
    [...new Set(paths)].map((path) => parseOutputPath(workingDirectory, path, field));
  const usesPaths = command.outputPaths.length > 0;
  const format = command.outputDirectoryFormat;
  return {
    form: usesPaths ? "paths" : "typed",
    paths: parse(command.outputPaths, "Command.output_paths"),
    files: usesPaths ? [] : parse(command.outputFiles, "Command.output_files"),
    directories: usesPaths ? [] : parse(command.outputDirectories, "Command.output_directories"),
    // An unknown format means TREE_ONLY, which is always produced.
    withDirectoryBlobs:
      format === Command_OutputDirectoryFormat.DIRECTORY_ONLY ||
      format === Command_OutputDirectoryFormat.TREE_AND_DIRECTORY,
    nodeProperties: parseNodeProperties(command.outputNodeProperties),
  };
}

function parseNodeProperties(names: readonly string[]): RequestedOutputs["nodeProperties"] {
  for (const name of names) {
    if (SUPPORTED_NODE_PROPERTIES.includes(name)) continue;
    throw invalidArgument(
      `Command.output_node_properties: ${JSON.stringify(clip(name))} is not supported, ` +
        `expected ${SUPPORTED_NODE_PROPERTIES.join(" or ")}`,
    );
  }
  return { mtime: names.includes("mtime"), unixMode: names.includes("unix_mode") };
}
