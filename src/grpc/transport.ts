// The one entry to the product's transport: compose.ts names nothing else of this folder's inside.

import { createNodeHttp2Transport } from "./node-http2-transport.ts";
import type { ServerTransport, TransportOptions } from "./server.ts";

export function createServerTransport(options: TransportOptions): ServerTransport {
  return createNodeHttp2Transport(options);
}
