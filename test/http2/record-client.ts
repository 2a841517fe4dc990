// Records what a client sends: `node test/http2/record-client.ts NAME SERVER COMMAND [ARGUMENT…]`, by hand.
//
// A relay stands between the client and a running server (HOST:PORT); {} in an argument becomes the relay's address. The octets
// of the first connection that the client sent become recordings/NAME.bin.gz, which recordings.test.ts replays. Record
// nothing that says anything of a machine or a person.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const [name = "", server = "", command = "", ...args] = process.argv.slice(2);
if (command === "") throw new Error("usage: record-client.ts NAME SERVER COMMAND [ARGUMENT…]");
const [host, port] = server.split(":");
const recorded: Buffer[] = [];
let connections = 0;

const relay = createServer((client) => {
  const isFirst = connections++ === 0;
  const upstream = connect(Number(port), host);
  client.on("data", (octets: Buffer) => {
    if (isFirst) recorded.push(octets);
    upstream.write(octets);
  });
  upstream.on("data", (octets: Buffer) => client.write(octets));
  client.on("error", () => undefined).on("close", () => upstream.destroy());
  upstream.on("error", () => undefined).on("close", () => client.destroy());
});
relay.listen(0, "127.0.0.1");
await once(relay, "listening");
const address = `127.0.0.1:${(relay.address() as AddressInfo).port}`;

const child = spawn(
  command,
  args.map((arg) => arg.replaceAll("{}", address)),
  { stdio: "inherit" },
);
const [exitCode] = (await once(child, "exit")) as [number | null];
relay.close();
const octets = Buffer.concat(recorded);
writeFileSync(join(import.meta.dirname, "recordings", `${name}.bin.gz`), gzipSync(octets, { level: 9 }));
process.stdout.write(
  `${name}: ${octets.length} octets of the first of ${connections} connections; exit code ${exitCode}\n`,
);
process.exit(exitCode ?? 1);
