"""BuildBox (casd, workers): batches of 4 MiB minus 64 KiB, writes of 1 MiB, GetTree, committed_size equal to the size."""

import reapi
from reapi import check, digest_of, grpc, re, status_of, unique


def run(address):
    client = reapi.Client(address)
    cache = client.GetCapabilities(re.GetCapabilitiesRequest()).cache_capabilities
    limit = min((4 << 20) - (64 << 10), cache.max_batch_total_size_bytes)
    check(limit == (4 << 20) - (64 << 10), "a batch may have 4 MiB minus 64 KiB")
    check_batches(client, limit)
    check_write(client)
    check_tree(client)


def check_batches(client, limit):
    blobs, total = [], 0
    while total + 1000 < limit:
        blobs.append(unique(str(len(blobs))).ljust(1000, b"-"))
        total += 1000
    digests = [digest_of(blob) for blob in blobs]
    # 4,000 small blobs: the digests around them would carry the message over 4 MiB, so the batch ends before.
    half = len(blobs) // 2
    for part in (slice(0, half), slice(half, None)):
        request = re.BatchUpdateBlobsRequest()
        for blob, digest in zip(blobs[part], digests[part]):
            request.requests.add(digest=digest, data=blob)
        check(all(r.status.code == 0 for r in client.BatchUpdateBlobs(request).responses), "half of the blobs are taken")
        answer = client.BatchReadBlobs(re.BatchReadBlobsRequest(digests=digests[part]))
        check({r.data for r in answer.responses} == set(blobs[part]), "and read back in one batch")
    too_much = re.BatchReadBlobsRequest(digests=[re.Digest(hash="0" * 64, size_bytes=limit)] * 2)
    refused = status_of(lambda: client.BatchReadBlobs(too_much))
    check(refused == grpc.StatusCode.INVALID_ARGUMENT, "a batch above the limit: INVALID_ARGUMENT")


def check_write(client):
    data = unique("casd") * 120_000
    digest = digest_of(data)
    committed = client.Write(reapi.write_messages(reapi.write_name(digest), data, chunk=1 << 20)).committed_size
    check(committed == len(data), "a write of several MiB commits its size")
    again = client.Write(reapi.write_messages(reapi.write_name(digest), data, chunk=1 << 20)).committed_size
    check(again == len(data), "and so does the duplicate")


def check_tree(client):
    leaf = reapi.directory(files=[("file", digest_of(unique()), False)])
    wide = [reapi.directory(files=[(f"f{i}", digest_of(unique()), True)]) for i in range(300)]
    middle = reapi.directory(directories=[(f"d{i:03}", digest_of(d)) for i, d in enumerate(wide)] + [("z", digest_of(leaf))])
    root = reapi.directory(directories=[("a", digest_of(middle)), ("b", digest_of(leaf)), ("empty", digest_of(b""))])
    everything = [root, middle, leaf, *wide]
    reapi.upload(client, everything)
    for page_size in (0, 10):
        seen, token, pages = [], "", 0
        while True:
            request = re.GetTreeRequest(root_digest=digest_of(root), page_size=page_size, page_token=token)
            for page in client.GetTree(request):
                check(page_size == 0 or len(page.directories) <= page_size, "a page is not above its size")
                seen += page.directories
                token = page.next_page_token
                pages += 1
            if token == "":
                break
        found = {digest_of(d).hash for d in seen if d.ByteSize() > 0}
        check(found == {digest_of(d).hash for d in everything}, f"page_size {page_size}: every Directory, {pages} pages")
    absent = re.GetTreeRequest(root_digest=digest_of(unique()))
    check(status_of(lambda: client.GetTree(absent)) == grpc.StatusCode.NOT_FOUND, "an absent root: NOT_FOUND")
    lost = reapi.directory(directories=[("gone", digest_of(unique())), ("here", digest_of(leaf))])
    reapi.upload(client, [lost])
    directories = [d for page in client.GetTree(re.GetTreeRequest(root_digest=digest_of(lost))) for d in page.directories]
    check(len(directories) == 2, "an absent child is left out, without an error")


reapi.main(run)
