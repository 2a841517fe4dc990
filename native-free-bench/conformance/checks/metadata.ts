// Metadata of calls: what clients and proxies send along must not break anything.

import { Code } from "../../../src/base/status.ts";
import { RequestMetadata } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectBytes, expectCode, expectOk, type Check } from "../check.ts";

const GRPC = "gRPC over HTTP/2 (PROTOCOL-HTTP2)";

const METADATA_KEY = "build.bazel.remote.execution.v2.requestmetadata-bin";

export const metadataChecks: readonly Check[] = defineArea(
  "metadata",
  ["cache", "sha256"],
  [
    {
      id: "request-metadata",
      level: "MUST",
      says: "A call with RequestMetadata is answered.",
      cites: "REv2 RequestMetadata",
      advice: "Every client sends it.",
      run: async (p) => {
        const value = Buffer.from(
          RequestMetadata.encode({
            toolDetails: { toolName: "ledge", toolVersion: "1" },
            actionId: "a",
            toolInvocationId: p.random.uuid(),
          }),
        ).toString("base64");
        expectOk(await p.findMissing([p.absentDigest()], { metadata: { [METADATA_KEY]: value } }), "FindMissingBlobs");
      },
    },
    {
      id: "unpadded",
      level: "MUST",
      says: "RequestMetadata in base64 without padding is accepted.",
      cites: `${GRPC}: Binary-Header`,
      advice: "Accept both forms.",
      run: async (p) => {
        const value = Buffer.from(RequestMetadata.encode({ toolInvocationId: "12345" }))
          .toString("base64")
          .replace(/=+$/, "");
        expectOk(await p.findMissing([p.absentDigest()], { metadata: { [METADATA_KEY]: value } }), "FindMissingBlobs");
      },
    },
    {
      id: "garbage",
      level: "SHOULD",
      says: "Malformed RequestMetadata does not fail a call.",
      cites: "REv2 RequestMetadata: optional and informative",
      advice: "Ignore what you cannot decode.",
      run: async (p) => {
        const value = Buffer.from("\xff\xff\xff\xff", "latin1").toString("base64");
        expectOk(await p.findMissing([p.absentDigest()], { metadata: { [METADATA_KEY]: value } }), "FindMissingBlobs");
      },
    },
    {
      id: "unknown-headers",
      level: "MUST",
      says: "Unknown metadata, text and binary, is ignored.",
      cites: `${GRPC}: Custom-Metadata`,
      advice: "Proxies and clients add their own.",
      run: async (p) => {
        const metadata = { "x-team": "build", "x-trace-bin": "AAEC", authorization: "Bearer none" };
        expectOk(
          await p.findMissing([p.absentDigest()], {
            metadata: { "x-team": metadata["x-team"], "x-trace-bin": metadata["x-trace-bin"] },
          }),
          "FindMissingBlobs",
        );
      },
    },
    {
      id: "long-header",
      level: "SHOULD",
      says: "A metadata value of 6 KB is accepted.",
      cites: "bearer tokens are that long; gRPC recommends room for 8 KiB",
      advice: "Allow at least 8 KiB of headers.",
      run: async (p) =>
        expectOk(
          await p.findMissing([p.absentDigest()], { metadata: { "x-long": "v".repeat(6000) } }),
          "FindMissingBlobs",
        ),
    },
    {
      id: "resource-name-header",
      level: "SHOULD",
      says: "A resource-name header that equals the request's name is accepted.",
      cites: "REv2: build.bazel.remote.execution.v2.resource-name",
      advice: "It is there for routing.",
      run: async (p) => {
        const blob = await p.storeNew(30);
        const name = p.readName(blob.digest);
        const read = await p.read(name, { metadata: { "build.bazel.remote.execution.v2.resource-name": name } });
        expectOk(read, "Read");
        expectBytes(read.data, blob.data, "The bytes");
      },
    },
    {
      id: "resource-name-header-other",
      level: "MAY",
      says: "A resource-name header that differs from the request's name is refused.",
      cites: "REv2: the header must equal the name",
      advice: "INVALID_ARGUMENT: a router in front may have used it.",
      run: async (p) => {
        const blob = await p.storeNew(30);
        const read = await p.read(p.readName(blob.digest), {
          metadata: { "build.bazel.remote.execution.v2.resource-name": "blobs/other/1" },
        });
        expectCode(read, [Code.INVALID_ARGUMENT], "Read");
      },
    },
  ],
);
