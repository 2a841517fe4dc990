import { createNodeHttp2Transport } from "../../src/grpc/node-http2-transport.ts";
import { describeTransportContract } from "./transport-contract.ts";

describeTransportContract("node:http2 transport", createNodeHttp2Transport);
