// Flags as data: one table drives the parser, the environment variables, --help and the table in README.md.
//
// A flag is `--name VALUE` or `--name=VALUE`, or LEDGE_NAME in the environment; the command line wins. A repeatable flag
// takes the values of all its occurrences, and a comma-separated list in the environment. What a value means is decided
// by the `parse` of its flag, which answers undefined for text it does not accept.

export interface Flag<T> {
  readonly name: string;
  /** What stands for the value in --help; undefined for a switch, which takes no value (`true` in the environment). */
  readonly placeholder: string | undefined;
  readonly repeatable: boolean;
  /** Between values in the environment, where it is not a comma. */
  readonly listSeparator?: string;
  /** One or two lines of --help, without the default. */
  readonly help: string;
  /** The default for people, or undefined when there is none. */
  readonly defaultText: string | undefined;
  /** Completes "expected …". */
  readonly accepts: string;
  readonly parse: (text: string) => T | undefined;
}

export type FlagTable = Readonly<Record<string, Flag<unknown>>>;

/** The values given, in order of appearance; empty when neither the command line nor the environment had one. */
export type FlagValues<Table extends FlagTable> = {
  readonly [Key in keyof Table]: Table[Key] extends Flag<infer T> ? readonly T[] : never;
};

/** A mistake in the arguments: the program says it and exits with 2. */
export class UsageError extends Error {}

export function environmentName(flag: Flag<unknown>): string {
  return `LEDGE_${flag.name.replaceAll("-", "_").toUpperCase()}`;
}

export function parseFlags<Table extends FlagTable>(
  table: Table,
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): FlagValues<Table> {
  const given = readArguments(table, args);
  const values: Record<string, unknown[]> = {};
  for (const [key, flag] of Object.entries(table)) {
    const texts = given.get(flag.name) ?? readEnvironment(flag, environment);
    values[key] = texts.map(({ text, source }) => parseValue(flag, text, source));
  }
  return values as unknown as FlagValues<Table>;
}

/** A value as written, and what to call its place in a message. */
interface Given {
  readonly text: string;
  readonly source: string;
}

function readArguments(table: FlagTable, args: readonly string[]): Map<string, Given[]> {
  const given = new Map<string, Given[]>();
  const rest = [...args];
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    const [, name = "", inline] = /^--([^=]+)(?:=(.*))?$/s.exec(arg) ?? [];
    const flag = Object.values(table).find((candidate) => candidate.name === name);
    if (flag === undefined) throw unknownArgument(table, arg);
    if (flag.placeholder === undefined && inline !== undefined) {
      throw new UsageError(`--${name} takes no value, but "${inline}" was given`);
    }
    const text = flag.placeholder === undefined ? "true" : (inline ?? rest.shift());
    if (text === undefined) throw new UsageError(`--${name} needs a value: expected ${flag.accepts}`);
    const earlier = given.get(name) ?? [];
    if (earlier.length > 0 && !flag.repeatable) throw new UsageError(`--${name} was given twice; it takes one value`);
    given.set(name, [...earlier, { text, source: `--${name}` }]);
  }
  return given;
}

function readEnvironment(flag: Flag<unknown>, environment: Readonly<Record<string, string | undefined>>): Given[] {
  const source = environmentName(flag);
  const text = environment[source];
  // An empty variable is how many tools spell "not set".
  if (text === undefined || text === "") return [];
  const texts = flag.repeatable ? text.split(flag.listSeparator ?? ",").map((part) => part.trim()) : [text];
  return texts.map((part) => ({ text: part, source }));
}

function parseValue(flag: Flag<unknown>, text: string, source: string): unknown {
  const value = flag.parse(text);
  if (value === undefined) throw new UsageError(`${source}: "${text}" is not accepted; expected ${flag.accepts}`);
  return value;
}

function unknownArgument(table: FlagTable, arg: string): UsageError {
  if (!arg.startsWith("-")) return new UsageError(`Unexpected argument "${arg}"; see ledge --help`);
  const name = arg.replace(/^-+/, "").replace(/=.*$/s, "");
  const near = Object.values(table).find((flag) => editDistance(flag.name, name) <= 2);
  const hint = near === undefined ? "" : `; did you mean --${near.name}?`;
  return new UsageError(`Unknown flag "${arg}"${hint} ledge --help lists all flags`);
}

/** Levenshtein distance: how many characters to insert, delete or replace. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replaced = (row[j] ?? 0) + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
