// Response header fields in the order in which they go out.
//
// Invariant: names are lower case and no field is connection-specific (F-64); `:status` comes first where it occurs.
// Blocks that are used for many responses are made once and shared.

export type HeaderField = readonly [name: string, value: string];

export class HeaderBlock {
  readonly fields: readonly HeaderField[];
  /** Kept by the encoder. */
  encoded: Uint8Array | undefined = undefined;
  usedBefore = false;

  constructor(fields: readonly HeaderField[]) {
    this.fields = fields;
  }

  /** The size that SETTINGS_MAX_HEADER_LIST_SIZE limits: name + value + 32 octets for every field. */
  get listSizeBytes(): number {
    let sizeBytes = 0;
    for (const [name, value] of this.fields) sizeBytes += name.length + value.length + 32;
    return sizeBytes;
  }
}
