import { createOwnTransport } from "../../src/grpc/own-transport.ts";
import { describeTransportContract } from "./transport-contract.ts";

describeTransportContract("own transport", createOwnTransport);
