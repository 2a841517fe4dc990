"""BuildStream: properties on Action and Command, unsorted lists, odd output paths, DIRECTORY_ONLY, cancelling."""

import platform as machine

import reapi
from reapi import check, digest_of, grpc, lr, re, status_of, unique


def run(address):
    client = reapi.Client(address)
    cache = client.GetCapabilities(re.GetCapabilitiesRequest()).cache_capabilities
    allowed = re.SymlinkAbsolutePathStrategy.ALLOWED
    check(cache.symlink_absolute_path_strategy == allowed, "absolute symlinks are allowed")
    probe = status_of(lambda: client.Execute(re.ExecuteRequest()))
    check(probe == grpc.StatusCode.INVALID_ARGUMENT, "an empty Execute: INVALID_ARGUMENT, the probe for the service")
    check_build(client)
    check_failed_build(client)
    check_cancel(client)


def properties():
    isa = {"x86_64": "x86-64", "aarch64": "aarch64"}[machine.machine()]
    return re.Platform(
        properties=[
            re.Platform.Property(name="ISA", value=isa),
            re.Platform.Property(name="OSFamily", value="linux"),
        ]
    )


def element(script):
    """The action of one element: `sh` from the PATH, the build folder as working directory, two output folders."""
    variables = {"V": "1", "PATH": "/usr/bin:/bin", "LC_ALL": "C", "PWD": "/buildstream/project/element.bst"}
    return re.Command(
        arguments=["sh", "-c", "-e", script],
        environment_variables=[re.Command.EnvironmentVariable(name=n, value=v) for n, v in variables.items()],
        working_directory="buildstream/project/element.bst",
        output_paths=[".", "../../../buildstream-install"],
        output_directory_format=re.Command.DIRECTORY_ONLY,
        platform=properties(),
    )


def input_root():
    """A root with an absolute symlink, empty folders and properties on its directories."""
    source = unique("source")
    read_only = re.NodeProperties(properties=[re.NodeProperty(name="SubtreeReadOnly", value="true")])
    writable = re.NodeProperties(properties=[re.NodeProperty(name="SubtreeReadOnly", value="false")])
    build = reapi.directory(files=[("source.txt", digest_of(source), False)], symlinks=[("abs", "/usr/bin/env")])
    build.node_properties.CopyFrom(writable)
    project = reapi.directory(directories=[("element.bst", digest_of(build))])
    buildstream = reapi.directory(directories=[("project", digest_of(project))])
    install = re.Directory(node_properties=writable)
    root = reapi.directory(
        directories=[
            ("buildstream", digest_of(buildstream)),
            ("buildstream-install", digest_of(install)),
            ("tmp", digest_of(b"")),
        ]
    )
    root.node_properties.CopyFrom(read_only)
    return root, [source, build, project, buildstream, install], source


def check_build(client):
    root, blobs, source = input_root()
    command = element("test -L abs; mkdir -p ../../../buildstream-install/usr/share; cp source.txt ../../../buildstream-install/usr/share/")
    action = reapi.upload_action(client, command, root, blobs, platform=properties())
    response, operations = reapi.execute(client, action)
    check(response.status.code == 0 and response.result.exit_code == 0, "the element builds")
    check(not response.result.output_files, "no output file where only directories were asked for")
    folders = {d.path: d for d in response.result.output_directories}
    check(sorted(folders) == [".", "../../../buildstream-install"], "paths come back as they were asked for")
    for folder in folders.values():
        check(folder.HasField("root_directory_digest"), f"{folder.path}: root_directory_digest, as DIRECTORY_ONLY asks")
    installed = folders["../../../buildstream-install"].root_directory_digest
    check(read_path(client, installed, ["usr", "share"], "source.txt") == source, "every Directory below is in the CAS")
    build = re.Directory.FromString(reapi.read_blob(client, folders["."].root_directory_digest))
    check([(s.name, s.target) for s in build.symlinks] == [("abs", "/usr/bin/env")], "an absolute symlink comes back")
    cancel = status_of(lambda: client.CancelOperation(lr.CancelOperationRequest(name=operations[0].name)))
    check(cancel == grpc.StatusCode.OK, "cancelling what is done already is no error")


def read_path(client, root, directories, file):
    node = re.Directory.FromString(reapi.read_blob(client, root))
    for name in directories:
        digest = next(d.digest for d in node.directories if d.name == name)
        node = re.Directory.FromString(reapi.read_blob(client, digest))
    return reapi.read_blob(client, next(f.digest for f in node.files if f.name == file))


def check_failed_build(client):
    root, blobs, _ = input_root()
    command = element("echo partial > result; echo because >&2; exit 1")
    response, _ = reapi.execute(client, reapi.upload_action(client, command, root, blobs, platform=properties()))
    result = response.result
    check(response.status.code == 0 and result.exit_code == 1, "a failed element is a result")
    folders = {d.path: d for d in result.output_directories}
    partial = read_path(client, folders["."].root_directory_digest, [], "result")
    check(partial == b"partial\n", "with its outputs: BuildStream keeps failed artifacts")
    check(reapi.read_blob(client, result.stderr_digest) == b"because\n", "and its stderr as a digest")


def check_cancel(client):
    root, blobs, _ = input_root()
    action = reapi.upload_action(client, element("sleep 600"), root, blobs, platform=properties())
    stream = client.Execute(re.ExecuteRequest(action_digest=action))
    name = next(stream).name
    client.CancelOperation(lr.CancelOperationRequest(name=name))
    response = reapi.finished(list(stream))
    check(response.status.code == grpc.StatusCode.CANCELLED.value[0], "a cancelled element ends with CANCELLED")
    unknown = status_of(lambda: client.CancelOperation(lr.CancelOperationRequest(name="operations/unknown")))
    check(
        unknown in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT), "an unknown operation is said to be unknown"
    )


reapi.main(run)
