// Where a server is: `grpc://HOST:PORT`, `grpcs://HOST:PORT` or `unix:PATH`.
//
// Invariant: a Target is complete; a text that lacks anything is refused with what was expected. Connecting is
// http2-channel.ts and load/raw-connection.ts.

import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { readFileSync } from "node:fs";
import { UsageError } from "../arguments.ts";

export interface Target {
  /** As the user wrote it. */
  readonly text: string;
  readonly tls: boolean;
  /** The value of `:authority`. */
  readonly authority: string;
  readonly host: string;
  readonly port: number;
  /** Set for unix sockets; then host and port mean nothing. */
  readonly socketPath: string | undefined;
  /** PEM certificates that TLS trusts, instead of the system's. */
  readonly certificateAuthority: Buffer | undefined;
}

export function parseTarget(text: string, caFile?: string): Target {
  const certificateAuthority = caFile === undefined ? undefined : readCertificates(caFile);
  if (text.startsWith("unix:")) {
    const socketPath = text.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
    if (socketPath === "") throw malformed(text);
    return { text, tls: false, authority: "localhost", host: "", port: 0, socketPath, certificateAuthority };
  }
  const match = /^(grpcs?):\/\/(\[[0-9a-f:.]+\]|[^:/[\]]+):([0-9]{1,5})\/?$/i.exec(text);
  const [, scheme, host, portText] = match ?? [];
  const port = Number(portText);
  if (scheme === undefined || host === undefined || port < 1 || port > 65_535) throw malformed(text);
  return {
    text,
    tls: scheme.toLowerCase() === "grpcs",
    authority: `${host}:${port}`,
    host: host.replace(/^\[|\]$/g, ""),
    port,
    socketPath: undefined,
    certificateAuthority,
  };
}

/** Opens a connection for HTTP/2 (ALPN `h2` under TLS). Resolves once it is usable, rejects with a message for people. */
export function connectTo(target: Target, timeoutMs: number, alpn = "h2"): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = target.tls
      ? connectTls({
          host: target.host,
          port: target.port,
          ALPNProtocols: [alpn],
          servername: /^[\d.:]+$/.test(target.host) ? "" : target.host,
          ...(target.certificateAuthority === undefined ? {} : { ca: target.certificateAuthority }),
        })
      : target.socketPath === undefined
        ? connectTcp({ host: target.host, port: target.port, noDelay: true })
        : connectTcp(target.socketPath);
    const timer = setTimeout(() => fail(new Error(`no connection within ${timeoutMs} ms`)), timeoutMs);
    const fail = (error: Error): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(new Error(`Cannot connect to "${target.text}": ${explain(error, target)}`, { cause: error }));
    };
    socket.once("error", fail);
    socket.once(target.tls ? "secureConnect" : "connect", () => {
      clearTimeout(timer);
      socket.off("error", fail);
      // Whoever takes the socket adds its own listener; one must be there until then.
      socket.on("error", () => undefined);
      resolve(socket);
    });
  });
}

function explain(error: Error, target: Target): string {
  const code = "code" in error ? String(error.code) : "";
  if (code === "ECONNREFUSED") return "nothing listens there";
  if (code === "ENOENT") return "the socket file does not exist";
  if (code === "ENOTFOUND") return `the name "${target.host}" has no address`;
  if (
    target.tls &&
    /wrong version number|packet length|ssl3|EPROTO|ECONNRESET|disconnected before/i.test(`${code} ${error.message}`)
  ) {
    return `it does not speak TLS (${error.message}); try grpc:// in place of grpcs://`;
  }
  if (target.tls && /CERT|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(code)) {
    return `its certificate is not trusted (${error.message}); name its authority with --tls-ca FILE`;
  }
  return error.message;
}

function readCertificates(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new UsageError(`--tls-ca: cannot read "${path}": ${error instanceof Error ? error.message : String(error)}`);
  }
}

function malformed(text: string): UsageError {
  return new UsageError(`Target "${text}" is not "grpc://HOST:PORT", "grpcs://HOST:PORT" or "unix:PATH"`);
}
