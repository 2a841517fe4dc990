// Which method serves a path, and how its calls ended.
//
// Invariant: the lookup is an exact match on the path as received, and that very string is what handlers see and logs
// and metrics name (F-51, A-30). Metric labels come from the table only, so clients cannot make new ones.

import { Code, codeName } from "../base/status.ts";
import type { Counter, MetricsRegistry } from "../telemetry/metrics.ts";
import type { Method, Service } from "./service.ts";

export interface MethodTableOptions {
  readonly services: readonly Service[];
  readonly defaultMaxRequestBytes: number;
  readonly metrics: MetricsRegistry;
}

/** One method with what every call of it needs. */
export class MethodEntry {
  readonly method: Method;
  readonly maxRequestBytes: number;
  readonly #metrics: MetricsRegistry;
  /** Calls by the status code they ended with; made on first use. */
  readonly #ended: (Counter | undefined)[] = Array.from({ length: 17 }, () => undefined);

  constructor(method: Method, maxRequestBytes: number, metrics: MetricsRegistry) {
    this.method = method;
    this.maxRequestBytes = maxRequestBytes;
    this.#metrics = metrics;
  }

  count(code: Code): void {
    const counter = this.#ended[code] ?? this.#counterFor(code);
    counter.value++;
  }

  #counterFor(code: Code): Counter {
    const labels = { method: this.method.path, code: codeName(code) };
    const counter = this.#metrics.counter("ledge_grpc_calls_total", "gRPC calls by method and status.", labels);
    this.#ended[code] = counter;
    return counter;
  }
}

export class MethodTable {
  readonly #entries = new Map<string, MethodEntry>();
  readonly #services = new Set<string>();

  constructor(options: MethodTableOptions) {
    for (const service of options.services) {
      this.#services.add(service.name);
      for (const method of service.methods) {
        if (this.#entries.has(method.path)) throw new Error(`two services serve ${method.path}`);
        const maxRequestBytes = method.maxRequestBytes ?? options.defaultMaxRequestBytes;
        this.#entries.set(method.path, new MethodEntry(method, maxRequestBytes, options.metrics));
      }
    }
  }

  find(path: string): MethodEntry | undefined {
    return this.#entries.get(path);
  }

  /** The sentence for a path that nobody serves. */
  explainAbsence(path: string): string {
    const quoted = JSON.stringify(path.length > 200 ? `${path.slice(0, 200)}…` : path);
    const slash = path.lastIndexOf("/");
    if (!path.startsWith("/") || slash === 0) return `Unknown method ${quoted}: expected "/package.Service/Method"`;
    const service = path.slice(1, slash);
    if (this.#services.has(service)) return `Unknown method ${quoted}: service ${service} has no such method`;
    return `Unknown method ${quoted}: this server has no such service`;
  }
}
