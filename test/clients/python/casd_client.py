"""buildbox-casd as a client of the server: what one casd captures, another one with an empty cache stages.

Usage: casd_client.py SERVER CASD CASD SOURCE TARGET. Both casd forward to the server; SOURCE is a folder to capture,
TARGET an empty one. The second casd can have the tree only from the server.
"""

import os
import pathlib
import sys
import threading

import grpc
from build.buildgrid import local_cas_pb2 as local

import reapi
from reapi import check, digest_of, re, unique

_SERVICE = "build.buildgrid.LocalContentAddressableStorage"


def run(address):
    first, second, source, target = sys.argv[2:6]
    server = reapi.Client(address)
    root = capture(first, source)
    missing = server.FindMissingBlobs(re.FindMissingBlobsRequest(blob_digests=[root])).missing_blob_digests
    check(not missing, "what the first casd captured is in the server")
    pages = server.GetTree(re.GetTreeRequest(root_digest=root))
    directories = [d for page in pages for d in page.directories]
    check(len(directories) >= 3, f"GetTree of the captured root gives {len(directories)} Directories")
    stage(second, root, source, target)
    check_action_cache(server, reapi.Client(first), reapi.Client(second))
    check_execution(reapi.Client(first))


def capture(casd, source):
    channel = grpc.insecure_channel(casd)
    call = channel.unary_unary(
        f"/{_SERVICE}/CaptureTree",
        local.CaptureTreeRequest.SerializeToString,
        local.CaptureTreeResponse.FromString,
    )
    request = local.CaptureTreeRequest(path=[source], output_directory_format=re.Command.DIRECTORY_ONLY)
    (response,) = call(request).responses
    check(response.status.code == 0, f"the first casd captures {response.status.message}")
    return response.root_directory_digest


def stage(casd, root, source, target):
    """casd removes what it staged when the stream ends, so the comparison happens while it is open."""
    channel = grpc.insecure_channel(casd)
    call = channel.stream_stream(
        f"/{_SERVICE}/StageTree",
        local.StageTreeRequest.SerializeToString,
        local.StageTreeResponse.FromString,
    )
    compared = threading.Event()

    def requests():
        yield local.StageTreeRequest(root_digest=root, path=target)
        compared.wait()

    responses = call(requests())
    next(responses)
    check(listing(target) == listing(source), "the second casd stages the same files, links and modes")
    compared.set()
    list(responses)


def listing(folder):
    entries = {}
    for path in pathlib.Path(folder).rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            entries[name] = os.readlink(path)
        elif path.is_dir():
            entries[name] = "directory"
        else:
            entries[name] = (os.access(path, os.X_OK), digest_of(path.read_bytes()).hash)
    return entries


def check_action_cache(server, first, second):
    output, key = unique("output"), digest_of(unique("action"))
    (digest,) = reapi.upload(first, [output])
    result = re.ActionResult()
    result.output_files.add(path="out", digest=digest)
    first.UpdateActionResult(re.UpdateActionResultRequest(action_digest=key, action_result=result))
    for name, client in (("the second casd", second), ("the server", server)):
        found = client.GetActionResult(re.GetActionResultRequest(action_digest=key))
        check(found.output_files[0].digest == digest, f"{name} finds the action result stored through the first")
    check(reapi.read_blob(second, digest) == output, "and its output through the second")


def check_execution(first):
    data = unique("input")
    root = reapi.directory(files=[("in", digest_of(data), False)])
    command = reapi.shell("cp in out", output_paths=["out"])
    action = reapi.upload_action(first, command, root, [data])
    operations = list(first.Execute(re.ExecuteRequest(action_digest=action)))
    response = re.ExecuteResponse()
    operations[-1].response.Unpack(response)
    check(response.result.output_files[0].digest == digest_of(data), "an action sent through casd runs in the server")
    check(reapi.read_blob(first, digest_of(data)) == data, "and casd has its output")


reapi.main(run)
