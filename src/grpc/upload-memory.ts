// What request messages that are still arriving may hold together, and how slowly one may arrive (FC-16, L-22).
//
// Without it a client with a thousand streams could send all but one octet of a 4 MiB message on each, and wait: 4 GiB.
// Memory is reserved on a message's prefix and given back when the message is whole (then the handler has it) or the
// call is over. When there is none, the call ends with UNAVAILABLE, which clients try again; making it wait instead
// could make every upload wait for others that wait.

import { constrainedMemory } from "node:process";
import { totalmem } from "node:os";
import { Code, StatusError } from "../base/status.ts";
import type { DeadlineEntry, DeadlineWheel } from "./deadline-wheel.ts";

/** Smaller rests of messages are not counted: a thousand of them on one connection hold 64 MiB. */
const COUNTED_BYTES = 64 * 1024;

/** 1 KiB/s, looked at once a minute. */
const CHECK_MS = 60_000;
const MIN_PROGRESS_BYTES = 60 * 1024;

export class UploadMemory {
  readonly maxBytes: number;
  #usedBytes = 0;

  constructor(maxBytes: number = defaultMaxBytes()) {
    this.maxBytes = maxBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  reserve(sizeBytes: number): boolean {
    if (this.#usedBytes + sizeBytes > this.maxBytes) return false;
    this.#usedBytes += sizeBytes;
    return true;
  }

  release(sizeBytes: number): void {
    this.#usedBytes -= sizeBytes;
  }
}

/** A quarter of what the machine, or the container we are in, has. */
function defaultMaxBytes(): number {
  const limitBytes = constrainedMemory();
  const memoryBytes = limitBytes > 0 ? Math.min(limitBytes, totalmem()) : totalmem();
  return Math.floor(memoryBytes / 4);
}

export interface PartialMessageOptions {
  readonly path: string;
  readonly memory: UploadMemory;
  readonly deadlines: DeadlineWheel;
  /** The message has hardly grown for a minute although the client may send. */
  readonly onStalled: (status: StatusError) => void;
}

/** Watches the message that one call is receiving. */
export class PartialMessage {
  readonly #options: PartialMessageOptions;
  #missingBytes = 0;
  #reservedBytes = 0;
  /** Octets since the last look at the clock. */
  #progressBytes = 0;
  #timer: DeadlineEntry | undefined;

  constructor(options: PartialMessageOptions) {
    this.#options = options;
  }

  /** After `receivedBytes` more octets `missingBytes` are to come. Throws UNAVAILABLE when there is no memory for them. */
  update(receivedBytes: number, missingBytes: number): void {
    this.#progressBytes += receivedBytes;
    // More is missing than before: the last message is whole, and this is the next one.
    if (missingBytes === 0 || missingBytes > this.#missingBytes) this.#release();
    this.#missingBytes = missingBytes;
    if (missingBytes === 0) return;
    this.#timer ??= this.#options.deadlines.add(CHECK_MS, () => this.#check());
    if (missingBytes > COUNTED_BYTES && this.#reservedBytes === 0) this.#reserve(missingBytes);
  }

  /** We, not the client, keep the message from growing. */
  excuse(): void {
    this.#progressBytes += MIN_PROGRESS_BYTES;
  }

  end(): void {
    this.#release();
    this.#missingBytes = 0;
    if (this.#timer !== undefined) this.#options.deadlines.remove(this.#timer);
    this.#timer = undefined;
  }

  #reserve(sizeBytes: number): void {
    const { memory, path } = this.#options;
    if (!memory.reserve(sizeBytes)) {
      const state = `${memory.usedBytes} of ${memory.maxBytes} bytes for messages under way are taken`;
      throw new StatusError(
        Code.UNAVAILABLE,
        `Cannot take a message of ${path} with ${sizeBytes} bytes now: ${state}; try again`,
      );
    }
    this.#reservedBytes = sizeBytes;
  }

  #release(): void {
    this.#options.memory.release(this.#reservedBytes);
    this.#reservedBytes = 0;
  }

  #check(): void {
    this.#timer = undefined;
    if (this.#missingBytes === 0) return;
    const stalled = this.#progressBytes < MIN_PROGRESS_BYTES;
    this.#progressBytes = 0;
    if (!stalled) this.#timer = this.#options.deadlines.add(CHECK_MS, () => this.#check());
    else {
      const expected = `expected ${MIN_PROGRESS_BYTES} bytes a minute`;
      this.#options.onStalled(
        new StatusError(
          Code.CANCELLED,
          `A message of ${this.#options.path} stopped arriving: ${this.#missingBytes} bytes are missing, ${expected}`,
        ),
      );
    }
  }
}
