// The actions that are measured, as blobs ready to be stored.
//
// Invariant: no two actions are equal (each has a number of this process in its environment and salt), so none is
// answered from an action cache; input roots are equal exactly where a measure says so.

import { Action, Command, Directory, type CommandInit } from "../../src/proto/remote_execution.ts";
import { digestOf, findDigestFunction, type BlobDigest } from "../digest-functions.ts";
import { RandomData } from "../random-data.ts";

export interface SampleBlob {
  readonly digest: BlobDigest;
  readonly data: Uint8Array;
}

export interface SampleAction {
  readonly digest: BlobDigest;
  /** Action and Command; the input root is stored apart. */
  readonly blobs: readonly SampleBlob[];
}

/** A tree of directories of files, and all it consists of. */
export interface SampleRoot {
  readonly digest: BlobDigest;
  readonly blobs: readonly SampleBlob[];
}

const sha256 = findDigestFunction(1)!;
const PATH = { name: "PATH", value: "/usr/local/bin:/usr/bin:/bin" };
/** What source trees have. */
const FILES_PER_DIRECTORY = 50;
const DIRECTORIES_PER_DIRECTORY = 32;

let actionCount = 0;

export function sampleBlob(data: Uint8Array): SampleBlob {
  return { digest: digestOf(sha256, data), data };
}

/** An action like no other; `command` without words is `/bin/true`. */
export function sampleAction(
  root: SampleRoot,
  run: string,
  command: Partial<CommandInit> = {},
  platform: readonly { readonly name: string; readonly value: string }[] = [],
): SampleAction {
  const name = `${run}-${actionCount++}`;
  const commandBlob = sampleBlob(
    Command.encode({
      arguments: ["/bin/true"],
      environmentVariables: [{ name: "ACTION", value: name }, PATH],
      platform: { properties: platform },
      ...command,
    }),
  );
  const action = sampleBlob(
    Action.encode({
      commandDigest: commandBlob.digest,
      inputRootDigest: root.digest,
      salt: Buffer.from(name),
      platform: { properties: platform },
    }),
  );
  return { digest: action.digest, blobs: [commandBlob, action] };
}

/** An input root of `fileCount` files of 1 KiB, 50 in a directory; roots of equal seed differ in `changes` files. */
export function sampleRoot(
  fileCount: number,
  options: { readonly seed: number; readonly changed?: number; readonly readOnly?: boolean },
): SampleRoot {
  const random = new RandomData(options.seed);
  const blobs: SampleBlob[] = [];
  const store = (data: Uint8Array): BlobDigest => {
    const blob = sampleBlob(data);
    blobs.push(blob);
    return blob.digest;
  };
  let level: { name: string; digest: BlobDigest }[] = [];
  for (let start = 0; start < fileCount; start += FILES_PER_DIRECTORY) {
    const files = [];
    for (let index = start; index < Math.min(start + FILES_PER_DIRECTORY, fileCount); index++) {
      const data = random.bytes(1024);
      if (index === 0 && options.changed !== undefined) data.writeUInt32LE(options.changed, 0);
      files.push({ name: `file${String(index).padStart(6, "0")}.h`, digest: store(data), isExecutable: false });
    }
    level.push({ name: directoryName(level.length), digest: store(Directory.encode({ files })) });
  }
  while (level.length > DIRECTORIES_PER_DIRECTORY) {
    const above: typeof level = [];
    for (let start = 0; start < level.length; start += DIRECTORIES_PER_DIRECTORY) {
      const directories = level.slice(start, start + DIRECTORIES_PER_DIRECTORY);
      above.push({ name: directoryName(above.length), digest: store(Directory.encode({ directories })) });
    }
    level = above;
  }
  if (options.readOnly === true) {
    // As BuildStream sends a root file system: marked at the top, nearly everything in one directory below it.
    level = [{ name: "usr", digest: store(Directory.encode({ directories: level })) }];
  }
  const nodeProperties =
    options.readOnly === true ? { properties: [{ name: "SubtreeReadOnly", value: "true" }] } : undefined;
  const digest = store(Directory.encode({ directories: level, nodeProperties }));
  // What is empty is stored everywhere already.
  return { digest, blobs: blobs.filter(({ data }) => data.length > 0) };
}

function directoryName(index: number): string {
  return `d${String(index).padStart(4, "0")}`;
}
