// Frees an executable made of Node from libatomic, which a minimal Debian does not have.
//
// Of that library Node takes one function, __atomic_compare_exchange(), and calls it for 8 octets only. Those few
// instructions are put behind the code (the rest of its last page is free), the slot of the function gets their address,
// and the library and its symbol version leave the dynamic section. Whatever is unlike that is an error that names it.
// Only for x86-64. Sources: System V gABI chapter 5 (dynamic section), LSB 5 chapter 10 (symbol versions), psABI 4.4.

const LIBRARY = "libatomic.so.1";
const FUNCTION = "__atomic_compare_exchange";

/** bool (size_t size, void *object, void *expected, void *desired, int, int), assembled from the text beside it. */
const CODE = Buffer.from(
  [
    "4883ff08", // cmp rdi,8
    "7519", // jne other
    "488b02", // mov rax,[rdx]
    "488b09", // mov rcx,[rcx]
    "f0480fb10e", // lock cmpxchg [rsi],rcx
    "7406", // je swapped
    "488902", // mov [rdx],rax
    "31c0", // xor eax,eax
    "c3", // ret
    "b801000000", // swapped: mov eax,1
    "c3", // ret
    "0f0b", // other: ud2
  ].join(""),
  "hex",
);

const EM_X86_64 = 62;
const SegmentType = { Load: 1, Dynamic: 2 } as const;
const EXECUTABLE_SEGMENT = 1;
const SEGMENT_BYTES = 56;
const PAGE_BYTES = 4096;
const Tag = {
  Null: 0n,
  Needed: 1n,
  PltRelocationBytes: 2n,
  Strings: 5n,
  Symbols: 6n,
  PltRelocations: 23n,
  Flags: 30n,
  SymbolVersions: 0x6fff_fff0n,
  NeededVersions: 0x6fff_fffen,
  NeededVersionCount: 0x6fff_ffffn,
} as const;
const BIND_NOW = 8n;
const RELOCATION_BYTES = 24;
const SYMBOL_BYTES = 24;
const Relocation = { JumpSlot: 7n, Relative: 8n } as const;

/** Changes `elf` in place. Returns false when it does not need the library, or is for another processor. */
export function freeFromLibatomic(elf: Buffer): boolean {
  const file = new ElfFile(elf);
  if (file.machine !== EM_X86_64 || !file.neededLibraries().includes(LIBRARY)) return false;
  const slot = file.functionSlot(FUNCTION);
  assertCallsAreOf8(file, slot.address);
  const address = file.appendCode(CODE);
  file.setSlot(slot, address);
  file.removeNeededVersions(LIBRARY);
  file.removeNeededLibrary(LIBRARY);
  return true;
}

/** Every call of the function comes through a jump of the procedure linkage table, and has `mov edi,8` before it. */
function assertCallsAreOf8(file: ElfFile, slotAddress: number): void {
  const { bytes, address: base } = file.code();
  const stubs = callers(bytes, { opcode: [0xff, 0x25], base, target: slotAddress });
  if (stubs.length !== 1) throw unexpected(`${stubs.length} jumps to ${FUNCTION}, not one`);
  const target = base + (stubs[0] ?? 0);
  const calls = callers(bytes, { opcode: [0xe8], base, target });
  if (calls.length === 0) throw unexpected(`no call of ${FUNCTION}`);
  const MOV_EDI_8 = Buffer.from("bf08000000", "hex");
  for (const call of calls) {
    if (!bytes.subarray(call - 48, call).includes(MOV_EDI_8)) {
      throw unexpected(`a call of ${FUNCTION} at 0x${(base + call).toString(16)} that is not for 8 octets`);
    }
  }
}

/** Offsets of the instructions `opcode` whose 32-bit displacement leads to `target`. */
function callers(
  code: Buffer,
  { opcode, base, target }: { readonly opcode: readonly number[]; readonly base: number; readonly target: number },
): number[] {
  const start = Buffer.from(opcode);
  const length = opcode.length + 4;
  const found: number[] = [];
  for (let at = code.indexOf(start); at >= 0 && at + length <= code.length; at = code.indexOf(start, at + 1)) {
    if (base + at + length + code.readInt32LE(at + opcode.length) === target) found.push(at);
  }
  return found;
}

interface Slot {
  /** Of the relocation that fills it. */
  readonly relocationAt: number;
  /** Where it lies in memory. */
  readonly address: number;
}

/** A 64-bit little-endian ELF file; offsets are positions in it, addresses those of the running program. */
class ElfFile {
  readonly #elf: Buffer;
  readonly #segmentsAt: number;
  readonly #segmentCount: number;

  constructor(elf: Buffer) {
    const ELF_64_LITTLE = "7f454c460201";
    if (elf.toString("hex", 0, 6) !== ELF_64_LITTLE) throw unexpected("not a 64-bit little-endian ELF file");
    this.#elf = elf;
    this.#segmentsAt = this.#word(32);
    this.#segmentCount = elf.readUInt16LE(56);
  }

  get machine(): number {
    return this.#elf.readUInt16LE(18);
  }

  neededLibraries(): string[] {
    return this.#dynamicEntries()
      .filter(({ tag }) => tag === Tag.Needed)
      .map(({ value }) => this.#string(Number(value)));
  }

  code(): { readonly bytes: Buffer; readonly address: number } {
    const { offset, size, address } = this.#codeSegment();
    return { bytes: this.#elf.subarray(offset, offset + size), address };
  }

  /** The slot that the loader fills with the address of `name`, which must be the only symbol of its version. */
  functionSlot(name: string): Slot {
    if ((this.#dynamic(Tag.Flags) & BIND_NOW) === 0n) throw unexpected("functions are looked up when first called");
    const start = this.#offsetOf(this.#dynamic(Tag.PltRelocations));
    const end = start + Number(this.#dynamic(Tag.PltRelocationBytes));
    const symbols = this.#offsetOf(this.#dynamic(Tag.Symbols));
    for (let at = start; at < end; at += RELOCATION_BYTES) {
      const info = this.#elf.readBigUInt64LE(at + 8);
      const symbol = symbols + Number(info >> 32n) * SYMBOL_BYTES;
      if (this.#string(this.#elf.readUInt32LE(symbol)) !== name) continue;
      if ((info & 0xffff_ffffn) !== Relocation.JumpSlot)
        throw unexpected(`${name} is more than a function that is called`);
      return { relocationAt: at, address: this.#word(at) };
    }
    throw unexpected(`${LIBRARY} is needed, and not for ${name}`);
  }

  /** Fills the slot with an address of this file. The symbol stays in the table, and nothing refers to it. */
  setSlot({ relocationAt }: Slot, address: number): void {
    const symbol = Number(this.#elf.readBigUInt64LE(relocationAt + 8) >> 32n);
    const versions = this.#offsetOf(this.#dynamic(Tag.SymbolVersions));
    const GLOBAL = 1;
    this.#elf.writeUInt16LE(GLOBAL, versions + symbol * 2);
    this.#elf.writeBigUInt64LE(Relocation.Relative, relocationAt + 8);
    this.#elf.writeBigUInt64LE(BigInt(address), relocationAt + 16);
  }

  /** Puts `code` behind the program's own, in the same page; returns its address. */
  appendCode(code: Buffer): number {
    const { headerAt, offset, size, address } = this.#codeSegment();
    const at = Math.ceil((offset + size) / 16) * 16;
    const end = at + code.length;
    const pageEnd = Math.ceil((offset + size) / PAGE_BYTES) * PAGE_BYTES;
    const rest = this.#elf.subarray(offset + size, pageEnd);
    if (end > pageEnd || rest.some((octet) => octet !== 0)) throw unexpected("no room behind the code");
    code.copy(this.#elf, at);
    for (const field of [32, 40]) this.#elf.writeBigUInt64LE(BigInt(end - offset), headerAt + field);
    return address + at - offset;
  }

  removeNeededLibrary(name: string): void {
    const entries = this.#dynamicEntries();
    const kept = entries.filter(({ tag, value }) => tag !== Tag.Needed || this.#string(Number(value)) !== name);
    const start = entries[0]?.at ?? 0;
    for (const [index, { tag, value }] of [...kept, { tag: Tag.Null, value: 0n }].entries()) {
      this.#elf.writeBigUInt64LE(tag, start + index * 16);
      this.#elf.writeBigUInt64LE(value, start + index * 16 + 8);
    }
  }

  /** Takes the library out of the list of versions that others must bring. */
  removeNeededVersions(library: string): void {
    const entries = this.#dynamicEntries();
    const list = entries.find(({ tag }) => tag === Tag.NeededVersions);
    const count = entries.find(({ tag }) => tag === Tag.NeededVersionCount);
    if (list === undefined || count === undefined) return;
    let before: number | undefined;
    let at = this.#offsetOf(list.value);
    for (let index = 0n; index < count.value; index++) {
      const next = this.#elf.readUInt32LE(at + 12);
      if (this.#string(this.#elf.readUInt32LE(at + 4)) === library) {
        if (before === undefined) this.#elf.writeBigUInt64LE(list.value + BigInt(next), list.at + 8);
        else this.#elf.writeUInt32LE(next === 0 ? 0 : at + next - before, before + 12);
        this.#elf.writeBigUInt64LE(count.value - 1n, count.at + 8);
        return;
      }
      before = at;
      at += next;
    }
  }

  #word(at: number): number {
    return Number(this.#elf.readBigUInt64LE(at));
  }

  *#segments(): Iterable<{ headerAt: number; type: number; offset: number; address: number; size: number }> {
    for (let index = 0; index < this.#segmentCount; index++) {
      const headerAt = this.#segmentsAt + index * SEGMENT_BYTES;
      const type = this.#elf.readUInt32LE(headerAt);
      yield {
        headerAt,
        type,
        offset: this.#word(headerAt + 8),
        address: this.#word(headerAt + 16),
        size: this.#word(headerAt + 32),
      };
    }
  }

  #codeSegment(): { headerAt: number; offset: number; address: number; size: number } {
    for (const segment of this.#segments()) {
      const flags = this.#elf.readUInt32LE(segment.headerAt + 4);
      if (segment.type === SegmentType.Load && (flags & EXECUTABLE_SEGMENT) !== 0) return segment;
    }
    throw unexpected("no code");
  }

  #offsetOf(address: bigint): number {
    for (const { type, address: start, offset, size } of this.#segments()) {
      const distance = Number(address) - start;
      if (type === SegmentType.Load && distance >= 0 && distance < size) return offset + distance;
    }
    throw unexpected(`address 0x${address.toString(16)} is not in the file`);
  }

  #dynamicEntries(): { at: number; tag: bigint; value: bigint }[] {
    const segment = [...this.#segments()].find(({ type }) => type === SegmentType.Dynamic);
    if (segment === undefined) return [];
    const entries: { at: number; tag: bigint; value: bigint }[] = [];
    for (let { offset: at } = segment; ; at += 16) {
      const tag = this.#elf.readBigUInt64LE(at);
      if (tag === Tag.Null) return entries;
      entries.push({ at, tag, value: this.#elf.readBigUInt64LE(at + 8) });
    }
  }

  #dynamic(tag: bigint): bigint {
    const entry = this.#dynamicEntries().find((candidate) => candidate.tag === tag);
    if (entry === undefined) throw unexpected(`the dynamic section has no entry 0x${tag.toString(16)}`);
    return entry.value;
  }

  #string(index: number): string {
    const start = this.#offsetOf(this.#dynamic(Tag.Strings)) + index;
    return this.#elf.toString("latin1", start, this.#elf.indexOf(0, start));
  }
}

function unexpected(what: string): Error {
  return new Error(`Cannot free the executable from ${LIBRARY}: ${what}. Has Node changed? See deploy/own-atomic.ts`);
}
