// The incremental reader of Trees against protobufjs, which reads the whole message: the same files, however it is cut.

import { randomInt } from "node:crypto";
import { expect, test } from "vitest";
import { StatusError } from "../../src/base/status.ts";
import { TreeDigests } from "../../src/action-cache/tree-digests.ts";
import { DigestBatch } from "../../src/digest/digest-batch.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { ProtoError } from "../../src/proto/wire.ts";
import { encodeIndependently } from "../services/independent-encoding.ts";
import { sample } from "../services/sample-blobs.ts";

const seed = randomInt(2 ** 31);
let state = seed;
function random(below: number): number {
  state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
  return (state >>> 8) % below;
}

function randomDirectory(hashes: string[]): object {
  const files = Array.from({ length: random(6) }, (_, i) => {
    const { digest } = sample(random(5) === 0 ? "" : `content ${random(1000)}`);
    if (digest.sizeBytes > 0) hashes.push(digest.hash);
    const nodeProperties = random(3) === 0 ? { mtime: { seconds: random(1e6) }, unixMode: { value: 420 } } : undefined;
    return { name: `${i}-${"n".repeat(random(300))}`, digest, isExecutable: random(2) === 0, nodeProperties };
  });
  const directories = Array.from({ length: random(4) }, (_, i) => ({ name: `d${i}`, digest: sample(`d${i}`).digest }));
  const symlinks = Array.from({ length: random(3) }, (_, i) => ({ name: `s${i}`, target: "t".repeat(random(200)) }));
  return { files, directories, symlinks };
}

function read(bytes: Uint8Array): string[] {
  const batch = new DigestBatch();
  batch.clear(DigestFunction.SHA256);
  const reader = new TreeDigests(DigestFunction.SHA256, batch);
  for (let at = 0; at < bytes.length;) {
    const chunk = new Uint8Array(bytes.subarray(at, at + 1 + random(bytes.length)));
    reader.push(chunk);
    at += chunk.length;
    chunk.fill(0xff); // borrowed only until push has returned
  }
  reader.finish();
  return Array.from({ length: batch.count }, (_, i) => batch.digestAt(i).hash);
}

test("push() finds the digests of all files, however the bytes are cut", () => {
  console.log(`seed ${seed}`);
  for (let round = 0; round < 300; round++) {
    const hashes: string[] = [];
    const root = random(10) === 0 ? undefined : randomDirectory(hashes);
    const children = Array.from({ length: random(5) }, () => randomDirectory(hashes));
    const tree = encodeIndependently("Tree", { root, children });
    for (let cut = 0; cut < 5; cut++) expect(read(tree), `seed ${seed} round ${round}`).toEqual(hashes);
  }
});

test("damaged bytes are refused or read, never anything else", () => {
  const tree = encodeIndependently("Tree", { root: randomDirectory([]), children: [randomDirectory([])] });
  for (let round = 0; round < 3000; round++) {
    const bytes = new Uint8Array(tree.subarray(0, random(4) === 0 ? random(tree.length + 1) : tree.length));
    for (let i = random(4); i > 0 && bytes.length > 0; i--) bytes[random(bytes.length)] = random(256);
    try {
      read(bytes);
    } catch (error) {
      const isExpected = error instanceof StatusError || error instanceof ProtoError;
      expect(isExpected, `seed ${seed} round ${round}: ${String(error)}`).toBe(true);
    }
  }
});
