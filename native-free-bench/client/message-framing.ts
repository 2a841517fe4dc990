// gRPC's length-prefixed messages, both ways.
//
// Invariant: bytes in any segmentation come out as whole messages; a message longer than the bound is refused before
// its bytes are kept. Source: gRPC over HTTP/2, Length-Prefixed-Message.

const PREFIX_BYTES = 5;

export function frameMessage(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  framed[0] = 0;
  framed.writeUInt32BE(message.length, 1);
  framed.set(message, PREFIX_BYTES);
  return framed;
}

/** Takes a response body apart. */
export class MessageReader {
  readonly #maxBytes: number;
  #chunks: Uint8Array[] = [];
  #bufferedBytes = 0;
  /** Payload size of the message that has begun, undefined before its prefix is complete. */
  #expectedBytes: number | undefined;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Whether the body ended inside a message. */
  get isInsideMessage(): boolean {
    return this.#bufferedBytes > 0 || this.#expectedBytes !== undefined;
  }

  /** Returns the messages that `chunk` completes. `chunk` is kept: the caller must not reuse it. */
  push(chunk: Uint8Array): Uint8Array[] {
    this.#chunks.push(chunk);
    this.#bufferedBytes += chunk.length;
    const messages: Uint8Array[] = [];
    for (;;) {
      if (this.#expectedBytes === undefined) {
        if (this.#bufferedBytes < PREFIX_BYTES) return messages;
        const prefix = this.#take(PREFIX_BYTES);
        if (prefix[0] !== 0)
          throw new Error(`the compressed flag of a message is ${prefix[0]}, no compression was asked`);
        this.#expectedBytes = Buffer.from(prefix.buffer, prefix.byteOffset, PREFIX_BYTES).readUInt32BE(1);
        if (this.#expectedBytes > this.#maxBytes) {
          throw new Error(`a message of ${this.#expectedBytes} bytes, clients take at most ${this.#maxBytes}`);
        }
      }
      if (this.#bufferedBytes < this.#expectedBytes) return messages;
      messages.push(this.#take(this.#expectedBytes));
      this.#expectedBytes = undefined;
    }
  }

  #take(sizeBytes: number): Uint8Array {
    this.#bufferedBytes -= sizeBytes;
    const first = this.#chunks[0];
    if (first !== undefined && first.length >= sizeBytes) {
      if (first.length === sizeBytes) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(sizeBytes);
      return first.subarray(0, sizeBytes);
    }
    const whole = Buffer.concat(this.#chunks);
    this.#chunks = whole.length === sizeBytes ? [] : [whole.subarray(sizeBytes)];
    return whole.subarray(0, sizeBytes);
  }
}
