"""recc: API 2.0 in every field (output_files, Command.platform), and its cache-only mode."""

import reapi
from reapi import check, digest_of, grpc, re, status_of, unique


def run(address):
    client = reapi.Client(address)
    check(client.GetCapabilities(re.GetCapabilitiesRequest()).low_api_version.minor == 0, "API 2.0 is in the range")
    check_compile(client)
    check_directories(client)
    check_cache_only(client)
    check_metadata_header(client)


def check_compile(client):
    source, header = unique("// "), b"int answer() { return 42; }\n"
    source += b'#include "answer.h"\nint main() { return answer() - 42; }\n'
    include = reapi.directory(files=[("answer.h", digest_of(header), False)])
    work = reapi.directory(files=[("main.cc", digest_of(source), False)])
    root = reapi.directory(directories=[("include", digest_of(include)), ("work", digest_of(work))])
    command = re.Command(
        arguments=["/usr/bin/g++", "-I../include", "-MMD", "-MF", "out/main.d", "-c", "main.cc", "-o", "out/main.o"],
        environment_variables=[re.Command.EnvironmentVariable(name="PATH", value="/usr/bin:/bin")],
        output_files=["out/main.d", "out/main.o"],
        working_directory="work",
        platform=re.Platform(properties=[re.Platform.Property(name="OSFamily", value="linux")]),
    )
    action = reapi.upload_action(client, command, root, [include, work, source, header])
    lookup = re.GetActionResultRequest(action_digest=action)
    check(status_of(lambda: client.GetActionResult(lookup)) == grpc.StatusCode.NOT_FOUND, "a miss is NOT_FOUND")
    response, _ = reapi.execute(client, action)
    result = response.result
    check(response.status.code == 0 and result.exit_code == 0, "g++ ran")
    check(sorted(f.path for f in result.output_files) == ["out/main.d", "out/main.o"], "output_files are filled")
    object_file = next(f for f in result.output_files if f.path == "out/main.o")
    check(reapi.read_blob(client, object_file.digest)[:4] == b"\x7fELF", "the object file is one")
    check(client.GetActionResult(lookup).exit_code == 0, "and the next lookup hits")


def check_directories(client):
    command = re.Command(
        arguments=["/bin/sh", "-c", "mkdir -p d/e; echo x > d/e/f; ln -s d/e/f link"],
        output_files=["absent", "link"],
        output_directories=["d"],
        environment_variables=[re.Command.EnvironmentVariable(name="SALT", value=unique().decode().strip())],
    )
    response, _ = reapi.execute(client, reapi.upload_action(client, command))
    result = response.result
    check([d.path for d in result.output_directories] == ["d"], "output_directories are filled")
    check(result.output_directories[0].HasField("tree_digest"), "with a Tree")
    check([(s.path, s.target) for s in result.output_file_symlinks] == [("link", "d/e/f")], "output_file_symlinks too")
    check(not result.output_files, "an absent output file is left out, without an error")
    wrong = re.Command(arguments=["/bin/mkdir", "out"], output_files=["out"])
    response, _ = reapi.execute(client, reapi.upload_action(client, wrong, salt=unique()))
    check(
        response.status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0],
        "a directory where a file was promised: FAILED_PRECONDITION",
    )


def check_cache_only(client):
    """The input files are never uploaded, only Action, Command and outputs."""
    command = re.Command(arguments=["/usr/bin/g++", "-c", "never-uploaded.cc"], output_files=["never-uploaded.o"])
    root = reapi.directory(files=[("never-uploaded.cc", digest_of(unique()), False)])
    action = re.Action(command_digest=digest_of(command), input_root_digest=digest_of(root))
    output = unique("object")
    _, key, output_digest = reapi.upload(client, [command, action, output])
    result = re.ActionResult(stdout_raw=b"hello")
    result.output_files.add(path="never-uploaded.o", digest=output_digest)
    stored = client.UpdateActionResult(re.UpdateActionResultRequest(action_digest=key, action_result=result))
    check(stored.output_files[0].digest == output_digest, "UpdateActionResult takes it without the inputs")
    found = client.GetActionResult(re.GetActionResultRequest(action_digest=key, inline_stdout=True))
    check(found.output_files[0].digest == output_digest, "and the next user finds it")
    check(found.stdout_raw == b"hello", "stdout that came inline is there")


def check_metadata_header(client):
    """Old builds send RequestMetadata under a short name; a malformed one is no reason to refuse a call."""
    metadata = re.RequestMetadata(
        tool_details=re.ToolDetails(tool_name="recc", tool_version="1"),
        action_id="ab" * 32,
        tool_invocation_id="invocation",
    ).SerializeToString()
    for name in ("requestmetadata-bin", f"{reapi.REAPI}.requestmetadata-bin"):
        for value in (metadata, b"\xff\xff\xff"):
            request = re.FindMissingBlobsRequest(blob_digests=[digest_of(b"")])
            answer = client.FindMissingBlobs(request, metadata=[(name, value)])
            check(not answer.missing_blob_digests, f"{name} with {len(value)} bytes is taken")
    action = reapi.upload_action(client, reapi.shell("exit 0"), salt=unique())
    response, _ = reapi.execute(client, action, metadata=[("requestmetadata-bin", metadata)])
    check(response.result.exit_code == 0, "Execute with the short header")


reapi.main(run)
