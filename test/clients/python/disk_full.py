"""Fills the disk of a server, and takes a file away when it is full. Usage: disk_full.py SERVER FILE-THAT-TAKES-ROOM"""

import os
import sys
import time

import reapi
from reapi import check, digest_of, grpc, re, unique

_FULL = grpc.StatusCode.RESOURCE_EXHAUSTED
_BLOB_BYTES = 1 << 20


def run(address):
    client = reapi.Client(address)
    stored = []
    error = None
    while error is None and len(stored) < 1000:
        data = os.urandom(_BLOB_BYTES)
        try:
            client.Write(reapi.write_messages(reapi.write_name(digest_of(data)), data))
            stored.append(digest_of(data))
        except grpc.RpcError as failed:
            error = failed
    check(error is not None and error.code() == _FULL, f"after {len(stored)} MiB: {error.code()}: {error.details()}")
    check(len(stored) > 20, "the disk was not full at the start")
    refused = re.BatchUpdateBlobsRequest()
    small = unique("small")
    refused.requests.add(digest=digest_of(small), data=small)
    (response,) = client.BatchUpdateBlobs(refused).responses
    check(response.status.code == _FULL.value[0], "a small blob in a batch is refused with the same code")
    check_reads(client, stored, "while the disk is full")
    os.remove(sys.argv[2])
    # The server looks at the disk from time to time; it needs no restart and no further sign.
    deadline = time.monotonic() + 10
    while client.BatchUpdateBlobs(refused).responses[0].status.code != 0:
        check(time.monotonic() < deadline, "writes go on after space has come back")
        time.sleep(0.1)
    large = os.urandom(_BLOB_BYTES)
    client.Write(reapi.write_messages(reapi.write_name(digest_of(large)), large))
    check(reapi.read_blob(client, digest_of(large)) == large, "a large blob is stored again")
    check_reads(client, stored, "after all that")


def check_reads(client, stored, when):
    missing = client.FindMissingBlobs(re.FindMissingBlobsRequest(blob_digests=stored)).missing_blob_digests
    check(not missing, f"no acknowledged blob is missing {when}")
    for digest in stored[:: len(stored) // 10]:
        reapi.read_blob(client, digest)
    check(True, f"they are readable {when}")


reapi.main(run)
