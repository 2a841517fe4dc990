// HPACK blocks of requests: the first call of a method spells its fields out, later ones are five octets.
//
// Invariant: the same order of insertions on both sides of a connection, so the index of an entry follows from how many
// were inserted after it. The table stays far below 4096 octets: a dozen methods. Source: RFC 7541.

const FIRST_DYNAMIC_INDEX = 62;

export class RequestHeaderEncoder {
  readonly #authority: string;
  readonly #schemeIndex: number;
  /** Field → the number of its insertion. */
  readonly #inserted = new Map<string, number>();
  readonly #ready = new Map<string, Buffer>();

  constructor(authority: string, scheme: "http" | "https") {
    this.#authority = authority;
    this.#schemeIndex = scheme === "http" ? 6 : 7;
  }

  encode(path: string): Buffer {
    const ready = this.#ready.get(path);
    if (ready !== undefined) return ready;
    const before = this.#inserted.size;
    const parts = [
      Buffer.of(0x83, 0x80 | this.#schemeIndex),
      this.#field(4, ":path", path),
      this.#field(1, ":authority", this.#authority),
      this.#field(0, "te", "trailers"),
      this.#field(31, "content-type", "application/grpc"),
    ];
    const block = Buffer.concat(parts);
    // A block that inserts may be sent once only, and moves the indexes in all that were ready.
    if (this.#inserted.size === before) this.#ready.set(path, block);
    else this.#ready.clear();
    return block;
  }

  #field(nameIndex: number, name: string, value: string): Buffer {
    const key = `${name}:${value}`;
    const known = this.#inserted.get(key);
    if (known !== undefined) return integer(0x80, 7, FIRST_DYNAMIC_INDEX + this.#inserted.size - 1 - known);
    this.#inserted.set(key, this.#inserted.size);
    const head = nameIndex === 0 ? Buffer.concat([Buffer.of(0x40), text(name)]) : integer(0x40, 6, nameIndex);
    return Buffer.concat([head, text(value)]);
  }
}

function text(value: string): Buffer {
  const octets = Buffer.from(value, "latin1");
  return Buffer.concat([integer(0, 7, octets.length), octets]);
}

function integer(pattern: number, prefixBits: number, value: number): Buffer {
  const max = 2 ** prefixBits - 1;
  if (value < max) return Buffer.of(pattern | value);
  const octets = [pattern | max];
  let rest = value - max;
  for (; rest >= 128; rest = rest >>> 7) octets.push((rest & 127) | 128);
  return Buffer.of(...octets, rest);
}
