"""Starts an action that sleeps SECONDS, waits until it executes, prints "executing" and leaves without waiting for it.

Its input is a file whose name, NAME, tells a build directory from everything else on the disk.
"""

import sys

import reapi
from reapi import digest_of, re, unique


def run(address):
    name, seconds = sys.argv[2:4]
    client = reapi.Client(address)
    data = unique("input")
    root = reapi.directory(files=[(name, digest_of(data), False)])
    # A child in the background and one in the foreground: both have to be gone afterwards.
    command = reapi.shell(f"sleep {seconds} & sleep {seconds}")
    action = reapi.upload_action(client, command, root, [data])
    for operation in client.Execute(re.ExecuteRequest(action_digest=action)):
        stage = re.ExecuteOperationMetadata()
        operation.metadata.Unpack(stage)
        if stage.stage == re.ExecutionStage.EXECUTING:
            print("executing", flush=True)
            return
    raise RuntimeError("the action ended before it was seen executing")


reapi.main(run)
