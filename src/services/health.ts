// grpc.health.v1.Health: whether the server, and each service of it, takes calls.
//
// Invariant: a watcher hears the state of now, then every change it has not heard of; changes that come faster than it
// reads are merged into the last one. The overall state is that of the service named "".

import type { Service, StreamCall } from "../grpc/service.ts";
import { notFound } from "../base/status.ts";
import { Health, HealthCheckRequest, HealthCheckResponse, HealthListResponse } from "../proto/health.ts";
import { HealthCheckResponse_ServingStatus as ServingStatus } from "../proto/health.ts";
import { decodeOnlyRequest, decodeRequest } from "./decode.ts";

/** The state behind the service; the server sets it when it starts and when it drains. */
export class HealthState {
  readonly #statuses = new Map<string, ServingStatus>([["", ServingStatus.NOT_SERVING]]);
  readonly #watchers = new Set<() => void>();

  constructor(services: readonly string[] = []) {
    for (const name of services) this.#statuses.set(name, ServingStatus.NOT_SERVING);
  }

  get statuses(): ReadonlyMap<string, ServingStatus> {
    return this.#statuses;
  }

  /** Sets every service at once: they start and drain together. */
  setServing(serving: boolean): void {
    const status = serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
    for (const name of this.#statuses.keys()) this.#statuses.set(name, status);
    for (const watcher of this.#watchers) watcher();
  }

  /** Calls `onChange` after every change, until the returned function is called. */
  watch(onChange: () => void): () => void {
    this.#watchers.add(onChange);
    return () => this.#watchers.delete(onChange);
  }
}

export function createHealthService(deps: { readonly state: HealthState }): Service {
  const { methods } = Health;
  return {
    name: Health.typeName,
    methods: [
      { kind: "unary", path: methods.Check.path, handler: (bytes) => check(deps.state, bytes) },
      { kind: "unary", path: methods.List.path, handler: () => list(deps.state) },
      { kind: "stream", path: methods.Watch.path, handler: (call) => watch(deps.state, call) },
    ],
  };
}

function check(state: HealthState, bytes: Uint8Array): Uint8Array {
  const { service } = decodeRequest(HealthCheckRequest, bytes);
  const status = state.statuses.get(service);
  if (status === undefined) throw notFound(`service "${service}" is not known here`);
  return HealthCheckResponse.encode({ status });
}

function list(state: HealthState): Uint8Array {
  const statuses = new Map([...state.statuses].map(([name, status]) => [name, { status }]));
  return HealthListResponse.encode({ statuses });
}

/** An unknown service is watched as well: it might come. */
async function watch(state: HealthState, call: StreamCall): Promise<void> {
  const { service } = await decodeOnlyRequest(HealthCheckRequest, call);
  let sent: ServingStatus | undefined;
  let wake: () => void = () => undefined;
  const unwatch = state.watch(() => wake());
  try {
    while (!call.signal.aborted) {
      const status = state.statuses.get(service) ?? ServingStatus.SERVICE_UNKNOWN;
      if (status === sent) {
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (call.signal.aborted) resolve();
          else call.signal.addEventListener("abort", () => resolve(), { once: true });
        });
        continue;
      }
      sent = status;
      await call.write(HealthCheckResponse.encode({ status }));
    }
  } finally {
    unwatch();
  }
}
