// ActionCache: a result is only returned while everything that it names is there.

import { Code } from "../../../src/base/status.ts";
import { Directory, Tree } from "../../../src/proto/remote_execution.ts";
import type { ActionResultInit } from "../../../src/proto/remote_execution.ts";
import { expectCode, type CheckBody } from "../check.ts";
import { prepareAction } from "../actions.ts";
import type { Probe } from "../probe.ts";

const GET = "REv2 ActionCache.GetActionResult";

const COMPLETE = `${GET}: the server should make sure that everything the result names is in the CAS; Bazel takes a hit as that promise`;

/** One way in which a stored result can name a blob that is not there. */
const INCOMPLETE: readonly (readonly [id: string, what: string, make: (p: Probe) => Promise<ActionResultInit>])[] = [
  ["file", "an output file", async (p) => ({ outputFiles: [{ path: "out", digest: p.absentDigest() }] })],
  [
    "second-file",
    "the second of two output files",
    async (p) => ({
      outputFiles: [
        { path: "a", digest: (await p.storeNew(30)).digest },
        { path: "b", digest: p.absentDigest() },
      ],
    }),
  ],
  ["stdout", "stdout", async (p) => ({ stdoutDigest: p.absentDigest() })],
  ["stderr", "stderr", async (p) => ({ stderrDigest: p.absentDigest() })],
  ["tree", "a Tree", async (p) => ({ outputDirectories: [{ path: "dir", treeDigest: p.absentDigest() }] })],
  [
    "file-in-tree",
    "a file in a Tree's root",
    async (p) => ({
      outputDirectories: [
        {
          path: "dir",
          treeDigest: await p.storeMessage(Tree, { root: { files: [{ name: "f", digest: p.absentDigest() }] } }),
        },
      ],
    }),
  ],
  [
    "file-in-subtree",
    "a file in a Tree's child",
    async (p) => {
      const child = { files: [{ name: "f", digest: p.absentDigest() }] };
      const root = { directories: [{ name: "d", digest: p.blobOf(Directory.encode(child)).digest }] };
      return {
        outputDirectories: [{ path: "dir", treeDigest: await p.storeMessage(Tree, { root, children: [child] }) }],
      };
    },
  ],
];

export const incompleteChecks: readonly CheckBody[] = INCOMPLETE.map(([id, what, make]) => ({
  id: `incomplete.${id}`,
  level: "SHOULD",
  says: `A result of which ${what} is absent is NOT_FOUND.`,
  cites: COMPLETE,
  advice: "Check every digest the result names, Trees and what is in them included, before answering.",
  needs: ["ac-update"],
  run: async (p) => {
    const { digest } = await prepareAction(p, {});
    const reply = await p.updateActionResult(digest, withWorker(await make(p)));
    // Refusing the update is as good.
    if (reply.code !== Code.OK)
      return expectCode(reply, [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND], "UpdateActionResult");
    expectCode(await p.getActionResult(digest), [Code.NOT_FOUND], "GetActionResult");
  },
}));

/** Results that clients store name a worker; without one some servers cannot tell them from nothing. */
function withWorker(result: ActionResultInit): ActionResultInit {
  return { executionMetadata: { worker: "ledge-conformance" }, ...result };
}
