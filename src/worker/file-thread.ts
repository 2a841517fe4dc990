// The entry of a file thread: takes one job at a time from the event loop and answers it. Started by file-threads.ts.

import { parentPort } from "node:worker_threads";
import { answerFileRequest, type FileRequest } from "./file-jobs.ts";

const port = parentPort;
if (port === null) throw new Error("file-thread.ts is the entry of a worker thread");
port.on("message", (request: FileRequest) => port.postMessage(answerFileRequest(request)));
