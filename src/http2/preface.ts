// Tells HTTP/2 with prior knowledge from HTTP/1.1 by the first octets (F-1, P-40).

/** The 24 octets every HTTP/2 client sends first. */
export const CLIENT_PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/** `undecided` while the octets are a proper prefix of the preface: "P" may become PUT. */
export function sniffProtocol(octets: Uint8Array): "http2" | "http1" | "undecided" {
  const count = Math.min(octets.length, CLIENT_PREFACE.length);
  for (let index = 0; index < count; index++) if (octets[index] !== CLIENT_PREFACE[index]) return "http1";
  return count === CLIENT_PREFACE.length ? "http2" : "undecided";
}

/** What HTTP/1.1 clients of this server may send; WebDAV's for key-value clients. */
const HTTP1_METHODS = [
  "GET",
  "HEAD",
  "PUT",
  "POST",
  "DELETE",
  "OPTIONS",
  "PATCH",
  "TRACE",
  "CONNECT",
  "PROPFIND",
  "MKCOL",
];

/** Whether the octets begin, as far as they go, with a method and a space. */
export function mayBeHttp1(octets: Uint8Array): boolean {
  const text = Buffer.from(octets.buffer, octets.byteOffset, Math.min(octets.length, 9)).toString("latin1");
  return HTTP1_METHODS.some((method) => text.startsWith(`${method} `) || `${method} `.startsWith(text));
}
