// Programs that tests fetch and that no Debian package brings: kept in .test-cache/ (git-ignored) between runs.
//
// Invariant: a folder in .test-cache/ is complete; it is filled under another name and renamed. Test files run in
// parallel processes, so one of them installs while the others wait.

import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const cacheFolder = join(import.meta.dirname, "../../.test-cache");

/** Returns the folder `name` of the cache; `install` fills it the first time. */
export async function installOnce(name: string, install: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(cacheFolder, name);
  if (existsSync(folder)) return folder;
  await mkdir(cacheFolder, { recursive: true });
  await using _lock = await acquireLock(`${folder}.lock`);
  if (existsSync(folder)) return folder;
  const unfinished = `${folder}.${process.pid}.tmp`;
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(unfinished);
  await install(unfinished);
  await rename(unfinished, folder);
  return folder;
}

/** A lock file that holds its owner's pid, so that the lock of a killed run does not stay. */
async function acquireLock(path: string): Promise<AsyncDisposable> {
  for (;;) {
    try {
      await writeFile(path, String(process.pid), { flag: "wx" });
      return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
    } catch {
      const owner = Number(await readFile(path, "utf8").catch(() => "0"));
      if (owner > 0 && !isAlive(owner)) await rm(path, { force: true });
      await sleep(200);
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
