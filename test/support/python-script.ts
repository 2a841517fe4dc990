// Runs one of the scripted clients of test/clients/python with Debian's Python and the public protos.

import { join } from "node:path";
import { runToEnd, type ChildOutput } from "./child-output.ts";
import { publicProtosForPython, python } from "./fetched-clients.ts";

const scripts = join(import.meta.dirname, "../clients/python");

/** Resolves whatever the exit code is: 1 means that the script found something wrong, and said what. */
export async function runPythonScript(name: string, ...args: readonly string[]): Promise<ChildOutput> {
  return runToEnd(python, [join(scripts, `${name}.py`), ...args], {
    env: { PYTHONPATH: await publicProtosForPython(), PYTHONDONTWRITEBYTECODE: "1" },
  });
}
