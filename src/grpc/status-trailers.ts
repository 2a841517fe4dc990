// A status as header fields: grpc-status, grpc-message, grpc-status-details-bin (G-30 to G-32).
//
// Invariant: the block stays below MAX_TRAILER_BYTES of header list size. Java clients drop the whole connection when a
// block exceeds the 8192 octets they advertise (grpc/grpc-java#2935), so details go first, then the message is cut.

import { Code, type StatusDetail } from "../base/status.ts";
import { HeaderBlock, type HeaderField } from "../http2/header-block.ts";
import { encodeBinaryValue } from "./binary-metadata.ts";

/** 8192 less room for :status, content-type and the rounding of 32 octets a field. */
export const MAX_TRAILER_BYTES = 8000;

/** Octets of grpc-message after percent-encoding (L-29). */
const MAX_MESSAGE_BYTES = 1024;

/** grpc-status with two digits, and grpc-message without its value, by the count of header lists. */
const STATUS_FIELD_BYTES = 11 + 2 + 32;
const MESSAGE_FIELD_BYTES = 12 + 32;

export interface Status {
  readonly code: Code;
  readonly message: string;
  readonly details: readonly StatusDetail[];
}

const CONTENT_TYPE: HeaderField = ["content-type", "application/grpc"];

/** The head of a response that has messages. */
export const RESPONSE_HEAD = new HeaderBlock([[":status", "200"], CONTENT_TYPE]);

/** The trailers of a call that went well. */
export const OK_TRAILERS = new HeaderBlock([["grpc-status", "0"]]);

export interface TrailerLimits {
  /** See maxTrailerBytes. */
  readonly maxBytes: number;
}

export interface TrailersOnlyOptions extends TrailerLimits {
  readonly httpStatus?: number;
  /** Further fields, already lower case. */
  readonly extra?: readonly HeaderField[];
}

/** What a client with this SETTINGS_MAX_HEADER_LIST_SIZE gets at most (G-32). */
export function maxTrailerBytes(peerMaxHeaderListBytes: number): number {
  return Math.min(MAX_TRAILER_BYTES, peerMaxHeaderListBytes - 192);
}

/** Trailers after at least one message, or after the head. */
export function statusTrailers(status: Status, limits: TrailerLimits): HeaderBlock {
  if (status.code === Code.OK) return OK_TRAILERS;
  return new HeaderBlock(statusFields(status, limits.maxBytes));
}

/** The whole response of a call that has no message (G-3). */
export function trailersOnly(
  status: Status,
  options: TrailersOnlyOptions = { maxBytes: MAX_TRAILER_BYTES },
): HeaderBlock {
  const { httpStatus = 200, extra = NO_FIELDS, maxBytes } = options;
  const head =
    httpStatus === 200 && extra.length === 0
      ? RESPONSE_HEAD
      : new HeaderBlock([[":status", String(httpStatus)], CONTENT_TYPE, ...extra]);
  return new HeaderBlock(head.fields.concat(statusFields(status, maxBytes - head.listSizeBytes)));
}

const NO_FIELDS: readonly HeaderField[] = [];

/** grpc-status of each code. */
const STATUS_FIELDS = Object.values(Code).map((code): HeaderField => ["grpc-status", String(code)]);

function statusFields(status: Status, maxBytes: number): HeaderField[] {
  const fields: HeaderField[] = [STATUS_FIELDS[status.code]!];
  const messageBytes = Math.min(MAX_MESSAGE_BYTES, maxBytes - STATUS_FIELD_BYTES - MESSAGE_FIELD_BYTES);
  const message = percentEncode(status.message, Math.max(messageBytes, 0));
  if (message !== "") fields.push(["grpc-message", message]);
  if (status.details.length === 0) return fields;
  const details: HeaderField = ["grpc-status-details-bin", encodeBinaryValue(encodeRpcStatus(status))];
  const withDetails = [...fields, details];
  return new HeaderBlock(withDetails).listSizeBytes <= maxBytes ? withDetails : fields;
}

/** Percent-encodes the UTF-8 of `text`, cut to `maxBytes` at the border of a character (G-31). */
export function percentEncode(text: string, maxBytes: number): string {
  if (text.length <= maxBytes && /^[\x20-\x24\x26-\x7e]*$/.test(text)) return text;
  let encoded = "";
  for (const character of text.toWellFormed()) {
    let piece = "";
    for (const octet of Buffer.from(character, "utf8")) {
      const plain = octet >= 0x20 && octet <= 0x7e && octet !== 0x25;
      piece += plain ? String.fromCharCode(octet) : `%${octet.toString(16).toUpperCase().padStart(2, "0")}`;
    }
    if (encoded.length + piece.length > maxBytes) break;
    encoded += piece;
  }
  return encoded;
}

/** google.rpc.Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; } */
function encodeRpcStatus(status: Status): Uint8Array {
  const out: number[] = [0x08, status.code];
  pushField(out, 0x12, Buffer.from(status.message.toWellFormed(), "utf8"));
  for (const detail of status.details) {
    const any: number[] = [];
    pushField(any, 0x0a, Buffer.from(detail.typeUrl, "utf8"));
    pushField(any, 0x12, detail.value);
    pushField(out, 0x1a, any);
    // What will not fit into trailers anyway need not be encoded to its end.
    if (out.length > MAX_TRAILER_BYTES) break;
  }
  return Uint8Array.from(out);
}

function pushField(out: number[], tag: number, bytes: ArrayLike<number>): void {
  out.push(tag);
  let rest = bytes.length;
  for (; rest > 0x7f; rest >>>= 7) out.push((rest & 0x7f) | 0x80);
  out.push(rest);
  for (let index = 0; index < bytes.length && index <= MAX_TRAILER_BYTES; index++) out.push(bytes[index] ?? 0);
}
