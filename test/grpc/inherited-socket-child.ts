// A server on the listening socket that its parent left it as the descriptor in its argument, or on a port of its own:
// says its pid, or that port, once it accepts.

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
const [descriptor] = process.argv.slice(2);
const address = await transport.listen(
  descriptor === undefined ? { kind: "tcp", host: "127.0.0.1", port: 0 } : { kind: "fd", fd: Number(descriptor) },
);
process.stdout.write(`${descriptor === undefined && address.kind === "tcp" ? address.port : process.pid}\n`);
