"""A build whose every digest is BLAKE3: outputs, Tree and logs have to be named by the action's own function."""

import reapi
from reapi import BLAKE3, bs, check, digest_of, grpc, re, status_of, unique


def run(address):
    client = reapi.Client(address)
    data = unique("blake3") * 1000
    digest = digest_of(data, BLAKE3)
    root = reapi.directory(files=[("in", digest, False)])
    command = reapi.shell("cp in out; mkdir -p tree/sub; cp in tree/sub/copy; echo said", output_paths=["out", "tree"])
    action = reapi.upload_action(client, command, root, [data], function=BLAKE3)
    response, operations = reapi.execute(client, action, function=BLAKE3)
    stage = re.ExecuteOperationMetadata()
    operations[-1].metadata.Unpack(stage)
    # The public protos at hand are older than this field: number 6, a varint.
    check(b"\x30\x09" in stage.SerializeToString(), "the Operation names the function")
    result = response.result
    check(result.exit_code == 0 and result.output_files[0].digest == digest, "the output's digest is BLAKE3")
    check(result.stdout_digest == digest_of(b"said\n", BLAKE3), "so is that of stdout")
    tree_bytes = reapi.read_blob(client, result.output_directories[0].tree_digest, BLAKE3)
    tree = re.Tree.FromString(tree_bytes)
    (child,) = tree.children
    check(tree.root.directories[0].digest == digest_of(child, BLAKE3), "the Tree names its Directories by BLAKE3")
    check(child.files[0].digest == digest, "and its files")
    cached, _ = reapi.execute(client, action, function=BLAKE3)
    check(cached.cached_result, "the second time it is cached")
    request = re.GetActionResultRequest(action_digest=action, digest_function=BLAKE3)
    check(client.GetActionResult(request).output_files[0].digest == digest, "GetActionResult finds it by BLAKE3")
    sha256 = re.GetActionResultRequest(action_digest=action)
    check(status_of(lambda: client.GetActionResult(sha256)) == grpc.StatusCode.NOT_FOUND, "and not by SHA-256")
    missing = client.FindMissingBlobs(re.FindMissingBlobsRequest(blob_digests=[digest]))
    check(len(missing.missing_blob_digests) == 1, "the same hash under SHA-256 is another blob")
    large = unique("large") * 3000
    name = reapi.write_name(digest_of(large, BLAKE3), BLAKE3)
    check("/blobs/blake3/" in name, "the resource name carries the function")
    check(client.Write(reapi.write_messages(name, large)).committed_size == len(large), "a streamed write")
    check(reapi.read_blob(client, digest_of(large, BLAKE3), BLAKE3) == large, "and it reads back")
    wrong = bs.ReadRequest(resource_name=reapi.read_name(digest_of(large, BLAKE3)))
    check(status_of(lambda: client.Read(wrong)) == grpc.StatusCode.NOT_FOUND, "not without the function's name")


reapi.main(run)
