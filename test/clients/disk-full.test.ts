// A disk that is full: writes answer RESOURCE_EXHAUSTED, reads go on, writes resume when there is room again.

import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { runPythonScript } from "../support/python-script.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

// The tmpfs is in a mount namespace of the server's own, so it goes when the server goes, however that happens. Without
// root a user namespace lends the right to mount.
const namespaces = process.getuid?.() === 0 ? ["--mount"] : ["--user", "--map-root-user", "--mount"];

test("a full disk refuses writes, serves reads, and takes writes again once there is room", patient, async () => {
  await using folder = await TemporaryFolder.create("disk-full");
  const mount = `mount -t tmpfs -o size=192m tmpfs ${folder.path} && exec "$@"`;
  await using server = await LedgeServer.start({
    wrapper: ["unshare", ...namespaces, "sh", "-c", mount, "sh"],
    dataDir: `${folder.path}/data`,
    // Far above what the disk has: the limit must not be what ends the writes.
    flags: ["--max-size", "10GiB", "--slots", "0"],
  });
  const ballast = `/proc/${server.pid}/root${folder.path}/ballast`;
  await writeFile(ballast, Buffer.alloc(64 * 1024 * 1024));
  const output = await runPythonScript("disk_full", server.address, ballast);
  expect(output.exitCode, `${output.stdout}\n${output.stderr}\n${server.log}`).toBe(0);
});
