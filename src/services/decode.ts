// From request bytes to messages: what is not a message is the client's error, not ours.
//
// Invariant: a ProtoError never leaves a service; it becomes INVALID_ARGUMENT and names the message type.

import type { StreamCall } from "../grpc/service.ts";
import { StatusError, invalidArgument } from "../base/status.ts";
import { ProtoError, type MessageType } from "../proto/wire.ts";

/** Decodes a request. Fields of type bytes are views of `bytes`. */
export function decodeRequest<M, Init>(type: MessageType<M, Init>, bytes: Uint8Array): M {
  try {
    return type.decode(bytes);
  } catch (error) {
    throw asInvalidArgument(error);
  }
}

/** Turns a ProtoError into INVALID_ARGUMENT and leaves everything else as it is. */
export function asInvalidArgument(error: unknown): unknown {
  if (error instanceof StatusError) return error;
  // The message begins with "Cannot decode {type}: …", so it says what was expected and where it went wrong.
  return error instanceof ProtoError ? invalidArgument(error.message, error) : error;
}

/** The one request of a server-streaming call. */
export async function decodeOnlyRequest<M, Init>(type: MessageType<M, Init>, call: StreamCall): Promise<M> {
  const bytes = await call.read();
  if (bytes === undefined) throw invalidArgument(`${call.path}: the call ended without a request message`);
  return decodeRequest(type, bytes);
}
