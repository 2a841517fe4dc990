import { createServerTransport } from "../../src/grpc/transport.ts";
import { describeTransportContract } from "./transport-contract.ts";

describeTransportContract("transport", createServerTransport);
