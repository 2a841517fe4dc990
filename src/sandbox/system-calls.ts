// Numbers of the system calls that make a sandbox, for the architectures we have a builder for.
//
// Only calls that both have: arm64 knows neither open nor mkdir nor symlink, so the forms with a directory are used.
// Source: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux 6.x.

interface Numbers {
  readonly x64: number;
  readonly arm64: number;
}

export const SYSTEM_CALLS = {
  capset: { x64: 126, arm64: 91 },
  chdir: { x64: 80, arm64: 49 },
  chroot: { x64: 161, arm64: 51 },
  clone: { x64: 56, arm64: 220 },
  close: { x64: 3, arm64: 57 },
  close_range: { x64: 436, arm64: 436 },
  exit_group: { x64: 231, arm64: 94 },
  fchdir: { x64: 81, arm64: 50 },
  ioctl: { x64: 16, arm64: 29 },
  mkdirat: { x64: 258, arm64: 34 },
  mknodat: { x64: 259, arm64: 33 },
  mount: { x64: 165, arm64: 40 },
  mount_setattr: { x64: 442, arm64: 442 },
  move_mount: { x64: 429, arm64: 429 },
  openat: { x64: 257, arm64: 56 },
  open_tree: { x64: 428, arm64: 428 },
  pivot_root: { x64: 155, arm64: 41 },
  prctl: { x64: 157, arm64: 167 },
  readlinkat: { x64: 267, arm64: 78 },
  sethostname: { x64: 170, arm64: 161 },
  setsid: { x64: 112, arm64: 157 },
  socket: { x64: 41, arm64: 198 },
  symlinkat: { x64: 266, arm64: 36 },
  umask: { x64: 95, arm64: 166 },
  umount2: { x64: 166, arm64: 39 },
  unshare: { x64: 272, arm64: 97 },
  write: { x64: 1, arm64: 64 },
} as const satisfies Readonly<Record<string, Numbers>>;

export type SystemCallName = keyof typeof SYSTEM_CALLS;

/** undefined for an architecture we have no builder for. */
export function systemCallNumber(name: SystemCallName, architecture: string): number | undefined {
  return architecture === "x64" || architecture === "arm64" ? SYSTEM_CALLS[name][architecture] : undefined;
}
