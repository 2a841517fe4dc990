"""reclient and other users of remote-apis-sdks: switches by API version, partial and resumed reads and writes."""

import zstandard
import reapi
from reapi import bs, check, digest_of, grpc, re, status_of, unique


def run(address):
    client = reapi.Client(address)
    capabilities = client.GetCapabilities(re.GetCapabilitiesRequest())
    check(capabilities.HasField("cache_capabilities"), "cache_capabilities are present")
    high = capabilities.high_api_version
    check((high.major, high.minor) >= (2, 2), "output_paths and Action.platform may be used")
    check(re.Compressor.ZSTD in capabilities.cache_capabilities.supported_compressors, "zstd is advertised")
    check_reads(client)
    check_resumed_write(client)
    check_resumed_execution(client)


def check_reads(client):
    data = unique("reclient") * 60_000
    (digest,) = reapi.upload(client, [data])
    name = reapi.read_name(digest)

    def read(offset, limit=0, resource=name):
        request = bs.ReadRequest(resource_name=resource, read_offset=offset, read_limit=limit)
        return b"".join(part.data for part in client.Read(request))

    check(read(1_000_000, 777) == data[1_000_000 : 1_000_777], "a part in the middle")
    check(read(len(data) - 10, 100) == data[-10:], "a limit beyond the end gives what is there")
    check(read(len(data)) == b"", "reading at the end gives nothing, and no error")
    check(status_of(lambda: read(len(data) + 1)) == grpc.StatusCode.OUT_OF_RANGE, "beyond the end: OUT_OF_RANGE")
    check(status_of(lambda: read(-1)) == grpc.StatusCode.OUT_OF_RANGE, "a negative offset: OUT_OF_RANGE")
    check(status_of(lambda: read(0, -1)) == grpc.StatusCode.INVALID_ARGUMENT, "a negative limit: INVALID_ARGUMENT")
    compressed = reapi.read_name(digest, compressor="zstd")
    part = zstandard.ZstdDecompressor().decompressobj().decompress(read(2_000_000, resource=compressed))
    check(part == data[2_000_000:], "a compressed read starts at an uncompressed offset")
    limited = status_of(lambda: read(0, 5, resource=compressed))
    check(limited == grpc.StatusCode.INVALID_ARGUMENT, "a limit with a compressed name: INVALID_ARGUMENT")


def check_resumed_write(client):
    data = unique("resumed") * 50_000
    digest, half = digest_of(data), 1_000_000
    name = reapi.write_name(digest)
    first = bs.WriteRequest(resource_name=name, data=data[:half])
    kept = client.Write(iter([first])).committed_size
    check(kept == half, "a write that ends without finish_write keeps what it sent")
    status = client.QueryWriteStatus(bs.QueryWriteStatusRequest(resource_name=name))
    check((status.committed_size, status.complete) == (half, False), "QueryWriteStatus says how much that is")
    rest = reapi.write_messages(name, data[half:], first_offset=half)
    check(client.Write(rest).committed_size == len(data), "the second call goes on from there")
    status = client.QueryWriteStatus(bs.QueryWriteStatusRequest(resource_name=name))
    check((status.committed_size, status.complete) == (len(data), True), "and the write is complete")
    check(reapi.read_blob(client, digest) == data, "the blob is whole")


def check_resumed_execution(client):
    """The SDK reads one Operation, loses the stream, and waits by name until it is done."""
    data = unique("input")
    root = reapi.directory(files=[("in", digest_of(data), False)])
    command = reapi.shell("sleep 1; cp in out", output_paths=["out"])
    platform = re.Platform(properties=[re.Platform.Property(name="OSFamily", value="Linux")])
    action = reapi.upload_action(client, command, root, [data], platform=platform)
    stream = client.Execute(re.ExecuteRequest(action_digest=action))
    name = next(stream).name
    stream.cancel()
    for _ in range(2):
        operations = list(client.WaitExecution(re.WaitExecutionRequest(name=name)))
        check(reapi.finished(operations).result.output_files[0].digest == digest_of(data), "WaitExecution gives the result")


reapi.main(run)
