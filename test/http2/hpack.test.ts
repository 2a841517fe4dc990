// HPACK against the vectors of RFC 7541 and against a naive encoder and decoder.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { HeaderBlock } from "../../src/http2/header-block.ts";
import { encodeBlock, encodeFields, putInteger } from "../../src/http2/hpack-encoder.ts";
import { STATIC_TABLE } from "../../src/http2/hpack-static-table.ts";
import { decodeHuffman, encodeHuffman, huffmanCode } from "../../src/http2/huffman.ts";
import { integer } from "./frames.ts";

type Fields = [name: string, value: string][];

const FIELD_OCTET = fc.integer({ min: 0x20, max: 0xff }).map((octet) => String.fromCharCode(octet));
const FIELD_NAME = fc.stringMatching(/^[a-z][a-z0-9-]{0,40}$/);

function decode(decoder: HpackDecoder, hex: string | Uint8Array): Fields {
  const octets = typeof hex === "string" ? Buffer.from(hex, "hex") : hex;
  const fields: Fields = [];
  decoder.decode(octets, 0, octets.length, { onField: (name, value) => void fields.push([name, value]) });
  return fields;
}

const HOST = ":authority: www.example.com";
const GET = [":method: GET", ":scheme: http", ":path: /"];

/** RFC 7541 appendix C: each group shares a decoder; octets, fields, table size afterwards. */
const GROUPS: readonly (readonly (readonly [string, readonly string[], number])[])[] = [
  [["400a637573746f6d2d6b65790d637573746f6d2d686561646572", ["custom-key: custom-header"], 55]],
  [["040c2f73616d706c652f70617468", [":path: /sample/path"], 0]],
  [["100870617373776f726406736563726574", ["password: secret"], 0]],
  [["82", [":method: GET"], 0]],
  [
    ["828684410f7777772e6578616d706c652e636f6d", [...GET, HOST], 57],
    ["828684be58086e6f2d6361636865", [...GET, HOST, "cache-control: no-cache"], 110],
    [
      "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
      [":method: GET", ":scheme: https", ":path: /index.html", HOST, "custom-key: custom-value"],
      164,
    ],
  ],
  [
    ["828684418cf1e3c2e5f23a6ba0ab90f4ff", [...GET, HOST], 57],
    ["828684be5886a8eb10649cbf", [...GET, HOST, "cache-control: no-cache"], 110],
    [
      "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
      [":method: GET", ":scheme: https", ":path: /index.html", HOST, "custom-key: custom-value"],
      164,
    ],
  ],
  [
    [
      "3fe1014803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
      [
        ":status: 302",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
      ],
      222,
    ],
    [
      "4803333037c1c0bf",
      [
        ":status: 307",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
      ],
      222,
    ],
    [
      "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
      [
        ":status: 200",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        "location: https://www.example.com",
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
      ],
      215,
    ],
  ],
  [
    [
      "3fe101488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
      [
        ":status: 302",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
      ],
      222,
    ],
    [
      "4883640effc1c0bf",
      [
        ":status: 307",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
      ],
      222,
    ],
    [
      "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
      [
        ":status: 200",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        "location: https://www.example.com",
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
      ],
      215,
    ],
  ],
];

const INVALID: readonly (readonly [string, string])[] = [
  ["index 0 (H-1)", "80"],
  ["an index beyond the table (H-1)", "c6"],
  ["a name index beyond the table (H-1)", "7f0700"],
  ["an integer with six continuation octets (H-2)", "ff808080808000"],
  ["an integer above 2^28 (H-2)", "ffffffffff7f"],
  ["an integer that never ends (H-2)", "ff8080808080"],
  ["a string longer than the block (H-3)", "000aff"],
  ["a string of 256 MiB (H-3, A-13)", "007f80ffff7f"],
  ["Huffman padding longer than 7 bits (H-4)", "0085f2b24a84ff8449509fff"],
  ["Huffman padding of zeros (H-4)", "0085f2b24a84ff83495090"],
  ["EOS inside a string (H-4)", "0085f2b24a84ff874951fffffffa7f"],
  ["a size update above our setting (H-5)", "3fe21f"],
  ["a size update behind a field (H-5)", "8221"],
  ["three size updates (H-5, A-15)", "202020"],
  ["a field that is cut (H-6)", "40"],
  ["a value that is cut (H-6)", "4001612a"],
];

/** The RFC's codes, a few of every length. */
const CODES: readonly (readonly [number, number, number])[] = [
  [0, 0x1ff8, 13],
  [10, 0x3ffffffc, 30],
  [32, 0x14, 6],
  [33, 0x3f8, 10],
  [38, 0xf8, 8],
  [48, 0, 5],
  [64, 0x1ffa, 13],
  [92, 0x7fff0, 19],
  [123, 0x7ffe, 15],
  [127, 0xffffffc, 28],
  [128, 0xfffe6, 20],
  [130, 0xfffe7, 20],
  [199, 0x1ffffec, 25],
  [205, 0x3ffffe5, 26],
  [207, 0x1ffffed, 25],
  [249, 0xffffffe, 28],
  [255, 0x3ffffee, 26],
  [256, 0x3fffffff, 30],
];

describe("HPACK", () => {
  it("has the RFC's static table", () => {
    expect(STATIC_TABLE).toHaveLength(61);
    expect([STATIC_TABLE[0], STATIC_TABLE[15], STATIC_TABLE[60]]).toEqual([
      [":authority", ""],
      ["accept-encoding", "gzip, deflate"],
      ["www-authenticate", ""],
    ]);
  });

  it.each(GROUPS.map((group, index) => [index, group] as const))(
    "decodes the RFC's examples, group %i",
    (_index, group) => {
      const decoder = new HpackDecoder();
      for (const [hex, fields, tableBytes] of group) {
        expect(decode(decoder, hex).map(([name, value]) => `${name}: ${value}`)).toEqual(fields);
        expect(decoder.table.sizeBytes).toBe(tableBytes);
      }
    },
  );

  it.each(INVALID)("refuses %s", (_name, hex) => {
    expect(() => decode(new HpackDecoder(), hex)).toThrow(expect.objectContaining({ code: 9 }) as Error);
  });

  it("takes a size update up to our setting, and two of them", () => {
    expect(decode(new HpackDecoder(), "3fe11f82")).toEqual([[":method", "GET"]]);
    expect(decode(new HpackDecoder(), "203fe11f82")).toEqual([[":method", "GET"]]);
  });

  it("codes integers as the RFC's examples do", () => {
    const coded = [
      [10, 5],
      [1337, 5],
      [42, 8],
    ].map(([value = 0, bits = 0]) => {
      const out = Buffer.alloc(8);
      return out.toString("hex", 0, putInteger(out, 0, 0, { prefixBits: bits, value }));
    });
    expect(coded).toEqual(["0a", "1f9a0a", "2a"]);
  });

  it.each(CODES)("has the RFC's Huffman code for %i", (symbol, code, bits) => {
    expect(huffmanCode(symbol)).toEqual({ code, bits });
  });

  it("encodes responses to the octets of the requirements (H-20, section 2.5)", () => {
    expect(
      Buffer.from(
        encodeFields([
          [":status", "200"],
          ["content-type", "application/grpc"],
        ]),
      ).toString("hex"),
    ).toBe("880f10106170706c69636174696f6e2f67727063");
    expect(Buffer.from(encodeFields([["grpc-status", "0"]])).toString("hex")).toBe("000b677270632d7374617475730130");
    expect(encodeFields([["set-cookie", "a"]])[0]).toBe(0x1f);
  });

  it("encodes what the decoder reads back, whatever the fields, and once or again", () => {
    const names = fc.oneof(fc.constantFrom(":status", "content-type", "grpc-status", "set-cookie"), FIELD_NAME);
    const value = fc.oneof(fc.constantFrom("200", "404", ""), fc.string({ maxLength: 400, unit: FIELD_OCTET }));
    fc.assert(
      fc.property(fc.array(fc.tuple(names, value), { maxLength: 40 }), (fields) => {
        const block = new HeaderBlock(fields);
        for (let use = 0; use < 3; use++) {
          expect(decode(new HpackDecoder(), Buffer.from(encodeBlock(block)).toString("hex"))).toEqual(fields);
        }
      }),
    );
  });

  it("Huffman-decodes what it encodes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (octets) => {
        const encoded = encodeHuffman(octets);
        const out = new Uint8Array(encoded.length * 2);
        const written = decodeHuffman(encoded, 0, encoded.length, out);
        expect(Buffer.from(out.subarray(0, written)).equals(octets)).toBe(true);
      }),
    );
  });

  it("decides about Huffman strings as a decoder that goes bit by bit does", () => {
    const codes = new Map(
      Array.from({ length: 257 }, (_, symbol) => {
        const { code, bits } = huffmanCode(symbol);
        return [code.toString(2).padStart(bits, "0"), symbol] as const;
      }),
    );
    const naive = (octets: Uint8Array): number[] | undefined => {
      const out: number[] = [];
      let code = "";
      for (const octet of octets) {
        for (const bit of octet.toString(2).padStart(8, "0")) {
          code += bit;
          const symbol = codes.get(code);
          if (symbol === undefined) continue;
          if (symbol === 256) return undefined;
          out.push(symbol);
          code = "";
        }
      }
      return code.length > 7 || code.includes("0") ? undefined : out;
    };
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 24 }), fc.boolean(), (octets, ones) => {
        const input = ones ? Uint8Array.from([...octets, 0xff]) : octets;
        const out = new Uint8Array(input.length * 2);
        const written = decodeHuffman(input, 0, input.length, out);
        expect(written === -1 ? undefined : [...out.subarray(0, written)]).toEqual(naive(input));
      }),
      { numRuns: 2000 },
    );
  });

  // T-32: an encoder of the tests' own, with a naive table, against the decoder.
  it("follows an encoder through insertions, evictions and size updates", () => {
    const name = fc.constantFrom("a", "bb", "x-long-name-of-a-field", ":path");
    const value = fc.string({ unit: fc.constantFrom("x", "y", "0"), maxLength: 900 });
    const step = fc.record({
      name,
      value,
      kind: fc.constantFrom("store", "plain", "never", "again", "resize"),
      resizeTo: fc.integer({ min: 0, max: 4096 }),
      huffman: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const decoder = new HpackDecoder();
        let table: Fields = [];
        let maxBytes = 4096;
        const bytesOf = (entries: Fields): number => entries.reduce((sum, [a, b]) => sum + a.length + b.length + 32, 0);
        const evict = (): void => {
          while (bytesOf(table) > maxBytes) table = table.slice(0, -1);
        };
        for (const { name: fieldName, value: fieldValue, kind, resizeTo, huffman } of steps) {
          const text = (plain: string): Buffer => {
            const octets = huffman ? encodeHuffman(Buffer.from(plain)) : Buffer.from(plain);
            return Buffer.concat([integer(octets.length, 7, huffman ? 0x80 : 0), octets]);
          };
          if (kind === "resize") {
            maxBytes = resizeTo;
            evict();
            expect(decode(decoder, Buffer.concat([integer(resizeTo, 5, 0x20), Buffer.from([0x82])]))).toEqual([
              [":method", "GET"],
            ]);
          } else if (kind === "again" && table.length > 0) {
            const index = resizeTo % table.length;
            expect(decode(decoder, integer(62 + index, 7, 0x80))).toEqual([table[index]]);
          } else {
            const nameIndex = table.findIndex(([known]) => known === fieldName);
            const [first, bits] = kind === "store" ? [0x40, 6] : kind === "never" ? [0x10, 4] : [0, 4];
            const head =
              nameIndex === -1
                ? Buffer.concat([integer(0, bits, first), text(fieldName)])
                : integer(62 + nameIndex, bits, first);
            expect(decode(decoder, Buffer.concat([head, text(fieldValue)]))).toEqual([[fieldName, fieldValue]]);
            if (kind === "store") {
              table = [[fieldName, fieldValue], ...table];
              evict();
            }
          }
          expect([decoder.table.count, decoder.table.sizeBytes]).toEqual([table.length, bytesOf(table)]);
        }
      }),
      { numRuns: 200 },
    );
  });

  // one octet that stands for 4 KiB, sixty thousand times.
  it("walks a block of references in time that its octets allow", () => {
    const decoder = new HpackDecoder();
    decode(decoder, Buffer.concat([Buffer.from([0x40, 1, 0x61]), integer(4000, 7, 0), Buffer.alloc(4000, "v")]));
    let fields = 0;
    const references = Buffer.alloc(60_000, 0xbe);
    decoder.decode(references, 0, references.length, { onField: () => void fields++ });
    expect(fields).toBe(60_000);
  });
});
