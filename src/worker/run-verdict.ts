// What the end of a run means for the action: status, exit code, whether there are outputs, whether it may be cached.
//
// Source: wire/reapi.md 3.4 (table of outcomes). Only an exit by itself with code 0 is ever cached.

import { Code, StatusError } from "../base/status.ts";
import type { RunOutcome } from "../runner/runner.ts";

export interface Verdict {
  /** undefined: OK. */
  readonly status: StatusError | undefined;
  readonly exitCode: number;
  /** Outputs are collected: all of a command that ended, what there is after a timeout. */
  readonly hasOutputs: boolean;
  readonly isCacheable: boolean;
}

/** 128 + SIGKILL, for whatever was ended from outside. */
const EXIT_KILLED = 137;

export function runnerVerdict(outcome: RunOutcome, timeoutMs: number): Verdict {
  switch (outcome.kind) {
    case "exited":
      return {
        status: undefined,
        exitCode: outcome.exitCode,
        hasOutputs: true,
        isCacheable: outcome.exitCode === 0,
      };
    case "timeout":
      return killed(Code.DEADLINE_EXCEEDED, `The action was killed after its timeout of ${timeoutMs / 1000} s`, true);
    case "cancelled":
      return killed(Code.CANCELLED, "The action was cancelled", false);
    case "limit":
      // Out of memory is an exit like any other: the process was killed, the message is on stderr.
      if (outcome.limit === "memory") {
        return { status: undefined, exitCode: EXIT_KILLED, hasOutputs: true, isCacheable: false };
      }
      return killed(Code.RESOURCE_EXHAUSTED, outcome.message, false);
    case "not-started":
      return killed(Code.INVALID_ARGUMENT, outcome.message, false);
    case "sandbox-failed":
      return killed(Code.INTERNAL, `The sandbox failed: ${outcome.message}`, false);
  }
}

function killed(code: Code, message: string, hasOutputs: boolean): Verdict {
  return { status: new StatusError(code, message), exitCode: EXIT_KILLED, hasOutputs, isCacheable: false };
}
