// Reads HTTP/1.1 responses far enough to know their status, the size of their body and where they end.
//
// Invariant: one response at a time, after `begin`; bodies are counted and not kept. A head above 64 KiB, or what is no
// response at all, throws. Source: RFC 9112, sections 6 and 7.

const MAX_HEAD_BYTES = 64 * 1024;
const CHUNK_LINE_BYTES = 1024;

export class HttpResponseReader {
  status = 0;
  bodyBytes = 0;
  /** Whether the server ends the connection after this response. */
  closes = false;
  #method = "GET";
  /** Head or chunk lines that are not complete. */
  #text = "";
  #phase: "head" | "sized" | "chunk-line" | "chunk" | "trailer" | "until-close" = "head";
  #leftBytes = 0;

  begin(method: string): void {
    this.#method = method;
    this.#phase = "head";
    this.#text = "";
    this.status = 0;
    this.bodyBytes = 0;
    this.closes = false;
  }

  /** Returns whether the response is complete. */
  push(chunk: Buffer): boolean {
    let at = 0;
    for (;;) {
      if (this.#phase === "sized" || this.#phase === "chunk") {
        const taken = Math.min(this.#leftBytes, chunk.length - at);
        this.#leftBytes -= taken;
        at += taken;
        // Of a chunk, the line end behind it is in leftBytes as well.
        this.bodyBytes += taken;
        if (this.#leftBytes > 0) return false;
        if (this.#phase === "sized") return true;
        this.bodyBytes -= 2;
        this.#phase = "chunk-line";
      } else if (this.#phase === "until-close") {
        this.bodyBytes += chunk.length - at;
        return false;
      } else {
        const before = this.#text.length;
        const text = this.#text + chunk.toString("latin1", at, Math.min(chunk.length, at + MAX_HEAD_BYTES));
        const mark = this.#phase === "head" ? "\r\n\r\n" : "\r\n";
        const end = text.indexOf(mark);
        if (end < 0) {
          if (text.length > (this.#phase === "head" ? MAX_HEAD_BYTES : CHUNK_LINE_BYTES))
            throw new Error("a head or a chunk line does not end");
          this.#text = text;
          return false;
        }
        at += end + mark.length - before;
        this.#text = "";
        if (this.#takeLine(text.slice(0, end))) return true;
      }
    }
  }

  /** Takes a whole head or line; returns whether it ends the response. */
  #takeLine(text: string): boolean {
    if (this.#phase === "head") return this.#takeHead(text);
    if (this.#phase === "trailer") return text === "";
    const size = Number.parseInt(text, 16);
    if (!(size >= 0)) throw new Error(`"${text.slice(0, 40)}" is not the size of a chunk`);
    this.#phase = size === 0 ? "trailer" : "chunk";
    this.#leftBytes = size + 2;
    return false;
  }

  #takeHead(head: string): boolean {
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1]);
    if (!(status >= 100)) throw new Error(`"${head.slice(0, 40)}" is not an HTTP/1.1 response`);
    // 100 Continue and its kind come before the response.
    if (status < 200) return false;
    this.status = status;
    this.closes = /^connection:[ \t]*close/im.test(head) || head.startsWith("HTTP/1.0");
    if (this.#method === "HEAD" || status === 204 || status === 304) return true;
    if (/^transfer-encoding:.*chunked/im.test(head)) {
      this.#phase = "chunk-line";
      return false;
    }
    const length = /^content-length:[ \t]*(\d+)/im.exec(head)?.[1];
    this.#phase = length === undefined ? "until-close" : "sized";
    this.#leftBytes = Number(length ?? 0);
    return length !== undefined && this.#leftBytes === 0;
  }
}
