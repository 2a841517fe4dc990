// GetTree: every directory below a root, in pages that fit a message.
//
// Invariant: a page token is a position in an order that depends on the content alone, so it needs no state here and
// stays valid for a retry, on another server too. Directories are sent as they are stored, never decoded and encoded
// again. Absent descendants are left out, identical ones are sent once.

import { createHash } from "node:crypto";
import type { BlobStore } from "../cas/blob-store.ts";
import { walkTree } from "../cas/tree-walk.ts";
import type { StreamCall, StreamHandler } from "../grpc/service.ts";
import { invalidArgument, notFound } from "../base/status.ts";
import { formatDigest, parseDigest, parseDigestFunction, type Digest } from "../digest/digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { GetTreeRequest, GetTreeResponse } from "../proto/remote_execution.ts";
import { fieldHeader } from "../proto/wire.ts";
import { decodeOnlyRequest } from "./decode.ts";
import { MAX_RESPONSE_BYTES } from "./message-limits.ts";

const TAG_DIRECTORIES = 0x0a;
/** Room for the token behind the directories of a page. */
const MAX_PAGE_BYTES = MAX_RESPONSE_BYTES - 256;
/** Tag and length of a directory in the page. */
const MAX_DIRECTORY_BYTES = MAX_PAGE_BYTES - 8;
/** A first page goes out early and the reader is never far behind; also what a page costs in memory. */
const SERVER_PAGE_BYTES = 1024 * 1024;

export function createGetTree(blobs: BlobStore): StreamHandler {
  return async (call) => {
    const request = await decodeOnlyRequest(GetTreeRequest, call);
    parseInstanceName(request.instanceName);
    const root = parseDigest(parseDigestFunction(request.digestFunction), request.rootDigest, "root_digest");
    if (request.pageSize < 0) throw invalidArgument(`page_size ${request.pageSize} is negative`);
    const start = request.pageToken === "" ? 0 : parsePageToken(root, request.pageToken);
    await sendPages(blobs, call, { root, start, maxDirectories: request.pageSize || Number.MAX_SAFE_INTEGER });
  };
}

async function sendPages(
  blobs: BlobStore,
  call: StreamCall,
  tree: { readonly root: Digest; readonly start: number; readonly maxDirectories: number },
): Promise<void> {
  let page: Uint8Array[] = [];
  let pageCount = 0;
  let pageBytes = 0;
  const walk = walkTree(blobs, tree.root, { maxDirectoryBytes: MAX_DIRECTORY_BYTES, signal: call.signal });
  for await (const { position, digest, bytes } of walk) {
    if (bytes === undefined) {
      if (position === 0) throw notFound(`root directory "${formatDigest(digest)}" is not in the CAS`);
      continue;
    }
    if (position < tree.start) continue;
    const header = fieldHeader(TAG_DIRECTORIES, bytes.length);
    const entryBytes = header.length + bytes.length;
    const isFull = pageCount >= tree.maxDirectories || pageBytes + entryBytes > SERVER_PAGE_BYTES;
    if (pageCount > 0 && isFull) {
      page.push(GetTreeResponse.encode({ nextPageToken: formatPageToken(tree.root, position) }));
      await call.write(page);
      page = [];
      pageCount = 0;
      pageBytes = 0;
    }
    page.push(header, bytes);
    pageCount++;
    pageBytes += entryBytes;
  }
  await call.write(page);
}

/** The position and a check that binds it to the tree: a token of another tree, or a made-up one, is refused. */
function formatPageToken(root: Digest, position: number): string {
  return `${position}-${checkOf(root, position)}`;
}

function parsePageToken(root: Digest, token: string): number {
  const match = /^([0-9]{1,9})-([0-9a-f]{16})$/.exec(token);
  const position = Number(match?.[1] ?? NaN);
  if (match === null || match[2] !== checkOf(root, position)) {
    throw invalidArgument(
      `page_token "${token.slice(0, 100)}" is not a next_page_token of the tree "${formatDigest(root)}": ` +
        "begin again without a token",
    );
  }
  return position;
}

function checkOf(root: Digest, position: number): string {
  return createHash("sha256")
    .update(`GetTree ${formatDigest(root)} ${position}`)
    .digest("hex")
    .slice(0, 16);
}
