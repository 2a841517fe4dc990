// One writer at a time for each name; others of the same name wait in order.

export class NameLocks {
  readonly #tails = new Map<string, Promise<unknown>>();

  isHeld(name: string): boolean {
    return this.#tails.has(name);
  }

  /** As run() for several names, none of which is held. */
  runAll<T>(names: readonly string[], task: () => Promise<T>): Promise<T> {
    const result = task();
    for (const name of names) this.#tails.set(name, result);
    const leave = () => {
      for (const name of names) if (this.#tails.get(name) === result) this.#tails.delete(name);
    };
    result.then(leave, leave);
    return result;
  }

  run<T>(name: string, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(name);
    // A failure of the one before is its own caller's business.
    const result = before === undefined ? task() : before.then(task, task);
    this.#tails.set(name, result);
    const leave = () => {
      if (this.#tails.get(name) === result) this.#tails.delete(name);
    };
    result.then(leave, leave);
    return result;
  }
}
