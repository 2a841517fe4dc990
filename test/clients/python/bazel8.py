"""Bazel 8: what a Bazel newer than the one Debian packages asks for (zstd, output_paths, WaitExecution, BLAKE3)."""

import zstandard
import reapi
from reapi import bs, check, digest_of, grpc, re, status_of, unique


def run(address):
    client = reapi.Client(address)
    capabilities = client.GetCapabilities(re.GetCapabilitiesRequest())
    check_capabilities(capabilities)
    check_uploads(client)
    check_action_cache(client)
    check_execution(client, capabilities)
    check_lost_inputs(client)


def check_capabilities(capabilities):
    low, high = capabilities.low_api_version, capabilities.high_api_version
    check((low.major, low.minor) == (2, 0), "API 2.0 is in the range")
    check((high.major, high.minor) >= (2, 11), "API 2.11 is in the range")
    cache, execution = capabilities.cache_capabilities, capabilities.execution_capabilities
    for name, functions in (("cache", cache.digest_functions), ("execution", execution.digest_functions)):
        check(reapi.SHA256 in functions and reapi.BLAKE3 in functions, f"{name}: SHA256 and BLAKE3 are listed")
    check(execution.exec_enabled, "exec_enabled")
    check(execution.digest_function in execution.digest_functions, "the singular digest function is in the list")
    check(cache.action_cache_update_capabilities.update_enabled, "update_enabled")
    check(re.Compressor.ZSTD in cache.supported_compressors, "ZSTD on ByteStream")
    check(re.Compressor.ZSTD in cache.supported_batch_update_compressors, "ZSTD in batches")
    check(0 < cache.max_batch_total_size_bytes < 4 << 20, "a full batch fits into a message of 4 MiB")
    check(len(execution.execution_priority_capabilities.priorities) > 0, "ranges of execution priorities")


def check_uploads(client):
    data = unique("bazel") * 40_000
    digest = digest_of(data)
    request = re.FindMissingBlobsRequest(blob_digests=[digest, digest_of(b"")])
    check(list(client.FindMissingBlobs(request).missing_blob_digests) == [digest], "only the new blob is missing")
    compressed = zstandard.compress(data)
    name = reapi.write_name(digest, compressor="zstd")
    written = client.Write(reapi.write_messages(name, compressed, chunk=4096)).committed_size
    check(written == len(compressed), "committed_size of a compressed write counts the compressed bytes")
    check(not client.FindMissingBlobs(request).missing_blob_digests, "the blob is present at once")
    again = client.Write(reapi.write_messages(reapi.write_name(digest, compressor="zstd"), compressed)).committed_size
    check(again == -1, "committed_size of a compressed duplicate is -1")
    plain = client.Write(reapi.write_messages(reapi.write_name(digest), data)).committed_size
    check(plain == len(data), "committed_size of a plain duplicate is the blob's size")
    stream = client.Read(bs.ReadRequest(resource_name=reapi.read_name(digest, compressor="zstd")))
    received = b"".join(part.data for part in stream)
    check(zstandard.ZstdDecompressor().decompressobj().decompress(received) == data, "a compressed read gives the blob")
    batch = re.BatchUpdateBlobsRequest()
    small = unique("small")
    batch.requests.add(digest=digest_of(small), data=zstandard.compress(small), compressor=re.Compressor.ZSTD)
    check(client.BatchUpdateBlobs(batch).responses[0].status.code == 0, "a compressed blob in a batch is taken")
    check(reapi.read_blob(client, digest_of(small)) == small, "and it reads back plain")


def check_action_cache(client):
    absent = re.GetActionResultRequest(action_digest=digest_of(unique()), inline_stdout=True, inline_stderr=True)
    check(status_of(lambda: client.GetActionResult(absent)) == grpc.StatusCode.NOT_FOUND, "a miss is NOT_FOUND")
    key, output = digest_of(unique("action")), unique("output")
    result = re.ActionResult(exit_code=0)
    result.output_files.add(path="out", digest=digest_of(output))
    client.UpdateActionResult(re.UpdateActionResultRequest(action_digest=key, action_result=result))
    request = re.GetActionResultRequest(action_digest=key)
    incomplete = status_of(lambda: client.GetActionResult(request))
    check(incomplete == grpc.StatusCode.NOT_FOUND, "a result whose output is absent is a miss")
    reapi.upload(client, [output])
    check(client.GetActionResult(request).output_files[0].path == "out", "with the output it is a hit")


def check_execution(client, capabilities):
    lowest = capabilities.execution_capabilities.execution_priority_capabilities.priorities[0].min_priority
    command = reapi.shell(
        "cat empty; echo to-out; echo to-err >&2; mkdir -p tree/sub; echo x > tree/sub/file; cp in out; ln -s out link",
        output_paths=["link", "nothing", "out", "tree"],
    )
    data = unique("input")
    # Bazel never uploads the empty blob: the input file "empty" has to be there all the same.
    root = reapi.directory(files=[("in", digest_of(data), False), ("empty", digest_of(b""), False)])
    action = reapi.upload_action(client, command, root, [data])
    response, _ = reapi.execute(
        client, action, inline_stdout=True, execution_policy=re.ExecutionPolicy(priority=lowest)
    )
    result = response.result
    check(response.status.code == 0 and response.HasField("result") and not response.cached_result, "it ran")
    check([(f.path, f.digest) for f in result.output_files] == [("out", digest_of(data))], "output_paths: a file")
    check([d.path for d in result.output_directories] == ["tree"], "output_paths: a directory")
    check([(s.path, s.target) for s in result.output_symlinks] == [("link", "out")], "output_paths: a symlink")
    check(result.stdout_raw == b"to-out\n" and result.stdout_digest == digest_of(b"to-out\n"), "stdout, inlined as asked")
    check(result.stderr_raw == b"" and result.stderr_digest == digest_of(b"to-err\n"), "stderr, not inlined unasked")
    again, operations = reapi.execute(client, action)
    check(again.cached_result and len(operations) == 1, "the second time one Operation brings the cached result")
    fresh, _ = reapi.execute(client, action, skip_cache_lookup=True)
    check(not fresh.cached_result, "skip_cache_lookup runs it again")

    slow = reapi.upload_action(client, reapi.shell("sleep 1", environment_variables=[salted()]))
    stream = client.Execute(re.ExecuteRequest(action_digest=slow))
    name = next(stream).name
    stream.cancel()
    waited = reapi.finished(list(client.WaitExecution(re.WaitExecutionRequest(name=name))))
    check(waited.HasField("result") and waited.result.exit_code == 0, "WaitExecution takes over after a lost stream")
    unknown = re.WaitExecutionRequest(name="operations/00000000-0000-4000-8000-000000000000")
    check(status_of(lambda: client.WaitExecution(unknown)) == grpc.StatusCode.NOT_FOUND, "an unknown name is NOT_FOUND")

    failing = reapi.upload_action(
        client, reapi.shell("echo why >&2; echo kept > out; exit 7", output_paths=["out"], environment_variables=[salted()])
    )
    response, _ = reapi.execute(client, failing, inline_stderr=True)
    check(response.status.code == 0 and response.result.exit_code == 7, "a failure is a result with its exit code")
    check(response.result.stderr_raw == b"why\n" and len(response.result.output_files) == 1, "with stderr and outputs")
    miss = re.GetActionResultRequest(action_digest=failing)
    check(status_of(lambda: client.GetActionResult(miss)) == grpc.StatusCode.NOT_FOUND, "and it is not cached")


def check_lost_inputs(client):
    """Bazel uploads and tries again only when every violation is MISSING and no other kind of detail is there."""
    present, lost = unique("present"), [unique("lost") for _ in range(3)]
    command = reapi.shell("cat a b d/c p", environment_variables=[salted()])
    nested = reapi.directory(files=[("c", digest_of(lost[2]), False)])
    root = reapi.directory(
        files=[
            ("a", digest_of(lost[0]), False),
            ("b", digest_of(lost[1]), False),
            ("p", digest_of(present), False),
        ],
        directories=[("d", digest_of(nested))],
    )
    action = reapi.upload_action(client, command, root, [present, nested])
    response, _ = reapi.execute(client, action)
    check(response.status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0], "lost inputs: FAILED_PRECONDITION")
    expected = sorted(f"blobs/{d.hash}/{d.size_bytes}" for d in map(digest_of, lost))
    check(sorted(reapi.missing_subjects(response.status)) == expected, "every lost input is named")
    reapi.upload(client, lost)
    check(reapi.execute(client, action)[0].result.exit_code == 0, "after the upload it runs")

    absent = re.Action(command_digest=digest_of(unique()), input_root_digest=digest_of(b""))
    (key,) = reapi.upload(client, [absent])
    try:
        list(client.Execute(re.ExecuteRequest(action_digest=key)))
        check(False, "an absent Command fails the call")
    except grpc.RpcError as error:
        check(error.code() == grpc.StatusCode.FAILED_PRECONDITION, "an absent Command: FAILED_PRECONDITION")
        status = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
        check(absent.command_digest.hash.encode() in status, "with the Command's digest in the details")


def salted():
    return re.Command.EnvironmentVariable(name="SALT", value=unique().decode().strip())


reapi.main(run)
