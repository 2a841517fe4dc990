// What a sandbox is told about one process, and the check that nothing in it can be read as something else.

/** What a sandbox looks like from inside, before anybody knows what runs in it. */
export interface SandboxView {
  readonly rootMode: "host" | "input-root" | { readonly image: string };
  readonly inputRootPath: string;
  readonly inputRootPathInside?: string;
  readonly mounts: readonly SandboxMount[];
  readonly temporaryPath?: string;
  readonly network: "none" | "host";
  readonly unixUid?: number;
  readonly unixGid?: number;
  readonly limits: { readonly memoryBytes?: number; readonly diskBytes?: number };
}

export interface SandboxSpec extends SandboxView {
  readonly arguments: readonly string[];
  readonly environment: readonly { readonly name: string; readonly value: string }[];
  readonly workingDirectory: string;
}

export interface SandboxMount {
  readonly source: string;
  readonly destination: string;
  readonly writable: boolean;
  readonly optional: boolean;
}

/** Inside the sandbox, where the input root lies when nobody asked for another place. */
const DEFAULT_INPUT_ROOT = "/build";

/** Places that the sandbox itself needs, so an input root cannot cover them. */
const RESERVED_INSIDE = ["/", "/proc", "/dev", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/tmp"];

/** Returns where the input root lies inside; "/" when it is the root. */
export function inputRootInside(spec: Pick<SandboxView, "rootMode" | "inputRootPathInside">): string {
  return spec.rootMode === "input-root" ? "/" : (spec.inputRootPathInside ?? DEFAULT_INPUT_ROOT);
}

/** Returns the absolute working directory inside. */
export function workingDirectoryInside(spec: SandboxSpec): string {
  const root = inputRootInside(spec);
  if (spec.workingDirectory === "") return root;
  return root === "/" ? `/${spec.workingDirectory}` : `${root}/${spec.workingDirectory}`;
}

/**
 * Returns what is wrong with `spec`, for a person; undefined when nothing is. A NUL byte would end a word of bwrap's
 * argument list and start an option of the client's choice, so no string with one gets any further than this.
 */
export function findSpecFault(spec: SandboxSpec): string | undefined {
  return commandFault(spec) ?? environmentFault(spec) ?? pathFault(spec);
}

function commandFault(spec: SandboxSpec): string | undefined {
  const command = spec.arguments[0];
  if (command === undefined) return "The command has no arguments; the first one names the program to run";
  if (command === "") return 'The first argument of the command is ""; it must name the program to run';
  const index = spec.arguments.findIndex((argument) => argument.includes("\0"));
  if (index >= 0) return `Argument ${index} of the command contains a NUL byte, which no program can receive`;
  return undefined;
}

function environmentFault(spec: SandboxSpec): string | undefined {
  for (const { name, value } of spec.environment) {
    if (name === "") return "An environment variable has an empty name";
    if (name.includes("=")) return `The environment variable name ${JSON.stringify(name)} contains "="`;
    if (name.includes("\0") || value.includes("\0")) {
      return `The environment variable ${JSON.stringify(name)} contains a NUL byte, which no program can receive`;
    }
  }
  return undefined;
}

function pathFault(spec: SandboxSpec): string | undefined {
  const working = spec.workingDirectory;
  if (working.includes("\0")) return `The working directory ${JSON.stringify(working)} contains a NUL byte`;
  if (working.startsWith("/") || leavesRoot(working)) {
    return `The working directory ${JSON.stringify(working)} must be relative and stay inside the input root`;
  }
  const inside = spec.inputRootPathInside;
  if (inside !== undefined && (!isPlainAbsolute(inside) || RESERVED_INSIDE.includes(inside))) {
    return `The input root cannot lie at ${JSON.stringify(inside)}: the path must be absolute, without "..", and none of ${RESERVED_INSIDE.join(" ")}`;
  }
  for (const mount of spec.mounts) {
    if (!isPlainAbsolute(mount.source) || !isPlainAbsolute(mount.destination)) {
      return `The mount ${JSON.stringify(`${mount.source}:${mount.destination}`)} must have absolute paths without ".."`;
    }
  }
  return undefined;
}

function leavesRoot(path: string): boolean {
  let depth = 0;
  for (const part of path.split("/")) {
    if (part === "..") depth--;
    else if (part !== "" && part !== ".") depth++;
    if (depth < 0) return true;
  }
  return false;
}

function isPlainAbsolute(path: string): boolean {
  return path.startsWith("/") && !path.includes("\0") && !path.split("/").includes("..");
}
