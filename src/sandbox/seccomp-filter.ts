// The system calls an action may not make, as a filter program for the kernel.
//
// Defence in depth: without capabilities and user namespaces most of these fail anyway; the filter takes the kernel code
// behind them out of reach, and it is the only thing between an action and the keyring of the user who started the
// server, which namespaces do not separate. Everything a build is known to need stays allowed (ptrace for debuggers and
// leak checkers, personality, chmod of setuid bits when unpacking images).
//
// Source: seccomp(2), linux/bpf_common.h, the system call tables of Linux 6.x; classic BPF.

/** One architecture's numbers; a call that an architecture lacks is absent from its table. */
interface SystemCalls {
  /** AUDIT_ARCH_… of linux/audit.h. */
  readonly auditArch: number;
  /** Answered with EPERM. */
  readonly forbidden: readonly number[];
  /** Answered with ENOSYS: programs then use the older way, which the filter understands. */
  readonly unknown: readonly number[];
  readonly clone: number;
  readonly unshare: number;
  readonly ioctl: number;
}

// Forbidden everywhere, in this order: keyrings (add_key, request_key, keyctl); kernel attack surface (bpf,
// perf_event_open, userfaultfd, lookup_dcookie or acct); kernels and modules (kexec_load, kexec_file_load, init_module,
// finit_module, delete_module); mounts (mount, umount2, pivot_root, open_tree, move_mount, fsopen, fsconfig, fsmount,
// fspick, mount_setattr); setns; quotas and swap (quotactl, quotactl_fd, swapon, swapoff); reboot, syslog,
// open_by_handle_at; clocks (settimeofday, clock_settime, adjtimex, clock_adjtime); and on x86 iopl, ioperm.
const MOUNT_CALLS = [428, 429, 430, 431, 432, 433, 442]; // the same numbers on every architecture
const IO_URING_AND_CLONE3 = [425, 426, 427, 435]; // likewise; clone3 hides its flags in memory the filter cannot read

const X86_64: SystemCalls = {
  auditArch: 0xc000_003e,
  forbidden: [
    248,
    249,
    250,
    321,
    298,
    323,
    212,
    163,
    246,
    320,
    175,
    313,
    176,
    165,
    166,
    155,
    ...MOUNT_CALLS,
    308,
    179,
    443,
    167,
    168,
    169,
    103,
    304,
    164,
    227,
    159,
    305,
    172,
    173,
  ],
  unknown: IO_URING_AND_CLONE3,
  clone: 56,
  unshare: 272,
  ioctl: 16,
};

/** 32-bit programs on x86-64; compilers and their tests still make them. */
const I386: SystemCalls = {
  auditArch: 0x4000_0003,
  forbidden: [
    286,
    287,
    288,
    357,
    336,
    374,
    253,
    51,
    283,
    128,
    350,
    129,
    21,
    22,
    52,
    217,
    ...MOUNT_CALLS,
    346,
    131,
    443,
    87,
    115,
    88,
    103,
    342,
    79,
    264,
    124,
    343,
    110,
    101,
    25,
    404,
    405,
  ],
  unknown: IO_URING_AND_CLONE3,
  clone: 120,
  unshare: 310,
  ioctl: 54,
};

const ARM64: SystemCalls = {
  auditArch: 0xc000_00b7,
  forbidden: [
    217,
    218,
    219,
    280,
    241,
    282,
    18,
    89,
    104,
    294,
    105,
    273,
    106,
    40,
    39,
    41,
    ...MOUNT_CALLS,
    268,
    60,
    443,
    224,
    225,
    142,
    116,
    265,
    170,
    112,
    171,
    266,
  ],
  unknown: IO_URING_AND_CLONE3,
  clone: 220,
  unshare: 97,
  ioctl: 29,
};

const TABLES: Readonly<Record<string, readonly SystemCalls[]>> = { x64: [X86_64, I386], arm64: [ARM64] };

// struct seccomp_data: int nr; u32 arch; u64 ip; u64 args[6]. Low halves only: both machines are little-endian.
const NUMBER_AT = 0;
const ARCH_AT = 4;
const argumentAt = (index: number) => 16 + index * 8;

const LOAD = 0x20; // A = word at k
const JUMP_IF_EQUAL = 0x15;
const JUMP_IF_AT_LEAST = 0x35;
const JUMP_IF_ANY_BIT = 0x45;
const RETURN = 0x06;

const ALLOW = 0x7fff_0000;
const DENY_EPERM = 0x0005_0001;
const DENY_ENOSYS = 0x0005_0026;

/** Bit of x32 system calls, an unused second door to the same kernel. */
const X32_BIT = 0x4000_0000;
const CLONE_NEWUSER = 0x1000_0000;
const TIOCSTI = 0x5412; // types into the terminal
const TIOCLINUX = 0x541c;

/** A jump target is the label of a later instruction; "next" falls through. */
interface Step {
  readonly label?: string;
  readonly code: number;
  readonly k: number;
  readonly yes?: string;
  readonly no?: string;
}

/** Returns the filter for `--seccomp`; undefined for an architecture without a table. */
export function seccompFilter(architecture: string = process.arch): Buffer | undefined {
  const tables = TABLES[architecture];
  if (tables === undefined) return undefined;
  const steps: Step[] = [{ code: LOAD, k: ARCH_AT }];
  for (const [index, { auditArch }] of tables.entries()) {
    // A table is longer than a jump can reach, so each architecture's test jumps over one return at most.
    steps.push({ code: JUMP_IF_EQUAL, k: auditArch, yes: `table ${index}`, no: `not ${index}` });
    steps.push(...tableSteps(index, tables[index] ?? X86_64, architecture === "x64" && index === 0));
    steps.push({ label: `not ${index}`, code: LOAD, k: ARCH_AT });
  }
  steps.push({ code: RETURN, k: DENY_EPERM }); // an architecture nobody here builds for
  return assemble(steps);
}

function tableSteps(index: number, table: SystemCalls, hasX32: boolean): Step[] {
  const own = (label: string) => `${label} ${index}`;
  const isCall = (k: number, yes: string): Step => ({ code: JUMP_IF_EQUAL, k, yes: own(yes) });
  return [
    { label: own("table"), code: LOAD, k: NUMBER_AT },
    ...(hasX32 ? [{ code: JUMP_IF_AT_LEAST, k: X32_BIT, yes: own("unknown") }] : []),
    isCall(table.clone, "clone"),
    isCall(table.unshare, "clone"),
    isCall(table.ioctl, "ioctl"),
    ...table.forbidden.map((k) => isCall(k, "forbidden")),
    ...table.unknown.map((k) => isCall(k, "unknown")),
    { label: own("allowed"), code: RETURN, k: ALLOW },
    { label: own("clone"), code: LOAD, k: argumentAt(0) },
    { code: JUMP_IF_ANY_BIT, k: CLONE_NEWUSER, yes: own("forbidden") },
    { code: RETURN, k: ALLOW },
    { label: own("ioctl"), code: LOAD, k: argumentAt(1) },
    { code: JUMP_IF_EQUAL, k: TIOCSTI, yes: own("forbidden") },
    { code: JUMP_IF_EQUAL, k: TIOCLINUX, yes: own("forbidden") },
    { code: RETURN, k: ALLOW },
    { label: own("forbidden"), code: RETURN, k: DENY_EPERM },
    { label: own("unknown"), code: RETURN, k: DENY_ENOSYS },
  ];
}

/** struct sock_filter: u16 code; u8 jump if true; u8 jump if false; u32 k. */
function assemble(steps: readonly Step[]): Buffer {
  const positions = new Map(
    steps.flatMap(({ label }, index) => (label === undefined ? [] : [[label, index] as const])),
  );
  const filter = Buffer.alloc(steps.length * 8);
  for (const [index, step] of steps.entries()) {
    filter.writeUInt16LE(step.code, index * 8);
    filter.writeUInt8(jump(positions, index, step.yes), index * 8 + 2);
    filter.writeUInt8(jump(positions, index, step.no), index * 8 + 3);
    filter.writeUInt32LE(step.k, index * 8 + 4);
  }
  return filter;
}

function jump(positions: ReadonlyMap<string, number>, from: number, label: string | undefined): number {
  if (label === undefined) return 0;
  const to = positions.get(label);
  if (to === undefined) throw new Error(`No instruction "${label}"`);
  return to - from - 1; // writeUInt8 refuses what a jump cannot reach
}
