// Where our control groups are, from texts of /proc; and a version 2 tree played with plain directories, since most test
// machines have delegated none to us. That the kernel then kills is tested with the runner, on whatever it has here.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findPlaces, openCgroupsAt } from "../../src/sandbox/cgroup.ts";

describe("findPlaces()", () => {
  it("finds a version 2 group", () => {
    const mountinfo = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    expect(findPlaces(mountinfo, "0::/user.slice/ledge.service\n")).toEqual([
      { version: 2, directory: "/sys/fs/cgroup/user.slice/ledge.service" },
    ]);
  });

  it("finds the memory controller of version 1, after an empty version 2 tree", () => {
    const mountinfo = [
      "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
      "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset",
      "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
    ].join("\n");
    expect(findPlaces(mountinfo, "8:pids:/p\n4:cpu,memory:/a:b\n0::/\n")).toEqual([
      { version: 2, directory: "/sys/fs/cgroup/unified" },
      { version: 1, directory: "/sys/fs/cgroup/memory/a:b" },
    ]);
  });

  it("subtracts the part of the tree that a container's mount begins with", () => {
    const mountinfo = "31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw";
    expect(findPlaces(mountinfo, "0::/docker/abc/inner")).toEqual([{ version: 2, directory: "/sys/fs/cgroup/inner" }]);
    expect(findPlaces(mountinfo, "0::/elsewhere")).toEqual([]);
  });

  it("finds nothing where there is nothing", () => expect(findPlaces("", "")).toEqual([]));
});

describe("openCgroupsAt() in a delegated version 2 tree", () => {
  let directory: string;
  const write = (name: string, content: string) => writeFileSync(join(directory, name), content);
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "ledge-cgroup-"));
    write("cgroup.controllers", "cpu io memory pids\n");
    write("cgroup.subtree_control", "\n");
    write("cgroup.procs", `${process.pid}\n4711\n`);
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it("moves server and runner one level down before it turns the controller on", () => {
    const controller = openCgroupsAt({ version: 2, directory }, "key", 4711);
    expect(readFileSync(join(directory, "server", "cgroup.procs"), "utf8")).toBe("4711");
    expect(readFileSync(join(directory, "cgroup.subtree_control"), "utf8")).toBe("+memory");
    expect(controller.version).toBe(2);
  });

  it("limits, fills and reads a group", () => {
    const controller = openCgroupsAt({ version: 2, directory }, "key", 4711);
    const group = join(directory, "ledge-key", "run_1");
    const cgroup = controller.create("run/1", { memoryBytes: 1000 });
    expect(readFileSync(join(group, "memory.max"), "utf8")).toBe("1000");
    cgroup.add(99);
    expect(readFileSync(join(group, "cgroup.procs"), "utf8")).toBe("99");
    expect(cgroup.oomKills()).toBe(0);
    writeFileSync(join(group, "memory.events"), "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n");
    writeFileSync(join(group, "memory.peak"), "998\n");
    expect(cgroup.oomKills()).toBe(2);
    expect(cgroup.peakMemoryBytes()).toBe(998);
  });

  it("leaves a group alone that others share", () => {
    write("cgroup.procs", `${process.pid}\n1\n`);
    expect(() => openCgroupsAt({ version: 2, directory }, "key", 4711)).toThrow(/Other processes/);
    expect(existsSync(join(directory, "server"))).toBe(false);
  });

  it("does without where the memory controller is not delegated", () => {
    write("cgroup.controllers", "cpu\n");
    mkdirSync(join(directory, "x"));
    expect(() => openCgroupsAt({ version: 2, directory }, "key", 4711)).toThrow(/memory controller/);
  });
});
