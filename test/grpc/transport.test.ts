// The product's transport keeps the contract of transports.

import { createServerTransport } from "../../src/grpc/transport.ts";
import { describeTransportContract } from "./transport-contract.ts";

describeTransportContract("transport", createServerTransport);
