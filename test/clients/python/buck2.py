"""Buck2: execution_metadata and tree_digest in every result, zstd whenever it is advertised, no WaitExecution."""

import zstandard
import reapi
from reapi import bs, check, digest_of, re, unique


def run(address):
    client = reapi.Client(address, options=[("grpc.max_receive_message_length", 8_000_000)])
    cache = client.GetCapabilities(re.GetCapabilitiesRequest()).cache_capabilities
    batch_bytes = cache.max_batch_total_size_bytes or 4_000_000
    check_transfers(client, re.Compressor.ZSTD in cache.supported_compressors)
    check_full_batch(client, batch_bytes)
    check_results(client)


def check_transfers(client, compresses):
    """Buck2 takes the number of bytes it sent, or -1, for any upload; nothing else."""
    check(compresses, "zstd is advertised")
    for size in (1, 100_000, 5_000_000):
        data = (unique() * (size // 42 + 1))[:size] if size > 1 else unique()[-10:-9] + b"!"
        digest = digest_of(data)
        sent = zstandard.compress(data, 1)
        messages = reapi.write_messages(reapi.write_name(digest, compressor="zstd"), sent, chunk=1 << 16)
        committed = client.Write(messages).committed_size
        check(committed in (len(sent), -1), f"{size} bytes: committed_size is the bytes sent, or -1")
        name = reapi.read_name(digest, compressor="zstd")
        received = b"".join(part.data for part in client.Read(bs.ReadRequest(resource_name=name)))
        check(zstandard.ZstdDecompressor().decompressobj().decompress(received) == data, f"{size} bytes come back")


def check_full_batch(client, batch_bytes):
    """FindMissingBlobs goes out 100 digests at a time; a batch is filled up to the limit and has to be taken."""
    size = 30_000
    blobs = [unique(f"blob {i}").ljust(size, b".") for i in range(batch_bytes // size)]
    digests = [digest_of(blob) for blob in blobs]
    for start in range(0, len(digests), 100):
        part = digests[start : start + 100]
        missing = client.FindMissingBlobs(re.FindMissingBlobsRequest(blob_digests=part)).missing_blob_digests
        check(len(missing) == len(part), f"{len(part)} new blobs are missing")
    request = re.BatchUpdateBlobsRequest()
    for blob, digest in zip(blobs, digests):
        request.requests.add(digest=digest, data=blob)
    check(all(r.status.code == 0 for r in client.BatchUpdateBlobs(request).responses), "a full batch is taken")
    answer = client.BatchReadBlobs(re.BatchReadBlobsRequest(digests=digests))
    check([r.data for r in sorted(answer.responses, key=lambda r: r.data)] == sorted(blobs), "and read back in one call")


def check_results(client):
    command = re.Command(
        arguments=["/bin/sh", "-c", "mkdir -p out/dir/empty; echo a > out/dir/a; echo b > out/b; chmod +x out/b"],
        output_paths=["out/b", "out/dir"],
        environment_variables=[re.Command.EnvironmentVariable(name="SALT", value=unique().decode().strip())],
    )
    platform = re.Platform(properties=[re.Platform.Property(name="OSFamily", value="Linux")])
    action = reapi.upload_action(client, command, platform=platform)
    executed, _ = reapi.execute(client, action)
    cached, _ = reapi.execute(client, action)
    check(cached.cached_result, "the second answer is a cached one")
    looked_up = client.GetActionResult(re.GetActionResultRequest(action_digest=action))
    for name, result in (("executed", executed.result), ("cached", cached.result), ("looked up", looked_up)):
        metadata = result.execution_metadata
        check(result.HasField("execution_metadata") and metadata.worker != "", f"{name}: execution_metadata, with worker")
        check_order(metadata, name)
        (file,) = result.output_files
        check(file.digest == digest_of(b"b\n") and file.is_executable, f"{name}: the output file has its digest")
        (folder,) = result.output_directories
        check(folder.HasField("tree_digest") and folder.tree_digest.size_bytes > 0, f"{name}: tree_digest is set")
        tree = re.Tree.FromString(reapi.read_blob(client, folder.tree_digest))
        check([f.name for f in tree.root.files] == ["a"], f"{name}: the Tree lists the file")
        check([(d.name, d.digest.size_bytes) for d in tree.root.directories] == [("empty", 0)], f"{name}: and the empty one")


def check_order(metadata, name):
    order = ["queued", "worker_start", "input_fetch_start", "input_fetch_completed", "execution_start"]
    order += ["execution_completed", "output_upload_start", "output_upload_completed", "worker_completed"]
    times = [getattr(metadata, f"{field}_timestamp").ToNanoseconds() for field in order]
    check(min(times) > 0 and times == sorted(times), f"{name}: nine timestamps, in order")


reapi.main(run)
