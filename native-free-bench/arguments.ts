// Command-line arguments of the harness: a table of flags in, values out.
//
// Invariant: an unknown flag, a missing or malformed value throws UsageError naming flag, value and what is accepted;
// commands turn it into exit code 2.

import { parseArgs } from "node:util";
import { parseDurationMs, parseSizeBytes } from "../src/base/units.ts";

/** A mistake in the arguments. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export interface FlagSpec {
  readonly kind: "text" | "switch" | "list";
  /** What --help says. */
  readonly help: string;
  /** How the value is called in --help. */
  readonly value?: string;
}

export type FlagTable = Readonly<Record<string, FlagSpec>>;

export class Arguments {
  readonly positionals: readonly string[];
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(argv: readonly string[], flags: FlagTable) {
    const options = Object.fromEntries(
      Object.entries(flags).map(([name, flag]) => [
        name,
        { type: flag.kind === "switch" ? ("boolean" as const) : ("string" as const), multiple: flag.kind === "list" },
      ]),
    );
    try {
      const parsed = parseArgs({ args: [...argv], options, allowPositionals: true, strict: true });
      this.positionals = parsed.positionals;
      this.#values = parsed.values;
    } catch (error) {
      throw new UsageError(`${firstSentence(error)} (--help lists the flags)`);
    }
  }

  has(name: string): boolean {
    return this.#values[name] === true;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === "string" ? value : undefined;
  }

  list(name: string): readonly string[] {
    const value = this.#values[name];
    return Array.isArray(value) ? value.map(String) : [];
  }

  /** Several values in one flag, separated by commas, or the flag repeated. */
  words(name: string): readonly string[] {
    return this.list(name).flatMap((text) => text.split(",").filter((word) => word !== ""));
  }

  number(name: string, fallback: number, range: { min: number; max: number }): number {
    const text = this.text(name);
    if (text === undefined) return fallback;
    const value = Number(text);
    if (text === "" || !Number.isFinite(value) || value < range.min || value > range.max) {
      throw new UsageError(`--${name}: "${text}" is not a number between ${range.min} and ${range.max}`);
    }
    return value;
  }

  durationMs(name: string, fallbackMs: number): number {
    const text = this.text(name);
    const value = text === undefined ? fallbackMs : parseDurationMs(text);
    if (value === undefined) throw new UsageError(`--${name}: "${text}" is not a duration such as 500ms, 5s or 2m`);
    return value;
  }

  sizeBytes(name: string, fallbackBytes: number): number {
    const text = this.text(name);
    const value = text === undefined ? fallbackBytes : parseSizeBytes(text);
    if (value === undefined) throw new UsageError(`--${name}: "${text}" is not a size such as 512KiB or 1GiB`);
    return value;
  }
}

/** One line a flag, for --help. */
export function describeFlags(flags: FlagTable): string {
  return Object.entries(flags)
    .map(([name, flag]) => {
      const left = flag.kind === "switch" ? `--${name}` : `--${name} ${flag.value ?? "VALUE"}`;
      return `  ${left.padEnd(30)} ${flag.help}${flag.kind === "list" ? " (repeatable)" : ""}`;
    })
    .join("\n");
}

/** Runs `command`, turning a UsageError into a line on stderr and exit code 2. */
export async function withUsageErrors(name: string, command: () => Promise<number>): Promise<number> {
  try {
    return await command();
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`ledge ${name}: ${error.message}\n`);
    return 2;
  }
}

function firstSentence(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.split(". ")[0] ?? message;
}
