// Throw-away certificates for TLS tests, made with the openssl command.

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

export interface CertificatePaths {
  readonly cert: string;
  readonly key: string;
}

/** Makes a certificate authority in `directory`. */
export function makeAuthority(directory: string): CertificatePaths {
  const key = join(directory, "ca.key");
  const cert = join(directory, "ca.crt");
  openssl([
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-keyout",
    key,
    "-out",
    cert,
    "-days",
    "2",
    "-subj",
    "/CN=test authority",
  ]);
  return { cert, key };
}

/** Makes a certificate that `authority` signs, for localhost and 127.0.0.1. */
export function makeCertificate(directory: string, name: string, authority: CertificatePaths): CertificatePaths {
  const key = join(directory, `${name}.key`);
  const cert = join(directory, `${name}.crt`);
  const request = join(directory, `${name}.csr`);
  const extensions = join(directory, `${name}.ext`);
  writeFileSync(extensions, "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  openssl([
    "req",
    "-new",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-keyout",
    key,
    "-out",
    request,
    "-subj",
    `/O=tests/CN=${name}`,
  ]);
  openssl([
    "x509",
    "-req",
    "-in",
    request,
    "-CA",
    authority.cert,
    "-CAkey",
    authority.key,
    "-CAcreateserial",
    "-out",
    cert,
    "-days",
    "2",
    "-extfile",
    extensions,
  ]);
  return { cert, key };
}

function openssl(args: readonly string[]): void {
  execFileSync("openssl", args, { stdio: "pipe" });
}
