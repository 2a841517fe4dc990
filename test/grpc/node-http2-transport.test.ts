// The oracle over node:http2 keeps the contract of transports.

import { createNodeHttp2Transport } from "./node-http2-transport.ts";
import { describeTransportContract } from "./transport-contract.ts";

describeTransportContract("node:http2 transport", createNodeHttp2Transport);
