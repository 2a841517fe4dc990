// The decorator that announces arrivals, whichever way a blob comes.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { AnnouncingBlobStore } from "../../src/cas/announcing-blob-store.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { sample } from "../services/sample-blobs.ts";
import { describeBlobStoreContract } from "./blob-store-contract.ts";

describeBlobStoreContract("AnnouncingBlobStore", async () => ({
  store: new AnnouncingBlobStore(new MemoryBlobStore()),
  close: async () => undefined,
}));

test("subscribe() is told once, of its blob only, by put, finish and ingestFile alike", async () => {
  const directory = mkdtempSync(join(tmpdir(), "ledge-announce-"));
  const { data, digest } = sample("announced");
  const arrivals: ((store: AnnouncingBlobStore) => Promise<void>)[] = [
    (store) => store.put(digest, data),
    async (store) => {
      const upload = await store.openUpload(digest);
      await upload.write(new Uint8Array(data));
      await upload.finish();
    },
    async (store) => {
      const path = join(directory, "file");
      writeFileSync(path, data);
      await store.ingestFile(path, DigestFunction.SHA256);
    },
  ];
  try {
    for (const arrive of arrivals) {
      const store = new AnnouncingBlobStore(new MemoryBlobStore());
      let told = 0;
      store.subscribe(digest, () => told++);
      const unsubscribe = store.subscribe(digest, () => expect.unreachable());
      unsubscribe();
      unsubscribe();
      await store.put(sample("other").digest, sample("other").data);
      expect(told).toBe(0);
      await arrive(store);
      await arrive(store);
      expect(told).toBe(1);
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("subscribe() hears nothing of an upload that failed", async () => {
  const { digest } = sample("announced");
  const store = new AnnouncingBlobStore(new MemoryBlobStore());
  store.subscribe(digest, () => expect.unreachable());
  const upload = await store.openUpload(digest);
  await upload.write(new Uint8Array(digest.sizeBytes));
  await expect(upload.finish()).rejects.toThrow();
});
