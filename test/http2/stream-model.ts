// What RFC 9113 and the requirements say becomes of each frame: stream states, windows, limits; written apart from src/.
//
// The model is told what the client does, what handlers do, and what the server granted and sent. It predicts the errors:
// at most one per frame, `RST_STREAM(id) code` or `GOAWAY code`. Header compression, padding and budgets are not its subject.

const PROTOCOL_ERROR = 1;
const FLOW_CONTROL_ERROR = 3;
const STREAM_CLOSED = 5;
const REFUSED_STREAM = 7;
const MAX_WINDOW = 2 ** 31 - 1;
const DEFAULT_WINDOW = 65_535;

export type ClientFrame =
  /** `block`: the fields of a request, or none of them pseudo-headers as trailers have. */
  | { readonly type: "HEADERS"; readonly id: number; readonly end: boolean; readonly block: "request" | "trailers" }
  | { readonly type: "DATA"; readonly id: number; readonly sizeBytes: number; readonly end: boolean }
  | { readonly type: "RST_STREAM"; readonly id: number }
  | { readonly type: "WINDOW_UPDATE"; readonly id: number; readonly increment: number }
  | { readonly type: "PRIORITY"; readonly id: number; readonly dependency: number }
  | { readonly type: "INITIAL_WINDOW_SIZE"; readonly sizeBytes: number }
  | { readonly type: "PING" };

export interface ModelStream {
  receiveWindow: number;
  sendWindow: number;
  requestEnded: boolean;
  /** Octets of the response that have not been sent; undefined before there is a response. */
  response: number | undefined;
  /** Octets that the handler has not given back. */
  held: number;
}

/** Why a stream that was opened, or skipped, is not live any more. */
type Closed = "ended" | "reset by us" | "skipped";

export class StreamModel {
  readonly live = new Map<number, ModelStream>();
  /** Closed, or reset, with a handler that goes on: they take a slot (F-27). */
  readonly working = new Set<number>();
  isOver = false;
  receiveWindow = DEFAULT_WINDOW;
  sendWindow = DEFAULT_WINDOW;
  readonly #streamWindow: number;
  readonly #maxStreams: number;
  readonly #closed = new Map<number, Closed>();
  #initialWindow = DEFAULT_WINDOW;
  #lastId = 0;

  constructor({ streamWindow, maxStreams }: { readonly streamWindow: number; readonly maxStreams: number }) {
    this.#streamWindow = streamWindow;
    this.#maxStreams = maxStreams;
  }

  /** The error that `frame` is answered with, if any. */
  receive(frame: ClientFrame): string | undefined {
    if (this.isOver) return undefined;
    switch (frame.type) {
      case "HEADERS":
        return this.#onHeaders(frame);
      case "DATA":
        return this.#onData(frame);
      case "RST_STREAM":
        if (this.#isIdle(frame.id)) return this.#connectionError(PROTOCOL_ERROR);
        if (this.live.has(frame.id)) this.#close(frame.id, "ended");
        return undefined;
      case "WINDOW_UPDATE":
        return this.#onWindowUpdate(frame);
      case "PRIORITY":
        return frame.id === 0 || frame.id === frame.dependency ? this.#connectionError(PROTOCOL_ERROR) : undefined;
      case "INITIAL_WINDOW_SIZE":
        return this.#onInitialWindow(frame.sizeBytes);
      case "PING":
        return undefined;
    }
  }

  /** The server gave credit. */
  granted(id: number, increment: number): void {
    if (id === 0) this.receiveWindow += increment;
    else this.live.get(id)!.receiveWindow += increment;
  }

  /** The server sent DATA; throws when it was not allowed to. Returns the RST_STREAM that has to follow, if any. */
  sent(id: number, sizeBytes: number, end: boolean): string | undefined {
    const stream = this.live.get(id);
    if (stream?.response === undefined) throw new Error(`DATA on stream ${id}, which has no response`);
    if (sizeBytes > stream.response) throw new Error(`more DATA on stream ${id} than its response has`);
    if (sizeBytes > Math.min(stream.sendWindow, this.sendWindow)) throw new Error(`DATA beyond a window of ${id}`);
    stream.response -= sizeBytes;
    stream.sendWindow -= sizeBytes;
    this.sendWindow -= sizeBytes;
    if (end !== (stream.response === 0)) throw new Error(`stream ${id} ends with ${stream.response} octets to send`);
    return end ? this.responseEnded(id) : undefined;
  }

  /** F-63: what a client need not send any more is refused. */
  responseEnded(id: number): string | undefined {
    const { requestEnded } = this.live.get(id)!;
    this.#close(id, requestEnded ? "ended" : "reset by us");
    return requestEnded ? undefined : `RST_STREAM(${id}) 0`;
  }

  #onHeaders({ id, end, block }: ClientFrame & { type: "HEADERS" }): string | undefined {
    if (id === 0 || id % 2 === 0) return this.#connectionError(PROTOCOL_ERROR); // F-20
    const stream = this.live.get(id);
    if (stream !== undefined) {
      if (stream.requestEnded) return this.#streamError(id, STREAM_CLOSED); // F-25
      if (!end || block === "request") return this.#streamError(id, PROTOCOL_ERROR);
      stream.requestEnded = true;
      return undefined;
    }
    const closed = this.#closed.get(id);
    if (closed === "reset by us") return undefined; // F-23
    if (closed !== undefined) return this.#connectionError(closed === "ended" ? STREAM_CLOSED : PROTOCOL_ERROR); // F-22
    for (let skipped = this.#lastId + (this.#lastId === 0 ? 1 : 2); skipped < id; skipped += 2) {
      this.#closed.set(skipped, "skipped"); // F-21
    }
    this.#lastId = id;
    if (this.live.size + this.working.size >= this.#maxStreams) return this.#streamError(id, REFUSED_STREAM); // F-27
    if (block !== "request") return this.#streamError(id, PROTOCOL_ERROR); // F-50
    this.live.set(id, {
      receiveWindow: this.#streamWindow,
      sendWindow: this.#initialWindow,
      requestEnded: end,
      response: undefined,
      held: 0,
    });
    return undefined;
  }

  #onData({ id, sizeBytes, end }: ClientFrame & { type: "DATA" }): string | undefined {
    if (this.#isIdle(id)) return this.#connectionError(PROTOCOL_ERROR); // F-26, F-30
    this.receiveWindow -= sizeBytes;
    if (this.receiveWindow < 0) return this.#connectionError(FLOW_CONTROL_ERROR);
    const stream = this.live.get(id);
    if (stream === undefined) {
      return this.#closed.get(id) === "reset by us" ? undefined : this.#streamError(id, STREAM_CLOSED); // F-23, F-24
    }
    stream.receiveWindow -= sizeBytes;
    if (stream.requestEnded) return this.#streamError(id, STREAM_CLOSED); // F-24
    if (stream.receiveWindow < 0) return this.#streamError(id, FLOW_CONTROL_ERROR);
    stream.held += sizeBytes;
    stream.requestEnded = end;
    return undefined;
  }

  #onWindowUpdate({ id, increment }: ClientFrame & { type: "WINDOW_UPDATE" }): string | undefined {
    if (id === 0) {
      if (increment === 0) return this.#connectionError(PROTOCOL_ERROR); // F-38
      this.sendWindow += increment;
      return this.sendWindow > MAX_WINDOW ? this.#connectionError(FLOW_CONTROL_ERROR) : undefined;
    }
    if (this.#isIdle(id)) return this.#connectionError(PROTOCOL_ERROR);
    const stream = this.live.get(id);
    if (stream === undefined) return undefined;
    if (increment === 0) return this.#streamError(id, PROTOCOL_ERROR);
    stream.sendWindow += increment;
    return stream.sendWindow > MAX_WINDOW ? this.#streamError(id, FLOW_CONTROL_ERROR) : undefined;
  }

  /** F-34, F-35 */
  #onInitialWindow(sizeBytes: number): string | undefined {
    if (sizeBytes > MAX_WINDOW) return this.#connectionError(FLOW_CONTROL_ERROR);
    for (const stream of this.live.values()) stream.sendWindow += sizeBytes - this.#initialWindow;
    this.#initialWindow = sizeBytes;
    const overflows = [...this.live.values()].some(({ sendWindow }) => sendWindow > MAX_WINDOW);
    return overflows ? this.#connectionError(FLOW_CONTROL_ERROR) : undefined;
  }

  /** Streams that a client has not opened yet, and those that only a server could: we open none (section 5.1.1). */
  #isIdle(id: number): boolean {
    return id === 0 || id > this.#lastId || id % 2 === 0;
  }

  #connectionError(code: number): string {
    this.isOver = true;
    return `GOAWAY ${code}`;
  }

  #streamError(id: number, code: number): string {
    this.#close(id, "reset by us");
    return `RST_STREAM(${id}) ${code}`;
  }

  #close(id: number, closed: Closed): void {
    if (this.live.delete(id)) this.working.add(id);
    this.#closed.set(id, closed);
  }
}
