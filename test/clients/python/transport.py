"""gRPC's C core through whatever lies between it and the server: a proxy, TLS, client certificates, or nothing.

Usage: transport.py ADDRESS [CA [KEY CERT]]. Every kind of call, errors, deadlines, cancelling, metadata, large messages and a
thousand calls at once on one connection.
"""

import os
import sys
import threading

import grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as re
from google.bytestream import bytestream_pb2 as bs

from reapi import Client, check, digest_of, read_blob, read_name, status_of, unique, upload, write_messages, write_name

address, *files = sys.argv[1:]
options = [("grpc.max_receive_message_length", 8 << 20), ("grpc.ssl_target_name_override", "localhost")]
credentials = None
if files:
    ca, key, cert = [open(path, "rb").read() for path in files] + [None] * (3 - len(files))
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
client = Client(address, options, credentials)

capabilities = client.GetCapabilities(re.GetCapabilitiesRequest(), timeout=20)
check(capabilities.cache_capabilities.digest_functions, "a unary call")

absent = digest_of(unique())
try:
    client.GetActionResult(re.GetActionResultRequest(action_digest=absent))
    check(False, "a miss")
except grpc.RpcError as error:
    check(error.code() == grpc.StatusCode.NOT_FOUND and absent.hash in error.details(), "a miss, with its message")

data = os.urandom(40 << 20)
digest = digest_of(data)
name = write_name(digest)
written = client.Write(write_messages(name, data))
check(written.committed_size == len(data), "40 MiB sent as a stream")
check(read_blob(client, digest) == data, "the same received as a stream")

batch = [os.urandom(1 << 20) for _ in range(3)] + [os.urandom(900_000)]
upload(client, batch)
request = re.BatchReadBlobsRequest(digests=[digest_of(blob) for blob in batch])
found = {response.digest.hash: response.data for response in client.BatchReadBlobs(request).responses}
check(all(found[digest_of(blob).hash] == blob for blob in batch), "messages of 4 MiB in both directions")

HEADER = "build.bazel.remote.execution.v2.resource-name"
read = lambda value: status_of(lambda: client.Read(bs.ReadRequest(resource_name=read_name(digest)), metadata=[(HEADER, value)]))
check(read(read_name(digest)) == grpc.StatusCode.OK, "metadata that is right")
check(read(read_name(absent)) == grpc.StatusCode.INVALID_ARGUMENT, "metadata that contradicts the request")


def endless(blob, release):
    yield bs.WriteRequest(resource_name=write_name(digest_of(blob)), data=blob[:1000])
    release.wait(60)


release = threading.Event()
check(
    status_of(lambda: client.Write(endless(unique() * 100, release), timeout=0.5)) == grpc.StatusCode.DEADLINE_EXCEEDED,
    "a deadline in the middle of an upload",
)
call = client.Write.future(endless(unique() * 100, release))
threading.Timer(0.2, call.cancel).start()
try:
    call.result(timeout=20)
    check(False, "cancelling")
except (grpc.RpcError, grpc.FutureCancelledError):
    check(call.cancelled() or call.code() == grpc.StatusCode.CANCELLED, "cancelling an upload")
release.set()

again = client.Write(write_messages(write_name(digest), data))
check(again.committed_size == len(data), "an answer that comes before the upload has ended")

futures = [client.FindMissingBlobs.future(re.FindMissingBlobsRequest(blob_digests=[absent, digest])) for _ in range(1000)]
answers = {tuple(d.hash for d in future.result(timeout=60).missing_blob_digests) for future in futures}
check(answers == {(absent.hash,)}, "a thousand calls at once")
