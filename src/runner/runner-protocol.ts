// The messages between server and runner process, and how they lie on the socket: a 32-bit little-endian length, then
// that many bytes of JSON.
//
// Invariant: a frame longer than MAX_FRAME_BYTES is an error of the connection, never a buffer. Either side's end of
// stream means that it died: the runner then kills everything it started and exits.

import type { SandboxAvailability } from "../sandbox/probe.ts";
import type { SlotIdentities } from "../sandbox/slot-identity.ts";
import type { PreparedView, RunResult, RunSpec } from "./runner.ts";

/** Linux takes 2 MiB of arguments and environment by default and 6 MiB at most; JSON may double some of it. */
export const MAX_FRAME_BYTES = 32 * 1024 * 1024;

/** The descriptor at which the runner process finds its end of the socket. */
export const RUNNER_SOCKET_FD = 3;

/** "own": our own builder where it works, and bwrap for the rest; "none": no isolation whatsoever. */
export type WantedSandbox = "own" | "bwrap" | "none";

export interface RunnerConfiguration {
  readonly sandbox: WantedSandbox;
  readonly bwrapPath: string | undefined;
  readonly allowSharedNetwork: boolean;
  readonly buildRootPath: string;
  readonly slots: number;
  /** false: do without node:ffi although it is there. */
  readonly nativeCalls: boolean;
  /** The runner has a mount namespace of its own, to show the build root where everybody can reach it. */
  readonly ownMounts: boolean;
}

export type ServerMessage =
  | { readonly type: "start"; readonly configuration: RunnerConfiguration }
  | { readonly type: "run"; readonly runId: number; readonly spec: RunSpec }
  | { readonly type: "prepare"; readonly view: PreparedView }
  | { readonly type: "cancel"; readonly runId: number };

/** What the runner found out about itself before it takes runs. */
export interface RunnerCondition {
  readonly availability:
    | SandboxAvailability
    | { readonly available: true; readonly profile: undefined; readonly warnings: readonly string[] };
  readonly identities: SlotIdentities;
  /** How a memory limit is held: by control groups of that version, or by looking at the processes. */
  readonly memoryLimits: "cgroup v1" | "cgroup v2" | "polling";
  /** Whether node:ffi gave us pipes, limits and exact accounting. */
  readonly nativeCalls: boolean;
  /** Whether our own builder makes the sandboxes that it can make; false without a sandbox as well. */
  readonly ownBuilder: boolean;
  /** Sandboxes of an earlier runner that were found and killed. */
  readonly sweptProcesses: number;
}

export type RunnerMessage =
  | { readonly type: "condition"; readonly condition: RunnerCondition }
  | { readonly type: "result"; readonly runId: number; readonly result: RunResult };

/** Returns the bytes of one message. Throws RangeError when it is longer than a frame may be. */
export function encodeFrame(message: ServerMessage | RunnerMessage): Buffer {
  const body = Buffer.from(JSON.stringify(message), "utf8");
  if (body.length > MAX_FRAME_BYTES) {
    throw new RangeError(`A runner message has ${body.length} bytes, at most ${MAX_FRAME_BYTES} are possible`);
  }
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32LE(body.length, 0);
  body.copy(frame, 4);
  return frame;
}

/** Cuts a byte stream into messages. Holds at most one unfinished frame. */
export class FrameDecoder<Message> {
  #chunks: Buffer[] = [];
  #bufferedBytes = 0;

  /** Returns the messages that `chunk` completes. Throws when a frame is too long or not JSON. */
  push(chunk: Buffer): Message[] {
    this.#chunks.push(chunk);
    this.#bufferedBytes += chunk.length;
    const messages: Message[] = [];
    for (;;) {
      if (this.#bufferedBytes < 4) return messages;
      const length = this.#peekLength();
      if (length > MAX_FRAME_BYTES)
        throw new Error(`A runner frame claims ${length} bytes, at most ${MAX_FRAME_BYTES}`);
      if (this.#bufferedBytes < 4 + length) return messages;
      const bytes = this.#chunks.length === 1 ? (this.#chunks[0] ?? Buffer.alloc(0)) : Buffer.concat(this.#chunks);
      messages.push(parseMessage<Message>(bytes.toString("utf8", 4, 4 + length)));
      const rest = bytes.subarray(4 + length);
      this.#chunks = rest.length === 0 ? [] : [rest];
      this.#bufferedBytes = rest.length;
    }
  }

  #peekLength(): number {
    const [first] = this.#chunks;
    if (first !== undefined && first.length >= 4) return first.readUInt32LE(0);
    return Buffer.concat(this.#chunks).readUInt32LE(0);
  }
}

/** Both ends are this very program, so the shape is the sender's promise. */
function parseMessage<Message>(text: string): Message {
  const message: Message = JSON.parse(text);
  return message;
}
