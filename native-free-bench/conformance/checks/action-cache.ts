// ActionCache: what is stored comes back, and a result is only returned while everything it names is there.

import { Code } from "../../../src/base/status.ts";
import { ActionResult, Directory, Tree } from "../../../src/proto/remote_execution.ts";
import type { ActionResultInit } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectBytes, expectCode, expectEqual, expectOk, expectPresent, type Check } from "../check.ts";
import { prepareAction } from "../actions.ts";
import type { Probe } from "../probe.ts";
import type { BlobDigest } from "../../digest-functions.ts";
import { incompleteChecks } from "./action-cache-completeness.ts";

const GET = "REv2 ActionCache.GetActionResult";

const UPDATE = "REv2 ActionCache.UpdateActionResult";

const COMPLETE = `${GET}: the server should make sure that everything the result names is in the CAS; Bazel takes a hit as that promise`;

export const actionCacheChecks: readonly Check[] = defineArea(
  "action-cache",
  ["cache", "sha256"],
  [
    {
      id: "miss",
      level: "MUST",
      says: "An unknown action is NOT_FOUND.",
      cites: GET,
      advice: "Bazel takes any other code as a broken cache.",
      run: async (p) =>
        expectCode(
          await p.getActionResult(p.absentDigest(140)),
          [Code.NOT_FOUND],
          "GetActionResult of an unknown action",
        ),
    },
    {
      id: "hit",
      level: "MUST",
      says: "A stored result comes back.",
      cites: GET,
      advice: "Visible as soon as the update is acknowledged.",
      needs: ["ac-update"],
      run: async (p) => {
        const file = await p.storeNew(100);
        const result = await roundTrip(p, {
          outputFiles: [{ path: "bin/a", digest: file.digest, isExecutable: true }],
          exitCode: 0,
        });
        expectEqual(result.outputFiles.length, 1, "Output files");
        expectEqual(result.outputFiles[0]?.path, "bin/a", "The path");
        expectEqual(result.outputFiles[0]?.digest?.hash, file.digest.hash, "The digest");
        expectEqual(result.outputFiles[0]?.digest?.sizeBytes, 100, "The size");
        expectEqual(result.outputFiles[0]?.isExecutable, true, "is_executable");
      },
    },
    {
      id: "all-fields",
      level: "MUST",
      says: "Directories, symlinks, logs and metadata of a result come back.",
      cites: `${UPDATE}; ActionResult`,
      advice: "Keep every field, known or not.",
      needs: ["ac-update"],
      run: async (p) => {
        const log = await p.storeNew(60);
        const treeDigest = await p.storeMessage(Tree, { root: { symlinks: [{ name: "x", target: p.random.uuid() }] } });
        const result = await roundTrip(p, {
          outputDirectories: [{ path: "gen", treeDigest }],
          outputSymlinks: [{ path: "link", target: "gen/x" }],
          outputFileSymlinks: [{ path: "old", target: "gen/x" }],
          stdoutDigest: log.digest,
          stderrDigest: log.digest,
          executionMetadata: { worker: "w1", queuedTimestamp: { seconds: 1_700_000_000, nanos: 5 } },
        });
        expectEqual(result.outputDirectories[0]?.treeDigest?.hash, treeDigest.hash, "The Tree's digest");
        expectEqual(result.outputSymlinks[0]?.target, "gen/x", "The symlink's target");
        expectEqual(result.outputFileSymlinks[0]?.path, "old", "The 2.0 symlink's path");
        expectEqual(result.stdoutDigest?.hash, log.digest.hash, "stdout_digest");
        expectEqual(result.stderrDigest?.hash, log.digest.hash, "stderr_digest");
        expectEqual(result.executionMetadata?.queuedTimestamp?.seconds, 1_700_000_000, "queued_timestamp");
      },
    },
    {
      id: "exit-code",
      level: "MUST",
      says: "A stored non-zero exit code comes back, or the update is refused.",
      cites: "REv2 ActionResult.exit_code",
      advice: "Never turn a failure into a success.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, {});
        const update = await p.updateActionResult(digest, withWorker({ exitCode: 3 }));
        const reply = await p.getActionResult(digest);
        if (update.code === Code.OK && reply.code === Code.OK) expectEqual(reply.response?.exitCode, 3, "exit_code");
        else expectCode(reply, [Code.NOT_FOUND], "GetActionResult");
      },
    },
    {
      id: "update-answer",
      level: "SHOULD",
      says: "UpdateActionResult answers with the result.",
      cites: `${UPDATE} returns the ActionResult`,
      advice: "Return what was stored.",
      needs: ["ac-update"],
      run: async (p) => {
        const file = await p.storeNew(10);
        const { digest } = await prepareAction(p, {});
        const reply = await p.updateActionResult(
          digest,
          withWorker({ outputFiles: [{ path: "o", digest: file.digest }] }),
        );
        expectOk(reply, "UpdateActionResult");
        expectEqual(reply.response?.outputFiles[0]?.digest?.hash, file.digest.hash, "The digest in the answer");
      },
    },
    {
      id: "overwrite",
      level: "MUST",
      says: "A second update replaces the first.",
      cites: UPDATE,
      advice: "The last write wins; a result must never be a mixture.",
      needs: ["ac-update"],
      run: async (p) => {
        const [first, second] = [await p.storeNew(10), await p.storeNew(20)];
        const { digest } = await prepareAction(p, {});
        for (const file of [first, second])
          expectOk(
            await p.updateActionResult(digest, withWorker({ outputFiles: [{ path: "o", digest: file.digest }] })),
            "UpdateActionResult",
          );
        const reply = await p.getActionResult(digest);
        expectOk(reply, "GetActionResult");
        expectEqual(reply.response?.outputFiles.length, 1, "Output files");
        expectEqual(reply.response?.outputFiles[0]?.digest?.hash, second.digest.hash, "The digest");
      },
    },
    {
      id: "separate-actions",
      level: "MUST",
      says: "Results of different actions are kept apart.",
      cites: GET,
      advice: "The key is the whole digest of the action.",
      needs: ["ac-update"],
      run: async (p) => {
        const files = [await p.storeNew(10), await p.storeNew(10)];
        const actions = [await prepareAction(p, {}), await prepareAction(p, {})];
        for (const [index, { digest }] of actions.entries()) {
          expectOk(
            await p.updateActionResult(
              digest,
              withWorker({ outputFiles: [{ path: "o", digest: files[index]!.digest }] }),
            ),
            "UpdateActionResult",
          );
        }
        for (const [index, { digest }] of actions.entries()) {
          expectEqual(
            (await p.getActionResult(digest)).response?.outputFiles[0]?.digest?.hash,
            files[index]!.digest.hash,
            "The digest",
          );
        }
      },
    },
    {
      id: "near-digest",
      level: "MUST",
      says: "An action whose digest begins like a stored one is NOT_FOUND.",
      cites: GET,
      advice: "Compare the whole hash.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, {});
        expectOk(await p.updateActionResult(digest, withWorker({})), "UpdateActionResult");
        const near = { ...digest, hash: digest.hash.slice(0, 60) + (digest.hash.endsWith("0000") ? "1111" : "0000") };
        expectCode(await p.getActionResult(near), [Code.NOT_FOUND], "GetActionResult of a near digest");
      },
    },
    {
      id: "not-in-cas",
      level: "MUST",
      says: "A result does not make its action's digest a blob of the CAS.",
      cites: "REv2 ActionCache, ContentAddressableStorage: two stores",
      advice: "Keep the two name spaces apart.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, { withhold: "action" });
        const reply = await p.updateActionResult(digest, withWorker({}));
        if (reply.code === Code.OK) await p.expectAbsent(digest, "The action's digest");
      },
    },
    {
      id: "not-from-cas",
      level: "MUST",
      says: "A blob of the CAS is not an action result.",
      cites: "REv2 ActionCache, ContentAddressableStorage: two stores",
      advice: "Keep the two name spaces apart.",
      run: async (p) => {
        const { digest } = await p.storeNew(100);
        expectCode(await p.getActionResult(digest), [Code.NOT_FOUND], "GetActionResult of a blob's digest");
      },
    },
    {
      id: "complete",
      level: "MUST",
      says: "A result whose files, logs and Trees are all there is returned.",
      cites: GET,
      advice: "The check of completeness must not lose good results.",
      needs: ["ac-update"],
      run: async (p) => {
        const [file, log] = [await p.storeNew(100), await p.storeNew(50)];
        const child = {
          files: [
            { name: "f", digest: file.digest },
            { name: "g", digest: p.emptyDigest },
          ],
        };
        const root = { directories: [{ name: "d", digest: p.blobOf(Directory.encode(child)).digest }] };
        const treeDigest = await p.storeMessage(Tree, { root, children: [child] });
        await roundTrip(p, {
          outputDirectories: [{ path: "", treeDigest }],
          stdoutDigest: log.digest,
          outputFiles: [{ path: "e", digest: p.emptyDigest }],
        });
      },
    },
    ...incompleteChecks,
    {
      id: "incomplete.root-directory",
      level: "SHOULD",
      says: "A result whose root_directory_digest is absent is NOT_FOUND.",
      cites: COMPLETE,
      advice: "Check Directory blobs as well as Trees.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, {});
        const root = { symlinks: [{ name: "x", target: p.random.uuid() }] };
        const treeDigest = await p.storeMessage(Tree, { root });
        const rootDirectoryDigest = p.blobOf(Directory.encode(root)).digest;
        const update = await p.updateActionResult(
          digest,
          withWorker({ outputDirectories: [{ path: "d", treeDigest, rootDirectoryDigest }] }),
        );
        if (update.code === Code.OK) expectCode(await p.getActionResult(digest), [Code.NOT_FOUND], "GetActionResult");
      },
    },
    {
      id: "completed-later",
      level: "SHOULD",
      says: "A result stored before its blobs is returned once they are there.",
      cites: `${UPDATE}; clients upload in any order`,
      advice: "Check at reading, and do not drop the entry for good.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, {});
        const file = p.blob(100);
        const update = await p.updateActionResult(
          digest,
          withWorker({ outputFiles: [{ path: "o", digest: file.digest }] }),
        );
        if (update.code !== Code.OK) return;
        // Asking meanwhile must not make the server forget the entry.
        await p.getActionResult(digest);
        await p.store(file);
        expectOk(await p.getActionResult(digest), "GetActionResult after the upload");
      },
    },
    {
      id: "no-inlining-unasked",
      level: "SHOULD",
      says: "stdout is not inlined unless asked.",
      cites: "REv2 GetActionResultRequest.inline_stdout",
      advice: "Keep the digest and leave stdout_raw empty.",
      needs: ["ac-update"],
      run: async (p) => {
        const log = await p.storeNew(100);
        const result = await roundTrip(p, { stdoutDigest: log.digest });
        expectEqual(result.stdoutRaw.length, 0, "Bytes of stdout_raw");
      },
    },
    {
      id: "inline-keeps-digest",
      level: "MUST",
      says: "Asked to inline, the server may, and what it inlines is right and the digest stays.",
      cites: "REv2 GetActionResultRequest.inline_stdout, inline_output_files",
      advice: "A hint; never replace the digest.",
      needs: ["ac-update"],
      run: async (p) => {
        const [log, file] = [await p.storeNew(100), await p.storeNew(64)];
        const { digest } = await prepareAction(p, {});
        expectOk(
          await p.updateActionResult(
            digest,
            withWorker({ stdoutDigest: log.digest, outputFiles: [{ path: "o", digest: file.digest }] }),
          ),
          "UpdateActionResult",
        );
        const { response } = await p.getActionResult(digest, {
          inlineStdout: true,
          inlineStderr: true,
          inlineOutputFiles: ["o", "no-such-file"],
        });
        const result = expectPresent(response, "the result");
        expectEqual(result.stdoutDigest?.hash, log.digest.hash, "stdout_digest");
        if (result.stdoutRaw.length > 0) expectBytes(result.stdoutRaw, log.data, "stdout_raw");
        const output = expectPresent(result.outputFiles[0], "the output file");
        expectEqual(output.digest?.hash, file.digest.hash, "The file's digest");
        if (output.contents.length > 0) expectBytes(output.contents, file.data, "The file's contents");
      },
    },
    {
      id: "inline-too-large",
      level: "CLIENTS",
      says: "Asked to inline 6 MiB, the answer still fits a message of 4 MiB.",
      cites: "REv2 GetActionResultRequest: inlining is subject to message limits; clients refuse messages above 4 MiB",
      advice: "Leave out what does not fit.",
      needs: ["ac-update"],
      run: async (p) => {
        const log = await p.storeNew(6 * 1024 * 1024);
        const { digest } = await prepareAction(p, {});
        expectOk(await p.updateActionResult(digest, withWorker({ stdoutDigest: log.digest })), "UpdateActionResult");
        expectOk(await p.getActionResult(digest, { inlineStdout: true }), "GetActionResult");
      },
    },
    {
      id: "execution-metadata",
      level: "CLIENTS",
      says: "A result from the cache has execution_metadata.",
      cites: "Buck2 fails without it",
      advice: "Set at least the worker when the client did not.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, {});
        const file = await p.storeNew(10);
        expectOk(
          await p.updateActionResult(digest, { outputFiles: [{ path: "o", digest: file.digest }] }),
          "UpdateActionResult",
        );
        const reply = await p.getActionResult(digest);
        expectOk(reply, "GetActionResult");
        expectPresent(reply.response?.executionMetadata, "execution_metadata");
      },
    },
    {
      id: "empty-result",
      level: "SHOULD",
      says: "A result without any field set is stored and found.",
      cites: `${UPDATE}: an action may have no outputs`,
      advice: "Do not confuse an empty message with absence; add the worker's name.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, {});
        expectOk(await p.updateActionResult(digest, {}), "UpdateActionResult");
        expectOk(await p.getActionResult(digest), "GetActionResult");
      },
    },
    {
      id: "inputs-not-needed",
      level: "CLIENTS",
      says: "A result may be stored although the action's input files are not in the CAS.",
      cites: "recc in cache-only mode uploads action, command and directories only",
      advice: "Check outputs, not inputs.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, { files: { "input.c": p.random.uuid() }, withhold: "files" });
        expectOk(await p.updateActionResult(digest, withWorker({})), "UpdateActionResult");
        expectOk(await p.getActionResult(digest), "GetActionResult");
      },
    },
    {
      id: "large-result",
      level: "SHOULD",
      says: "A result of 3,000 output files is stored and found.",
      cites: UPDATE,
      advice: "About 300 KB; no limit below the message size.",
      needs: ["ac-update"],
      run: async (p) => {
        const file = await p.storeNew(10);
        const outputFiles = Array.from({ length: 3000 }, (_, index) => ({
          path: `gen/file${index}.txt`,
          digest: file.digest,
        }));
        const result = await roundTrip(p, { outputFiles });
        expectEqual(result.outputFiles.length, 3000, "Output files");
      },
    },
    {
      id: "order-kept",
      level: "SHOULD",
      says: "Output files come back with the paths they were stored with.",
      cites: `${UPDATE}; ActionResult.output_files`,
      advice: "Do not normalise paths.",
      needs: ["ac-update"],
      run: async (p) => {
        const file = await p.storeNew(10);
        const paths = ["z", "a/b", "m", "../sibling/x", "a/c"];
        const update = await p.updateActionResult(
          (await prepareAction(p, {})).digest,
          withWorker({ outputFiles: paths.map((path) => ({ path, digest: file.digest })) }),
        );
        if (update.code !== Code.OK) return expectCode(update, [Code.INVALID_ARGUMENT], "UpdateActionResult");
        expectEqual(
          (update.response?.outputFiles ?? [])
            .map(({ path }) => path)
            .sort()
            .join(),
          [...paths].sort().join(),
          "The paths",
        );
      },
    },
  ],
);

async function roundTrip(p: Probe, result: ActionResultInit): Promise<ActionResult> {
  const { digest }: { digest: BlobDigest } = await prepareAction(p, {});
  expectOk(await p.updateActionResult(digest, withWorker(result)), "UpdateActionResult");
  const reply = await p.getActionResult(digest);
  expectOk(reply, "GetActionResult");
  return expectPresent(reply.response, "the result");
}

/** Results that clients store name a worker; without one some servers cannot tell them from nothing. */
function withWorker(result: ActionResultInit): ActionResultInit {
  return { executionMetadata: { worker: "ledge-conformance" }, ...result };
}
