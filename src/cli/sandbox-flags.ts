// The flags of `ledge sandbox` beside those of `serve`: what the action it stands for would ask for.

import type { Flag } from "./flag.ts";
import { parsePair, parsePath } from "./serve-flags.ts";

type Pair = { readonly name: string; readonly value: string };

const actionProperties: Flag<Pair> = {
  name: "action-property",
  placeholder: "NAME=VALUE",
  repeatable: true,
  help: "A platform property the action has",
  defaultText: undefined,
  accepts: "NAME=VALUE",
  parse: parsePair,
};

const environment: Flag<Pair> = {
  name: "env",
  placeholder: "NAME=VALUE",
  repeatable: true,
  help: "A variable of the action's Command",
  defaultText: "PATH",
  accepts: "NAME=VALUE",
  parse: parseVariable,
};

const instance: Flag<string> = {
  name: "instance",
  placeholder: "NAME",
  repeatable: false,
  help: "The instance the action is sent to (see --root-mode)",
  defaultText: "the empty one",
  accepts: "an instance name",
  parse: (text) => text,
};

const inputRoot: Flag<string> = {
  name: "input-root",
  placeholder: "DIR",
  repeatable: false,
  help: "The input root, used as it is",
  defaultText: "an empty directory",
  accepts: "a path",
  parse: parsePath,
};

export const SANDBOX_FLAGS = { actionProperties, environment, instance, inputRoot } as const;

function parseVariable(text: string): Pair | undefined {
  const at = text.indexOf("=");
  return at > 0 ? { name: text.slice(0, at), value: text.slice(at + 1) } : undefined;
}
