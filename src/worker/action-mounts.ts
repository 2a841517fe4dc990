// Which of the operator's mounts an action sees: all without a condition, and those whose property it has.

import type { Mount } from "../runner/runner.ts";
import type { Property } from "./platform-properties.ts";

/** A mount the operator configured, perhaps only for actions with a certain platform property. */
export interface ConfiguredMount {
  readonly mount: Mount;
  readonly condition: { readonly name: string; readonly value: string } | undefined;
}

/** In the operator's order. */
export function mountsOfAction(mounts: readonly ConfiguredMount[], properties: readonly Property[]): Mount[] {
  const isAsked = ({ condition }: ConfiguredMount) =>
    condition === undefined ||
    properties.some(({ name, value }) => name === condition.name && value === condition.value);
  return mounts.filter(isAsked).map(({ mount }) => mount);
}
