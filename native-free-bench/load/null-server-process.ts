// A null server in a process of its own, so that it does not take from the core that generates the load.
//
// It is this program again with `bench --null-server`: a line on stdout is its port, the end of stdin ends it.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runsAsExecutable } from "../../src/base/self.ts";
import { startNullServer, type NullServer, type NullServerOptions } from "./null-server.ts";

export async function startNullServerProcess(options: NullServerOptions = {}): Promise<NullServer> {
  const program = runsAsExecutable ? [] : [fileURLToPath(new URL("../main.ts", import.meta.url))];
  const child = spawn(process.execPath, [...program, "bench", "--null-server", JSON.stringify(options)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const { value, done } = await createInterface(child.stdout)[Symbol.asyncIterator]().next();
  const port = Number(value);
  if (done === true || !(port > 0)) throw new Error("the null server did not start; its message is above");
  return { port, close: () => child.stdin.end() };
}

/** The other side. */
export async function runNullServer(options: NullServerOptions): Promise<number> {
  const server = await startNullServer(options);
  process.stdout.write(`${server.port}\n`);
  await new Promise((resolve) => process.stdin.once("end", resolve).once("error", resolve).resume());
  server.close();
  return 0;
}
