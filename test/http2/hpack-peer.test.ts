// T-31: our HPACK decoder and python3-hpack get the same blocks, right and damaged, and come to the same verdict, the same
// fields and the same size of the table.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { encodeHuffman } from "../../src/http2/huffman.ts";
import { integer } from "./frames.ts";

/** Fields in hexadecimal and octets in the table; null for a compression error. */
type Verdict = readonly [fields: readonly (readonly [string, string])[], tableBytes: number] | null;

let python: ChildProcess;
let answers: Interface;

beforeAll(() => {
  // Debian's, which sees Debian's packages.
  python = spawn("/usr/bin/python3", [join(import.meta.dirname, "hpack-peer.py")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  answers = createInterface(python.stdout!);
});

afterAll(async () => {
  python.stdin?.end();
  if (python.exitCode === null) await once(python, "exit");
});

async function theirs(blocks: readonly Buffer[]): Promise<Verdict[]> {
  python.stdin?.write(`${blocks.map((block) => block.toString("hex")).join(",")}\n`);
  const [line] = (await once(answers, "line")) as [string];
  return JSON.parse(line) as Verdict[];
}

function ours(blocks: readonly Buffer[]): Verdict[] {
  const decoder = new HpackDecoder();
  const verdicts: Verdict[] = [];
  const hex = (text: string): string => Buffer.from(text, "latin1").toString("hex");
  for (const block of blocks) {
    const fields: [string, string][] = [];
    try {
      decoder.decode(block, 0, block.length, { onField: (name, value) => void fields.push([hex(name), hex(value)]) });
    } catch {
      verdicts.push(null);
      break;
    }
    verdicts.push([fields, decoder.table.sizeBytes]);
  }
  return verdicts;
}

const text = fc.tuple(fc.uint8Array({ maxLength: 60 }), fc.boolean()).map(([octets, huffman]) => {
  const coded = huffman ? Buffer.from(encodeHuffman(octets)) : Buffer.from(octets);
  return Buffer.concat([integer(coded.length, 7, huffman ? 0x80 : 0), coded]);
});
/** Mostly of the static table, often of what a short session has stored, sometimes of nothing. */
const index = fc.oneof(
  fc.integer({ min: 1, max: 61 }),
  fc.integer({ min: 62, max: 70 }),
  fc.integer({ min: 0, max: 200 }),
);
const literal = fc
  .tuple(
    fc.constantFrom([0x40, 6] as const, [0x40, 6] as const, [0x00, 4] as const, [0x10, 4] as const),
    index,
    text,
    text,
  )
  .chain(([[pattern, bits], nameIndex, name, value]) =>
    fc
      .boolean()
      .map((named) =>
        Buffer.concat(named ? [integer(nameIndex, bits, pattern), value] : [Buffer.of(pattern), name, value]),
      ),
  );
const field = fc.oneof(
  { weight: 3, arbitrary: literal },
  { weight: 2, arbitrary: index.map((number) => integer(number, 7, 0x80)) },
);
const resize = fc
  .oneof(fc.integer({ min: 0, max: 300 }), fc.constantFrom(4096, 4097, 31, 32))
  .map((sizeBytes) => integer(sizeBytes, 5, 0x20));
const damage = fc.record({ at: fc.nat(), bits: fc.integer({ min: 1, max: 255 }), cut: fc.boolean() });
const block = fc
  .tuple(fc.array(resize, { maxLength: 2 }), fc.array(field, { maxLength: 8 }), fc.option(damage, { freq: 4 }))
  .map(([resizes, fields, wrong]) => {
    const octets = Buffer.concat([...resizes.slice(0, 2), ...fields]);
    if (wrong === null || octets.length === 0) return octets;
    const at = wrong.at % octets.length;
    if (wrong.cut) return octets.subarray(0, at);
    octets[at]! ^= wrong.bits;
    return octets;
  });

/** Size updates at the start of a block. Ours takes two (H-5), which RFC 7541 section 4.2 never needs more of; theirs any number. */
function sizeUpdates(octets: Buffer): number {
  let [at, count] = [0, 0];
  while (at < octets.length && octets[at]! >>> 5 === 1) {
    count++;
    const isLong = (octets[at++]! & 31) === 31;
    while (isLong && at < octets.length && octets[at]! >= 0x80) at++;
    if (isLong) at++;
  }
  return count;
}

it("agrees with python3-hpack about blocks, right and damaged", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(block, { minLength: 1, maxLength: 5 }), async (blocks) => {
      const tooMany = blocks.findIndex((octets) => sizeUpdates(octets) > 2);
      if (tooMany >= 0) expect(ours([blocks[tooMany]!])).toEqual([null]);
      const compared = tooMany < 0 ? blocks : blocks.slice(0, tooMany);
      if (compared.length > 0) expect(ours(compared)).toEqual(await theirs(compared));
    }),
    { numRuns: Number(process.env["LEDGE_HPACK_RUNS"] ?? "1500") },
  );
}, 60_000);
