// What the operator's environment must not do to the server.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { describe, expect, test } from "vitest";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

describe("a server with NODE_EXTRA_CA_CERTS", patient, () => {
  // Node reads the file in a thread; the runner closed that thread's descriptor among those it had inherited. The file
  // was then cut short, and now and then the number was closed twice, libuv aborted, and the server became a cache only.
  test("executes, and its runner does not disturb the thread that reads them", async () => {
    await using folder = await TemporaryFolder.create("certificates");
    const path = join(folder.path, "many.pem");
    await writeFile(path, `${rootCertificates.join("\n")}\n`.repeat(40));
    await using server = await LedgeServer.start({ env: { NODE_EXTRA_CA_CERTS: path } });
    // The banner follows the port file.
    await expect.poll(() => server.log, { timeout: 20_000 }).toMatch(/executes\s+\d+ actions? at once/);
    expect(server.log).not.toContain("Ignoring extra certs");
  });
});
