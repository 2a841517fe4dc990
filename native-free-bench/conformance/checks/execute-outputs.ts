// Execute: outputs of each kind, as they must come back.

import { Code } from "../../../src/base/status.ts";
import { Directory, Tree } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectBytes, expectEqual, expectOk, expectPresent, type Check } from "../check.ts";
import { contentOf, runAction, stdoutOf } from "../actions.ts";

const RESULT = "REv2 ActionResult, Command.output_paths";

const EXECUTION_TIMEOUT_MS = 60_000;

export const executeOutputChecks: readonly Check[] = defineArea(
  "execute",
  ["exec", "cache", "sha256"],
  [
    {
      id: "output-file",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A requested output file is returned with path, digest and mode, and can be read.",
      cites: RESULT,
      advice: "Upload before reporting.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, {
          script: "printf data > out.txt; printf '#!' > tool; chmod +x tool",
          outputs: ["out.txt", "tool"],
        });
        const plain = expectPresent(
          result.outputFiles.find(({ path }) => path === "out.txt"),
          "the output out.txt",
        );
        const tool = expectPresent(
          result.outputFiles.find(({ path }) => path === "tool"),
          "the output tool",
        );
        expectEqual((await contentOf(p, plain.digest, "out.txt")).toString(), "data", "out.txt");
        expectEqual(plain.isExecutable, false, "is_executable of out.txt");
        expectEqual(tool.isExecutable, true, "is_executable of tool");
      },
    },
    {
      id: "output-large",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An output of 5 MB is uploaded whole.",
      cites: RESULT,
      advice: "Stream large outputs.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, {
          script: "dd if=/dev/zero of=big bs=1000000 count=5 2>/dev/null",
          outputs: ["big"],
        });
        expectBytes(await contentOf(p, result.outputFiles[0]?.digest, "big"), Buffer.alloc(5_000_000), "big");
      },
    },
    {
      id: "output-empty-file",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An empty output file is returned.",
      cites: RESULT,
      advice: "Its digest is the empty one.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, { script: ": > empty", outputs: ["empty"] });
        expectEqual(result.outputFiles[0]?.digest?.hash, p.emptyDigest.hash, "The digest");
      },
    },
    {
      id: "output-missing",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A requested output that was not made is left out without an error.",
      cites: RESULT,
      advice: "The client decides whether that is an error.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, { script: "printf x > made", outputs: ["made", "not-made"] });
        expectEqual(result.outputFiles.map(({ path }) => path).join(), "made", "Output files");
      },
    },
    {
      id: "output-unrequested",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Files that were not requested are not returned.",
      cites: "REv2 Command.output_paths: other outputs are discarded",
      advice: "Return what was asked.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, { script: "printf x > asked; printf y > other", outputs: ["asked"] });
        expectEqual(result.outputFiles.length, 1, "Output files");
      },
    },
    {
      id: "output-directory",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A requested directory is returned as a Tree of everything in it.",
      cites: "REv2 OutputDirectory.tree_digest, Tree",
      advice: "Root and children, children by digest, all files uploaded.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, {
          script: "mkdir -p d/sub d/none; printf 1 > d/one; printf 2 > d/sub/two; ln -s one d/link",
          outputs: ["d"],
        });
        const directory = expectPresent(result.outputDirectories[0], "the output directory");
        expectEqual(directory.path, "d", "The path");
        const tree = Tree.decode(await contentOf(p, directory.treeDigest, "the Tree"));
        const root = expectPresent(tree.root, "Tree.root");
        expectEqual(root.files.map(({ name }) => name).join(), "one", "Files in the root");
        expectEqual(
          root.symlinks.map(({ name, target }) => `${name}->${target}`).join(),
          "link->one",
          "Symlinks in the root",
        );
        expectEqual(root.directories.map(({ name }) => name).join(), "none,sub", "Directories in the root");
        const sub = root.directories.find(({ name }) => name === "sub");
        const child = tree.children.find(
          (candidate) => p.blobOf(Directory.encode(candidate)).digest.hash === sub?.digest?.hash,
        );
        expectEqual((await contentOf(p, child?.files[0]?.digest, "d/sub/two")).toString(), "2", "d/sub/two");
      },
    },
    {
      id: "output-directory-only",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "With DIRECTORY_ONLY every Directory of the output is in the CAS, or the Tree is given.",
      cites: "REv2 Command.output_directory_format, OutputDirectory.root_directory_digest",
      advice: "A superset is allowed: set both.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, {
          script: "mkdir -p d/sub; printf 1 > d/sub/f",
          outputs: ["d"],
          command: { outputDirectoryFormat: 1 },
        });
        const directory = expectPresent(result.outputDirectories[0], "the output directory");
        if (directory.rootDirectoryDigest === undefined)
          return void expectPresent(directory.treeDigest, "either digest");
        const reply = await p.getTree({ rootDigest: directory.rootDirectoryDigest });
        expectOk(reply, "GetTree of root_directory_digest");
        expectEqual(reply.messages.flatMap((message) => message.directories).length, 2, "Directories");
      },
    },
    {
      id: "tree-digest-always",
      level: "CLIENTS",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Output directories have tree_digest.",
      cites: "Buck2 fails without it",
      advice: "Make the Tree in every format.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, { script: "mkdir d; : > d/f", outputs: ["d"] });
        expectPresent(result.outputDirectories[0]?.treeDigest, "tree_digest");
      },
    },
    {
      id: "output-symlink",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "A requested symlink is returned with its target, dangling or not.",
      cites: "REv2 ActionResult.output_symlinks, OutputSymlink.target",
      advice: "lstat, never follow.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, {
          script: "ln -s nowhere dangling; : > f; ln -s f good",
          outputs: ["dangling", "good"],
        });
        const links = result.outputSymlinks
          .map(({ path, target }) => `${path}->${target}`)
          .sort()
          .join();
        expectEqual(links, "dangling->nowhere,good->f", "output_symlinks");
        expectEqual(result.outputFiles.length, 0, "Output files");
      },
    },
    {
      id: "output-in-subdirectory",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Parent directories of outputs exist before the action starts.",
      cites: "REv2 Command.output_paths: the worker creates the parents",
      advice: "Make the parents, not the output itself.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(p, { script: "printf x > deep/er/out", outputs: ["deep/er/out"] });
        expectEqual(result.exitCode, 0, "exit_code");
        expectEqual(result.outputFiles[0]?.path, "deep/er/out", "The path");
      },
    },
    {
      id: "outputs-2.0",
      level: "CLIENTS",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "output_files and output_directories of 2.0 clients are honoured.",
      cites: "Bazel up to 4 and recc use them; REv2 Command.output_files",
      advice: "Read them when output_paths is empty.",
      run: async (p) => {
        const { result } = await runAction(p, {
          script: "printf x > f; printf y > d/g",
          command: { outputFiles: ["f"], outputDirectories: ["d"] },
        }).then((stream) =>
          stream.result.exitCode === 0
            ? stream
            : runAction(p, {
                script: "printf x > f; mkdir -p d; printf y > d/g",
                command: { outputFiles: ["f"], outputDirectories: ["d"] },
              }),
        );
        expectEqual(result.outputFiles.map(({ path }) => path).join(), "f", "Output files");
        expectEqual(result.outputDirectories.map(({ path }) => path).join(), "d", "Output directories");
      },
    },
    {
      id: "many-outputs",
      level: "SHOULD",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "300 outputs are returned, each with its own content.",
      cites: RESULT,
      advice: "Watch how uploads are batched.",
      needs: ["output-paths"],
      run: async (p) => {
        const names = Array.from({ length: 300 }, (_, index) => `o/${String(index).padStart(3, "0")}`);
        const { result } = await runAction(p, {
          script: "i=0; while [ $i -lt 300 ]; do n=$(printf %03d $i); printf $n > o/$n; i=$((i+1)); done",
          outputs: names,
        });
        expectEqual(result.outputFiles.length, 300, "Output files");
        for (const file of result.outputFiles)
          expectEqual(
            file.digest?.hash,
            p.blobOf(Buffer.from(file.path.slice(2))).digest.hash,
            `The digest of ${file.path}`,
          );
      },
    },
    {
      id: "inline-stdout",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Asked to inline, stdout_raw is right when set.",
      cites: "REv2 ExecuteRequest.inline_stdout",
      advice: "A hint; keep the digest too.",
      run: async (p) => {
        const { result } = await runAction(p, { script: "printf inline" }, { inlineStdout: true });
        if (result.stdoutRaw.length > 0) expectEqual(Buffer.from(result.stdoutRaw).toString(), "inline", "stdout_raw");
        else expectEqual(await stdoutOf(p, result), "inline", "stdout");
      },
    },
    {
      id: "inline-outputs",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Asked to inline an output, its contents are right when set and its digest stays.",
      cites: "REv2 ExecuteRequest.inline_output_files",
      advice: "A hint; keep the digest too.",
      needs: ["output-paths"],
      run: async (p) => {
        const { result } = await runAction(
          p,
          { script: "printf abc > o", outputs: ["o"] },
          { inlineOutputFiles: ["o"] },
        );
        const file = expectPresent(result.outputFiles[0], "the output");
        expectPresent(file.digest, "its digest");
        if (file.contents.length > 0) expectEqual(Buffer.from(file.contents).toString(), "abc", "contents");
      },
    },
    {
      id: "absolute-symlink-refused",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Where absolute symlinks are DISALLOWED, an absolute output symlink fails the action.",
      cites: "REv2 SymlinkAbsolutePathStrategy.DISALLOWED",
      advice: "FAILED_PRECONDITION in ExecuteResponse.status.",
      needs: ["output-paths", "no-absolute-symlinks"],
      run: async (p) =>
        expectEqual(
          (await runAction(p, { script: "ln -s /etc/hostname l", outputs: ["l"] })).statusCode,
          Code.FAILED_PRECONDITION,
          "ExecuteResponse.status",
        ),
    },
    {
      id: "absolute-symlink-kept",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Where absolute symlinks are ALLOWED, an absolute output symlink is returned as it is.",
      cites: "REv2 SymlinkAbsolutePathStrategy.ALLOWED",
      advice: "Do not rewrite targets.",
      needs: ["output-paths", "absolute-symlinks"],
      run: async (p) =>
        expectEqual(
          (await runAction(p, { script: "ln -s /etc/hostname l", outputs: ["l"] })).result.outputSymlinks[0]?.target,
          "/etc/hostname",
          "The target",
        ),
    },
    {
      id: "mtime-property",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "Where mtime is a supported node property, a requested mtime is returned.",
      cites: "REv2 Command.output_node_properties, ExecutionCapabilities.supported_node_properties",
      advice: "Set node_properties.mtime from the file.",
      needs: ["output-paths", "mtime"],
      run: async (p) => {
        const { result } = await runAction(p, {
          script: "touch -d @1000000000 o",
          outputs: ["o"],
          command: { outputNodeProperties: ["mtime"] },
        });
        expectEqual(result.outputFiles[0]?.nodeProperties?.mtime?.seconds, 1_000_000_000, "mtime");
      },
    },
  ],
);
