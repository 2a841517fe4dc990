// What collecting outputs costs: from the end of the command until everything is in the store, as the server says in the
// result's metadata, beside the time that uploading as many bytes of the same kind takes.
//
// Left out: the command itself, which makes the outputs from /dev/urandom. Uploading includes the way through the
// socket, so it is an upper bound of what storing alone costs.

import { RandomData } from "../random-data.ts";
import type { ExecutedAction } from "./execution-client.ts";
import type { MeasureContext, MeasureResult } from "./measures.ts";
import { sampleAction, sampleBlob, sampleRoot } from "./sample-actions.ts";

export interface OutputMeasure {
  readonly what: string;
  readonly fileCount: number;
  readonly fileBytes: number;
  readonly actions: number;
}

export const SMALL_OUTPUTS: OutputMeasure = {
  what: "100 outputs of 10 KiB",
  fileCount: 100,
  fileBytes: 10 * 1024,
  actions: 10,
};
export const LARGE_OUTPUT: OutputMeasure = {
  what: "one output of 100 MiB",
  fileCount: 1,
  fileBytes: 100 * 1024 * 1024,
  actions: 3,
};

export async function measureOutputs(context: MeasureContext, measure: OutputMeasure): Promise<MeasureResult> {
  const { client, run, platform, seed } = context;
  const { what, fileCount, fileBytes, actions } = measure;
  const script = `i=0; while [ $i -lt ${fileCount} ]; do head -c ${fileBytes} /dev/urandom > out/$i; i=$((i+1)); done`;
  const command = {
    arguments: ["/bin/sh", "-c", `mkdir -p out; ${script}`],
    outputPaths: Array.from({ length: fileCount }, (_, index) => `out/${index}`),
  };
  const root = sampleRoot(0, { seed: 0 });
  const random = new RandomData(seed);
  const collected: number[] = [];
  const uploaded: number[] = [];
  for (let index = 0; index <= actions; index++) {
    const action = sampleAction(root, run, command, platform);
    await client.store(action.blobs);
    const collectMs = outputUploadMs(await client.execute(action.digest));
    const blobs = Array.from({ length: fileCount }, () => sampleBlob(random.bytes(fileBytes)));
    const begunMs = performance.now();
    await client.store(blobs);
    if (index === 0) continue; // threads and buffers were set up
    collected.push(collectMs);
    uploaded.push(performance.now() - begunMs);
  }
  const middle = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
  return {
    figures: [
      { name: `${what}, collected`, value: middle(collected), unit: "ms" },
      { name: `${what}, uploaded instead`, value: middle(uploaded), unit: "ms" },
    ],
    actions: actions + 1,
  };
}

function outputUploadMs({ result }: ExecutedAction): number {
  const { outputUploadStartTimestamp: start, outputUploadCompletedTimestamp: end } = result.executionMetadata ?? {};
  if (start === undefined || end === undefined) throw new Error("the result says nothing of its output upload");
  return (end.seconds - start.seconds) * 1000 + (end.nanos - start.nanos) / 1e6;
}
