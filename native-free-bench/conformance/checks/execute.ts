// Execute: the life of an action from the request to its result, with outputs of each kind.

import { Code } from "../../../src/base/status.ts";
import { Directory, ExecutionStage_Value as Stage, Tree } from "../../../src/proto/remote_execution.ts";
import {
  defineArea,
  expectBytes,
  expectCode,
  expectEqual,
  expectOk,
  expectPresent,
  expectThat,
  type Check,
  type CheckBody,
} from "../check.ts";
import { contentOf, metadataOf, prepareAction, runAction, startExecution, stderrOf, stdoutOf } from "../actions.ts";
import type { Probe } from "../probe.ts";

const CITES = "REv2 Execution.Execute";
const RESULT = "REv2 ActionResult, Command.output_paths";
const EXECUTION_TIMEOUT_MS = 60_000;

const basics: readonly CheckBody[] = [
  {
    id: "runs",
    level: "MUST",
    says: "An action runs, exits 0, and its result says so.",
    cites: CITES,
    advice: "Start here: every other check of this area stands on it.",
    run: async (p) => expectEqual((await runAction(p, { script: "exit 0" })).result.exitCode, 0, "exit_code"),
  },
  {
    id: "exit-code",
    level: "MUST",
    says: "A non-zero exit code is a normal result with status OK.",
    cites: "REv2 ExecuteResponse.status, ActionResult.exit_code",
    advice: "A failed command is not a failed execution.",
    run: async (p) => {
      for (const code of [1, 42, 255])
        expectEqual((await runAction(p, { script: `exit ${code}` })).result.exitCode, code, "exit_code");
    },
  },
  {
    id: "stdout",
    level: "MUST",
    says: "What the action writes to stdout is kept.",
    cites: "REv2 ActionResult.stdout_digest, stdout_raw",
    advice: "Store it in the CAS and set stdout_digest.",
    run: async (p) =>
      expectEqual(await stdoutOf(p, (await runAction(p, { script: "printf 'to out'" })).result), "to out", "stdout"),
  },
  {
    id: "stderr",
    level: "MUST",
    says: "What the action writes to stderr is kept apart from stdout.",
    cites: "REv2 ActionResult.stderr_digest, stderr_raw",
    advice: "Two pipes.",
    run: async (p) => {
      const { result } = await runAction(p, { script: "printf 'to out'; printf 'to err' >&2" });
      expectEqual(await stderrOf(p, result), "to err", "stderr");
      expectEqual(await stdoutOf(p, result), "to out", "stdout");
    },
  },
  {
    id: "stdout-on-failure",
    level: "MUST",
    says: "Logs and outputs of an action that fails are kept.",
    cites: "BuildStream and Bazel read outputs and logs of failed actions; REv2 ActionResult",
    advice: "Collect whatever the exit code is.",
    run: async (p) => {
      const { result } = await runAction(p, { script: "printf why; printf part > out; exit 7", outputs: ["out"] });
      expectEqual(result.exitCode, 7, "exit_code");
      expectEqual(await stdoutOf(p, result), "why", "stdout");
      expectEqual((await contentOf(p, result.outputFiles[0]?.digest, "the output")).toString(), "part", "The output");
    },
  },
  {
    id: "stdout-large",
    level: "SHOULD",
    says: "2 MB on stdout are kept whole.",
    cites: "REv2 ActionResult.stdout_digest",
    advice: "Never cut a log silently.",
    run: async (p) => {
      const { result } = await runAction(p, {
        script: "i=0; while [ $i -lt 2000 ]; do printf '%01000d' $i; i=$((i+1)); done",
      });
      expectEqual((await stdoutOf(p, result)).length, 2_000_000, "Bytes of stdout");
    },
  },
  {
    id: "environment",
    level: "MUST",
    says: "Environment variables of the command are set.",
    cites: "REv2 Command.environment_variables",
    advice: "Pass names and values through unchanged.",
    run: async (p) => {
      const environmentVariables = [
        { name: "GREETING", value: "h i=!" },
        { name: "PATH", value: "/usr/bin:/bin" },
      ];
      expectEqual(
        await stdoutOf(
          p,
          (await runAction(p, { script: 'printf "%s" "$GREETING"', command: { environmentVariables } })).result,
        ),
        "h i=!",
        "$GREETING",
      );
    },
  },
  {
    id: "environment-clean",
    level: "SHOULD",
    says: "The worker's own environment does not leak into the action.",
    cites: "REv2 Command.environment_variables: the worker may add defaults, which the command overrides",
    advice: "Start from an empty environment. HOME, TMPDIR and the like may be set.",
    run: async (p) => {
      const names = (await stdoutOf(p, (await runAction(p, { script: "env | cut -d= -f1" })).result)).split("\n");
      for (const name of ["LEDGE_DATA_DIR", "SSH_AUTH_SOCK", "NODE_OPTIONS", "npm_config_cache", "INVOCATION_ID"]) {
        expectThat(!names.includes(name), `${name} is set`);
      }
      expectThat(names.length < 25, `${names.length} variables are set although the command names one`);
    },
  },
  {
    id: "arguments",
    level: "MUST",
    says: "Arguments arrive as they were given, empty ones and odd characters included.",
    cites: "REv2 Command.arguments",
    advice: "Never go through a shell.",
    run: async (p) => {
      const command = { arguments: ["/bin/sh", "-c", 'printf "[%s]" "$@"', "sh", "", "a b", "$HOME", "*", "ü\n'\""] };
      expectEqual(
        await stdoutOf(p, (await runAction(p, { command })).result),
        "[][a b][$HOME][*][ü\n'\"]",
        "The arguments",
      );
    },
  },
  {
    id: "path-lookup",
    level: "SHOULD",
    says: "A bare argv[0] is looked up in the command's PATH.",
    cites: "REv2 Command.arguments (2.3)",
    advice: "Use PATH of the command's environment.",
    run: async (p) => {
      const command = {
        arguments: ["sh", "-c", "printf found"],
        environmentVariables: [{ name: "PATH", value: "/usr/bin:/bin" }],
      };
      expectEqual(await stdoutOf(p, (await runAction(p, { command })).result), "found", "stdout");
    },
  },
  {
    id: "no-such-program",
    level: "SHOULD",
    says: "A program that does not exist is an error of the action with a clear code.",
    cites: "REv2 ExecuteResponse.status: INVALID_ARGUMENT or FAILED_PRECONDITION",
    advice: "Say which argv[0] was not found. An exit code of 127 is accepted.",
    run: async (p) => {
      const stream = await runAction(p, { command: { arguments: ["/no/such/program"] } });
      const response = stream.response;
      if ((response.status?.code ?? 0) === 0)
        expectThat((response.result?.exitCode ?? 0) !== 0, "exit code 0 for a program that does not exist");
      else
        expectCode(
          { code: response.status!.code, message: response.status!.message },
          [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND],
          "ExecuteResponse.status",
        );
    },
  },
  {
    id: "inputs",
    level: "MUST",
    says: "Input files have their contents.",
    cites: "REv2 Action.input_root_digest",
    advice: "Stage the tree exactly.",
    run: async (p) => {
      const files = { "a.txt": p.random.uuid(), "b.txt": "second" };
      expectEqual(
        await stdoutOf(p, (await runAction(p, { script: "cat a.txt b.txt", files })).result),
        files["a.txt"] + "second",
        "stdout",
      );
    },
  },
  {
    id: "input-tree",
    level: "MUST",
    says: "Subdirectories, symlinks, executable bits and empty directories of the input root are there.",
    cites: "REv2 Directory, FileNode.is_executable, SymlinkNode",
    advice: "Stage every node type.",
    run: async (p) => {
      const script = p.blobOf(Buffer.from(`#!/bin/sh\nprintf "ran $1"\n# ${p.random.uuid()}\n`));
      await p.store(script);
      const bin = await p.storeDirectory({ files: [{ name: "tool", digest: script.digest, isExecutable: true }] });
      const root = {
        directories: [
          { name: "bin", digest: bin },
          { name: "empty", digest: p.emptyDigest },
        ],
        symlinks: [{ name: "link", target: "bin/tool" }],
      };
      expectEqual(
        await stdoutOf(p, (await runAction(p, { script: "test -d empty && ./link it", root })).result),
        "ran it",
        "stdout",
      );
    },
  },
  {
    id: "working-directory",
    level: "MUST",
    says: "The action starts in working_directory and outputs are relative to it.",
    cites: "REv2 Command.working_directory, output_paths",
    advice: "Join the two; the input root is the default.",
    run: async (p) => {
      const marker = await p.storeNew(10);
      const sub = await p.storeDirectory({ files: [{ name: "here", digest: marker.digest }] });
      const { result } = await runAction(p, {
        script: "test -f here && printf x > made",
        root: { directories: [{ name: "sub", digest: sub }] },
        command: { workingDirectory: "sub" },
        outputs: ["made"],
      }).then((stream) => stream);
      expectEqual(result.exitCode, 0, "exit_code");
      expectEqual(result.outputFiles[0]?.path, "made", "The path of the output");
    },
  },
  {
    id: "input-from-other-instance-of-run",
    level: "SHOULD",
    says: "Inputs cannot be changed by an action for the next one that uses them.",
    cites: "REv2 Execution: actions are isolated",
    advice: "Stage copies, read-only files or another owner.",
    run: async (p) => {
      const files = { "shared.txt": `original ${p.random.uuid()}` };
      await runAction(p, { script: "chmod u+w shared.txt; printf changed > shared.txt; true", files });
      expectEqual(
        await stdoutOf(p, (await runAction(p, { script: "cat shared.txt", files })).result),
        files["shared.txt"],
        "The input seen by the next action",
      );
    },
  },
];

const outputs: readonly CheckBody[] = [
  {
    id: "output-file",
    level: "MUST",
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
      if (directory.rootDirectoryDigest === undefined) return void expectPresent(directory.treeDigest, "either digest");
      const reply = await p.getTree({ rootDigest: directory.rootDirectoryDigest });
      expectOk(reply, "GetTree of root_directory_digest");
      expectEqual(reply.messages.flatMap((message) => message.directories).length, 2, "Directories");
    },
  },
  {
    id: "tree-digest-always",
    level: "CLIENTS",
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
    says: "Asked to inline an output, its contents are right when set and its digest stays.",
    cites: "REv2 ExecuteRequest.inline_output_files",
    advice: "A hint; keep the digest too.",
    needs: ["output-paths"],
    run: async (p) => {
      const { result } = await runAction(p, { script: "printf abc > o", outputs: ["o"] }, { inlineOutputFiles: ["o"] });
      const file = expectPresent(result.outputFiles[0], "the output");
      expectPresent(file.digest, "its digest");
      if (file.contents.length > 0) expectEqual(Buffer.from(file.contents).toString(), "abc", "contents");
    },
  },
  {
    id: "absolute-symlink-refused",
    level: "MUST",
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
];

const failures: readonly CheckBody[] = [
  {
    id: "missing-action",
    level: "MUST",
    says: "An action that is not in the CAS is FAILED_PRECONDITION with a PreconditionFailure naming it.",
    cites: `${CITES}: FAILED_PRECONDITION, violations of type MISSING`,
    advice: "Bazel uploads again only when it sees that.",
    run: async (p) => {
      const action = await prepareAction(p, { withhold: "action" });
      await expectMissing(p, action.digest, [action.digest.hash]);
    },
  },
  {
    id: "missing-command",
    level: "MUST",
    says: "A command that is not in the CAS is FAILED_PRECONDITION naming it.",
    cites: `${CITES}: FAILED_PRECONDITION, violations of type MISSING`,
    advice: "As for the action.",
    run: async (p) => {
      const action = await prepareAction(p, { withhold: "command" });
      await expectMissing(p, action.digest, [action.commandDigest.hash]);
    },
  },
  {
    id: "missing-root",
    level: "MUST",
    says: "An input root that is not in the CAS is FAILED_PRECONDITION naming it.",
    cites: `${CITES}: FAILED_PRECONDITION, violations of type MISSING`,
    advice: "As for the action; in ExecuteResponse.status when it is found late.",
    run: async (p) => {
      const action = await prepareAction(p, { files: { a: p.random.uuid() }, withhold: "root" });
      await expectMissing(p, action.digest, [action.rootDigest.hash]);
    },
  },
  {
    id: "missing-inputs-all",
    level: "CLIENTS",
    says: "All missing input files are named at once.",
    cites: "Bazel uploads what is named and tries again a bounded number of times",
    advice: "Collect every missing digest before answering.",
    run: async (p) => {
      const files = { a: p.random.uuid(), b: p.random.uuid(), c: p.random.uuid() };
      const action = await prepareAction(p, { files, withhold: "files" });
      await expectMissing(
        p,
        action.digest,
        Object.values(files).map((text) => p.blobOf(Buffer.from(text)).digest.hash),
      );
    },
  },
  {
    id: "no-digest",
    level: "MUST",
    says: "A request without action_digest is INVALID_ARGUMENT.",
    cites: "REv2 ExecuteRequest.action_digest; BuildStream probes with it",
    advice: "Answer with the call's status.",
    run: async (p) => {
      const stream = await startExecution(p, p.emptyDigest, { actionDigest: undefined });
      await stream.toEnd();
      expectCode(stream.outcome!, [Code.INVALID_ARGUMENT], "Execute without a digest");
    },
  },
  {
    id: "malformed-digest",
    level: "MUST",
    says: "A malformed action_digest is INVALID_ARGUMENT.",
    cites: "REv2 ExecuteRequest.action_digest",
    advice: "Validate digests at the edge.",
    run: async (p) => {
      const stream = await (await startExecution(p, { hash: "abc", sizeBytes: 1 })).toEnd();
      expectCode(stream.outcome!, [Code.INVALID_ARGUMENT], "Execute of a malformed digest");
    },
  },
  {
    id: "action-is-no-action",
    level: "SHOULD",
    says: "A blob that is no Action is refused.",
    cites: CITES,
    advice: "INVALID_ARGUMENT (FAILED_PRECONDITION is accepted), on the call or in the response.",
    run: async (p) => {
      const blob = p.blobOf(Buffer.from("\xff\xff\xff\xff", "latin1"));
      await p.store(blob);
      expectCode(
        { code: await finalCode(p, blob.digest), message: "" },
        [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION],
        "Execute of a text",
      );
    },
  },
  {
    id: "no-arguments",
    level: "SHOULD",
    says: "A command without arguments is refused.",
    cites: "REv2 Command.arguments",
    advice: "INVALID_ARGUMENT.",
    run: async (p) => {
      const action = await prepareAction(p, { command: { arguments: [] } });
      expectCode(
        { code: await finalCode(p, action.digest), message: "" },
        [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION],
        "A command without arguments",
      );
    },
  },
  {
    id: "output-outside",
    level: "SHOULD",
    says: "An output path that leaves the input root is refused.",
    cites: "REv2 Command.output_paths",
    advice: "INVALID_ARGUMENT; never read the worker's files.",
    needs: ["output-paths"],
    run: async (p) => {
      const action = await prepareAction(p, { script: "true", outputs: ["../../../../../../etc/hostname"] });
      const stream = await (await startExecution(p, action.digest)).toEnd();
      if (stream.outcome!.code !== Code.OK) return expectCode(stream.outcome!, [Code.INVALID_ARGUMENT], "Execute");
      if (stream.statusCode === Code.OK) expectEqual(stream.result.outputFiles.length, 0, "Output files from outside");
      else expectEqual(stream.statusCode, Code.INVALID_ARGUMENT, "ExecuteResponse.status");
    },
  },
  {
    id: "input-name-traversal",
    level: "MUST",
    says: "An input root with a name like ../x is refused.",
    cites: "REv2 FileNode.name: one path segment",
    advice: "INVALID_ARGUMENT before staging.",
    run: async (p) => {
      const file = await p.storeNew(10);
      const action = await prepareAction(p, { root: { files: [{ name: "../../escaped", digest: file.digest }] } });
      expectCode(
        { code: await finalCode(p, action.digest), message: "" },
        [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION],
        `An input named "../../escaped"`,
      );
    },
  },
  {
    id: "input-duplicate-name",
    level: "SHOULD",
    says: "An input root with one name twice is refused.",
    cites: "REv2 Directory: names are unique",
    advice: "INVALID_ARGUMENT before staging.",
    run: async (p) => {
      const [one, two] = [await p.storeNew(10), await p.storeNew(10)];
      const action = await prepareAction(p, {
        root: {
          files: [
            { name: "x", digest: one.digest },
            { name: "x", digest: two.digest },
          ],
        },
      });
      expectCode(
        { code: await finalCode(p, action.digest), message: "" },
        [Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION],
        "Two inputs named x",
      );
    },
  },
  {
    id: "timeout",
    level: "MUST",
    says: "An action that runs beyond its timeout ends with DEADLINE_EXCEEDED in ExecuteResponse.status.",
    cites: "REv2 Action.timeout, ExecuteResponse.status",
    advice: "Kill the whole process tree; the call itself is OK.",
    run: async (p) => {
      const stream = await runAction(p, { script: "sleep 20", action: { timeout: { seconds: 1 } } });
      expectEqual(stream.statusCode, Code.DEADLINE_EXCEEDED, "ExecuteResponse.status");
    },
  },
  {
    id: "timeout-not-cached",
    level: "MUST",
    says: "An action that timed out is not in the action cache.",
    cites: "REv2 ExecuteResponse.status: errors are not cached",
    advice: "Store only what ran to its end.",
    run: async (p) => {
      const action = await prepareAction(p, { script: "sleep 20", action: { timeout: { seconds: 1 } } });
      await (await startExecution(p, action.digest)).toEnd();
      expectCode(await p.getActionResult(action.digest), [Code.NOT_FOUND], "GetActionResult");
    },
  },
  {
    id: "timeout-long-enough",
    level: "MUST",
    says: "An action within its timeout is not disturbed.",
    cites: "REv2 Action.timeout",
    advice: "The timeout counts the run alone.",
    run: async (p) =>
      expectEqual(
        (await runAction(p, { script: "sleep 1; exit 5", action: { timeout: { seconds: 30 } } })).result.exitCode,
        5,
        "exit_code",
      ),
  },
  {
    id: "killed-by-signal",
    level: "SHOULD",
    says: "An action that is killed by a signal has a non-zero exit code.",
    cites: "REv2 ActionResult.exit_code; by convention 128 + signal",
    advice: "Never report 0.",
    run: async (p) =>
      expectThat((await runAction(p, { script: "kill -9 $$" })).result.exitCode !== 0, "exit_code is 0"),
  },
];

const caching: readonly CheckBody[] = [
  {
    id: "cached",
    level: "SHOULD",
    says: "A second Execute of a successful action is served from the cache.",
    cites: "REv2 ExecuteResponse.cached_result, ExecuteRequest.skip_cache_lookup",
    advice: "Store the result before reporting completion.",
    run: async (p) => {
      const action = await prepareAction(p, { script: "date +%s%N > o", outputs: ["o"] });
      const first = await (await startExecution(p, action.digest)).toEnd();
      expectEqual(first.response.cachedResult, false, "cached_result of the first run");
      const second = await (await startExecution(p, action.digest)).toEnd();
      expectEqual(second.response.cachedResult, true, "cached_result of the second run");
      expectEqual(
        second.result.outputFiles[0]?.digest?.hash,
        first.result.outputFiles[0]?.digest?.hash,
        "The output's digest",
      );
    },
  },
  {
    id: "get-action-result",
    level: "SHOULD",
    says: "After a successful Execute GetActionResult finds the result.",
    cites: "REv2 Execution, ActionCache",
    advice: "One action cache behind both.",
    run: async (p) => {
      const action = await prepareAction(p, { script: "true" });
      expectEqual((await (await startExecution(p, action.digest)).toEnd()).result.exitCode, 0, "exit_code");
      expectOk(await p.getActionResult(action.digest), "GetActionResult");
    },
  },
  {
    id: "skip-cache-lookup",
    level: "MUST",
    says: "With skip_cache_lookup the action runs again.",
    cites: "REv2 ExecuteRequest.skip_cache_lookup",
    advice: "Do not answer from results that were visible before the request.",
    run: async (p) => {
      const action = await prepareAction(p, { script: "date +%s%N > o", outputs: ["o"] });
      const first = await (await startExecution(p, action.digest)).toEnd();
      const second = await (await startExecution(p, action.digest, { skipCacheLookup: true })).toEnd();
      expectEqual(second.response.cachedResult, false, "cached_result");
      expectThat(
        first.result.outputFiles[0]?.digest?.hash !== second.result.outputFiles[0]?.digest?.hash,
        "the second run gave the first one's output",
      );
    },
  },
  {
    id: "skip-cache-overwrites",
    level: "SHOULD",
    says: "The result of a run with skip_cache_lookup replaces the cached one.",
    cites: "REv2 ExecuteRequest.skip_cache_lookup",
    advice: "Store it as any other.",
    run: async (p) => {
      const action = await prepareAction(p, { script: "date +%s%N > o", outputs: ["o"] });
      await (await startExecution(p, action.digest)).toEnd();
      const second = await (await startExecution(p, action.digest, { skipCacheLookup: true })).toEnd();
      const cached = await p.getActionResult(action.digest);
      expectEqual(
        cached.response?.outputFiles[0]?.digest?.hash,
        second.result.outputFiles[0]?.digest?.hash,
        "The cached output",
      );
    },
  },
  {
    id: "do-not-cache",
    level: "MUST",
    says: "An action with do_not_cache runs every time and is not stored.",
    cites: "REv2 Action.do_not_cache",
    advice: "Neither look up nor store nor merge.",
    run: async (p) => {
      const action = await prepareAction(p, { script: "date +%s%N > o", outputs: ["o"], action: { doNotCache: true } });
      const first = await (await startExecution(p, action.digest)).toEnd();
      expectCode(await p.getActionResult(action.digest), [Code.NOT_FOUND], "GetActionResult");
      const second = await (await startExecution(p, action.digest)).toEnd();
      expectEqual(second.response.cachedResult, false, "cached_result");
      expectThat(
        first.result.outputFiles[0]?.digest?.hash !== second.result.outputFiles[0]?.digest?.hash,
        "both runs gave the same output",
      );
    },
  },
  {
    id: "failure-not-served-as-cached",
    level: "SHOULD",
    says: "A failed action runs again when it is asked again.",
    cites: "REv2 Action: only successful results are worth keeping",
    advice: "Store results with exit code 0 only, unless configured otherwise.",
    run: async (p) => {
      const action = await prepareAction(p, { script: "exit 9" });
      await (await startExecution(p, action.digest)).toEnd();
      const second = await (await startExecution(p, action.digest)).toEnd();
      expectEqual(second.response.cachedResult, false, "cached_result");
      expectEqual(second.result.exitCode, 9, "exit_code");
    },
  },
  {
    id: "salt",
    level: "MUST",
    says: "Actions that differ in salt alone are different actions.",
    cites: "REv2 Action.salt",
    advice: "The key is the digest of the Action.",
    run: async (p) => {
      const first = await runAction(p, { script: "true" });
      const second = await runAction(p, { script: "true" });
      expectEqual(first.response.cachedResult || second.response.cachedResult, false, "cached_result");
    },
  },
];

const stream: readonly CheckBody[] = [
  {
    id: "name",
    level: "MUST",
    says: "Every Operation of a stream has the same non-empty name.",
    cites: "google.longrunning Operation.name",
    advice: "Assign it before the first message.",
    run: async (p) => {
      const { operations } = await runAction(p, { script: "true" });
      expectThat(operations.length > 0, "no Operation at all");
      expectThat(operations[0]!.name !== "", "the name is empty");
      for (const { name } of operations) expectEqual(name, operations[0]!.name, "The name");
    },
  },
  {
    id: "metadata",
    level: "MUST",
    says: "Operations carry ExecuteOperationMetadata with the action's digest.",
    cites: "REv2 ExecuteOperationMetadata",
    advice: "Set it in every Operation, the last one included.",
    run: async (p) => {
      const action = await prepareAction(p, { script: "true" });
      const { operations } = await (await startExecution(p, action.digest)).toEnd();
      for (const operation of operations) {
        const metadata = expectPresent(metadataOf(operation), "ExecuteOperationMetadata");
        expectEqual(metadata.actionDigest?.hash, action.digest.hash, "action_digest");
      }
    },
  },
  {
    id: "completed-last",
    level: "MUST",
    says: "The stage is COMPLETED exactly in the Operation that is done.",
    cites: "REv2 ExecutionStage.COMPLETED",
    advice: "One last Operation with both.",
    run: async (p) => {
      const { operations } = await runAction(p, { script: "true" });
      for (const operation of operations) {
        expectEqual(metadataOf(operation)?.stage === Stage.COMPLETED, operation.done, "stage is COMPLETED");
      }
    },
  },
  {
    id: "ends-after-done",
    level: "MUST",
    says: "The stream ends with OK right after the Operation that is done.",
    cites: CITES,
    advice: "Close the stream; clients wait for it.",
    run: async (p) => {
      const { operations, outcome } = await runAction(p, { script: "true" });
      expectOk(outcome!, "The stream");
      expectEqual(operations.filter(({ done }) => done).length, 1, "Operations that are done");
      expectEqual(operations.at(-1)!.done, true, "The last one's done");
    },
  },
  {
    id: "first-prompt",
    level: "SHOULD",
    says: "The first Operation arrives before the action has ended.",
    cites: CITES,
    advice: "Clients need the name to resume; send it at once.",
    run: async (p) => {
      const action = await prepareAction(p, { script: "sleep 3" });
      const execution = await startExecution(p, action.digest);
      const first = await execution.next();
      expectThat(first !== undefined && !first.done, "the first Operation is the last one");
      await execution.toEnd();
    },
  },
  {
    id: "executing-seen",
    level: "SHOULD",
    says: "A running action is reported in stage EXECUTING.",
    cites: "REv2 ExecutionStage.EXECUTING",
    advice: "Send an Operation when the stage changes.",
    run: async (p) =>
      expectThat(
        (await runAction(p, { script: "sleep 2" })).stages.includes(Stage.EXECUTING),
        "EXECUTING was never reported",
      ),
  },
  {
    id: "stages-known",
    level: "MUST",
    says: "Stages are defined values, never UNKNOWN.",
    cites: "REv2 ExecutionStage.Value",
    advice: "Start with CACHE_CHECK or QUEUED.",
    run: async (p) => {
      for (const stage of (await runAction(p, { script: "sleep 1" })).stages)
        expectThat(stage >= 1 && stage <= 4, `stage ${stage}`);
    },
  },
  {
    id: "error-never-set",
    level: "MUST",
    says: "Operation.error is never set, also for failed actions.",
    cites: "REv2 Execution: errors are in ExecuteResponse.status",
    advice: "Always set response.",
    run: async (p) => {
      const stream = await runAction(p, { script: "sleep 9", action: { timeout: { seconds: 1 } } });
      for (const { error } of stream.operations) expectThat(error === undefined, "Operation.error is set");
      expectPresent(stream.operations.at(-1)?.response, "the last Operation's response");
    },
  },
  {
    id: "metadata-timestamps",
    level: "SHOULD",
    says: "execution_metadata has the worker and ordered timestamps.",
    cites: "REv2 ExecutedActionMetadata",
    advice: "Queued, worker start, input fetch, execution, output upload, worker completed.",
    run: async (p) => {
      const { result } = await runAction(p, { script: "true" });
      const metadata = expectPresent(result.executionMetadata, "execution_metadata");
      expectThat(metadata.worker !== "", "worker is empty");
      const order = [
        metadata.queuedTimestamp,
        metadata.workerStartTimestamp,
        metadata.executionStartTimestamp,
        metadata.executionCompletedTimestamp,
        metadata.workerCompletedTimestamp,
      ];
      const times = order
        .map((timestamp) => expectPresent(timestamp, "a timestamp"))
        .map(({ seconds, nanos }) => seconds * 1e3 + nanos / 1e6);
      for (const [index, time] of times.entries())
        expectThat(index === 0 || time >= times[index - 1]!, "the timestamps are not in order");
    },
  },
  {
    id: "execution-metadata-set",
    level: "CLIENTS",
    says: "Every result has execution_metadata.",
    cites: "Buck2 fails without it",
    advice: "Set at least the worker's name.",
    run: async (p) =>
      void expectPresent((await runAction(p, { script: "true" })).result.executionMetadata, "execution_metadata"),
  },
];

export const executeChecks: readonly Check[] = defineArea(
  "execute",
  ["exec", "cache", "sha256"],
  [...basics, ...outputs, ...failures, ...caching, ...stream].map((check) => ({
    timeoutMs: EXECUTION_TIMEOUT_MS,
    ...check,
  })),
);

/** The code with which an execution failed, wherever it was put. */
async function finalCode(p: Probe, digest: Parameters<typeof startExecution>[1]): Promise<number> {
  const execution = await (await startExecution(p, digest)).toEnd();
  return execution.outcome!.code === Code.OK ? execution.statusCode : execution.outcome!.code;
}

async function expectMissing(
  p: Probe,
  digest: Parameters<typeof startExecution>[1],
  hashes: readonly string[],
): Promise<void> {
  const { PreconditionFailure } = await import("../../../src/proto/error_details.ts");
  const execution = await (await startExecution(p, digest)).toEnd();
  const onCall = execution.outcome!.code !== Code.OK;
  const status = onCall ? execution.outcome!.details : execution.response.status;
  expectCode(
    onCall ? execution.outcome! : { code: status?.code ?? 0, message: status?.message ?? "" },
    [Code.FAILED_PRECONDITION],
    "The execution",
  );
  const detail = status?.details.find(({ typeUrl }) => typeUrl.split("/").at(-1) === PreconditionFailure.typeName);
  const { violations } = PreconditionFailure.decode(expectPresent(detail, "the PreconditionFailure detail").value);
  expectThat(violations.length > 0, "the PreconditionFailure has no violations");
  for (const { type } of violations) expectEqual(type, "MISSING", "A violation's type");
  for (const hash of hashes)
    expectThat(
      violations.some(({ subject }) => subject.startsWith("blobs/") && subject.includes(hash)),
      `no violation has the subject blobs/${hash}/…`,
    );
}
