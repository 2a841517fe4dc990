// A server on the listening socket that its parent left it as the descriptor in its argument; says its pid once it accepts.

import { createServerTransport } from "../../src/grpc/transport.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";

const transport = createServerTransport({
  services: [],
  http1: (_request, response) => response.end(`inherited by ${process.pid}`),
  defaultMaxRequestBytes: 1024,
  logger: silentLogger,
  metrics: new MetricsRegistry(),
});
await transport.listen({ kind: "fd", fd: Number(process.argv[2]) });
process.stdout.write(`${process.pid}\n`);
