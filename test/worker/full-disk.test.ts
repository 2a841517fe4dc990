// A disk that fills up while inputs are staged and while outputs are collected.

import { join } from "node:path";
import { expect, test } from "vitest";
import { runToEnd } from "../support/child-output.ts";
import { patient } from "../support/patience.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

// The tmpfs is in a mount namespace of the child's own, so it goes when the child goes, however that happens. Without
// root a user namespace lends the right to mount.
const namespaces = process.getuid?.() === 0 ? ["--mount"] : ["--user", "--map-root-user", "--mount"];

test("an action that fills the disk fails with RESOURCE_EXHAUSTED, and the next one finds room", patient, async () => {
  await using folder = await TemporaryFolder.create("full-disk");
  const mount = `mount -t tmpfs -o size=64m tmpfs ${folder.path} && exec "$@"`;
  const host = join(import.meta.dirname, "full-disk-host.ts");
  const { exitCode, stderr } = await runToEnd(
    "unshare",
    [...namespaces, "sh", "-c", mount, "sh", process.execPath, host],
    { env: { ...process.env, TMPDIR: folder.path } },
  );
  expect(stderr).toBe("");
  expect(exitCode).toBe(0);
});
