// The jobs of a file thread: names, inputs, outputs and the functions that do them.
//
// Inputs and outputs are plain data that structured cloning takes. Nothing here holds state between jobs.

import type { DirectoryStamp } from "./directory-stamp.ts";
import {
  errorCode,
  materialize,
  removeTrees,
  writeFiles,
  type MaterializeJob,
  type NewFile,
} from "./file-operations.ts";
import { keepDirectories, type KeepJob, type KeptParts } from "./keep-job.ts";
import { scanOutputs, type ScanJob, type ScanResult } from "./output-scan.ts";

/** The jobs a file thread knows, by name: what goes in and what comes out. */
export interface FileJobs {
  materialize: { readonly input: MaterializeJob; readonly output: readonly DirectoryStamp[] };
  keepDirectories: { readonly input: KeepJob; readonly output: KeptParts };
  writeFiles: { readonly input: readonly NewFile[]; readonly output: void };
  scanOutputs: { readonly input: ScanJob; readonly output: ScanResult };
  removeTrees: { readonly input: readonly string[]; readonly output: void };
}

export interface FileRequest<Name extends keyof FileJobs = keyof FileJobs> {
  readonly id: number;
  readonly name: Name;
  readonly input: FileJobs[Name]["input"];
}

export type FileResponse =
  | { readonly id: number; readonly output: FileJobs[keyof FileJobs]["output"] }
  | { readonly id: number; readonly error: { readonly message: string; readonly code: string | undefined } };

type Handlers = { [Name in keyof FileJobs]: (input: FileJobs[Name]["input"]) => FileJobs[Name]["output"] };

const HANDLERS: Handlers = {
  materialize,
  keepDirectories,
  writeFiles,
  scanOutputs,
  removeTrees,
};

/** Runs one job in this thread. Also the way tests run jobs without a thread. */
export function runFileJob<Name extends keyof FileJobs>(
  name: Name,
  input: FileJobs[Name]["input"],
): FileJobs[Name]["output"] {
  return HANDLERS[name](input);
}

/** Runs a request and turns what it throws into data. */
export function answerFileRequest(request: FileRequest): FileResponse {
  try {
    return { id: request.id, output: runFileJob(request.name, request.input) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { id: request.id, error: { message, code: errorCode(error) } };
  }
}
