// The validated header fields of one request.
//
// Invariant: the pseudo-headers are present and well-formed, names are lower case (section 1.6 of the requirements).
// Fields stay in one flat array: requests have a dozen, and a scan beats building a map that nobody asks.

export interface PseudoHeaders {
  readonly method: string;
  readonly scheme: string;
  readonly path: string;
  /** Empty when the request has neither `:authority` nor `host` (G-5). */
  readonly authority: string;
}

export class RequestHeaders {
  readonly method: string;
  readonly scheme: string;
  readonly path: string;
  readonly authority: string;
  /** name, value, name, value, … in order of arrival, without pseudo-headers. */
  readonly #flat: readonly string[];

  constructor(pseudo: PseudoHeaders, flat: readonly string[]) {
    this.method = pseudo.method;
    this.scheme = pseudo.scheme;
    this.path = pseudo.path;
    this.authority = pseudo.authority;
    this.#flat = flat;
  }

  /** The value of `name` (lower case); several are joined with ",". */
  get(name: string): string | undefined {
    let found: string | undefined;
    const flat = this.#flat;
    for (let index = 0; index < flat.length; index += 2) {
      if (flat[index] === name) found = found === undefined ? flat[index + 1] : `${found},${flat[index + 1]}`;
    }
    return found;
  }

  /** Fields in order of arrival, to be walked once by who needs many of them. */
  get fieldCount(): number {
    return this.#flat.length / 2;
  }

  nameAt(index: number): string {
    return this.#flat[2 * index] ?? "";
  }

  valueAt(index: number): string {
    return this.#flat[2 * index + 1] ?? "";
  }
}
