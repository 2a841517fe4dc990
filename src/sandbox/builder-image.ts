// The builder: a program of some 600 bytes that makes a sandbox by itself, without bubblewrap, and ends as its launcher.
//
// It knows nothing of sandboxes. It maps a list of system calls (setup-block.ts) that setup-program.ts has written and
// makes them one after another; the launcher's instructions follow its own, so what waits for a command at the end is
// launcher-image.ts again. Why not C: the executable is made without a compiler, and this needs no libc, no dynamic
// linker and no heap, which is where half of bwrap's time goes.
//
//   mmap(PROGRAM_ADDRESS, PROGRAM_BYTES, private, PROGRAM_FD)
//   for each record {number, six arguments, then}:
//     number -1: become the launcher
//     number -2: wait for children until the one with pid arguments[0] ends; write its exit code to STATUS_FD; exit with it
//     result = system call
//     failed: then 1: go on;  then -errno: go on;  else report {SETUP_STAGE + index, errno} as the launcher does, exit 127
//     result 0 and then an address: go on at that record (the child of a clone)
//
// The instructions were assembled from exactly the text beside them (GNU as), in front of the launcher's.

import { executableImage, type Instruction, launcherCode } from "./launcher-image.ts";

/** The list of system calls, to be mapped; and where the end of the first process is told. */
export const BUILDER_FDS = { program: 3, status: 4 } as const;

/** The list holds absolute addresses, so it always lies here. */
export const PROGRAM_ADDRESS = 0x1000_0000;

/** What is mapped of it. Half of it still holds 1,000 calls with their strings, ten times what a sandbox has. */
export const PROGRAM_BYTES = 0x4_0000;

/** First number of a report: this plus the index of the call that failed. Above every LaunchStage. */
export const SETUP_STAGE = 0x100;

/** Numbers that are no system calls. */
export const BuiltIn = { BecomeLauncher: -1, WaitForChild: -2 } as const;

/** The last byte of an exit code on STATUS_FD. */
export const EXIT_MARK = 0x80;

const X64_CODE: readonly Instruction[] = [
  ["bf00000010", "mov edi,0x10000000"],
  ["be00000400", "mov esi,0x40000"],
  ["ba03000000", "mov edx,0x3"],
  ["41ba12000000", "mov r10d,0x12"],
  ["41b803000000", "mov r8d,0x3"],
  ["4531c9", "xor r9d,r9d"],
  ["b809000000", "mov eax,0x9"],
  ["0f05", "syscall"],
  ["bb00000010", "mov ebx,0x10000000"],
  ["4839d8", "cmp rax,rbx"],
  ["0f85df010000", "jne quit"],
  // next_call:
  ["488b03", "mov rax,[rbx]"],
  ["4885c0", "test rax,rax"],
  ["7853", "js builtin"],
  ["488b7b08", "mov rdi,[rbx+0x8]"],
  ["488b7310", "mov rsi,[rbx+0x10]"],
  ["488b5318", "mov rdx,[rbx+0x18]"],
  ["4c8b5320", "mov r10,[rbx+0x20]"],
  ["4c8b4328", "mov r8,[rbx+0x28]"],
  ["4c8b4b30", "mov r9,[rbx+0x30]"],
  ["0f05", "syscall"],
  ["488b4b38", "mov rcx,[rbx+0x38]"],
  ["4883c340", "add rbx,0x40"],
  ["4885c0", "test rax,rax"],
  ["780d", "js failed"],
  ["75cf", "jne next_call"],
  ["4883f901", "cmp rcx,0x1"],
  ["7ec9", "jle next_call"],
  ["4889cb", "mov rbx,rcx"],
  ["ebc4", "jmp next_call"],
  // failed:
  ["4883f901", "cmp rcx,0x1"],
  ["74be", "je next_call"],
  ["4839c1", "cmp rcx,rax"],
  ["74b9", "je next_call"],
  ["81eb40000010", "sub ebx,0x10000040"],
  ["c1eb06", "shr ebx,0x6"],
  ["81c300010000", "add ebx,0x100"],
  ["e967010000", "jmp report"],
  // builtin:
  ["48ffc0", "inc rax"],
  ["7464", "je launcher"],
  // reap:
  ["bfffffffff", "mov edi,0xffffffff"],
  ["4889e6", "mov rsi,rsp"],
  ["31d2", "xor edx,edx"],
  ["4531d2", "xor r10d,r10d"],
  ["b83d000000", "mov eax,0x3d"],
  ["0f05", "syscall"],
  ["4883f8fc", "cmp rax,0xfffffffffffffffc"],
  ["74e6", "je reap"],
  ["4885c0", "test rax,rax"],
  ["0f885c010000", "js quit"],
  ["3b4308", "cmp eax,[rbx+0x8]"],
  ["75d8", "jne reap"],
  ["8b0424", "mov eax,[rsp]"],
  ["a87f", "test al,0x7f"],
  ["7505", "jne killed"],
  ["0fb6d4", "movzx edx,ah"],
  ["eb09", "jmp ended"],
  // killed:
  ["83e07f", "and eax,0x7f"],
  ["8d9080000000", "lea edx,[rax+0x80]"],
  // ended:
  ["891424", "mov [rsp],edx"],
  ["c644240380", "mov byte ptr [rsp+0x3],0x80"],
  ["bf04000000", "mov edi,0x4"],
  ["4889e6", "mov rsi,rsp"],
  ["ba04000000", "mov edx,0x4"],
  ["b801000000", "mov eax,0x1"],
  ["0f05", "syscall"],
  ["0fb63c24", "movzx edi,byte ptr [rsp]"],
  ["b8e7000000", "mov eax,0xe7"],
  ["0f05", "syscall"],
];

const ARM64_CODE: readonly Instruction[] = [
  ["0000a2d2", "mov x0, #0x10000000"],
  ["8100a0d2", "mov x1, #0x40000"],
  ["620080d2", "mov x2, #0x3"],
  ["430280d2", "mov x3, #0x12"],
  ["640080d2", "mov x4, #0x3"],
  ["050080d2", "mov x5, #0x0"],
  ["c81b80d2", "mov x8, #0xde"],
  ["010000d4", "svc #0x0"],
  ["1300a2d2", "mov x19, #0x10000000"],
  ["1f0013eb", "cmp x0, x19"],
  ["a10f0054", "b.ne quit"],
  ["ff4300d1", "sub sp, sp, #0x10"],
  // next_call:
  ["680240f9", "ldr x8, [x19]"],
  ["e802f8b7", "tbnz x8, #63, builtin"],
  ["608640a9", "ldp x0, x1, [x19, #8]"],
  ["628e41a9", "ldp x2, x3, [x19, #24]"],
  ["649642a9", "ldp x4, x5, [x19, #40]"],
  ["010000d4", "svc #0x0"],
  ["691e40f9", "ldr x9, [x19, #56]"],
  ["73020191", "add x19, x19, #0x40"],
  ["c000f8b7", "tbnz x0, #63, failed"],
  ["e0feffb5", "cbnz x0, next_call"],
  ["3f0500f1", "cmp x9, #0x1"],
  ["adfeff54", "b.le next_call"],
  ["f30309aa", "mov x19, x9"],
  ["f3ffff17", "b next_call"],
  // failed:
  ["3f0500f1", "cmp x9, #0x1"],
  ["20feff54", "b.eq next_call"],
  ["3f0100eb", "cmp x9, x0"],
  ["e0fdff54", "b.eq next_call"],
  ["0900a2d2", "mov x9, #0x10000000"],
  ["730209cb", "sub x19, x19, x9"],
  ["730201d1", "sub x19, x19, #0x40"],
  ["73fe46d3", "lsr x19, x19, #6"],
  ["73020491", "add x19, x19, #0x100"],
  ["5d000014", "b report"],
  // builtin:
  ["080500b1", "adds x8, x8, #0x1"],
  ["a0030054", "b.eq launcher"],
  // reap:
  ["00008092", "mov x0, #0xffffffffffffffff"],
  ["e1030091", "mov x1, sp"],
  ["020080d2", "mov x2, #0x0"],
  ["030080d2", "mov x3, #0x0"],
  ["882080d2", "mov x8, #0x104"],
  ["010000d4", "svc #0x0"],
  ["1f1000b1", "cmn x0, #0x4"],
  ["20ffff54", "b.eq reap"],
  ["200bf8b7", "tbnz x0, #63, quit"],
  ["690a40b9", "ldr w9, [x19, #8]"],
  ["1f00096b", "cmp w0, w9"],
  ["a1feff54", "b.ne reap"],
  ["e90340b9", "ldr w9, [sp]"],
  ["2a190072", "ands w10, w9, #0x7f"],
  ["4a010211", "add w10, w10, #0x80"],
  ["41000054", "b.ne ended"],
  ["2a3d0853", "ubfx w10, w9, #8, #8"],
  // ended:
  ["0900b052", "mov w9, #0x80000000"],
  ["29010a2a", "orr w9, w9, w10"],
  ["e90300b9", "str w9, [sp]"],
  ["800080d2", "mov x0, #0x4"],
  ["e1030091", "mov x1, sp"],
  ["820080d2", "mov x2, #0x4"],
  ["080880d2", "mov x8, #0x40"],
  ["010000d4", "svc #0x0"],
  ["e0034039", "ldrb w0, [sp]"],
  ["c80b80d2", "mov x8, #0x5e"],
  ["010000d4", "svc #0x0"],
];

const CODE: Readonly<Record<string, readonly Instruction[]>> = { x64: X64_CODE, arm64: ARM64_CODE };

/** Returns the executable file for `architecture`; undefined for one we have no code for. */
export function builderImage(architecture: string = process.arch): Buffer | undefined {
  const own = CODE[architecture];
  const launcher = launcherCode(architecture);
  return own === undefined || launcher === undefined ? undefined : executableImage(architecture, [...own, ...launcher]);
}
