// Actions that mean harm or are merely odd, as data: what they run and what must come of it.
//
// The numbers are those of the list the executor was designed against; actions whose oddity lies in their inputs or
// outputs (collection, staging) are tested with the worker. `in` is an input that nobody may alter (as root a hard link
// to a file of the store), `cached` a read-only mounted directory with the file `header.h`.

import type { RunOutcome, RunSpec } from "../../src/runner/runner.ts";
import { exited, limits, python, sh, systemCall, variable } from "./case-words.ts";

export interface HostileCase {
  readonly name: string;
  readonly arguments: readonly string[];
  readonly spec?: Partial<RunSpec>;
  readonly outcome: Partial<RunOutcome> & { readonly kind: RunOutcome["kind"] };
  readonly stdout?: RegExp | string;
  readonly stderr?: RegExp;
  /** Only where actions have a user of their own, or only where they have the server's. */
  readonly only?: "root" | "ordinary";
}

export const HOSTILE_CASES: readonly HostileCase[] = [
  // Inputs
  {
    name: "1 overwrites an input",
    arguments: sh("echo broken > in"),
    outcome: exited(2),
    stderr: /Permission denied/,
    only: "root",
  },
  {
    name: "2 makes an input writable first",
    arguments: sh("chmod 644 in; echo broken > in; true"),
    outcome: exited(0),
    stderr: /Operation not permitted/,
    only: "root",
  },
  {
    name: "3 truncates an input and maps it writable",
    arguments: python(
      `import os, mmap\nfor f in (lambda: os.truncate("in", 0), lambda: mmap.mmap(os.open("in", os.O_RDWR), 3)):\n try: f(); print("altered")\n except OSError as e: print(e.strerror)`,
    ),
    outcome: exited(0),
    stdout: "Permission denied\nPermission denied\n",
    only: "root",
  },
  {
    name: "4 changes times, attributes and owner of an input",
    arguments: python(
      `import os\nfor f in (lambda: os.utime("in", (1, 1)), lambda: os.setxattr("in", "user.x", b"y"), lambda: os.chown("in", 1000, 1000)):\n try: f(); print("altered")\n except OSError as e: print("refused")`,
    ),
    outcome: exited(0),
    stdout: "refused\nrefused\nrefused\n",
    only: "root",
  },
  {
    name: "5 deletes and renames its inputs, which it may",
    arguments: sh("mv in moved && rm -f moved && ls"),
    outcome: exited(0),
    stdout: "cached\n",
  },
  {
    name: "6 remounts read-only mounts writable",
    arguments: sh(
      "mount -o remount,rw /usr; mount -o remount,bind,rw /build/cached; unshare -Urm mount -o remount,bind,rw /build/cached; touch /usr/x /build/cached/x; true",
    ),
    outcome: exited(0),
    stderr: /Read-only file system/,
  },
  {
    name: "7 writes into a cached directory",
    arguments: sh("echo x > cached/header.h; rm cached/header.h; touch cached/new; chmod 777 cached; true"),
    outcome: exited(0),
    stderr: /Read-only file system[^]*Read-only file system[^]*Read-only file system[^]*Read-only file system/,
  },
  {
    name: "8 links an input to an output",
    arguments: sh("ln in out"),
    outcome: exited(1),
    stderr: /Operation not permitted/,
    only: "root",
  },
  // Files
  {
    name: "13 makes devices",
    arguments: sh("mknod null c 1 3; mknod disk b 254 0; ls"),
    outcome: exited(0),
    stdout: "cached\nin\n",
    stderr: /Operation not permitted/,
  },
  { name: "14 makes a sparse file of 8 TiB", arguments: sh("truncate -s 8T sparse"), outcome: exited(0) },
  {
    name: "16 makes a directory 3,000 levels deep",
    arguments: python(`import os\nfor i in range(3000): os.mkdir("d"); os.chdir("d")`),
    outcome: exited(0),
  },
  {
    name: "17 makes odd names",
    arguments: python(
      `import os\nfor n in (b"\\xff\\xfe", b"a\\nb", b"x" * 255, b"-rf", "é".encode(), "e\\u0301".encode()): open(n, "w")\nprint(len(os.listdir()))`,
    ),
    outcome: exited(0),
    stdout: "8\n",
  },
  {
    name: "18 makes files and directories that nobody may enter, and setuid bits",
    arguments: sh("mkdir d && touch d/f s && chmod 0 d/f d && chmod 6755 s"),
    outcome: exited(0),
  },
  // What stays behind
  {
    name: "20 leaves a daemon behind that goes on writing",
    arguments: sh(
      `setsid sh -c 'trap "" HUP TERM INT; while :; do echo x >> out; done' & while ! [ -s out ]; do :; done`,
    ),
    outcome: exited(0),
  },
  {
    name: "21 leaves a daemon behind that holds stdout open",
    arguments: python(
      `import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  time.sleep(1000)\n os._exit(0)\nprint("done", flush=True)`,
    ),
    outcome: exited(0),
    stdout: "done\n",
  },
  {
    name: "22 ignores every signal it can until the timeout",
    arguments: sh(
      `setsid sh -c 'trap "" HUP TERM INT QUIT; sleep 1000; sleep 1000' & trap "" HUP TERM INT QUIT; echo began; sleep 1000; sleep 1000`,
    ),
    spec: limits({ timeoutMs: 300 }),
    outcome: { kind: "timeout" },
    stdout: "began\n",
  },
  {
    name: "23 is a fork bomb",
    arguments: python(
      'import os\nwhile True:\n try: os.fork()\n except OSError as e: os.write(1, (e.strerror + "\\n").encode())',
    ),
    spec: limits({ timeoutMs: 800, maxPids: 100, maxLogBytes: 1 << 30 }),
    outcome: { kind: "timeout" },
    stdout: /^(Resource temporarily unavailable\n)+$/,
  },
  {
    name: "23 is a fork bomb whose first process ends at once",
    // In a subshell: a shell whose second fork comes after the first child has filled the limit ends with 2.
    arguments: sh("f() { f | f & }; (f); exit 0"),
    spec: limits({ maxPids: 100, maxLogBytes: 1 << 30 }),
    outcome: exited(0),
  },
  // Resources
  {
    name: "24 takes more memory than it may",
    arguments: python(`x = bytearray(1 << 30)`),
    spec: limits({ memoryBytes: 96 << 20 }),
    outcome: { kind: "limit", limit: "memory" },
    stderr: /ledge: killed: the action used more than 100663296 bytes of memory\n$/,
  },
  {
    name: "24 fills the temporary directory",
    arguments: sh("for i in 1 2 3; do dd if=/dev/zero of=/tmp/x$i bs=1M count=6 2>&1; done | grep -o 'No space left'"),
    spec: limits({ diskBytes: 8 << 20 }),
    outcome: exited(0),
    stdout: /^No space left\n/,
  },
  {
    name: "24 fills /dev/shm and /dev",
    arguments: sh(
      "for d in /dev/shm /dev; do dd if=/dev/zero of=$d/x bs=1M count=60 2>&1 | grep -oE 'No space left|Read-only file system'; done; rm /dev/shm/x",
    ),
    spec: limits({ memoryBytes: 48 << 20 }),
    outcome: exited(0),
    stdout: "No space left\nRead-only file system\n",
    only: "ordinary",
  },
  {
    name: "24 fills the disk",
    arguments: sh("for i in 1 2 3 4 5 6; do dd if=/dev/zero of=x$i bs=1M count=7 2>/dev/null; done; sleep 1000"),
    spec: limits({ diskBytes: 8 << 20 }),
    outcome: { kind: "limit", limit: "disk" },
  },
  {
    name: "24 writes a single file larger than it may",
    arguments: sh("exec dd if=/dev/zero of=big bs=1M count=20"),
    spec: limits({ diskBytes: 8 << 20 }),
    outcome: { kind: "limit", limit: "disk" },
  },
  {
    name: "25 prints without end",
    arguments: ["yes"],
    spec: limits({ maxLogBytes: 5_000_000 }),
    outcome: { kind: "limit", limit: "log-bytes" },
    stdout: /^(y\n)+$/,
  },
  {
    name: "25 opens its streams by name",
    arguments: sh(
      "echo one; echo two > /dev/stdout; echo three >> /dev/stdout; echo four > /dev/stderr; echo five >&2",
    ),
    outcome: exited(0),
    stdout: "one\ntwo\nthree\n",
    stderr: /^four\nfive\n$/,
  },
  {
    name: "25 closes its streams",
    arguments: sh("echo before; exec 0<&- 1>&- 2>&-; echo x >&1 2>&2; exit 3"),
    outcome: exited(3),
    stdout: "before\n",
  },
  {
    name: "26 spins until the timeout",
    arguments: sh("while :; do :; done"),
    spec: limits({ timeoutMs: 200 }),
    outcome: { kind: "timeout" },
  },
  // Signals
  ...Object.entries({ KILL: 137, TERM: 143, ABRT: 134, SEGV: 139, PIPE: 141 }).map(([signal, exitCode]) => ({
    name: `27 sends ${signal} to itself`,
    arguments: sh(`kill -${signal} $$; sleep 5; exit 9`),
    outcome: exited(exitCode),
  })),
  {
    name: "28 kills everything it can see, init included",
    arguments: sh("sleep 1000 & kill -9 1; kill -TERM 1; kill -9 -1; echo alive"),
    outcome: exited(0),
    stdout: "alive\n",
  },
  {
    name: "28 writes to the files of init",
    arguments: python(
      [
        'for name in ("mem", "oom_score_adj", "comm", "uid_map", "root/x", "cwd/x"):',
        " try: open('/proc/1/' + name, 'w').write('-1000')",
        " except OSError: pass",
      ].join("\n"),
    ),
    outcome: exited(0),
  },
  {
    // Attaching to one's own init is the kernel's to allow. It stops, so nothing ends any more until the timeout.
    name: "28 traces init and stops it",
    arguments: python("import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0)"),
    spec: limits({ timeoutMs: 400 }),
    outcome: { kind: "timeout" },
  },
  // Environment and command
  {
    name: "29 sets variables that the dynamic linker obeys",
    arguments: sh("echo ran"),
    spec: {
      environment: [
        { name: "PATH", value: "/usr/bin:/bin" },
        { name: "LD_PRELOAD", value: "/build/evil.so" },
        { name: "LD_AUDIT", value: "/build/evil.so" },
        { name: "GCONV_PATH", value: "/build" },
      ],
    },
    outcome: exited(0),
    stdout: "ran\n",
    stderr: /evil\.so/,
  },
  {
    name: "30 has a NUL byte in an argument",
    arguments: ["echo", "x\0--bind\0/\0/host"],
    outcome: {
      kind: "not-started",
      message: "Argument 1 of the command contains a NUL byte, which no program can receive",
    },
  },
  {
    name: "30 has a NUL byte in a variable",
    arguments: ["env"],
    spec: variable("A", "x\0--bind\0/\0/host"),
    outcome: {
      kind: "not-started",
      message: 'The environment variable "A" contains a NUL byte, which no program can receive',
    },
  },
  {
    name: "30 has a variable name with an equals sign",
    arguments: ["env"],
    spec: variable("A=B", "x"),
    outcome: { kind: "not-started", message: 'The environment variable name "A=B" contains "="' },
  },
  {
    name: "30 has an argument of 200 KB",
    arguments: ["true", "x".repeat(200_000)],
    outcome: {
      kind: "not-started",
      message:
        'Cannot start the command "true": its arguments and environment are longer than Linux allows; pass them in a file',
    },
  },
  {
    name: "30 has 5 MB of environment",
    arguments: ["true"],
    spec: { environment: Array.from({ length: 50 }, (_, i) => ({ name: `V${i}`, value: "x".repeat(100_000) })) },
    outcome: {
      kind: "not-started",
      message:
        'Cannot start the command "true": its arguments and environment are longer than Linux allows; pass them in a file',
    },
  },
  {
    name: "30 has 20,000 arguments, which Linux allows",
    arguments: ["sh", "-c", "echo $#", "sh", ...Array.from({ length: 20_000 }, (_, i) => `argument ${i}`)],
    outcome: exited(0),
    stdout: "20000\n",
  },
  {
    name: "31 has an option as its program",
    arguments: ["--help"],
    outcome: {
      kind: "not-started",
      message:
        'Cannot start the command "--help": there is no program of that name in the PATH of the action (a path needs a slash: ./name)',
    },
  },
  {
    name: "31 names a file that is not executable",
    arguments: ["./in"],
    outcome: {
      kind: "not-started",
      message:
        'Cannot start the command "./in": it is not executable (the file\'s is_executable is false), or it is a directory',
    },
  },
  {
    name: "31 names a directory",
    arguments: ["./cached"],
    outcome: {
      kind: "not-started",
      message:
        'Cannot start the command "./cached": it is not executable (the file\'s is_executable is false), or it is a directory',
    },
  },
  {
    name: "32 wants a working directory outside",
    arguments: ["true"],
    spec: { workingDirectory: "a/../../b" },
    outcome: {
      kind: "not-started",
      message: 'The working directory "a/../../b" must be relative and stay inside the input root',
    },
  },
  {
    name: "32 wants an absolute working directory",
    arguments: ["true"],
    spec: { workingDirectory: "/etc" },
    outcome: {
      kind: "not-started",
      message: 'The working directory "/etc" must be relative and stay inside the input root',
    },
  },
  {
    name: "32 wants a file as working directory",
    arguments: ["true"],
    spec: { workingDirectory: "in" },
    outcome: {
      kind: "not-started",
      message: 'Cannot enter the working directory "in": it is not a directory in the input root',
    },
  },
  // What it must not see
  {
    name: "34 looks around on the host",
    arguments: sh(
      "ls /root /home /sys /var/lib /boot /srv /mnt /media 2>/dev/null; ls /run /tmp; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | grep -E '/|=.*[^0-9a-f]'; ls /proc | grep -c '^[0-9]'",
    ),
    outcome: exited(0),
    stdout: /^\/run:\n\n\/tmp:\n(PATH=.*\n|PWD=.*\n|OLDPWD=.*\n)*[2-8]\n$/,
  },
  {
    name: "35 has no descriptors but the three streams",
    arguments: python(`import os; print(sorted(int(f) for f in os.listdir("/proc/self/fd"))[:-1])`),
    outcome: exited(0),
    stdout: "[0, 1, 2]\n",
  },
  {
    name: "36 uses keyrings",
    arguments: systemCall({ x64: 250, arm64: 219 }, 0, -3, 0),
    outcome: exited(0),
    stdout: "EPERM\n",
  },
  {
    name: "36 loads BPF programs",
    arguments: systemCall({ x64: 321, arm64: 280 }, 0, 0, 0),
    outcome: exited(0),
    stdout: "EPERM\n",
  },
  {
    name: "36 handles page faults",
    arguments: systemCall({ x64: 323, arm64: 282 }, 0),
    outcome: exited(0),
    stdout: "EPERM\n",
  },
  {
    name: "36 sets up io_uring",
    arguments: systemCall({ x64: 425, arm64: 425 }, 1, 0),
    outcome: exited(0),
    stdout: "ENOSYS\n",
  },
  {
    name: "36 types into a terminal",
    arguments: python(
      `import fcntl, os, pty\nm, s = pty.openpty()\ntry: fcntl.ioctl(s, 0x5412, b"x"); print("typed")\nexcept OSError as e: print(e.strerror)`,
    ),
    outcome: exited(0),
    stdout: "Operation not permitted\n",
  },
  {
    name: "37 makes namespaces of its own",
    arguments: sh(
      "unshare -U true || echo refused; unshare -m true || echo refused; bwrap --ro-bind / / true || echo refused",
    ),
    outcome: exited(0),
    stdout: "refused\nrefused\nrefused\n",
  },
  {
    name: "has no capabilities and cannot get any",
    arguments: sh("grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t ' ' '"),
    outcome: exited(0),
    stdout:
      "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapBnd: 0000000000000000\nCapAmb: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n",
  },
  {
    name: "47 runs as the user it asks for",
    arguments: sh("id -u; id -g; whoami"),
    spec: { unixUid: 12_345, unixGid: 54_321 },
    outcome: exited(0),
    stdout: "12345\n54321\nbuild\n",
  },
  {
    name: "47 runs as root in name only",
    arguments: sh("id -u; chown 1 in; mount -t tmpfs x /tmp; cat /etc/shadow; touch /usr/x; true"),
    spec: { unixUid: 0, unixGid: 0 },
    outcome: exited(0),
    stdout: "0\n",
    stderr: /shadow: No such file/,
  },
  {
    name: "writes where only the build directory and /tmp are writable",
    arguments: sh(
      "for d in / /etc /usr /opt /run /var /dev /proc; do touch $d/x 2>/dev/null && echo $d; done; touch /tmp/x x",
    ),
    outcome: exited(0),
    stdout: "",
  },
];
