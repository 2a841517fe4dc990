// A REAPI server that is right but for the faults it is given; in memory, for these tests alone.

import { Code, StatusError } from "../../../src/base/status.ts";
import { Health, HealthCheckResponse_ServingStatus } from "../../../src/proto/health.ts";
import { byteStreamHandlers } from "./fake-bytestream.ts";
import { casHandlers } from "./fake-cas.ts";
import { executionHandlers } from "./fake-execution.ts";
import { startFakeServer, type FakeServer, type Handler } from "./fake-grpc.ts";
import { httpListener } from "./fake-http.ts";
import { FakeStore } from "./fake-store.ts";
import type { Fault } from "./faults.ts";

export async function startBrokenServer(...faults: readonly Fault[]): Promise<FakeServer> {
  const set = new Set<Fault>(faults);
  const has = (fault: Fault): boolean => set.has(fault);
  const store = new FakeStore(has);
  const handlers = new Map<string, Handler>([
    ...casHandlers(store, true),
    ...byteStreamHandlers(store),
    ...executionHandlers(store),
  ]);
  handlers.set(Health.methods.Check.path, async (call) => {
    const { service } = Health.methods.Check.input.decode(await call.request());
    if (service !== "") throw new StatusError(Code.NOT_FOUND, `no service "${service}"`);
    await call.write(Health.methods.Check.output.encode({ status: HealthCheckResponse_ServingStatus.SERVING }));
  });
  return await startFakeServer(handlers, httpListener(store), has);
}
