"""An action of SECONDS seconds: the current Operation comes again every 20 s, so that no proxy thinks it dead."""

import sys
import time

import reapi
from reapi import check, re, unique


def run(address):
    seconds = int(sys.argv[2])
    client = reapi.Client(address)
    command = reapi.shell(f"sleep {seconds}; echo slept", environment_variables=[])
    action = reapi.upload_action(client, command, salt=unique())
    arrivals, operations = [], []
    for operation in client.Execute(re.ExecuteRequest(action_digest=action, inline_stdout=True)):
        arrivals.append(time.monotonic())
        operations.append(operation)
    response = reapi.finished(operations)
    ended_well = response.status.code == 0 and response.result.stdout_raw == b"slept\n"
    check(ended_well, f"the action of {seconds} s ended well: {response if not ended_well else ''}")
    gaps = [later - earlier for earlier, later in zip(arrivals, arrivals[1:])]
    # Repeated every 20 s, so none may be silent for two periods; 3 s more for a machine that is busy.
    check(max(gaps) < 23, f"no silence above 23 s: {', '.join(f'{gap:.1f}' for gap in gaps)}")
    check(len(operations) >= 3 + seconds // 20 - 1, f"{len(operations)} Operations")
    names = {operation.name for operation in operations}
    check(len(names) == 1, "all of one name")


reapi.main(run)
