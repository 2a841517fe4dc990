// BuildStream 2.8 against dist/ledge: an element is built in a root file system of its own, and found in the cache.
//
// It talks through its own buildbox-casd: CAS, action cache and execution, with the input root as `/`.

import { copyFile, mkdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runOrThrow } from "../support/child-output.ts";
import { buildStreamForPython, python } from "../support/fetched-clients.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

const instance = "whole-root";

test("BuildStream builds an element in ledge, and finds it there with an empty cache of its own", patient, async () => {
  await using folder = await TemporaryFolder.create("buildstream");
  await using server = await LedgeServer.start({ flags: ["--root-mode", `${instance}=input-root`] });
  await writeProject(folder.path);
  await writeConfiguration(folder.path, server.address);

  await bst(folder.path, "build", "hello.bst");
  expect(await server.executedActions()).toBe(1);
  await rm(join(folder.path, "cache"), { recursive: true });
  await bst(folder.path, "build", "hello.bst");
  expect(await server.executedActions()).toBe(1);

  await bst(folder.path, "artifact", "checkout", "hello.bst", "--deps", "none", "--directory", "out");
  expect(await readFile(join(folder.path, "out/share/hello.txt"), "utf8")).toBe("built in / by Linux\n");
  expect(await readlink(join(folder.path, "out/link"))).toBe("/share/hello.txt");
});

/** Two elements: a root file system made of one static program, and one that is built in it. */
async function writeProject(folder: string): Promise<void> {
  const bin = join(folder, "root/bin");
  await mkdir(bin, { recursive: true });
  await copyFile("/bin/busybox", join(bin, "busybox"));
  for (const name of ["sh", "cp", "ln", "mkdir", "uname"]) await symlink("/bin/busybox", join(bin, name));
  await mkdir(join(folder, "elements"));
  await writeFile(join(folder, "project.conf"), "name: ledge-test\nmin-version: 2.0\nelement-path: elements\n");
  await writeFile(
    join(folder, "elements/base.bst"),
    ["kind: import", "sources:", "- kind: local", "  path: root", "config:", "  target: /", ""].join("\n"),
  );
  const hello = `
kind: manual
build-depends:
- base.bst
config:
  build-commands:
  - test -x /bin/busybox
  - echo "built in / by $(uname)" > hello.txt
  install-commands:
  - mkdir -p "%{install-root}/share"
  - cp hello.txt "%{install-root}/share/"
  - ln -s /share/hello.txt "%{install-root}/link"
`;
  await writeFile(join(folder, "elements/hello.bst"), hello);
}

async function writeConfiguration(folder: string, address: string): Promise<void> {
  const service = (name: string, more = ""): string =>
    `  ${name}: {url: "http://${address}", instance-name: ${instance}${more}}\n`;
  const services = [
    service("execution-service"),
    service("storage-service"),
    service("action-cache-service", ", push: true"),
  ];
  const text = `cachedir: ${join(folder, "cache")}\nlogdir: ${join(folder, "logs")}\nremote-execution:\n`;
  await writeFile(join(folder, "user.conf"), text + services.join(""));
}

async function bst(folder: string, ...args: readonly string[]): Promise<void> {
  const options = ["-m", "buildstream", "--no-interactive", "--no-colors", "--config", join(folder, "user.conf")];
  await runOrThrow(python, [...options, ...args], {
    cwd: folder,
    env: { PYTHONPATH: await buildStreamForPython(), HOME: folder, PYTHONDONTWRITEBYTECODE: "1" },
  });
}
