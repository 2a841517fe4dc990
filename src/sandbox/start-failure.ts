// Turns what bwrap wrote to stderr before anything of the action ran into whose fault it was, and words for a person.
//
// Only called when bwrap never reported an exit code: then every byte on stderr is its own. Source of the messages:
// bubblewrap 0.8.0 to 0.11.1.

export type StartFailure =
  | { readonly kind: "not-started"; readonly message: string }
  /** Somebody still had the program open for writing; nothing has run, so trying again is safe. */
  | { readonly kind: "retry"; readonly message: string }
  | { readonly kind: "sandbox-failed"; readonly message: string };

/** `stderr` is the beginning of bwrap's messages. */
export function explainStartFailure(stderr: string, command: string, workingDirectory: string): StartFailure {
  const lines = stderr.split("\n").filter((line) => line.startsWith("bwrap: "));
  const message = (lines.at(-1) ?? stderr.trim()).replace(/^bwrap: /, "");
  if (message.startsWith("execvp ")) return explainExec(message, command);
  if (message.startsWith("Can't chdir to ")) {
    return {
      kind: "not-started",
      message: explainWorkingDirectory(message.slice(message.lastIndexOf(": ") + 2), workingDirectory),
    };
  }
  if (message.startsWith("Exceeded maximum number of arguments")) {
    return {
      kind: "not-started",
      message: `The command has more arguments and environment variables than the sandbox takes (${message.toLowerCase()}); pass them in a file`,
    };
  }
  return { kind: "sandbox-failed", message: message === "" ? "bwrap ended without a message" : `bwrap: ${message}` };
}

function explainExec(message: string, command: string): StartFailure {
  const reason = message.slice(message.lastIndexOf(": ") + 2);
  const quoted = JSON.stringify(command);
  if (reason === "Text file busy") return { kind: "retry", message: `Cannot start ${quoted}: ${reason}` };
  return { kind: "not-started", message: `Cannot start the command ${quoted}: ${execReason(reason, command)}` };
}

function execReason(reason: string, command: string): string {
  switch (reason) {
    case "No such file or directory":
      return command.includes("/")
        ? "there is no such file in the sandbox, or the interpreter it names is missing. Relative paths start at the working directory"
        : "there is no program of that name in the PATH of the action (a path needs a slash: ./name)";
    case "Permission denied":
      return "it is not executable (the file's is_executable is false), or it is a directory";
    case "Argument list too long":
      return "its arguments and environment are longer than Linux allows; pass them in a file";
    default:
      return reason;
  }
}

/** `reason` is the system's text for the error. */
export function explainWorkingDirectory(reason: string, workingDirectory: string): string {
  const why =
    reason === "No such file or directory"
      ? "the input root has no such directory"
      : reason === "Not a directory"
        ? "it is not a directory in the input root"
        : reason;
  return `Cannot enter the working directory ${JSON.stringify(workingDirectory)}: ${why}`;
}
