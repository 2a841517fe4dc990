// Why a command did not start, in words for the person who wrote it; and why a sandbox did not come up.
//
// Source: execve(2) and chdir(2) for the errors; bubblewrap 0.8.0 to 0.11.1 for its messages.

import { constants } from "node:os";
import { getSystemErrorMessage } from "node:util";

/** What the launcher (or the fork of an action without sandbox) could not do. */
export interface LaunchFailure {
  readonly stage: "enter-directory" | "execute";
  /** Positive, as in errno(3). */
  readonly errno: number;
}

const { errno } = constants;

/** Somebody has the program open for writing, for less than a millisecond as a rule; nothing has run. */
export function mayPass(failure: LaunchFailure): boolean {
  return failure.stage === "execute" && failure.errno === errno.ETXTBSY;
}

export function explainLaunchFailure(failure: LaunchFailure, command: string, workingDirectory: string): string {
  if (failure.stage === "enter-directory") {
    return `Cannot enter the working directory ${JSON.stringify(workingDirectory)}: ${directoryReason(failure.errno)}`;
  }
  return `Cannot start the command ${JSON.stringify(command)}: ${programReason(failure.errno, command)}`;
}

/** `stderr` is what bwrap wrote before anything of the action could run. */
export function explainSandboxFailure(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => line.startsWith("bwrap: "));
  return lines.at(-1) ?? (stderr.trim() || "bwrap ended without a message");
}

function directoryReason(code: number): string {
  if (code === errno.ENOENT) return "the input root has no such directory";
  if (code === errno.ENOTDIR) return "it is not a directory in the input root";
  return getSystemErrorMessage(-code);
}

function programReason(code: number, command: string): string {
  switch (code) {
    case errno.ENOENT:
      return command.includes("/")
        ? "there is no such file in the sandbox, or the interpreter it names is missing. Relative paths start at the working directory"
        : "there is no program of that name in the PATH of the action (a path needs a slash: ./name)";
    case errno.EACCES:
      return "it is not executable (the file's is_executable is false), or it is a directory";
    case errno.ENOEXEC:
      return "it is neither a program for this kind of machine nor a script with a #! line";
    case errno.E2BIG:
      return "its arguments and environment are longer than Linux allows; pass them in a file";
    default:
      return getSystemErrorMessage(-code);
  }
}
