// The rules that tie the messages of one ByteStream.Write call together. Pure state: no I/O.
//
// - The first message names the resource; later ones repeat the name or leave it empty.
// - write_offset of the first message is where the call begins (uncompressed bytes); each later one is that plus the data
//   bytes sent so far in this call, as they were sent: compressed ones for a compressed name.
// - finish_write marks the last message.
// Source: google/bytestream/bytestream.proto and the comment of ContentAddressableStorage.

import { invalidArgument } from "../base/status.ts";
import type { WriteRequest } from "../proto/bytestream.ts";

export class WriteSequence {
  readonly resourceName: string;
  readonly firstOffset: number;
  #receivedBytes = 0;
  #isFinished = false;

  constructor(first: WriteRequest) {
    if (first.resourceName === "") throw invalidArgument("the first message of a Write must have a resource_name");
    if (first.writeOffset < 0) throw invalidArgument(`write_offset ${first.writeOffset} is negative`);
    this.resourceName = first.resourceName;
    this.firstOffset = first.writeOffset;
  }

  /** Data bytes as sent, compressed or not. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  get isFinished(): boolean {
    return this.#isFinished;
  }

  /** Checks the next message, the first included; throws INVALID_ARGUMENT. */
  accept(message: WriteRequest): void {
    if (this.#isFinished) {
      throw invalidArgument(`write to "${this.resourceName}": a message followed the one with finish_write`);
    }
    if (message.resourceName !== "" && message.resourceName !== this.resourceName) {
      throw invalidArgument(
        `write to "${this.resourceName}": a later message names another resource, "${message.resourceName}"`,
      );
    }
    const expectedOffset = this.firstOffset + this.#receivedBytes;
    if (message.writeOffset !== expectedOffset) {
      throw invalidArgument(
        `write to "${this.resourceName}": write_offset ${message.writeOffset}, expected ${expectedOffset} ` +
          "(the first offset plus the data bytes sent since)",
      );
    }
    this.#receivedBytes += message.data.length;
    this.#isFinished = message.finishWrite;
  }
}
