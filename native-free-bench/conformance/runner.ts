// Runs checks one after the other against a target and keeps what is known when something goes wrong.
//
// Invariant: every selected check gets exactly one outcome, also when the target hangs (time limit per check), dies (the
// rest is "not run", after one attempt to reconnect) or asks for more than the budget allows. Checks run alone, because
// several of them are about what happens beside others.

import { Http2Channel } from "../client/http2-channel.ts";
import type { HttpTarget } from "../client/http1-client.ts";
import type { Target } from "../client/target.ts";
import { findDigestFunction } from "../digest-functions.ts";
import { RandomData } from "../random-data.ts";
import { DigestFunction_Value } from "../../src/proto/remote_execution.ts";
import type { ServerCapabilities } from "../../src/proto/remote_execution.ts";
import { CheckFailed, NotApplicable, type Check } from "./check.ts";
import { askCapabilities, discoverFeatures, FEATURES, type Feature } from "./features.ts";
import { Probe } from "./probe.ts";

/** error: the check could not be decided, because the target did not answer in time or broke. */
export type Verdict = "pass" | "fail" | "error" | "skip";

export interface CheckOutcome {
  readonly check: Check;
  readonly verdict: Verdict;
  /** What was observed, or why it was skipped. */
  readonly note: string;
  readonly durationMs: number;
}

export interface RunOptions {
  readonly target: Target;
  readonly http: HttpTarget | undefined;
  readonly instanceName: string;
  readonly checks: readonly Check[];
  readonly seed: number;
  readonly platform: ReadonlyMap<string, string>;
  readonly timeoutMs: number;
  readonly budgetBytes: number;
  readonly onOutcome?: (outcome: CheckOutcome) => void;
}

export interface SuiteRun {
  readonly targetText: string;
  readonly seed: number;
  readonly capabilities: ServerCapabilities;
  readonly features: readonly Feature[];
  readonly outcomes: readonly CheckOutcome[];
  readonly sentBytes: number;
  /** Set when the target went away before the end. */
  readonly lostTarget: string | undefined;
  readonly startedAt: string;
  readonly durationMs: number;
}

export async function runSuite(options: RunOptions): Promise<SuiteRun> {
  const startedAt = new Date().toISOString();
  const begun = performance.now();
  let sentBytes = 0;
  const onSend = (sizeBytes: number): void => void (sentBytes += sizeBytes);
  const openChannel = (): Http2Channel => new Http2Channel(options.target, { onSend });
  const first = openChannel();
  try {
    const capabilities = await askCapabilities(first, options.instanceName);
    const features = await discoverFeatures(first, { ...options, capabilities });
    const outcomes: CheckOutcome[] = [];
    let lostTarget: string | undefined;
    const random = new RandomData(options.seed);
    for (const check of options.checks) {
      const skip = lostTarget ?? reasonToSkip(check, features) ?? reasonOfBudget(sentBytes, options.budgetBytes);
      const outcome: CheckOutcome =
        skip === undefined
          ? await runCheck(check, { ...options, capabilities, features, openChannel, random, onSend })
          : { check, verdict: "skip", note: skip, durationMs: 0 };
      outcomes.push(outcome);
      options.onOutcome?.(outcome);
      if (outcome.verdict === "error" && lostTarget === undefined)
        lostTarget = await whyUnreachable(openChannel, options.instanceName);
    }
    const durationMs = performance.now() - begun;
    const targetText = options.target.text;
    return {
      targetText,
      seed: options.seed,
      capabilities,
      features: [...features],
      outcomes,
      sentBytes,
      lostTarget,
      startedAt,
      durationMs,
    };
  } finally {
    first.close();
    options.http?.agent.destroy();
  }
}

interface CheckContext extends RunOptions {
  readonly capabilities: ServerCapabilities;
  readonly features: ReadonlySet<Feature>;
  readonly openChannel: () => Http2Channel;
  readonly random: RandomData;
  readonly onSend: (sizeBytes: number) => void;
}

async function runCheck(check: Check, context: CheckContext): Promise<CheckOutcome> {
  const begun = performance.now();
  const timeoutMs = Math.max(context.timeoutMs, check.timeoutMs ?? 0);
  const abort = new AbortController();
  const channels: Http2Channel[] = [];
  const openChannel = (): Http2Channel => {
    const channel = context.openChannel();
    channels.push(channel);
    return channel;
  };
  const fn = findDigestFunction(DigestFunction_Value.SHA256)!;
  // A connection per check: what one check did to its connection is not held against the next.
  const probe = new Probe({ ...context, openChannel, channel: openChannel(), fn, signal: abort.signal });
  let timer: NodeJS.Timeout | undefined;
  const timedOut = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new TimedOut(`no verdict within ${timeoutMs / 1000} s: the target hangs or is too slow`)),
      timeoutMs,
    );
  });
  const finish = (verdict: Verdict, note: string): CheckOutcome => ({
    check,
    verdict,
    note,
    durationMs: performance.now() - begun,
  });
  try {
    await Promise.race([check.run(probe), timedOut]);
    return finish("pass", "");
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof CheckFailed) return finish("fail", message);
    if (error instanceof NotApplicable) return finish("skip", message);
    return finish("error", message);
  } finally {
    clearTimeout(timer);
    abort.abort();
    for (const channel of channels) channel.close();
  }
}

class TimedOut extends Error {}

function reasonToSkip(check: Check, features: ReadonlySet<Feature>): string | undefined {
  const missing = check.needs.find((feature) => !features.has(feature));
  return missing === undefined ? undefined : `not offered: ${FEATURES[missing]}`;
}

function reasonOfBudget(sentBytes: number, budgetBytes: number): string | undefined {
  if (sentBytes < budgetBytes) return undefined;
  return `budget: ${sentBytes} of ${budgetBytes} bytes were sent (--budget)`;
}

/** Asks once more whether the target is there, so that one broken connection is not taken for the end. */
async function whyUnreachable(openChannel: () => Http2Channel, instanceName: string): Promise<string | undefined> {
  const channel = openChannel();
  try {
    await askCapabilities(channel, instanceName);
    return undefined;
  } catch (error) {
    return `not run, the target is gone: ${error instanceof Error ? error.message : String(error)}`;
  } finally {
    channel.close();
  }
}
