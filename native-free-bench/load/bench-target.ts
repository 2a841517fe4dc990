// A server to be measured: where it speaks gRPC, and where it speaks the HTTP cache protocol.

import { UsageError } from "../arguments.ts";
import { parseTarget, type Target } from "../client/target.ts";

/** As it is handed to other processes of the harness. */
export interface BenchTargetText {
  readonly grpc: string;
  /** `http://HOST:PORT[/PREFIX]`; by default the host and port of gRPC. */
  readonly http: string | undefined;
  readonly caFile: string | undefined;
}

export interface BenchTarget {
  readonly text: BenchTargetText;
  readonly grpc: Target;
  readonly http: Target;
  /** Put before every path, without a slash at its end. */
  readonly httpPrefix: string;
}

export function parseBenchTarget(text: BenchTargetText): BenchTarget {
  const grpc = parseTarget(text.grpc, text.caFile);
  if (text.http === undefined) return { text, grpc, http: grpc, httpPrefix: "" };
  const match = /^http(s?):\/\/([^/]+)(\/.*)?$/.exec(text.http);
  if (match === null) throw new UsageError(`--http: "${text.http}" is not http://HOST:PORT[/PREFIX]`);
  const [, secure = "", authority = "", prefix = ""] = match;
  const withPort = /:\d+$/.test(authority) ? authority : `${authority}:${secure === "" ? 80 : 443}`;
  const http = parseTarget(`grpc${secure}://${withPort}`, text.caFile);
  return { text, grpc, http: { ...http, text: text.http }, httpPrefix: prefix.replace(/\/+$/, "") };
}
