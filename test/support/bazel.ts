// Runs Bazel on examples/cc (or another workspace) with an output base of its own, and reads its process summary.
//
// Invariant: the Bazel server that an invocation leaves behind ends with the Bazel object; if the test process is
// killed it ends by itself after a minute of idleness.

import { join } from "node:path";
import { parseProcesses } from "../../examples/process-summary.ts";
import { runToEnd, type ChildOutput } from "./child-output.ts";
import { TemporaryFolder } from "./temporary-folder.ts";

export const exampleWorkspace = join(import.meta.dirname, "../../examples/cc");

/** Everything that succeeds, also where Bazel 4 refuses symlink outputs. */
export const everything = "//:everything";

export interface BazelResult extends ChildOutput {
  /** "INFO: 59 processes: 5 internal, 54 remote." as { internal: 5, remote: 54 }; empty when Bazel ran nothing. */
  readonly processes: ReadonlyMap<string, number>;
  /** stdout and stderr together: Bazel writes to either. */
  readonly text: string;
}

export class Bazel implements AsyncDisposable {
  readonly #folder: TemporaryFolder;
  readonly #workspace: string;

  private constructor(folder: TemporaryFolder, workspace: string) {
    this.#folder = folder;
    this.#workspace = workspace;
  }

  static async create(workspace: string = exampleWorkspace): Promise<Bazel> {
    return new Bazel(await TemporaryFolder.create("bazel"), workspace);
  }

  get outputBase(): string {
    return join(this.#folder.path, "base");
  }

  /** Where outputs of the default configuration are. */
  get bin(): string {
    const architecture = process.arch === "arm64" ? "aarch64" : "k8";
    return join(this.outputBase, `execroot/ledge_example_cc/bazel-out/${architecture}-fastbuild/bin`);
  }

  /** Runs `bazel COMMAND ARGS`; resolves whatever its exit code is. */
  async run(command: string, ...args: readonly string[]): Promise<BazelResult> {
    const startup = [
      `--output_user_root=${join(this.#folder.path, "user")}`,
      `--output_base=${this.outputBase}`,
      "--host_jvm_args=-Xmx512m",
      "--max_idle_secs=60",
      "--nohome_rc",
    ];
    const quiet = ["clean", "shutdown"].includes(command)
      ? []
      : ["--color=no", "--curses=no", "--noshow_progress", "--noshow_loading_progress", "--symlink_prefix=/"];
    const output = await runToEnd("bazel", [...startup, command, ...quiet, ...args], { cwd: this.#workspace });
    const text = output.stdout + output.stderr;
    return { ...output, text, processes: parseProcesses(text) };
  }

  /** As run(), but rejects with Bazel's own words unless it succeeded. */
  async expectSuccess(command: string, ...args: readonly string[]): Promise<BazelResult> {
    const result = await this.run(command, ...args);
    if (result.exitCode !== 0) {
      throw new Error(`bazel ${command} ${args.join(" ")} ended with ${result.exitCode}:\n${result.text}`);
    }
    return result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.run("shutdown");
    await this.#folder[Symbol.asyncDispose]();
  }
}
