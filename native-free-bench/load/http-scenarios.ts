// The HTTP/1.1 cache protocol: blobs read and written by their digest, and keys that are not there.

import type { Scenario } from "./scenario.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

export const HTTP_SCENARIOS: readonly Scenario[] = [
  get("http-get-1k", "1 KiB", KIB, 500),
  get("http-get-1m", "1 MiB", MIB, 16, { connections: 4, depth: 2 }),
  put("http-put-1k", "1 KiB", KIB),
  put("http-put-1m", "1 MiB", MIB, { connections: 4, depth: 2 }),
  {
    name: "http-miss",
    question: "How fast is the absence of an action result found by GET?",
    unit: "calls",
    protocol: "http",
    prepare: async (setup) => {
      const next = () => ({ path: `GET /ac/${setup.absent(0).hash}`, body: [], accepts: 404 });
      return await Promise.resolve({ unitsPerCall: 1, next });
    },
  },
];

function get(name: string, what: string, sizeBytes: number, count: number, shape?: Scenario["shape"]): Scenario {
  return {
    name,
    question: `How fast are blobs of ${what} read by GET?`,
    unit: "bytes",
    protocol: "http",
    ...(shape === undefined ? {} : { shape }),
    prepare: async (setup) => {
      const blobs = Array.from({ length: count }, () => setup.blob(sizeBytes));
      for (const { data, digest } of blobs) await setup.expectOk({ path: `PUT /cas/${digest.hash}`, body: [data] });
      const calls = blobs.map(({ digest }) => ({ path: `GET /cas/${digest.hash}`, body: [], leastBytes: sizeBytes }));
      let index = 0;
      return { unitsPerCall: sizeBytes, next: () => calls[index++ % calls.length]! };
    },
  };
}

function put(name: string, what: string, sizeBytes: number, shape?: Scenario["shape"]): Scenario {
  return {
    name,
    question: `How fast are new blobs of ${what} uploaded by PUT?`,
    unit: "bytes",
    protocol: "http",
    ...(shape === undefined ? {} : { shape }),
    prepare: async (setup) => {
      const template = setup.blob(sizeBytes).data;
      const next = () => {
        const { data, digest } = setup.variantOf(template);
        return { path: `PUT /cas/${digest.hash}`, body: [data] };
      };
      return await Promise.resolve({ unitsPerCall: sizeBytes, next });
    },
  };
}
