// Leaves stages that do not last out of the stream a client is sent.
//
// Each message costs client and server a tenth of a millisecond of CPU and more, so a build of trivial actions is faster
// when it hears of each one once; for people 20 ms are no time. Invariant: the last view always comes, and at once; what
// was withheld and still holds comes after TELLING_DELAY_MS.

import type { Clock } from "../base/clock.ts";
import type { OperationView } from "../scheduler/scheduler.ts";

/** Longer would hide what `ledge operations` and progress bars show; half of it still covers a trivial action. */
export const TELLING_DELAY_MS = 20;

export async function* withoutBriefStages(
  views: AsyncGenerator<OperationView>,
  clock: Clock,
): AsyncGenerator<OperationView, void> {
  let next = views.next();
  try {
    for (let result = await next; result.done !== true; result = await next) {
      let view = result.value;
      if (view.end === undefined) {
        next = views.next();
        const wait = startWait(clock);
        for (let later = await Promise.race([next, wait.over]); later !== undefined;) {
          if (later.done === true) return;
          view = later.value;
          if (view.end !== undefined) break;
          next = views.next();
          later = await Promise.race([next, wait.over]);
        }
        wait.cancel();
      }
      yield view;
      if (view.end !== undefined) return;
    }
  } finally {
    // Not awaited: its current step may wait for the end of the call, which is what brought us here.
    void views.return(undefined);
  }
}

function startWait(clock: Clock): { readonly over: Promise<undefined>; readonly cancel: () => void } {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  return { over: promise, cancel: clock.schedule(TELLING_DELAY_MS, () => resolve(undefined)) };
}
