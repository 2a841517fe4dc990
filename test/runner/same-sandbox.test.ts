// Our own builder makes the very sandbox that bwrap makes: an action looks around in both and finds the same.
//
// bwrap is the oracle. What is left out of the comparison is named in LOOK_AROUND and in `normalized`: numbers that differ
// between two sandboxes of bwrap as well, the name of the first process, and the place of bwrap's root in its own tmpfs.

import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunSpec } from "../../src/runner/runner.ts";
import { makeRealRunner, type RealRunnerFixture, RUNNER_USERS, shell } from "./real-runner.ts";

const NEVER = new AbortController().signal;

/** Line by line; nothing here depends on the one before. */
const LOOK_AROUND = `
tr '\\0' '\\n' < /proc/self/environ
grep -vE '^(voluntary|nonvoluntary|Vm|Rss|Cpus|Mems|HugetlbPages|untag|THP)' /proc/self/status
grep -vE '^(voluntary|nonvoluntary|Vm|Rss|Cpus|Mems|HugetlbPages|untag|THP|Name|FDSize|SigBlk)' /proc/1/status
cat /proc/self/limits; id; pwd; umask; ulimit -a; hostname; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname
cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups /proc/sys/user/max_user_namespaces
cat /proc/self/cgroup | sed 's/[a-z_0-9]*ledge.*//'
sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo | sort -k 2
ls -lan / /dev /dev/shm /dev/pts /tmp /run /var /proc/self/fd/ 2>&1
cat /proc/net/dev | cut -d: -f1; cat /proc/net/if_inet6; cat /proc/net/fib_trie
ls /sys /home /root /oldroot /newroot
for name in user mnt pid ipc net uts cgroup; do readlink /proc/self/ns/$name; done
for path in / /usr /etc /opt /run /var /dev /dev/shm /proc /proc/sys/kernel /tmp /build "$PWD" /oldroot; do touch $path/x && echo "$path is writable"; done
echo x > /proc/sys/kernel/hostname; echo x > /proc/sysrq-trigger; echo 2 > /proc/sys/user/max_user_namespaces
mount -t tmpfs x /tmp; umount /tmp; mount -o remount,rw /usr; mknod /tmp/device c 1 3; hostname other; unshare -U true; unshare -r true
kill -0 1 && echo "may kill init"; chown 0 /tmp; chroot / true
python3 -c '
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
for name, number in (("pdeathsig", 2), ("dumpable", 3), ("keepcaps", 7), ("securebits", 27), ("subreaper", 37), ("thp", 42)):
    value = ctypes.c_int(-1)
    print(name, libc.prctl(number, ctypes.byref(value), 0, 0, 0), value.value)
print(os.getsid(0), os.getpgid(0), os.getppid(), sorted(int(name) for name in os.listdir("/proc") if name.isdigit())[:2])
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); socket.create_connection(s.getsockname()); print("loopback works")
print(os.environ, os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), open("/proc/self/oom_score_adj").read())
try: socket.create_connection(("192.0.2.1", 80), 1)
except OSError as error: print(error)
for fd in range(3, 64):
    try: os.fstat(fd); print("open", fd)
    except OSError: pass
'
true`;

for (const user of RUNNER_USERS) {
  describe(`the sandbox of an action, ${user}`, { timeout: 120_000 }, () => {
    let fixtures: Record<"own" | "bwrap", RealRunnerFixture>;
    let image: string;
    beforeAll(async () => {
      const [own, bwrap] = await Promise.all([
        makeRealRunner({ user, sandbox: "own" }),
        makeRealRunner({ user, sandbox: "bwrap" }),
      ]);
      fixtures = { own, bwrap };
      image = mkdtempSync(join(tmpdir(), "ledge-image-"));
      for (const name of ["usr", "etc", "opt", "srv/data"]) mkdirSync(join(image, name), { recursive: true });
      for (const name of ["bin", "lib", "lib64"]) symlinkSync(`usr/${name}`, join(image, name));
      writeFileSync(join(image, "srv/data/file"), "in the image");
      for (const name of ["", "usr", "etc", "opt", "srv", "srv/data"]) chmodSync(join(image, name), 0o755);
    });
    afterAll(async () => {
      await fixtures.own.close();
      await fixtures.bwrap.close();
      rmSync(image, { recursive: true });
    });

    async function lookAround(
      maker: "own" | "bwrap",
      spec: Partial<RunSpec>,
    ): Promise<{ out: string[]; err: string[] }> {
      const fixture = fixtures[maker];
      const full = fixture.newSpec({ arguments: shell(LOOK_AROUND), ...spec });
      chmodSync(full.inputRootPath, 0o755); // bwrap makes what is above a mount point as open as its source
      const { outcome } = await fixture.runner.run(full, { signal: NEVER });
      expect(outcome).toEqual({ kind: "exited", exitCode: 0 });
      const lines = (path: string) => normalized(readFileSync(path, "utf8"), fixture, full).split("\n");
      return { out: lines(full.stdoutPath), err: lines(full.stderrPath) };
    }

    async function expectTheSame(spec: Partial<RunSpec>): Promise<void> {
      const bwrap = await lookAround("bwrap", spec);
      expect(bwrap.out.length).toBeGreaterThan(100);
      expect(await lookAround("own", spec)).toEqual(bwrap);
    }

    it("is the same", () => expectTheSame({}));

    it("is the same with the host's network", () => expectTheSame({ network: "host" }));

    it("is the same for other users inside and another place of the input root", () =>
      expectTheSame({ unixUid: 0, unixGid: 7, inputRootPathInside: "/work" }));

    it("is the same with limits, with mounts and with a directory as /tmp", async () => {
      const limits = { timeoutMs: 60_000, maxLogBytes: 1 << 20, memoryBytes: 1 << 28, diskBytes: 1 << 27, maxPids: 99 };
      const mounts = [
        { source: join(image, "srv"), destination: "/nested/place", writable: false, optional: false },
        { source: "/usr/share", destination: "/build/shared", writable: false, optional: false },
      ];
      await expectTheSame({ limits, mounts });
    });

    it("is made by our own builder in every kind of root, and by bwrap where a mount point is missing", async () => {
      const usr = { source: "/usr", destination: "/usr", writable: false, optional: false };
      const makerOf = async (spec: Partial<RunSpec>, prepare: (root: string) => void = () => undefined) => {
        const full = fixtures.own.newSpec({ arguments: ["/usr/bin/cat", "/proc/1/comm"], ...spec });
        prepare(full.inputRootPath);
        expect((await fixtures.own.runner.run(full, { signal: NEVER })).outcome).toEqual({
          kind: "exited",
          exitCode: 0,
        });
        return readFileSync(full.stdoutPath, "utf8").trim();
      };
      const links = (root: string) => {
        for (const name of ["bin", "lib", "lib64"]) symlinkSync(`usr/${name}`, join(root, name));
      };
      const withMountPoint = (root: string) => {
        links(root);
        mkdirSync(join(root, "usr"));
      };
      expect(await makerOf({})).toBe("ledge-sandbox");
      expect(await makerOf({ rootMode: { image }, mounts: [usr] })).toBe("ledge-sandbox");
      expect(await makerOf({ rootMode: "input-root", mounts: [usr] }, withMountPoint)).toBe("ledge-sandbox");
      expect(await makerOf({ rootMode: "input-root", mounts: [usr] }, links)).toBe("bwrap");
    });

    it("is the same in an image", () =>
      expectTheSame({
        rootMode: { image },
        mounts: [{ source: "/usr", destination: "/usr", writable: false, optional: false }],
      }));
  });
}

/** Without what differs from one sandbox of bwrap to the next, or says which of the two made it. */
function normalized(text: string, fixture: RealRunnerFixture, spec: RunSpec): string {
  return (
    text
      .replaceAll(fixture.buildRootPath, "BUILD-ROOT")
      .replaceAll(spec.id, "RUN")
      .replaceAll(/\d{4}-\d\d-\d\d \S+|[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d/g, "TIME")
      .replaceAll(/\[\d{10}\]/g, "[NAMESPACE]")
      .replaceAll(/\b19\d{8}\b/g, "SLOT-UID")
      .replaceAll(/pipe:\[\d+\]/g, "pipe:[N]")
      .replaceAll(/^\/newroot \/ /gm, "/ / ")
      .replaceAll(/^(\/ \/ .* - tmpfs tmpfs rw).*$/gm, "$1")
      // The columns of ls are as wide as the number of all processes of the machine, which is that of the links to /proc.
      .replaceAll(/^[-dlcbps][-rwxstST]{9} .*$/gm, (line) => line.replaceAll(/ +/g, " "))
      .replaceAll(/^dr-xr-xr-x +\d+ (.* proc)$/gm, "$1")
      .replaceAll(/^(total|dr\S+ +\d+ \d+ \d+ +)\d*/gm, "$1")
  );
}
