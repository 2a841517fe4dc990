// Faults of native add-ons that are mended in a copy of their bytes before it is loaded (docs/decisions/0010).
//
// A mend replaces words by shorter ones in place, so no address in the file moves. It is refused where the file does not
// have the words exactly once: a new version of the package has to be read again before anybody relies on it.

export interface AddonMend {
  /** The add-on's file, as `require.resolve` takes it. */
  readonly file: string;
  readonly words: string;
  /** Shorter, in Latin letters; what is left of the old words becomes NUL. */
  readonly instead: string;
}

/** By the package that loads the add-on. */
const MENDS: Readonly<Record<string, AddonMend>> = {
  /*
   * When a page cannot be written, mdb_page_flush() formats these words into 100 octets: with six numbers, two of them
   * whatever lay on the stack, they take up to 136. What they overwrite ended the process in 1 of 25 runs.
   */
  lmdb: {
    // The Node-API build: the others are tied to the V8 of one Node release.
    file: `@lmdb/lmdb-linux-${process.arch}/node.napi.glibc.node`,
    words: "Attempting to write page at position %u, size %u, blocks %u, buffer sizes %i %i %i\0",
    instead: "Attempting to write page at position %u, size %u\0",
  },
};

export function addonMend(packageName: string): AddonMend | undefined {
  return MENDS[packageName];
}

/** Returns a mended copy. Throws when `bytes` do not have the words exactly once. */
export function mendAddon(bytes: Uint8Array, { file, words, instead }: AddonMend): Buffer {
  const copy = Buffer.from(bytes);
  const at = copy.indexOf(words, "latin1");
  if (at < 0 || copy.includes(words, at + 1, "latin1")) {
    throw new Error(`${file} does not have "${words}" exactly once: see whether its fault is still there`);
  }
  copy.fill(0, at, at + words.length);
  copy.write(instead, at, "latin1");
  return copy;
}
