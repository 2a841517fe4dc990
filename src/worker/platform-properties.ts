// What an action demands of its worker, checked against what this server offers.
//
// Invariant: a property is interpreted, matched, or knowingly ignored (and counted); one we do not know is refused, and
// the refusal names the property, its value and what is on offer. An absent property is no constraint. The rows are
// platform-table.ts. Source: platform.md of remote-apis; wire/platform-properties.md 2 to 4.

import { Code, StatusError } from "../base/status.ts";
import type { Counter } from "../telemetry/metrics.ts";
import { assertArgument, assertVariableName, type EnvironmentVariable } from "./action-command.ts";
import { clip } from "./output-paths.ts";
import { PLATFORM_TABLE, type PlatformRule } from "./platform-table.ts";

/** What this server has: found out or configured at start. */
export interface PlatformOffer {
  /** `linux`. */
  readonly osFamily: string;
  /** Canonical ISA names: the architecture and its extensions. */
  readonly isa: readonly string[];
  readonly cores: number;
  readonly memoryBytes: number;
  readonly workerName: string;
  /** --property NAME=VALUE: a request with this name must ask for one of the values. */
  readonly properties: ReadonlyMap<string, readonly string[]>;
  /** --ignore-property NAME. */
  readonly ignored: ReadonlySet<string>;
  /** --image NAME=DIR. */
  readonly images: ReadonlyMap<string, string>;
  /** --allow network. */
  readonly allowNetwork: boolean;
}

/** What the properties come to, for the runner. */
export interface PlatformDemand {
  readonly network: "none" | "host";
  readonly unixUid: number | undefined;
  readonly unixGid: number | undefined;
  /** Host path of a configured image's root directory. */
  readonly imagePath: string | undefined;
  /** Where the input root must lie inside the sandbox. */
  readonly inputRootPathInside: string | undefined;
  readonly memoryBytes: number | undefined;
  /** Applied after the Command's own. */
  readonly environment: readonly EnvironmentVariable[];
}

export interface Property {
  readonly name: string;
  readonly value: string;
}

type Draft = { -readonly [Key in keyof PlatformDemand]: PlatformDemand[Key] } & { environment: EnvironmentVariable[] };

/** The largest uid that is not the "no such user" value -1. */
const MAX_UID = 4_294_967_294;

/**
 * Interprets the properties of an action. Throws FAILED_PRECONDITION when this server cannot do what they ask.
 * `countIgnored` gives the counter of a property that is ignored on purpose.
 */
export function interpretPlatform(
  properties: readonly Property[],
  offer: PlatformOffer,
  countIgnored: (name: string) => Counter,
): PlatformDemand {
  const demand: Draft = {
    network: "none",
    unixUid: undefined,
    unixGid: undefined,
    imagePath: undefined,
    inputRootPathInside: undefined,
    memoryBytes: undefined,
    environment: [],
  };
  for (const property of properties) {
    const rule = ruleFor(property.name, offer);
    if (rule === undefined) throw unknownProperty(property, offer);
    if (rule.kind === "ignore") countIgnored(property.name).add();
    else applyRule(rule, property, offer, demand);
  }
  assertSingle(properties, "OSFamily");
  return demand;
}

function ruleFor(name: string, offer: PlatformOffer): PlatformRule | undefined {
  if (offer.ignored.has(name)) return { kind: "ignore", why: "--ignore-property" };
  if (offer.properties.has(name)) return { kind: "declared" };
  return PLATFORM_TABLE.get(name) ?? (name.startsWith("env-var:") ? { kind: "environment" } : undefined);
}

function applyRule(rule: PlatformRule, property: Property, offer: PlatformOffer, demand: Draft): void {
  const { value } = property;
  switch (rule.kind) {
    case "ignore":
      return;
    case "os-family":
      if (value.toLowerCase() !== offer.osFamily) throw unsatisfied(property, offer.osFamily);
      return;
    case "isa":
      if (!offer.isa.includes(canonicalIsa(value))) throw unsatisfied(property, offer.isa.join(", "));
      return;
    case "declared":
      if (!(offer.properties.get(property.name) ?? []).includes(value)) throw undeclared(property, offer);
      return;
    case "worker":
      if (value !== offer.workerName) throw unsatisfied(property, offer.workerName);
      return;
    case "one-of":
      if (!rule.values.includes(value)) throw unsatisfied(property, `${rule.values.join(" or ")} (${rule.why})`);
      return;
    case "minimum":
      applyMinimum(rule, property, offer);
      return;
    case "network":
      applyNetwork(rule, property, offer, demand);
      return;
    case "user":
      applyUser(rule.field, property, demand);
      return;
    case "run-as-root":
      if (value === "true") Object.assign(demand, { unixUid: 0, unixGid: 0 });
      else if (value !== "false") throw unsatisfied(property, "true or false");
      return;
    case "image":
      demand.imagePath = findImage(property, offer);
      return;
    case "memory-limit":
      demand.memoryBytes = parseAmount(property);
      return;
    case "input-root-path":
      if (!isPlainAbsolute(value)) throw unsatisfied(property, 'any absolute path without ".."');
      demand.inputRootPathInside = value;
      return;
    case "environment":
      demand.environment.push(...parseExtraEnvironment(property));
      return;
    case "unsupported":
      throw unsatisfied(property, `nothing: ${rule.why}`);
  }
}

function applyMinimum(
  rule: Extract<PlatformRule, { kind: "minimum" }>,
  property: Property,
  offer: PlatformOffer,
): void {
  const amount = parseAmount(property);
  const available = { cores: offer.cores, memory: offer.memoryBytes, none: 0 }[rule.of] / rule.unit;
  if (amount > available) throw unsatisfied(property, `at most ${Math.floor(available)}`);
}

function applyNetwork(
  rule: Extract<PlatformRule, { kind: "network" }>,
  property: Property,
  offer: PlatformOffer,
  demand: Draft,
): void {
  if (property.value === rule.off) return;
  if (property.value !== rule.on) throw unsatisfied(property, `${rule.off} or ${rule.on}`);
  // With the host's network an action could reach our own port and write cache entries, so an operator decides.
  if (!offer.allowNetwork) throw unsatisfied(property, `${rule.off}; the operator has not given --allow network`);
  demand.network = "host";
}

function applyUser(field: "unixUid" | "unixGid", property: Property, demand: Draft): void {
  const id = /^\d{1,10}$/.test(property.value) ? Number(property.value) : Number.NaN;
  if (!(id <= MAX_UID)) throw unsatisfied(property, `a decimal number from 0 to ${MAX_UID}`);
  demand[field] = id;
}

/** `docker://name` and `name` are the same image. */
function findImage(property: Property, offer: PlatformOffer): string {
  const bare = property.value.replace(/^docker:\/\//, "");
  for (const name of [property.value, bare, `docker://${bare}`]) {
    const path = offer.images.get(name);
    if (path !== undefined) return path;
  }
  const names = [...offer.images.keys()];
  throw unsatisfied(property, names.length === 0 ? "no image; configure one with --image NAME=DIR" : names.join(", "));
}

function isPlainAbsolute(path: string): boolean {
  return path.startsWith("/") && path.length > 1 && !path.includes("\0") && !path.split("/").includes("..");
}

function parseAmount(property: Property): number {
  const amount = /^\d{1,15}$/.test(property.value) ? Number(property.value) : Number.NaN;
  if (Number.isNaN(amount)) throw unsatisfied(property, "a whole number");
  return amount;
}

/** `env-var:NAME` with the value, `env-var` with `NAME=VALUE`, or `env-vars` with a JSON object of strings. */
function parseExtraEnvironment(property: Property): EnvironmentVariable[] {
  const variables = readExtraEnvironment(property);
  for (const { name, value } of variables) {
    assertVariableName(name);
    assertArgument(value, `Platform property ${JSON.stringify(property.name)}`);
  }
  return variables;
}

function readExtraEnvironment(property: Property): EnvironmentVariable[] {
  if (property.name.startsWith("env-var:")) return [{ name: property.name.slice(8), value: property.value }];
  if (property.name === "env-var") {
    const split = property.value.indexOf("=");
    if (split < 1) throw unsatisfied(property, "NAME=VALUE");
    return [{ name: property.value.slice(0, split), value: property.value.slice(split + 1) }];
  }
  const object = parseJsonObject(property.value);
  if (object === undefined) throw unsatisfied(property, "a JSON object whose values are strings");
  return Object.entries(object).map(([name, value]) => ({ name, value }));
}

function parseJsonObject(text: string): Record<string, string> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // the caller says what was expected
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const entries: [string, unknown][] = Object.entries(value);
  const strings = entries.filter((entry): entry is [string, string] => typeof entry[1] === "string");
  return strings.length === entries.length ? Object.fromEntries(strings) : undefined;
}

function assertSingle(properties: readonly Property[], name: string): void {
  const values = properties.filter((property) => property.name === name).map(({ value }) => value);
  if (values.length > 1) {
    throw precondition(
      `Platform property ${name} is given ${values.length} times (${values.join(", ")}), expected one`,
    );
  }
}

function undeclared(property: Property, offer: PlatformOffer): StatusError {
  const values = offer.properties.get(property.name);
  const offered = values === undefined ? `none; declare it with --property ${property.name}=VALUE` : values.join(", ");
  return unsatisfied(property, offered);
}

function unsatisfied(property: Property, offered: string): StatusError {
  const { name, value } = property;
  return precondition(
    `Platform property ${clip(name)}=${JSON.stringify(clip(value))} cannot be satisfied: this server offers ${offered}`,
  );
}

function unknownProperty(property: Property, offer: PlatformOffer): StatusError {
  const declared = [...offer.properties].map(([name, values]) => `${name}=${values.join("|")}`);
  const known = [`OSFamily=${offer.osFamily}`, `ISA=${offer.isa.join("|")}`, ...declared].join(", ");
  const { name, value } = property;
  return precondition(
    `Platform property ${JSON.stringify(clip(name))}=${JSON.stringify(clip(value))} is unknown here; on offer: ${known}. ` +
      `Start the server with --ignore-property ${clip(name)} to accept it without effect`,
  );
}

function precondition(message: string): StatusError {
  return new StatusError(Code.FAILED_PRECONDITION, message);
}

/** Pairs that occur in the wild; the value is the name of platform.md. */
const ISA_SYNONYMS: ReadonlyMap<string, string> = new Map([
  ["aarch64", "arm-a64"],
  ["aarch64-be", "arm-a64-be"],
  ["aarch32", "arm-a32"],
  ["x86_64", "x86-64"],
  ["amd64", "x86-64"],
  ["i386", "x86-32"],
  ["i686", "x86-32"],
  ["x86", "x86-32"],
  ["riscv64", "rv64g"],
  ["riscv32", "rv32g"],
  ["loongarch64", "la64v100"],
  ["ppc64le", "power-isa-le"],
  ["ppc64", "power-isa-be"],
]);

export function canonicalIsa(value: string): string {
  return ISA_SYNONYMS.get(value) ?? value;
}
