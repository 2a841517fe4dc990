// BLAKE3 by the native package where it loads, by WebAssembly where it does not.
//
// Both give the same hashes (test/compute checks each against the other). The WebAssembly module is called through its
// exported functions, so none of the package's code that looks for files runs.

import { readPackageFile, requireFromHere } from "../base/native-addon.ts";
import type { IncrementalHash } from "./hash.ts";

export interface Blake3 {
  readonly name: "native" | "wasm";
  hash(data: Uint8Array): Uint8Array;
  create(): IncrementalHash;
}

interface NativeHasher {
  update(data: Uint8Array): unknown;
  digestBuffer(): Buffer;
}
interface NativePackage {
  blake3(data: Uint8Array): Buffer;
  Blake3Hasher: new () => NativeHasher;
}

let loaded: Blake3 | undefined;

/** The implementation of this process. */
export function blake3(): Blake3 {
  if (loaded !== undefined) return loaded;
  try {
    loaded = loadNativeBlake3();
  } catch {
    // Not built for this platform, or the add-on cannot be mapped here: slower, but the same hashes.
    loaded = loadWasmBlake3();
  }
  return loaded;
}

export function loadNativeBlake3(): Blake3 {
  const native = requireFromHere("@napi-rs/blake-hash") as NativePackage;
  return {
    name: "native",
    hash: (data) => native.blake3(data),
    create() {
      const hasher = new native.Blake3Hasher();
      return {
        update: (data) => void hasher.update(data),
        digest: () => hasher.digestBuffer(),
      };
    },
  };
}

/** What is used of the WebAssembly global; the type libraries in use do not describe it. */
interface WasmModule {
  readonly kind: "module";
}
type WasmImports = Record<string, Record<string, () => never>>;
interface WasmApi {
  readonly Module: {
    new (bytes: Uint8Array): WasmModule;
    imports(module: WasmModule): { readonly module: string; readonly name: string }[];
  };
  readonly Instance: new (module: WasmModule, imports: WasmImports) => { readonly exports: unknown };
}
const { WebAssembly: webAssembly } = globalThis as unknown as { readonly WebAssembly: WasmApi };

interface WasmExports {
  readonly memory: { readonly buffer: ArrayBuffer };
  create_hasher(): number;
  blake3hash_update(hasher: number, pointer: number, length: number): void;
  blake3hash_digest(hasher: number, pointer: number, length: number): void;
  __wbg_blake3hash_free(hasher: number): void;
  __wbindgen_malloc(length: number): number;
}

/** Input is copied into the module in pieces of this size: large enough to hide the call, small beside 1 MiB slabs. */
const PIECE_BYTES = 64 * 1024;
const HASH_BYTES = 32;

export function loadWasmBlake3(): Blake3 {
  const module = new webAssembly.Module(readPackageFile("blake3/dist/wasm/nodejs/blake3_js_bg.wasm"));
  const wasm = new webAssembly.Instance(module, throwingImports(module)).exports as WasmExports;
  const digestAt = wasm.__wbindgen_malloc(HASH_BYTES);

  const update = (hasher: number, data: Uint8Array): void => {
    for (let offset = 0; offset < data.length; offset += PIECE_BYTES) {
      const piece = data.subarray(offset, offset + PIECE_BYTES);
      // The module frees its input, so each piece is a fresh allocation.
      const pointer = wasm.__wbindgen_malloc(piece.length);
      new Uint8Array(wasm.memory.buffer).set(piece, pointer);
      wasm.blake3hash_update(hasher, pointer, piece.length);
    }
  };
  const digest = (hasher: number): Uint8Array => {
    wasm.blake3hash_digest(hasher, digestAt, HASH_BYTES);
    wasm.__wbg_blake3hash_free(hasher);
    return new Uint8Array(wasm.memory.buffer).slice(digestAt, digestAt + HASH_BYTES);
  };
  return {
    name: "wasm",
    hash(data) {
      const hasher = wasm.create_hasher();
      update(hasher, data);
      return digest(hasher);
    },
    create() {
      const hasher = wasm.create_hasher();
      return { update: (data) => update(hasher, data), digest: () => digest(hasher) };
    },
  };
}

/** The module imports only what it calls when it panics. */
function throwingImports(module: WasmModule): WasmImports {
  const imports: WasmImports = {};
  for (const entry of webAssembly.Module.imports(module)) {
    (imports[entry.module] ??= {})[entry.name] = () => {
      throw new Error(`BLAKE3 WebAssembly module called ${entry.name}`);
    };
  }
  return imports;
}
