// TLS on accepted sockets: ALPN, client certificates, and certificates that change while we run (F-96 to F-98).
//
// Invariant: a certificate that does not fit its key is never used: at start it is an error, at a reload it is logged and
// the old one stays. Connections in use keep what they were made with.

import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import type { Socket } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import type { Logger } from "../telemetry/log.ts";
import type { TlsOptions } from "./server.ts";
import type { ClientCertificate } from "./service.ts";

/** L-20; Node's default is 120 s. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/** How often the files are looked at. Watching them would miss the symlink swaps of mounted secrets. */
const RELOAD_CHECK_MS = 2_000;

/** TLS 1.2: ephemeral keys and authenticated encryption only (RFC 9113 section 9.2.2); TLS 1.3 has nothing else. */
const CIPHERS = [
  "TLS_AES_128_GCM_SHA256",
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305",
].join(":");

interface Material {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca?: Buffer;
}

export class TlsAcceptor {
  readonly #options: TlsOptions;
  readonly #logger: Logger;
  readonly #server: Server;
  #stamp: string;
  #timer: NodeJS.Timeout | undefined;
  #checking = false;

  private constructor(options: TlsOptions, logger: Logger, material: Material, stamp: string) {
    this.#options = options;
    this.#logger = logger;
    this.#stamp = stamp;
    this.#server = createServer({
      ...this.#contextOptions(material),
      // In the server's order; never h2c (F-2, F-97).
      ALPNProtocols: ["h2", "http/1.1"],
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      requestCert: options.clientCaPath !== undefined,
      rejectUnauthorized: options.clientCaPath !== undefined,
    });
    // Somebody who does not speak TLS, or whose certificate we do not take: their socket ends, nothing else does.
    this.#server.on("tlsClientError", (_error, socket) => socket.destroy());
    this.#timer = setInterval(() => void this.#check(), RELOAD_CHECK_MS);
    this.#timer.unref();
  }

  /** Reads the files; throws when they cannot be used, naming them. */
  static async open(options: TlsOptions, logger: Logger): Promise<TlsAcceptor> {
    const stamp = await stampOf(options);
    return new TlsAcceptor(options, logger, await readMaterial(options), stamp);
  }

  /** Calls `secured` for each socket whose handshake went well. */
  onSecured(secured: (socket: TLSSocket) => void): void {
    this.#server.on("secureConnection", (socket) => {
      socket.disableRenegotiation();
      secured(socket);
    });
  }

  accept(socket: Socket): void {
    this.#server.emit("connection", socket);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #contextOptions(material: Material): Material & {
    readonly minVersion: TlsOptions["minVersion"];
    readonly ciphers: string;
    readonly honorCipherOrder: boolean;
  } {
    return { ...material, minVersion: this.#options.minVersion, ciphers: CIPHERS, honorCipherOrder: true };
  }

  async #check(): Promise<void> {
    if (this.#checking) return;
    this.#checking = true;
    try {
      const stamp = await stampOf(this.#options);
      if (stamp === this.#stamp) return;
      this.#stamp = stamp;
      this.#server.setSecureContext(this.#contextOptions(await readMaterial(this.#options)));
      this.#logger.info("TLS files have changed; new connections use them", { cert: this.#options.certPath });
    } catch (error) {
      // A half-written or missing file: the old context stays, and the next change is tried again.
      const reason = error instanceof Error ? error.message : String(error);
      this.#logger.warn("TLS files have changed and cannot be used; the old ones stay", { reason });
    } finally {
      this.#checking = false;
    }
  }
}

/** What a verified client says of itself; undefined without a certificate. */
export function clientCertificateOf(socket: TLSSocket): ClientCertificate | undefined {
  const certificate = socket.authorized ? socket.getPeerX509Certificate() : undefined;
  if (certificate === undefined) return undefined;
  const names = certificate.subjectAltName;
  return {
    subject: certificate.subject.split("\n").join(", "),
    subjectAltNames: names === undefined || names === "" ? [] : names.split(", "),
  };
}

async function readMaterial(options: TlsOptions): Promise<Material> {
  const cert = await readNamed(options.certPath, "certificate");
  const key = await readNamed(options.keyPath, "key");
  const certificate = parseNamed(options.certPath, "certificate", () => new X509Certificate(cert));
  const privateKey = parseNamed(options.keyPath, "private key", () => createPrivateKey(key));
  if (!certificate.checkPrivateKey(privateKey)) {
    throw new Error(`The TLS certificate "${options.certPath}" does not belong to the key "${options.keyPath}"`);
  }
  if (options.clientCaPath === undefined) return { cert, key };
  const ca = await readNamed(options.clientCaPath, "client CA");
  parseNamed(options.clientCaPath, "client CA", () => new X509Certificate(ca));
  return { cert, key, ca };
}

async function readNamed(path: string, what: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new Error(
      `Cannot read the TLS ${what} "${path}": ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

function parseNamed<T>(path: string, what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new Error(`The file "${path}" holds no usable TLS ${what} in PEM`, { cause: error });
  }
}

/** Changes whenever one of the files does. */
async function stampOf(options: TlsOptions): Promise<string> {
  const paths = [options.certPath, options.keyPath, options.clientCaPath].filter((path) => path !== undefined);
  const stamps = await Promise.all(
    paths.map(async (path) => {
      const entry = await stat(path).catch(() => undefined);
      return entry === undefined ? "absent" : `${entry.ino}:${entry.size}:${entry.mtimeMs}:${entry.ctimeMs}`;
    }),
  );
  return stamps.join(" ");
}
