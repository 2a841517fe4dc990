// What a conformance check is, and the vocabulary in which it judges an answer.
//
// Invariant: a check talks to the target through its Probe only, states its own citation and advice, and ends by
// returning (pass) or by throwing: CheckFailed when the answer is wrong, NotApplicable when the target does not offer
// what is checked.

import { codeName } from "../../src/base/status.ts";
import type { Probe } from "./probe.ts";
import type { Feature } from "./features.ts";

/** CLIENTS: no rule says so, but a named client breaks without it. */
export type Level = "MUST" | "SHOULD" | "MAY" | "CLIENTS";

export interface Check {
  /** `area.what`, stable. */
  readonly id: string;
  readonly level: Level;
  /** What holds when the check passes, in one sentence. */
  readonly says: string;
  /** Where that is written. */
  readonly cites: string;
  /** What a server's author does about a failure. */
  readonly advice: string;
  /** Everything that must be advertised or offered for the check to apply. */
  readonly needs: readonly Feature[];
  /** Above the default for checks that wait. */
  readonly timeoutMs?: number;
  readonly run: (probe: Probe) => Promise<void>;
}

export type CheckBody = Omit<Check, "id" | "needs"> & { readonly id: string; readonly needs?: readonly Feature[] };

/** Prefixes the ids of one area and adds what all its checks need. */
export function defineArea(area: string, needs: readonly Feature[], checks: readonly CheckBody[]): readonly Check[] {
  return checks.map((check) => ({ ...check, id: `${area}.${check.id}`, needs: [...needs, ...(check.needs ?? [])] }));
}

export class CheckFailed extends Error {
  override readonly name = "CheckFailed";
}

export class NotApplicable extends Error {
  override readonly name = "NotApplicable";
}

/** What an expectation needs to know of an answer. */
export interface Answer {
  readonly code: number;
  readonly message: string;
}

export function expectThat(condition: boolean, observed: string): asserts condition {
  if (!condition) throw new CheckFailed(observed);
}

export function expectEqual<T extends string | number | boolean | undefined>(
  actual: T,
  expected: T,
  what: string,
): void {
  if (actual !== expected) throw new CheckFailed(`${what}: ${show(actual)}, expected ${show(expected)}`);
}

export function expectOk(answer: Answer, what: string): void {
  expectCode(answer, [0], what);
}

export function expectCode(answer: Answer, codes: readonly number[], what: string): void {
  if (codes.includes(answer.code)) return;
  const reason = answer.message === "" ? "" : ` (${clip(answer.message)})`;
  throw new CheckFailed(`${what}: ${codeName(answer.code)}${reason}, expected ${codes.map(codeName).join(" or ")}`);
}

/** Any refusal that is not a broken connection or a bug of the server. */
export function expectRefusal(answer: Answer & { readonly transport?: string | undefined }, what: string): void {
  if (answer.transport !== undefined) throw new CheckFailed(`${what}: no status at all, ${answer.transport}`);
  if (answer.code === 0) throw new CheckFailed(`${what}: OK, expected a refusal`);
}

export function expectBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (actual.length !== expected.length) {
    throw new CheckFailed(`${what}: ${actual.length} bytes, expected ${expected.length}`);
  }
  if (Buffer.compare(actual, expected) === 0) return;
  let position = 0;
  while (actual[position] === expected[position]) position++;
  throw new CheckFailed(`${what}: the bytes differ from position ${position} of ${expected.length}`);
}

/** Narrows what an answer must contain. */
export function expectPresent<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new CheckFailed(`${what} is not set`);
  return value;
}

function show(value: string | number | boolean | undefined): string {
  return typeof value === "string" ? `"${clip(value)}"` : String(value);
}

function clip(text: string): string {
  return text.length <= 300 ? text : `${text.slice(0, 297)}...`;
}
