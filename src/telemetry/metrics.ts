// Counters and gauges by name and labels; a plain registry that /status and /metrics read.
//
// Increments are on hot paths: a counter is an object with one number, looked up once and then held by its user.

export class Counter {
  value = 0;

  add(amount = 1): void {
    this.value += amount;
  }
}

export type Labels = Readonly<Record<string, string>>;

export interface Sample {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge";
  readonly labels: Labels;
  readonly value: number;
}

interface Series {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge";
  readonly labels: Labels;
  readonly read: () => number;
}

export class MetricsRegistry {
  #series = new Map<string, Series>();
  #counters = new Map<string, Counter>();

  /** Returns the counter of that name and those labels, making it on first use. Names end in `_total`. */
  counter(name: string, help: string, labels: Labels = {}): Counter {
    const key = seriesKey(name, labels);
    const known = this.#counters.get(key);
    if (known !== undefined) return known;
    const counter = new Counter();
    this.#counters.set(key, counter);
    this.#series.set(key, { name, help, type: "counter", labels, read: () => counter.value });
    return counter;
  }

  /** Registers a value that is read when somebody asks. A second registration replaces the first. */
  gauge(name: string, help: string, read: () => number, labels: Labels = {}): void {
    this.#series.set(seriesKey(name, labels), { name, help, type: "gauge", labels, read });
  }

  samples(): Sample[] {
    return [...this.#series.values()].map(({ name, help, type, labels, read }) => ({
      name,
      help,
      type,
      labels,
      value: read(),
    }));
  }
}

function seriesKey(name: string, labels: Labels): string {
  const parts = Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `${name}{${parts.map(([label, value]) => `${label}=${JSON.stringify(value)}`).join(",")}}`;
}
