// Resource names of uploads: what is well-formed and what is not.

import { Code } from "../../../src/base/status.ts";
import { expectCode, type CheckBody } from "../check.ts";

const REAPI = "REv2 ContentAddressableStorage: uploads by ByteStream.Write";

const MALFORMED_NAMES: readonly (readonly [id: string, what: string, make: (hash: string, size: number) => string])[] =
  [
    ["empty", "an empty name", () => ""],
    ["no-uuid", "a name without an upload id", (hash, size) => `uploads/blobs/${hash}/${size}`],
    ["no-size", "a name without a size", (hash) => `uploads/5a2b0c1d-0000-4000-8000-000000000001/blobs/${hash}`],
    [
      "bad-size",
      "a size that is not a number",
      (hash) => `uploads/5a2b0c1d-0000-4000-8000-000000000001/blobs/${hash}/many`,
    ],
    [
      "short-hash",
      "a hash of 63 digits",
      (hash, size) => `uploads/5a2b0c1d-0000-4000-8000-000000000001/blobs/${hash.slice(1)}/${size}`,
    ],
    ["read-form", "a read name", (hash, size) => `blobs/${hash}/${size}`],
    [
      "unknown-kind",
      "an unknown keyword after the upload id",
      (hash, size) => `uploads/5a2b0c1d-0000-4000-8000-000000000001/things/${hash}/${size}`,
    ],
  ];

export const malformedChecks: readonly CheckBody[] = MALFORMED_NAMES.map(([id, what, make]) => ({
  id: `name.${id}`,
  level: "SHOULD",
  says: `Writing to ${what} is INVALID_ARGUMENT.`,
  cites: REAPI,
  advice: "Parse names strictly at the edge and say which part is wrong.",
  run: async (p) => {
    const { data, digest } = p.blob(40);
    const name = make(digest.hash, digest.sizeBytes);
    const reply = await p.write(name === "" ? name : p.instancePrefix + name, [{ offset: 0, data, finish: true }]);
    expectCode(reply, [Code.INVALID_ARGUMENT], `Writing to "${name}"`);
  },
}));
