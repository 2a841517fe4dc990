// What every server transport does, seen through @grpc/grpc-js and through raw sockets.

import { describeCallContract } from "./call-contract.ts";
import { describeConnectionContract } from "./connection-contract.ts";
import { describeMessageContract } from "./message-contract.ts";
import type { CreateTransport } from "./transport-fixture.ts";

export function describeTransportContract(name: string, create: CreateTransport): void {
  describeCallContract(`${name}: calls`, create);
  describeMessageContract(`${name}: messages`, create);
  describeConnectionContract(`${name}: connections`, create);
}
