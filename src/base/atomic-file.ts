// Writes a small file so that a reader sees the old content or the new one, never a part.

import { open, rename, unlink } from "node:fs/promises";
import { randomUUID } from "node:crypto";
import { dirname } from "node:path";

/** Replaces the file at `path`; durable (file and directory synced) once the promise resolves. */
export async function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  const temporaryPath = `${path}.${randomUUID()}.tmp`;
  try {
    const file = await open(temporaryPath, "wx", 0o644);
    try {
      await file.writeFile(content);
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(temporaryPath, path);
  } catch (error) {
    await unlink(temporaryPath).catch(() => undefined); // the first error is the one that matters
    throw error;
  }
  await syncDirectory(dirname(path));
}

/** Makes renames and unlinks in `path` durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
