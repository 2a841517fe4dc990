// What the file store syncs beside the files themselves: the folders they are in, and the folders of those.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { FileStore } from "../../src/cas/file-store.ts";
import { DigestFunction } from "../../src/digest/digest.ts";

const syncs = vi.hoisted(() => ({
  paths: [] as string[],
  /** Called before each sync of a folder. */
  before: async (_path: string): Promise<void> => undefined,
}));

vi.mock("../../src/base/atomic-file.ts", async (importOriginal) => {
  const original = await importOriginal<typeof import("../../src/base/atomic-file.ts")>();
  return {
    ...original,
    syncDirectory: async (path: string) => {
      await syncs.before(path);
      await original.syncDirectory(path);
      syncs.paths.push(path);
    },
  };
});

describe("folders of files", () => {
  let dataDir: string;
  let shared: string;
  beforeEach(() => {
    dataDir = mkdtempSync(join(tmpdir(), "ledge-files-"));
    shared = join(dataDir, "files", "sha256");
    syncs.paths = [];
    syncs.before = async () => undefined;
  });
  afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

  /** Commits a file whose hash begins with `prefix`. */
  function commit(files: FileStore, prefix: string): Promise<void> {
    const path = files.newTemporaryPath();
    writeFileSync(path, "bytes");
    return files.commit(path, DigestFunction.SHA256, prefix.padEnd(64, "0"));
  }

  // A file is not durable in a folder whose own name is not: its writer finds the folder and must wait all the same.
  test("a second file waits until the folder that the first one made is durable", async () => {
    const files = await FileStore.open(dataDir);
    const gate = Promise.withResolvers<void>();
    const reached = Promise.withResolvers<void>();
    syncs.before = async (path) => {
      if (path !== shared) return;
      reached.resolve();
      await gate.promise;
    };
    const first = commit(files, "aa1");
    await reached.promise;
    let isSecondDone = false;
    const second = commit(files, "aa2").then(() => (isSecondDone = true));
    await sleep(100);
    expect(isSecondDone).toBe(false);
    gate.resolve();
    await Promise.all([first, second]);
    await files.close();
  });

  test("a folder whose sync failed is synced by the next file in it", async () => {
    const files = await FileStore.open(dataDir);
    syncs.before = async (path) => {
      if (path === shared) throw new Error("EIO");
    };
    await expect(commit(files, "aa1")).rejects.toThrow(/EIO/);
    await expect(commit(files, "aa2")).rejects.toThrow(/EIO/);
    syncs.before = async () => undefined;
    await commit(files, "aa3");
    expect(syncs.paths).toContain(shared);
    await files.close();
  });

  // A process that was killed may have made folders without having synced them.
  test("folders that are there at the start are made durable", async () => {
    mkdirSync(join(shared, "aa"), { recursive: true });
    const files = await FileStore.open(dataDir);
    expect(syncs.paths).toContain(shared);
    await files.close();
  });
});
