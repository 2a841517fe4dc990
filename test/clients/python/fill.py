"""Stores COUNT blobs of SIZE bytes each, in batches. Usage: fill.py SERVER COUNT SIZE"""

import os
import sys

import reapi
from reapi import digest_of, re


def run(address):
    count, size = int(sys.argv[2]), int(sys.argv[3])
    client = reapi.Client(address)
    batch_length = max(1, (3 << 20) // (size + 100))
    pending = []
    for start in range(0, count, batch_length):
        request = re.BatchUpdateBlobsRequest()
        for _ in range(min(batch_length, count - start)):
            data = os.urandom(size)
            request.requests.add(digest=digest_of(data), data=data)
        pending.append(client.BatchUpdateBlobs.future(request))
        if len(pending) > 4:
            settle(pending.pop(0))
    for future in pending:
        settle(future)


def settle(future):
    for response in future.result().responses:
        if response.status.code != 0:
            raise RuntimeError(response.status.message)


reapi.main(run)
