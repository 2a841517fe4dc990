"""A client that takes no more than 8 KiB of headers, as grpc-java does, and an action with 5,000 missing inputs."""

import reapi
from reapi import check, digest_of, grpc, re, unique


def run(address):
    client = reapi.Client(address, options=[("grpc.max_metadata_size", 8192)])
    lost = {f"file{i:04}": digest_of(unique(str(i))) for i in range(5000)}
    half = reapi.directory(files=[(name, digest, False) for name, digest in lost.items() if name < "file2500"])
    root = reapi.directory(
        files=[(name, digest, False) for name, digest in lost.items() if name >= "file2500"],
        directories=[("half", digest_of(half))],
    )
    action = reapi.upload_action(client, reapi.shell("ls"), root, [half])
    response, _ = reapi.execute(client, action)
    check(response.status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0], "FAILED_PRECONDITION in the Operation")
    subjects = set(reapi.missing_subjects(response.status))
    expected = {f"blobs/{d.hash}/{d.size_bytes}" for d in lost.values()}
    check(subjects == expected, "every one of the 5,000 is named")


reapi.main(run)
