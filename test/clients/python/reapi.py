"""What the scripted clients share: a grpcio channel, calls by name, digests, uploads, inputs and one way to execute.

The codecs come from the public protos (PYTHONPATH), the transport is gRPC's C core: neither is ours. Every client is a
script that prints what it found right and ends with exit code 1 at the first thing it found wrong.
"""

import hashlib
import sys
import uuid

import grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as re
from google.bytestream import bytestream_pb2 as bs
from google.longrunning import operations_pb2 as lr
from google.protobuf import empty_pb2

from blake3 import blake3_hex

SHA256 = re.DigestFunction.SHA256
BLAKE3 = re.DigestFunction.BLAKE3
REAPI = "build.bazel.remote.execution.v2"

_METHODS = {
    "GetCapabilities": (f"{REAPI}.Capabilities", re.GetCapabilitiesRequest, re.ServerCapabilities, "unary_unary"),
    "FindMissingBlobs": (
        f"{REAPI}.ContentAddressableStorage",
        re.FindMissingBlobsRequest,
        re.FindMissingBlobsResponse,
        "unary_unary",
    ),
    "BatchUpdateBlobs": (
        f"{REAPI}.ContentAddressableStorage",
        re.BatchUpdateBlobsRequest,
        re.BatchUpdateBlobsResponse,
        "unary_unary",
    ),
    "BatchReadBlobs": (
        f"{REAPI}.ContentAddressableStorage",
        re.BatchReadBlobsRequest,
        re.BatchReadBlobsResponse,
        "unary_unary",
    ),
    "GetTree": (f"{REAPI}.ContentAddressableStorage", re.GetTreeRequest, re.GetTreeResponse, "unary_stream"),
    "GetActionResult": (f"{REAPI}.ActionCache", re.GetActionResultRequest, re.ActionResult, "unary_unary"),
    "UpdateActionResult": (f"{REAPI}.ActionCache", re.UpdateActionResultRequest, re.ActionResult, "unary_unary"),
    "Execute": (f"{REAPI}.Execution", re.ExecuteRequest, lr.Operation, "unary_stream"),
    "WaitExecution": (f"{REAPI}.Execution", re.WaitExecutionRequest, lr.Operation, "unary_stream"),
    "Read": ("google.bytestream.ByteStream", bs.ReadRequest, bs.ReadResponse, "unary_stream"),
    "Write": ("google.bytestream.ByteStream", bs.WriteRequest, bs.WriteResponse, "stream_unary"),
    "QueryWriteStatus": (
        "google.bytestream.ByteStream",
        bs.QueryWriteStatusRequest,
        bs.QueryWriteStatusResponse,
        "unary_unary",
    ),
    "GetOperation": ("google.longrunning.Operations", lr.GetOperationRequest, lr.Operation, "unary_unary"),
    "ListOperations": (
        "google.longrunning.Operations",
        lr.ListOperationsRequest,
        lr.ListOperationsResponse,
        "unary_unary",
    ),
    "CancelOperation": (
        "google.longrunning.Operations",
        lr.CancelOperationRequest,
        empty_pb2.Empty,
        "unary_unary",
    ),
}


class Client:
    """Every method of _METHODS as an attribute: client.FindMissingBlobs(request, metadata=…)."""

    def __init__(self, address, options=(), credentials=None):
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options=list(options))
        else:
            self.channel = grpc.secure_channel(address, credentials, options=list(options))
        for name, (service, request, response, kind) in _METHODS.items():
            call = getattr(self.channel, kind)(f"/{service}/{name}", request.SerializeToString, response.FromString)
            setattr(self, name, call)


def check(condition, what):
    if not condition:
        print(f"wrong: {what}", flush=True)
        sys.exit(1)
    print(f"right: {what}", flush=True)


def status_of(call):
    """The gRPC status code of `call`, a function; OK when it returns. A stream is read to its end."""
    try:
        result = call()
        if hasattr(result, "__next__"):
            for _ in result:
                pass
        return grpc.StatusCode.OK
    except grpc.RpcError as error:
        return error.code()


def digest_of(data, function=SHA256):
    data = data if isinstance(data, bytes) else data.SerializeToString(deterministic=True)
    name = blake3_hex(data) if function == BLAKE3 else hashlib.sha256(data).hexdigest()
    return re.Digest(hash=name, size_bytes=len(data))


def unique(text="salt"):
    """Bytes nobody has uploaded before."""
    return f"{text} {uuid.uuid4()}\n".encode()


def function_segment(function):
    return "blake3/" if function == BLAKE3 else ""


def read_name(digest, function=SHA256, instance="", compressor=""):
    prefix = f"{instance}/" if instance else ""
    kind = f"compressed-blobs/{compressor}" if compressor else "blobs"
    return f"{prefix}{kind}/{function_segment(function)}{digest.hash}/{digest.size_bytes}"


def write_name(digest, function=SHA256, instance="", compressor=""):
    prefix = f"{instance}/" if instance else ""
    kind = f"compressed-blobs/{compressor}" if compressor else "blobs"
    segment = function_segment(function)
    return f"{prefix}uploads/{uuid.uuid4()}/{kind}/{segment}{digest.hash}/{digest.size_bytes}"


def write_messages(name, data, chunk=1 << 20, first_offset=0):
    offset = 0
    while True:
        part = data[offset : offset + chunk]
        finish = offset + len(part) >= len(data)
        yield bs.WriteRequest(
            resource_name=name if offset == 0 else "",
            write_offset=first_offset + offset,
            data=part,
            finish_write=finish,
        )
        offset += len(part)
        if finish:
            return


def upload(client, blobs, function=SHA256, instance=""):
    """FindMissingBlobs, then what is missing, in batches or streams; returns the digests."""
    by_hash = {}
    digests = []
    for blob in blobs:
        data = blob if isinstance(blob, bytes) else blob.SerializeToString(deterministic=True)
        digest = digest_of(data, function)
        digests.append(digest)
        by_hash[digest.hash] = (digest, data)
    request = re.FindMissingBlobsRequest(instance_name=instance, blob_digests=digests, digest_function=function)
    batch = re.BatchUpdateBlobsRequest(instance_name=instance, digest_function=function)
    for missing in client.FindMissingBlobs(request).missing_blob_digests:
        digest, data = by_hash[missing.hash]
        if len(data) > 1 << 20:
            client.Write(write_messages(write_name(digest, function, instance), data))
        else:
            batch.requests.add(digest=digest, data=data)
    if batch.requests:
        for response in client.BatchUpdateBlobs(batch).responses:
            if response.status.code != 0:
                raise RuntimeError(f"{response.digest.hash}: {response.status.message}")
    return digests


def read_blob(client, digest, function=SHA256, instance=""):
    request = bs.ReadRequest(resource_name=read_name(digest, function, instance))
    data = b"".join(part.data for part in client.Read(request))
    if digest_of(data, function) != digest:
        raise RuntimeError(f"{digest.hash}: the bytes read have another digest")
    return data


def directory(files=(), directories=(), symlinks=()):
    """A canonical Directory: files as (name, digest, executable), directories as (name, digest), links as (name, target)."""
    node = re.Directory()
    for name, digest, executable in sorted(files):
        node.files.add(name=name, digest=digest, is_executable=executable)
    for name, digest in sorted(directories):
        node.directories.add(name=name, digest=digest)
    for name, target in sorted(symlinks):
        node.symlinks.add(name=name, target=target)
    return node


def shell(script, **fields):
    """A Command that runs `script` in a shell; `fields` are further fields of Command."""
    return re.Command(arguments=["/bin/sh", "-c", script], **fields)


def upload_action(client, command, root=None, blobs=(), function=SHA256, instance="", **fields):
    """Uploads Command, input root, further blobs and the Action; returns the Action's digest."""
    root = root if root is not None else re.Directory()
    action = re.Action(
        command_digest=digest_of(command, function), input_root_digest=digest_of(root, function), **fields
    )
    upload(client, [command, action, *([root] if root.ByteSize() else []), *blobs], function, instance)
    return digest_of(action, function)


def execute(client, action_digest, function=SHA256, instance="", metadata=(), **fields):
    """Executes to the end; returns (ExecuteResponse, all Operations). Checks what every Operation has to have."""
    request = re.ExecuteRequest(
        instance_name=instance, action_digest=action_digest, digest_function=function, **fields
    )
    operations = list(client.Execute(request, metadata=metadata))
    return finished(operations), operations


def finished(operations):
    last = operations[-1]
    if not last.done or last.WhichOneof("result") != "response":
        raise RuntimeError(f"the last Operation is not done with a response: {last}")
    for operation in operations:
        if not operation.name or operation.HasField("error"):
            raise RuntimeError(f"an Operation without name, or with an error: {operation}")
        stage = re.ExecuteOperationMetadata()
        if not operation.metadata.Unpack(stage):
            raise RuntimeError(f"an Operation without ExecuteOperationMetadata: {operation}")
        if (stage.stage == re.ExecutionStage.COMPLETED) != operation.done:
            raise RuntimeError(f"stage and done contradict each other: {operation}")
    response = re.ExecuteResponse()
    if not last.response.Unpack(response):
        raise RuntimeError(f"the response is no ExecuteResponse: {last}")
    return response


def missing_subjects(status):
    """The subjects of the PreconditionFailure in a google.rpc.Status; fails on violations that are not MISSING."""
    subjects = []
    for detail in status.details:
        if detail.type_url != "type.googleapis.com/google.rpc.PreconditionFailure":
            raise RuntimeError(f"a detail that stops Bazel from trying again: {detail.type_url}")
        for violation in _fields(detail.value, 1):
            (kind,) = _fields(violation, 1)
            (subject,) = _fields(violation, 2)
            if kind != b"MISSING":
                raise RuntimeError(f"a violation of type {kind}")
            subjects.append(subject.decode())
    return subjects


def _fields(message, number):
    """The length-delimited fields `number` of a serialized message: the public protos at hand lack error_details."""
    position = 0

    def varint():
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        tag = varint()
        if tag & 7 != 2:
            raise RuntimeError(f"wire type {tag & 7} is not expected here")
        length = varint()
        if tag >> 3 == number:
            yield message[position : position + length]
        position += length


def main(run):
    """Runs `run(address)` for `script.py HOST:PORT`."""
    run(sys.argv[1])
