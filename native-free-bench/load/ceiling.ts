// What the generator can do by itself, against a server that does nothing.

import { parseTarget } from "../client/target.ts";
import { generateLoad } from "./generator.ts";
import type { MeasurementOptions } from "./measurement.ts";
import { startNullServerProcess } from "./null-server-process.ts";
import { GrpcJsClient } from "./grpc-js-client.ts";
import { RawConnection } from "./raw-connection.ts";

/** Calls per second at most. */
export async function measureCeiling({
  client,
  connections,
  depth,
}: Pick<MeasurementOptions, "client" | "connections" | "depth">): Promise<number> {
  const server = await startNullServerProcess();
  const target = parseTarget(`grpc://127.0.0.1:${server.port}`);
  const clients = await Promise.all(
    Array.from({ length: connections }, async () =>
      client === "raw" ? await RawConnection.open(target) : new GrpcJsClient(target),
    ),
  );
  const call = { path: "/ledge.bench.Null/Call", body: [Buffer.alloc(5)] };
  const shape = { depth, ratePerSecond: undefined, warmUpMs: 100, durationMs: 300 };
  let best = 0;
  // What else the machine does can only lower it, so the best of three is the nearest to the truth.
  for (let round = 0; round < 3; round++) {
    const result = await generateLoad(clients, () => call, shape);
    best = Math.max(best, (result.calls * 1000) / result.durationMs);
  }
  for (const one of clients) one.close();
  server.close();
  return best;
}
