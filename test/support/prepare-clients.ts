// Fetches the real clients that no Debian package brings, before the tests start: `node test/support/prepare-clients.ts`.
//
// Tests fetch what is missing themselves; in a step of its own the wait has a name and counts against no test's time.

import { prepareClients } from "./fetched-clients.ts";

await prepareClients();
