// The values of the platform property ISA that this machine satisfies: its architecture and the extensions of its CPU.
//
// Source: platform.md of remote-apis (names), wire/platform-properties.md 2 (which CPU flag stands for which).

import { readFileSync } from "node:fs";
import { canonicalIsa } from "./platform-properties.ts";

/** CPU flag of Linux to extension, by architecture. */
const EXTENSIONS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "x86-64": {
    sse4_1: "x86-sse4.1",
    sse4_2: "x86-sse4.2",
    avx: "x86-avx",
    avx2: "x86-avx2",
    avx512f: "x86-avx-512",
  },
  "arm-a64": { asimd: "arm-neon", sve: "arm-sve" },
};
/** Every 64-bit ARM is one of these. */
const IMPLIED: Readonly<Record<string, readonly string[]>> = { "arm-a64": ["armv8"] };

/** `arch` as in process.arch; `cpuInfo` is the text of /proc/cpuinfo. */
export function isaOf(arch: string, cpuInfo: string): string[] {
  const architecture = canonicalIsa(arch === "x64" ? "x86_64" : arch === "arm64" ? "aarch64" : arch);
  // x86 says "flags", ARM "Features"; all cores of a machine have the same.
  const flags = new Set(/^(?:flags|Features)\s*:\s*(.*)$/m.exec(cpuInfo)?.[1]?.split(" "));
  const extensions = Object.entries(EXTENSIONS[architecture] ?? {}).filter(([flag]) => flags.has(flag));
  return [architecture, ...(IMPLIED[architecture] ?? []), ...extensions.map(([, name]) => name)];
}

/** Without /proc (some sandboxes) the architecture alone is offered. */
export function machineIsa(): string[] {
  try {
    return isaOf(process.arch, readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return isaOf(process.arch, ""); // an action that asks for an extension is refused, naming what is on offer
  }
}
