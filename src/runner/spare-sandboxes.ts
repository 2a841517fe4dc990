// Sandboxes that were set up before their action arrived, at most one for each slot.
//
// A spare is used only when the run wants exactly its view (the same options of bwrap, word for word); anything else
// discards it. It is also discarded after MAX_AGE_MS, because the host below it may change: packages, mounts.
// Invariant: a spare is not a run. Nothing of an action is in it, and a slot's spare is dead before its run counts as
// settled.

import { type ReadyIsolation, SETTLE_TIMEOUT_MS } from "./run-supervisor.ts";

/** Long enough for the pauses between a build's actions, short enough for an idle server to hold nothing. */
const MAX_AGE_MS = 60_000;

interface Spare {
  readonly isolation: ReadyIsolation;
  readonly key: string;
  readonly timer: NodeJS.Timeout;
}

export class SpareSandboxes {
  readonly #spares = new Map<number, Spare>();
  /** Discarded ones that are not dead yet, by slot. */
  readonly #dying = new Map<number, Promise<boolean>>();

  get size(): number {
    return this.#spares.size;
  }

  /** Keeps `isolation` for the next run in `slot` with the same options. */
  put(slot: number, options: readonly string[], isolation: ReadyIsolation): void {
    this.discard(slot);
    isolation.streams.releaseChildFds();
    const timer = setTimeout(() => this.discard(slot), MAX_AGE_MS);
    timer.unref();
    this.#spares.set(slot, { isolation, key: keyOf(options), timer });
    void isolation.process.exit.then(() => {
      // It came to nothing (or was used and ended): a run must not get it.
      if (this.#spares.get(slot)?.isolation === isolation) this.discard(slot);
    });
  }

  /** Hands out the spare of `slot` when it fits; one that does not is discarded. */
  take(slot: number, options: readonly string[]): ReadyIsolation | undefined {
    const spare = this.#spares.get(slot);
    if (spare === undefined) return undefined;
    if (spare.key !== keyOf(options)) {
      this.discard(slot);
      return undefined;
    }
    clearTimeout(spare.timer);
    this.#spares.delete(slot);
    return spare.isolation;
  }

  /** Kills the spare of `slot`, if there is one. */
  discard(slot: number): void {
    const spare = this.#spares.get(slot);
    if (spare === undefined) return;
    this.#spares.delete(slot);
    clearTimeout(spare.timer);
    this.bury(slot, spare.isolation);
  }

  /** Kills one that was taken and cannot be used. */
  bury(slot: number, isolation: ReadyIsolation): void {
    const earlier = this.#dying.get(slot);
    const dying = killAndClose(isolation).then(async (settled) => settled && (await (earlier ?? true)));
    this.#dying.set(slot, dying);
    void dying.then(() => {
      if (this.#dying.get(slot) === dying) this.#dying.delete(slot);
    });
  }

  /** Resolves when no discarded spare of `slot` is alive; with false when one would not die. */
  async settled(slot: number): Promise<boolean> {
    return (await this.#dying.get(slot)) ?? true;
  }

  async close(): Promise<void> {
    for (const slot of this.#spares.keys()) this.discard(slot);
    await Promise.all(this.#dying.values());
  }
}

function keyOf(options: readonly string[]): string {
  return options.join("\0");
}

async function killAndClose({ process, streams }: ReadyIsolation): Promise<boolean> {
  process.kill();
  await process.exit;
  const settled = await process.settle(SETTLE_TIMEOUT_MS);
  process.close();
  streams.close();
  return settled;
}
