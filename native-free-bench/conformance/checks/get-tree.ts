// GetTree: every directory below a root, in pages. And SplitBlob/SpliceBlob where they are advertised.

import { Code } from "../../../src/base/status.ts";
import { ContentAddressableStorage as Cas, Directory } from "../../../src/proto/remote_execution.ts";
import type { DirectoryInit, GetTreeResponse } from "../../../src/proto/remote_execution.ts";
import type { StreamReply } from "../../client/http2-channel.ts";
import {
  defineArea,
  expectBytes,
  expectCode,
  expectEqual,
  expectOk,
  expectPresent,
  expectThat,
  type Check,
} from "../check.ts";
import type { Probe } from "../probe.ts";
import type { BlobDigest } from "../../digest-functions.ts";

const CITES = "REv2 ContentAddressableStorage.GetTree";

export const getTreeChecks: readonly Check[] = defineArea(
  "get-tree",
  ["cache", "sha256", "tree"],
  [
    {
      id: "single",
      level: "MUST",
      says: "The tree of a directory without subdirectories is that directory.",
      cites: CITES,
      advice: "The root is part of the answer.",
      run: async (p) => {
        const root: DirectoryInit = { files: [{ name: "a", digest: p.absentDigest(), isExecutable: true }] };
        const rootDigest = await p.storeDirectory(root);
        await expectTree(p, await p.getTree({ rootDigest }), [rootDigest]);
      },
    },
    {
      id: "nested",
      level: "MUST",
      says: "Every directory below the root is in the answer, byte for byte.",
      cites: CITES,
      advice: "Send the stored directories; files, symlinks and properties included.",
      run: async (p) => {
        const { rootDigest, all } = await storeTree(p, 3, 3);
        await expectTree(p, await p.getTree({ rootDigest }), all);
      },
    },
    {
      id: "empty-root",
      level: "MUST",
      says: "The tree of the empty directory is one empty directory.",
      cites: `${CITES}; the empty Directory has the empty digest`,
      advice: "The empty blob is always present, as a Directory too.",
      run: async (p) => {
        const reply = await p.getTree({ rootDigest: p.emptyDigest });
        expectOk(reply, "GetTree of the empty directory");
        const directories = reply.messages.flatMap((message) => message.directories);
        for (const directory of directories) expectEqual(Directory.encode(directory).length, 0, "Bytes of a directory");
        expectEqual(directories.length, 1, "Directories");
      },
    },
    {
      id: "absent-root",
      level: "MUST",
      says: "An absent root is NOT_FOUND.",
      cites: CITES,
      advice: "Look the root up before the first page.",
      run: async (p) =>
        expectCode(await p.getTree({ rootDigest: p.absentDigest() }), [Code.NOT_FOUND], "GetTree of an absent root"),
    },
    {
      id: "absent-child",
      level: "MUST",
      says: "Directories below the root that are absent are left out and the rest is sent with OK.",
      cites: `${CITES}: as much of the tree as is there`,
      advice: "Skip what is missing.",
      run: async (p) => {
        const present = await p.storeDirectory({ symlinks: [{ name: "s", target: p.random.uuid() }] });
        const rootDigest = await p.storeDirectory({
          directories: [
            { name: "gone", digest: p.absentDigest() },
            { name: "here", digest: present },
          ],
        });
        await expectTree(p, await p.getTree({ rootDigest }), [rootDigest, present]);
      },
    },
    {
      id: "shared-child",
      level: "SHOULD",
      says: "A directory that occurs twice is sent at least once, and the walk ends.",
      cites: CITES,
      advice: "Remember what was visited: ten levels of two equal children are 1,024 paths.",
      run: async (p) => {
        let digest = await p.storeDirectory({ symlinks: [{ name: "s", target: p.random.uuid() }] });
        const all = [digest];
        for (let level = 0; level < 10; level++) {
          digest = await p.storeDirectory({
            directories: [
              { name: "a", digest },
              { name: "b", digest },
            ],
          });
          all.push(digest);
        }
        const reply = await p.getTree({ rootDigest: digest });
        expectOk(reply, "GetTree");
        const hashes = new Set(
          reply.messages
            .flatMap((message) => message.directories)
            .map((directory) => p.blobOf(Directory.encode(directory)).digest.hash),
        );
        for (const { hash } of all) expectThat(hashes.has(hash), `directory ${hash} is not in the answer`);
      },
    },
    {
      id: "shared-child-once",
      level: "MAY",
      says: "A directory that occurs twice is sent once.",
      cites: CITES,
      advice: "Clients index by digest.",
      run: async (p) => {
        const digest = await p.storeDirectory({ symlinks: [{ name: "s", target: p.random.uuid() }] });
        const rootDigest = await p.storeDirectory({
          directories: [
            { name: "a", digest },
            { name: "b", digest },
          ],
        });
        const reply = await p.getTree({ rootDigest });
        expectOk(reply, "GetTree");
        expectEqual(reply.messages.flatMap((message) => message.directories).length, 2, "Directories");
      },
    },
    {
      id: "deep",
      level: "MUST",
      says: "A chain of 200 directories is sent completely.",
      cites: CITES,
      advice: "Walk without recursion.",
      run: async (p) => {
        let digest = await p.storeDirectory({ symlinks: [{ name: "s", target: p.random.uuid() }] });
        const all = [digest];
        for (let level = 0; level < 200; level++)
          all.push((digest = p.blobOf(Directory.encode({ directories: [{ name: `d${level}`, digest }] })).digest));
        let child = all[0]!;
        const blobs = Array.from({ length: 200 }, (_, level) => {
          const blob = p.blobOf(Directory.encode({ directories: [{ name: `d${level}`, digest: child }] }));
          child = blob.digest;
          return blob;
        });
        await p.store(...blobs);
        await expectTree(p, await p.getTree({ rootDigest: digest }), all);
      },
    },
    {
      id: "wide",
      level: "MUST",
      says: "A directory of 2,000 subdirectories is sent completely, no message above 4 MiB.",
      cites: `${CITES}; client libraries refuse messages above 4 MiB`,
      advice: "Page by bytes as well as by count.",
      run: async (p) => {
        const children = Array.from({ length: 2000 }, (_, index) =>
          p.blobOf(Directory.encode({ symlinks: [{ name: "s", target: `${index}-${p.random.uuid()}` }] })),
        );
        await p.store(...children);
        const directories = children.map(({ digest }, index) => ({
          name: `d${String(index).padStart(4, "0")}`,
          digest,
        }));
        const rootDigest = await p.storeDirectory({ directories });
        await expectTree(p, await p.getTree({ rootDigest }), [rootDigest, ...children.map(({ digest }) => digest)]);
      },
    },
    {
      id: "page-size",
      level: "MUST",
      says: "No page has more directories than page_size.",
      cites: "REv2 GetTreeRequest.page_size: the server may send fewer, not more",
      advice: "Cut pages at the client's bound.",
      run: async (p) => {
        const { rootDigest, all } = await storeTree(p, 3, 2);
        const reply = await p.getTree({ rootDigest, pageSize: 4 });
        for (const message of reply.messages)
          expectThat(message.directories.length <= 4, `a page has ${message.directories.length} directories`);
        await expectTree(p, reply, all);
      },
    },
    {
      id: "page-tokens",
      level: "SHOULD",
      says: "Every page but the last has a next_page_token; the last has none.",
      cites: "REv2 GetTreeResponse.next_page_token",
      advice: "The token lets a client resume a broken stream.",
      run: async (p) => {
        const { rootDigest } = await storeTree(p, 3, 2);
        const { messages } = await p.getTree({ rootDigest, pageSize: 3 });
        const pages = messages.filter((message) => message.directories.length > 0);
        for (const message of pages.slice(0, -1))
          expectThat(message.nextPageToken !== "", "a page in the middle has no token");
        expectEqual(messages.at(-1)?.nextPageToken, "", "The last page's token");
      },
    },
    {
      id: "resume",
      level: "SHOULD",
      says: "A call with a page's token sends what follows that page.",
      cites: "REv2 GetTreeRequest.page_token",
      advice: "Make tokens a position in a walk of fixed order.",
      run: async (p) => {
        const { rootDigest, all } = await storeTree(p, 3, 2);
        const first = await p.getTree({ rootDigest, pageSize: 3 });
        const page = expectPresent(first.messages[0], "the first page");
        if (page.nextPageToken === "") return;
        const rest = await p.getTree({ rootDigest, pageSize: 3, pageToken: page.nextPageToken });
        expectOk(rest, "GetTree with a token");
        const hashes = [page, ...rest.messages]
          .flatMap((message) => message.directories)
          .map((directory) => p.blobOf(Directory.encode(directory)).digest.hash);
        for (const { hash } of all) expectThat(hashes.includes(hash), `directory ${hash} is in neither part`);
      },
    },
    {
      id: "garbage-token",
      level: "SHOULD",
      says: "A token the server never gave is refused.",
      cites: "REv2 GetTreeRequest.page_token",
      advice: "INVALID_ARGUMENT; starting over would look like success.",
      run: async (p) => {
        const { rootDigest } = await storeTree(p, 2, 2);
        expectCode(
          await p.getTree({ rootDigest, pageToken: "no such token!" }),
          [Code.INVALID_ARGUMENT],
          "GetTree with a made-up token",
        );
      },
    },
    {
      id: "root-is-no-directory",
      level: "SHOULD",
      says: "A root blob that is no Directory is refused.",
      cites: CITES,
      advice: "INVALID_ARGUMENT (FAILED_PRECONDITION and NOT_FOUND are accepted).",
      run: async (p) => {
        const blob = p.blobOf(Buffer.from("\xff\xff\xff not a message", "latin1"));
        await p.store(blob);
        expectCode(
          await p.getTree({ rootDigest: blob.digest }),
          [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND],
          "GetTree of a text",
        );
      },
    },
    {
      id: "no-root",
      level: "SHOULD",
      says: "A request without root_digest is INVALID_ARGUMENT.",
      cites: "REv2 GetTreeRequest.root_digest",
      advice: "Name the missing field.",
      run: async (p) => expectCode(await p.getTree({}), [Code.INVALID_ARGUMENT], "GetTree without a root"),
    },
  ],
);

export const splitSpliceChecks: readonly Check[] = defineArea(
  "splice",
  ["cache", "sha256"],
  [
    {
      id: "splice",
      level: "MUST",
      says: "Chunks are joined into the blob they make.",
      cites: "REv2 ContentAddressableStorage.SpliceBlob",
      advice: "Concatenate in order, verify, publish.",
      needs: ["splice"],
      run: async (p) => {
        const chunks = p.blobs(4, 70_000);
        await p.store(...chunks);
        const whole = p.blobOf(Buffer.concat(chunks.map(({ data }) => data)));
        const reply = await p.call(Cas.methods.SpliceBlob, {
          instanceName: p.instanceName,
          blobDigest: whole.digest,
          chunkDigests: chunks.map(({ digest }) => digest),
        });
        expectOk(reply, "SpliceBlob");
        expectEqual(reply.response?.blobDigest?.hash, whole.digest.hash, "The digest in the answer");
        expectBytes((await p.read(p.readName(whole.digest))).data, whole.data, "The bytes");
      },
    },
    {
      id: "splice-wrong-digest",
      level: "MUST",
      says: "Chunks that do not make the digest are INVALID_ARGUMENT.",
      cites: "REv2 ContentAddressableStorage.SpliceBlob",
      advice: "Compute the digest of the concatenation before publishing.",
      needs: ["splice"],
      run: async (p) => {
        const chunks = p.blobs(2, 100);
        await p.store(...chunks);
        const blobDigest = p.absentDigest(200);
        const reply = await p.call(Cas.methods.SpliceBlob, {
          instanceName: p.instanceName,
          blobDigest,
          chunkDigests: chunks.map(({ digest }) => digest),
        });
        expectCode(reply, [Code.INVALID_ARGUMENT], "SpliceBlob with another digest");
        await p.expectAbsent(blobDigest, "Afterwards");
      },
    },
    {
      id: "splice-absent-chunk",
      level: "MUST",
      says: "An absent chunk is NOT_FOUND.",
      cites: "REv2 ContentAddressableStorage.SpliceBlob",
      advice: "Name the missing chunks.",
      needs: ["splice"],
      run: async (p) => {
        const [first, second] = [await p.storeNew(100), p.blob(100)];
        const whole = p.blobOf(Buffer.concat([first.data, second.data]));
        const reply = await p.call(Cas.methods.SpliceBlob, {
          instanceName: p.instanceName,
          blobDigest: whole.digest,
          chunkDigests: [first.digest, second.digest],
        });
        expectCode(reply, [Code.NOT_FOUND], "SpliceBlob with an absent chunk");
      },
    },
    {
      id: "split",
      level: "MUST",
      says: "The chunks of a blob make the blob and are all present.",
      cites: "REv2 ContentAddressableStorage.SplitBlob",
      advice: "Store the chunks before answering.",
      needs: ["split"],
      run: async (p) => {
        const blob = await p.storeNew(5 * 1024 * 1024);
        const reply = await p.call(Cas.methods.SplitBlob, { instanceName: p.instanceName, blobDigest: blob.digest });
        if (reply.code === Code.NOT_FOUND) return;
        expectOk(reply, "SplitBlob");
        const parts: Buffer[] = [];
        for (const digest of reply.response!.chunkDigests) {
          const read = await p.read(p.readName(digest));
          expectOk(read, "Reading a chunk");
          parts.push(read.data);
        }
        expectBytes(Buffer.concat(parts), blob.data, "The concatenated chunks");
      },
    },
    {
      id: "split-absent",
      level: "MUST",
      says: "Splitting an absent blob is NOT_FOUND.",
      cites: "REv2 ContentAddressableStorage.SplitBlob",
      advice: "Look the blob up first.",
      needs: ["split"],
      run: async (p) =>
        expectCode(
          await p.call(Cas.methods.SplitBlob, { instanceName: p.instanceName, blobDigest: p.absentDigest() }),
          [Code.NOT_FOUND],
          "SplitBlob",
        ),
    },
  ],
);

/** Stores a tree in which every directory has `fanOut` children, `depth` levels deep; all directories differ. */
async function storeTree(
  p: Probe,
  depth: number,
  fanOut: number,
): Promise<{ rootDigest: BlobDigest; all: BlobDigest[] }> {
  const all: BlobDigest[] = [];
  const build = async (level: number): Promise<BlobDigest> => {
    const directories: { name: string; digest: BlobDigest }[] = [];
    for (let index = 0; level < depth && index < fanOut; index++)
      directories.push({ name: `d${index}`, digest: await build(level + 1) });
    const digest = await p.storeDirectory({
      directories,
      files: [
        { name: "f", digest: p.absentDigest(), isExecutable: level % 2 === 0, nodeProperties: { unixMode: 0o644 } },
      ],
      symlinks: [{ name: "s", target: `../${p.random.uuid()}` }],
    });
    all.push(digest);
    return digest;
  };
  return { rootDigest: await build(0), all };
}

async function expectTree(
  p: Probe,
  reply: StreamReply<GetTreeResponse>,
  digests: readonly BlobDigest[],
): Promise<void> {
  expectOk(reply, "GetTree");
  const directories = reply.messages.flatMap((message) => message.directories);
  const hashes = new Set(directories.map((directory) => p.blobOf(Directory.encode(directory)).digest.hash));
  for (const { hash } of digests)
    expectThat(hashes.has(hash), `directory ${hash} is not in the answer of ${directories.length} directories`);
  expectEqual(hashes.size, new Set(digests.map(({ hash }) => hash)).size, "Different directories in the answer");
}
