// ActionCache: malformed requests, and updates that must be refused.

import { Code } from "../../../src/base/status.ts";
import { ActionCache } from "../../../src/proto/remote_execution.ts";
import type { ActionResultInit } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectCode, type Check } from "../check.ts";
import { prepareAction } from "../actions.ts";

const UPDATE = "REv2 ActionCache.UpdateActionResult";

export const actionCacheRequestChecks: readonly Check[] = defineArea(
  "action-cache",
  ["cache", "sha256"],
  [
    {
      id: "malformed-digest",
      level: "SHOULD",
      says: "A malformed action digest is INVALID_ARGUMENT.",
      cites: "REv2 GetActionResultRequest.action_digest",
      advice: "Validate digests at the edge.",
      run: async (p) => {
        expectCode(await p.getActionResult({ hash: "abc", sizeBytes: 3 }), [Code.INVALID_ARGUMENT], "GetActionResult");
        expectCode(
          await p.getActionResult({ hash: "../".repeat(21) + "x", sizeBytes: 3 }),
          [Code.INVALID_ARGUMENT],
          "GetActionResult of a path",
        );
      },
    },
    {
      id: "no-digest",
      level: "SHOULD",
      says: "A request without action digest is INVALID_ARGUMENT.",
      cites: "REv2 GetActionResultRequest.action_digest",
      advice: "Name the missing field.",
      run: async (p) =>
        expectCode(
          await p.call(ActionCache.methods.GetActionResult, { instanceName: p.instanceName }),
          [Code.INVALID_ARGUMENT],
          "GetActionResult",
        ),
    },
    {
      id: "update-malformed-digest",
      level: "SHOULD",
      says: "Updating a malformed action digest is INVALID_ARGUMENT.",
      cites: "REv2 UpdateActionResultRequest.action_digest",
      advice: "Validate before storing.",
      needs: ["ac-update"],
      run: async (p) =>
        expectCode(
          await p.updateActionResult({ hash: "xyz", sizeBytes: 3 }, withWorker({})),
          [Code.INVALID_ARGUMENT],
          "UpdateActionResult",
        ),
    },
    {
      id: "update-no-result",
      level: "SHOULD",
      says: "An update without a result is refused.",
      cites: "REv2 UpdateActionResultRequest.action_result",
      advice: "INVALID_ARGUMENT; an empty result would be a hit without outputs.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, {});
        expectCode(
          await p.call(ActionCache.methods.UpdateActionResult, { instanceName: p.instanceName, actionDigest: digest }),
          [Code.INVALID_ARGUMENT],
          "UpdateActionResult",
        );
      },
    },
    {
      id: "update-bad-output",
      level: "SHOULD",
      says: "A result with a malformed digest inside is refused.",
      cites: `${UPDATE}: INVALID_ARGUMENT for bad arguments`,
      advice: "Validate the digests that the result names.",
      needs: ["ac-update"],
      run: async (p) => {
        const { digest } = await prepareAction(p, {});
        expectCode(
          await p.updateActionResult(
            digest,
            withWorker({ outputFiles: [{ path: "o", digest: { hash: "nothex", sizeBytes: 5 } }] }),
          ),
          [Code.INVALID_ARGUMENT],
          "UpdateActionResult",
        );
      },
    },
    {
      id: "update-refused-when-disabled",
      level: "MUST",
      says: "Where update_enabled is false an update is refused.",
      cites: "REv2 ActionCacheUpdateCapabilities.update_enabled",
      advice: "PERMISSION_DENIED or UNIMPLEMENTED.",
      run: async (p) => {
        if (p.has("ac-update")) return;
        const reply = await p.updateActionResult(p.absentDigest(140), withWorker({}));
        expectCode(
          reply,
          [
            Code.PERMISSION_DENIED,
            Code.UNIMPLEMENTED,
            Code.UNAUTHENTICATED,
            Code.FAILED_PRECONDITION,
            Code.INVALID_ARGUMENT,
          ],
          "UpdateActionResult",
        );
      },
    },
    {
      id: "unknown-digest-function",
      level: "SHOULD",
      says: "A digest function that is not advertised is INVALID_ARGUMENT.",
      cites: "REv2 GetActionResultRequest.digest_function",
      advice: "Do not fall back to another function.",
      run: async (p) => {
        const request = { instanceName: p.instanceName, actionDigest: p.absentDigest(), digestFunction: 99 };
        expectCode(
          await p.call(ActionCache.methods.GetActionResult, request),
          [Code.INVALID_ARGUMENT],
          "Digest function 99",
        );
      },
    },
  ],
);

/** Results that clients store name a worker; without one some servers cannot tell them from nothing. */
function withWorker(result: ActionResultInit): ActionResultInit {
  return { executionMetadata: { worker: "ledge-conformance" }, ...result };
}
