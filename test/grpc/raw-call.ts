// One gRPC call over node:http2's client with headers and body as the test wants them, right or wrong.

import { connect, type ClientHttp2Session } from "node:http2";

export interface RawAnswer {
  readonly httpStatus: number | undefined;
  readonly grpcStatus: string | undefined;
  readonly grpcMessage: string | undefined;
  readonly acceptEncoding: string | undefined;
  /** The payload of the first response message. */
  readonly message: Buffer | undefined;
}

export interface RawBody {
  /** One write each; default: one empty message. */
  readonly body?: readonly Uint8Array[];
  /** Leaves the request's side open. */
  readonly open?: boolean;
}

export async function rawCall(
  url: string,
  path: string,
  headers: Record<string, string>,
  options: RawBody = {},
): Promise<RawAnswer> {
  const session: ClientHttp2Session = connect(url);
  try {
    return await callOn(session, path, headers, options);
  } finally {
    session.destroy();
  }
}

function callOn(
  session: ClientHttp2Session,
  path: string,
  headers: Record<string, string>,
  options: RawBody,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    session.on("error", reject);
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    let fields: Record<string, unknown> = {};
    const chunks: Buffer[] = [];
    stream.on("response", (response) => (fields = { ...fields, ...response }));
    stream.on("trailers", (trailers) => (fields = { ...fields, ...trailers }));
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", () => undefined);
    stream.on("close", () => {
      const body = Buffer.concat(chunks);
      resolve({
        httpStatus: numberField(fields[":status"]),
        grpcStatus: textField(fields["grpc-status"]),
        grpcMessage: textField(fields["grpc-message"]),
        acceptEncoding: textField(fields["grpc-accept-encoding"]),
        message: body.length >= 5 ? body.subarray(5, 5 + body.readUInt32BE(1)) : undefined,
      });
    });
    void writeBody(stream, options);
  });
}

async function writeBody(stream: NodeJS.WritableStream, options: RawBody): Promise<void> {
  for (const part of options.body ?? [new Uint8Array(5)]) {
    if (part.length > 0) stream.write(part);
    // One DATA frame per part.
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (options.open !== true) stream.end();
}

function textField(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function numberField(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}
