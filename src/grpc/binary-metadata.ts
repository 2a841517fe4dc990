// `-bin` metadata: standard base64 with or without padding (G-11).
//
// Node's decoder skips what it does not know, so the text is checked first.

/** Returns the first of the comma-separated values, decoded; undefined when it is not base64. */
export function decodeBinaryValue(text: string): Uint8Array | undefined {
  const comma = text.indexOf(",");
  const first = (comma === -1 ? text : text.slice(0, comma)).trim();
  if (!isBase64(first)) return undefined;
  const bytes = Buffer.from(first, "base64");
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Whether every comma-separated piece of `text` is base64. */
export function isBinaryValue(text: string): boolean {
  return text.split(",").every((piece) => isBase64(piece.trim()));
}

/** Encodes without padding, as gRPC wants it. */
export function encodeBinaryValue(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64").replace(/=+$/, "");
}

function isBase64(text: string): boolean {
  const match = /^[A-Za-z0-9+/]*(={0,2})$/.exec(text);
  if (match === null) return false;
  const padding = match[1]?.length ?? 0;
  return padding === 0 ? text.length % 4 !== 1 : text.length % 4 === 0;
}
