"""Asks a server a fixed list of questions and prints the answers as JSON, one line each: two servers can be compared.

The questions are the same for every run and server except for the salt, which is given, so digests agree too.
"""

import json
import sys

import reapi
from reapi import bs, digest_of, grpc, re


def run(address):
    client = reapi.Client(address)
    salt = sys.argv[2].encode()
    questions = Questions(client, salt)
    for name in dir(questions):
        if name.startswith("ask_"):
            print(json.dumps([name[4:], answer(getattr(questions, name))]), flush=True)


def answer(question):
    try:
        return question()
    except grpc.RpcError as error:
        return error.code().name


class Questions:
    def __init__(self, client, salt):
        self.client = client
        self.salt = salt
        self.small = b"small " + salt
        self.large = (b"large " + salt) * 50_000
        self.absent = digest_of(b"absent " + salt)
        leaf = reapi.directory(files=[("file", digest_of(self.small), False)])
        root = reapi.directory(directories=[("leaf", digest_of(leaf)), ("same", digest_of(leaf))])
        self.root, self.leaf = root, leaf
        reapi.upload(client, [self.small, self.large, leaf, root])

    def read(self, name, offset=0, limit=0):
        request = bs.ReadRequest(resource_name=name, read_offset=offset, read_limit=limit)
        data = b"".join(part.data for part in self.client.Read(request))
        return digest_of(data).hash if data else "empty"

    def write(self, name, data, **fields):
        return self.client.Write(reapi.write_messages(name, data, **fields)).committed_size

    def ask_find_missing(self):
        digests = [digest_of(self.small), self.absent, digest_of(b""), self.absent, digest_of(self.large)]
        request = re.FindMissingBlobsRequest(blob_digests=digests)
        return sorted({d.hash for d in self.client.FindMissingBlobs(request).missing_blob_digests})

    def ask_find_missing_of_nothing(self):
        return len(self.client.FindMissingBlobs(re.FindMissingBlobsRequest()).missing_blob_digests)

    def ask_batch_update(self):
        request = re.BatchUpdateBlobsRequest()
        request.requests.add(digest=digest_of(b"new " + self.salt), data=b"new " + self.salt)
        request.requests.add(digest=digest_of(b"claimed " + self.salt), data=b"another " + self.salt)
        request.requests.add(digest=digest_of(self.small), data=self.small)
        answers = {r.digest.hash: r.status.code for r in self.client.BatchUpdateBlobs(request).responses}
        return [answers[r.digest.hash] for r in request.requests]

    def ask_batch_read(self):
        digests = [digest_of(self.small), self.absent, digest_of(b"")]
        answers = self.client.BatchReadBlobs(re.BatchReadBlobsRequest(digests=digests)).responses
        by_hash = {r.digest.hash: [r.status.code, r.data.decode()] for r in answers}
        return [by_hash[d.hash] for d in digests]

    def ask_read_whole(self):
        return self.read(reapi.read_name(digest_of(self.large)))

    def ask_read_with_an_instance_that_is_not_named(self):
        return self.read(reapi.read_name(digest_of(self.small)))

    def ask_read_from_offset(self):
        return self.read(reapi.read_name(digest_of(self.large)), 12345)

    def ask_read_with_limit(self):
        return self.read(reapi.read_name(digest_of(self.large)), 12345, 1000)

    def ask_read_at_the_end(self):
        return self.read(reapi.read_name(digest_of(self.large)), len(self.large))

    def ask_read_beyond_the_end(self):
        return self.read(reapi.read_name(digest_of(self.large)), len(self.large) + 1)

    def ask_read_absent(self):
        return self.read(reapi.read_name(self.absent))

    def ask_read_empty(self):
        return self.read(reapi.read_name(digest_of(b"")))

    def ask_read_malformed_name(self):
        return self.read("blobs/xyz")

    def ask_write_plain(self):
        data = b"written " + self.salt * 1000
        return self.write(reapi.write_name(digest_of(data)), data)

    def ask_write_duplicate(self):
        return self.write(reapi.write_name(digest_of(self.large)), self.large)

    def ask_write_another_content(self):
        return self.write(reapi.write_name(self.absent), b"absent ".ljust(self.absent.size_bytes, b"x"))

    def ask_write_too_much(self):
        data = b"longer " + self.salt
        short = re.Digest(hash=digest_of(data).hash, size_bytes=len(data) - 1)
        return self.write(reapi.write_name(short), data)

    def ask_write_malformed_name(self):
        return self.write("uploads/1234/blobs", b"x")

    def ask_get_tree(self):
        pages = self.client.GetTree(re.GetTreeRequest(root_digest=digest_of(self.root)))
        return sorted({digest_of(d).hash for page in pages for d in page.directories})

    def ask_get_tree_of_absent_root(self):
        return len(list(self.client.GetTree(re.GetTreeRequest(root_digest=self.absent))))

    def ask_action_result_absent(self):
        return str(self.client.GetActionResult(re.GetActionResultRequest(action_digest=self.absent)))

    def ask_action_result_complete(self):
        return self.store_and_get(digest_of(self.small))

    def ask_action_result_incomplete(self):
        return self.store_and_get(self.absent)

    def ask_action_result_tree_incomplete(self):
        tree = re.Tree(root=reapi.directory(files=[("gone", self.absent, False)]))
        (tree_digest,) = reapi.upload(self.client, [tree])
        return self.store_and_get(digest_of(self.small), tree_digest)

    def store_and_get(self, output, tree=None):
        key = digest_of(b"action " + output.hash.encode() + str(tree).encode() + self.salt)
        result = re.ActionResult(exit_code=0, stdout_digest=digest_of(b""))
        result.output_files.add(path="out", digest=output, is_executable=True)
        if tree is not None:
            result.output_directories.add(path="dir", tree_digest=tree)
        self.client.UpdateActionResult(re.UpdateActionResultRequest(action_digest=key, action_result=result))
        found = self.client.GetActionResult(re.GetActionResultRequest(action_digest=key))
        return [(f.path, f.digest.hash, f.is_executable) for f in found.output_files]


reapi.main(run)
