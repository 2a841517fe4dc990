// Execute: an action runs as its Command says, with its inputs, and its logs are kept.

import { Code } from "../../../src/base/status.ts";
import { defineArea, expectCode, expectEqual, expectThat, type Check } from "../check.ts";
import { contentOf, runAction, stderrOf, stdoutOf } from "../actions.ts";

const CITES = "REv2 Execution.Execute";

const EXECUTION_TIMEOUT_MS = 60_000;

export const executeChecks: readonly Check[] = defineArea(
  "execute",
  ["exec", "cache", "sha256"],
  [
    {
      id: "runs",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "An action runs, exits 0, and its result says so.",
      cites: CITES,
      advice: "Start here: every other check of this area stands on it.",
      run: async (p) => expectEqual((await runAction(p, { script: "exit 0" })).result.exitCode, 0, "exit_code"),
    },
    {
      id: "exit-code",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
      says: "What the action writes to stdout is kept.",
      cites: "REv2 ActionResult.stdout_digest, stdout_raw",
      advice: "Store it in the CAS and set stdout_digest.",
      run: async (p) =>
        expectEqual(await stdoutOf(p, (await runAction(p, { script: "printf 'to out'" })).result), "to out", "stdout"),
    },
    {
      id: "stderr",
      level: "MUST",
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
      timeoutMs: EXECUTION_TIMEOUT_MS,
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
  ],
);
