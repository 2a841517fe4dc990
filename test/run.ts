// The test command, `npm test`: everything there is to check, from a fresh clone to one line at the end.
//
// Debian packages → generated codecs → format, lint, types → dist/ledge → vitest. Every step runs even if one before it
// failed, so that one run shows all there is to mend. Each check counts as a test. The exit code is 0 only when nothing
// failed and nothing was skipped: a skipped test is one that nobody sees failing.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNodeVersion } from "../src/base/node-version.ts";
import { debianPackages, goCompilerPackage, type DebianPackage } from "./support/debian-packages.ts";

const root = join(import.meta.dirname, "..");
const binaries = join(root, "node_modules", ".bin");

interface Step {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
}

const CHECKS: readonly Step[] = [
  { name: "generate the codecs", command: [process.execPath, "protos/generate.ts"] },
  { name: "format", command: ["oxfmt", "--check"] },
  { name: "lint", command: ["oxlint", "--type-aware", "--deny-warnings"] },
  { name: "types", command: ["tsc", "--noEmit"] },
  { name: "build dist/ledge", command: [process.execPath, "build.ts"] },
  { name: "fetch real clients", command: [process.execPath, "test/support/prepare-clients.ts"] },
];

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

function main(): number {
  assertNodeVersion();
  if (!installDebianPackages()) return 1;
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const failures: string[] = [];
  for (const step of CHECKS) {
    if (run(step)) counts.passed++;
    else {
      counts.failed++;
      failures.push(step.name);
    }
  }
  runVitest(counts, failures);
  for (const failure of failures) process.stdout.write(`FAILED: ${failure}\n`);
  process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
  return counts.failed === 0 && counts.skipped === 0 && counts.passed > 0 ? 0 : 1;
}

function run(step: Step): boolean {
  const startedAtMs = performance.now();
  process.stdout.write(`\n== ${step.name}\n`);
  const [program, ...args] = step.command;
  const { status, error } = spawnSync(program, args, {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, PATH: `${binaries}:${process.env["PATH"]}` },
  });
  if (error !== undefined) process.stdout.write(`${program}: ${error.message}\n`);
  process.stdout.write(`== ${step.name}: ${status === 0 ? "ok" : "FAILED"}, ${seconds(startedAtMs)}\n`);
  return status === 0;
}

/** The parts of vitest's JSON report (the format of Jest's) that say how it went. */
interface Report {
  readonly success: boolean;
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[];
  }[];
}

function runVitest(counts: Counts, failures: string[]): void {
  const folder = mkdtempSync(join(tmpdir(), "ledge-test-"));
  const reportPath = join(folder, "report.json");
  try {
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportPath}`];
    const finished = run({ name: "vitest", command: ["vitest", "run", ...reporters] });
    const report = JSON.parse(readFileSync(reportPath, "utf8")) as Report;
    counts.passed += report.numPassedTests;
    counts.skipped += report.numPendingTests + report.numTodoTests;
    for (const file of report.testResults) countFile(file, counts, failures);
    // An error outside of any test (an unhandled rejection, say) shows in the exit code alone.
    if (!finished && failures.length === 0) {
      counts.failed++;
      failures.push("vitest: an error outside of any test, see above");
    }
  } catch (error) {
    counts.failed++;
    failures.push(`vitest left no report: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function countFile(file: Report["testResults"][number], counts: Counts, failures: string[]): void {
  const failed = file.assertionResults.filter(({ status }) => status === "failed");
  counts.failed += failed.length;
  for (const { fullName } of failed) failures.push(`${file.name}: ${fullName}`);
  // A file that cannot be loaded, or whose hooks fail, has no failed test to show for it.
  if (file.status === "failed" && failed.length === 0) {
    counts.failed++;
    failures.push(`${file.name}: the file itself`);
  }
}

/** False, with the command that would help, when packages are missing and we may not install them. */
function installDebianPackages(): boolean {
  const missing = missingPackages();
  if (missing.length === 0) return true;
  process.stdout.write("Debian packages the tests need:\n");
  for (const { name, reason } of missing) process.stdout.write(`  ${name.padEnd(20)} ${reason}\n`);
  const command = `apt-get install --yes --no-install-recommends ${missing.map(({ name }) => name).join(" ")}`;
  if (process.getuid?.() !== 0) {
    process.stdout.write(`Install them, then run the tests again:\n  sudo ${command}\n`);
    return false;
  }
  if (aptGet(["update"]) && aptGet(command.split(" ").slice(1)) && missingPackages().length === 0) return true;
  process.stdout.write(`Could not install them: ${command}\n`);
  return false;
}

function missingPackages(): DebianPackage[] {
  const wanted = [...debianPackages, ...(isOnPath("go") ? [] : [goCompilerPackage])];
  const query = ["--show", "--showformat", "${Package} ${db:Status-Status}\n", ...wanted.map(({ name }) => name)];
  const { stdout } = spawnSync("dpkg-query", query, { encoding: "utf8" });
  const installed = new Set((stdout ?? "").split("\n").flatMap((line) => line.match(/^(\S+) installed$/)?.[1] ?? []));
  return wanted.filter(({ name }) => !installed.has(name));
}

function isOnPath(program: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" }).status === 0;
}

/** Patient with a busy mirror and with another apt-get that holds the lock. */
function aptGet(args: readonly string[]): boolean {
  const options = ["--quiet=2", "--option", "Acquire::Retries=5", "--option", "DPkg::Lock::Timeout=300"];
  const { status } = spawnSync("apt-get", [...options, ...args], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
  });
  return status === 0;
}

function seconds(startedAtMs: number): string {
  return `${((performance.now() - startedAtMs) / 1000).toFixed(1)} s`;
}

process.exitCode = main();
