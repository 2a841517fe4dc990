// Asks a server that was started on what a power failure left: is everything there that was acknowledged, and right?
//
// Over gRPC, as clients do. What it says is present must be readable; a result must name blobs that are; and it goes on to
// take blobs and to keep them.

import { randomBytes } from "node:crypto";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction, formatDigest, type Digest } from "../../src/digest/digest.ts";
import { Code } from "../../src/base/status.ts";
import {
  ActionCache,
  BatchReadBlobsRequest,
  BatchReadBlobsResponse,
  BatchUpdateBlobsRequest,
  BatchUpdateBlobsResponse,
  ContentAddressableStorage as Cas,
  FindMissingBlobsRequest,
  FindMissingBlobsResponse,
  GetActionResultRequest,
} from "../../src/proto/remote_execution.ts";
import { RemoteClient } from "../server/remote-client.ts";
import { same } from "./blob-store-contract.ts";
import { ACTIONS, BLOBS_PER_ACTION, blobOf, functionOf, resultKey, resultOf } from "./torn-writes-blobs.ts";

/** One sentence for each thing that is wrong; `said` is what the load had said (torn-writes-load.ts). */
export async function askAfterCrash(address: string, seed: string, said: readonly string[]): Promise<string[]> {
  using client = new RemoteClient(address);
  const mayBeEvicted = new Set(said.slice(0, Math.max(0, said.indexOf("evicting"))));
  const problems: string[] = [];
  for (let action = 0; action < ACTIONS; action++) {
    const fn = functionOf(action);
    const numbers = Array.from({ length: BLOBS_PER_ACTION }, (_, index) => action * BLOBS_PER_ACTION + index);
    const digests = numbers.map((number) => blobOf(seed, number).digest);
    const result = await getResult(client, seed, action);
    const missing = await findMissing(client, fn, digests);
    const read = await readBlobs(client, fn, digests);
    for (const [index, number] of numbers.entries()) {
      const { digest, data } = blobOf(seed, number);
      const name = `blob ${number} (${formatDigest(digest)})`;
      const bytes = read[index];
      const isRight = bytes !== undefined && same(bytes, data);
      if (bytes !== undefined && !isRight) problems.push(`${name} has wrong bytes`);
      if (!missing.has(digest.hash) && !isRight) problems.push(`${name} is not missing and cannot be read`);
      if (result !== undefined && !isRight) problems.push(`${name} is not there, the result that names it is`);
      const line = `blob ${number}`;
      if (!isRight && said.includes(line) && !mayBeEvicted.has(line))
        problems.push(`${name} was acknowledged and is lost`);
    }
    problems.push(...resultProblems({ seed, action, said, mayBeEvicted, result }));
  }
  problems.push(...(await storeMore(client)));
  return problems;
}

function resultProblems(options: {
  readonly seed: string;
  readonly action: number;
  readonly said: readonly string[];
  readonly mayBeEvicted: ReadonlySet<string>;
  readonly result: Uint8Array | undefined;
}): string[] {
  const { seed, action, said, mayBeEvicted, result } = options;
  const acknowledged = [0, 1].filter((version) => said.includes(`result ${action} ${version}`));
  const least = acknowledged.at(-1);
  if (result === undefined) {
    const isLost = least !== undefined && !mayBeEvicted.has(`result ${action} ${least}`);
    return isLost ? [`result ${action} was acknowledged and is lost`] : [];
  }
  const version = [0, 1].find((candidate) => same(result, resultOf(seed, action, candidate)));
  if (version === undefined) return [`result ${action} is wrong`];
  return version < (least ?? 0) ? [`result ${action} is an older one than was acknowledged`] : [];
}

async function getResult(client: RemoteClient, seed: string, action: number): Promise<Uint8Array | undefined> {
  const { fn, hash } = resultKey(seed, action);
  const request = { actionDigest: { hash, sizeBytes: 100 }, digestFunction: fn };
  try {
    return await client.unary(ActionCache.methods.GetActionResult.path, GetActionResultRequest.encode(request));
  } catch (error) {
    if ((error as { code?: unknown }).code === Code.NOT_FOUND) return undefined;
    throw error;
  }
}

async function findMissing(client: RemoteClient, fn: DigestFunction, digests: readonly Digest[]): Promise<Set<string>> {
  const request = FindMissingBlobsRequest.encode({ blobDigests: digests, digestFunction: fn });
  const answer = FindMissingBlobsResponse.decode(await client.unary(Cas.methods.FindMissingBlobs.path, request));
  return new Set(answer.missingBlobDigests.map(({ hash }) => hash));
}

/** In the order of `digests`; undefined for those that were refused. */
async function readBlobs(
  client: RemoteClient,
  fn: DigestFunction,
  digests: readonly Digest[],
): Promise<(Uint8Array | undefined)[]> {
  const request = BatchReadBlobsRequest.encode({ digests, digestFunction: fn });
  const answer = BatchReadBlobsResponse.decode(await client.unary(Cas.methods.BatchReadBlobs.path, request));
  return digests.map(({ hash }) => {
    const response = answer.responses.find(({ digest }) => digest?.hash === hash);
    return (response?.status?.code ?? Code.OK) === Code.OK ? response?.data : undefined;
  });
}

/** A list of free pages that is damaged shows when something is written. */
async function storeMore(client: RemoteClient): Promise<string[]> {
  const fn = DigestFunction.SHA256;
  const more = [50, 5000, 100_000]
    .map((size) => randomBytes(size))
    .map((data) => ({ digest: digestOf(fn, data), data }));
  const request = BatchUpdateBlobsRequest.encode({ requests: more, digestFunction: fn });
  const answer = BatchUpdateBlobsResponse.decode(await client.unary(Cas.methods.BatchUpdateBlobs.path, request));
  const refused = answer.responses.filter(({ status }) => (status?.code ?? Code.OK) !== Code.OK);
  const read = await readBlobs(
    client,
    fn,
    more.map(({ digest }) => digest),
  );
  return [
    ...refused.map(({ status }) => `a new blob is refused: ${status?.message}`),
    ...more.flatMap(({ data }, index) => (same(read[index], data) ? [] : ["a new blob cannot be read"])),
  ];
}
