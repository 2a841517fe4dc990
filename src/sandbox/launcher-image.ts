// The launcher: a program of some 350 bytes that is the first one in every sandbox and becomes the action.
//
// It waits for a block of memory (launcher-block.ts) on descriptor BLOCK_FD, enters the working directory, tries each
// candidate path of the program in turn, and when none can be started reports {stage, errno} on REPORT_FD. Why not a shell
// or bwrap itself: it needs nothing in the root (not even a libc), passes arguments and environment byte for byte and in
// order without bwrap's limit of 9,000 words, says exactly why a program did not start, and can be set up before anybody
// knows what to run. When the runner dies its block never comes, and it exits.
//
//   for fd in BLOCK_FD, REPORT_FD, LAUNCHER_FD: fcntl(fd, F_SETFD, FD_CLOEXEC)
//   read 8 bytes: length;  mmap(BLOCK_ADDRESS, length, fixed);  read length bytes to there
//   chdir(block.directory)                              failed: report {1, errno}
//   for limit in block.limits: prlimit64(0, limit.resource, &limit.soft, NULL)
//   for path in block.paths: execve(path, block.arguments, block.environment)
//     ENOENT, ENOTDIR: next;  EACCES: remember, next;   else: report {2, errno}
//   report {2, EACCES if remembered, else ENOENT};  exit 127
//
// The instructions were assembled from exactly the text beside them (GNU as); test/sandbox/launcher.test.ts runs them.
// Numbers of system calls: Linux x86-64 and arm64.

/** Where the launcher finds its descriptors. */
export const LAUNCHER_FDS = { block: 5, report: 6, image: 7 } as const;

/** The block holds absolute addresses, so it always lies here. */
export const BLOCK_ADDRESS = 0x2000_0000;

/** First number of a report. */
export const LaunchStage = { EnterDirectory: 1, Execute: 2 } as const;

export type Instruction = readonly [bytes: string, text: string];

const X64_CODE: readonly Instruction[] = [
  ["bb05000000", "mov ebx,0x5"],
  // close_next:
  ["89df", "mov edi,ebx"],
  ["be02000000", "mov esi,0x2"],
  ["ba01000000", "mov edx,0x1"],
  ["b848000000", "mov eax,0x48"],
  ["0f05", "syscall"],
  ["ffc3", "inc ebx"],
  ["83fb08", "cmp ebx,0x8"],
  ["72e6", "jb close_next"],
  ["4883ec10", "sub rsp,0x10"],
  ["4989e4", "mov r12,rsp"],
  ["4c8d6c2408", "lea r13,[rsp+0x8]"],
  ["e8f7000000", "call read_all"],
  ["488b3424", "mov rsi,[rsp]"],
  ["bf00000020", "mov edi,0x20000000"],
  ["ba03000000", "mov edx,0x3"],
  ["41ba32000000", "mov r10d,0x32"],
  ["49c7c0ffffffff", "mov r8,0xffffffffffffffff"],
  ["4531c9", "xor r9d,r9d"],
  ["b809000000", "mov eax,0x9"],
  ["0f05", "syscall"],
  ["41bc00000020", "mov r12d,0x20000000"],
  ["4c39e0", "cmp rax,r12"],
  ["0f85b7000000", "jne quit"],
  ["4d89e5", "mov r13,r12"],
  ["4c032c24", "add r13,[rsp]"],
  ["e8b7000000", "call read_all"],
  ["488b3c2500000020", "mov rdi,[0x20000000]"],
  ["bb01000000", "mov ebx,0x1"],
  ["b850000000", "mov eax,0x50"],
  ["0f05", "syscall"],
  ["4885c0", "test rax,rax"],
  ["7875", "js report"],
  ["4c8b342518000020", "mov r14,[0x20000018]"],
  // next_limit:
  ["498b36", "mov rsi,[r14]"],
  ["4885f6", "test rsi,rsi"],
  ["7816", "js limits_done"],
  ["31ff", "xor edi,edi"],
  ["498d5608", "lea rdx,[r14+0x8]"],
  ["4531d2", "xor r10d,r10d"],
  ["b82e010000", "mov eax,0x12e"],
  ["0f05", "syscall"],
  ["4983c618", "add r14,0x18"],
  ["ebe2", "jmp next_limit"],
  // limits_done:
  ["bb02000000", "mov ebx,0x2"],
  ["41be20000020", "mov r14d,0x20000020"],
  ["49c7c7feffffff", "mov r15,0xfffffffffffffffe"],
  // next_path:
  ["498b3e", "mov rdi,[r14]"],
  ["4983c608", "add r14,0x8"],
  ["4885ff", "test rdi,rdi"],
  ["742e", "je report_last"],
  ["488b342508000020", "mov rsi,[0x20000008]"],
  ["488b142510000020", "mov rdx,[0x20000010]"],
  ["b83b000000", "mov eax,0x3b"],
  ["0f05", "syscall"],
  ["4883f8fe", "cmp rax,0xfffffffffffffffe"],
  ["74d7", "je next_path"],
  ["4883f8ec", "cmp rax,0xffffffffffffffec"],
  ["74d1", "je next_path"],
  ["4883f8f3", "cmp rax,0xfffffffffffffff3"],
  ["7508", "jne report"],
  ["4989c7", "mov r15,rax"],
  ["ebc6", "jmp next_path"],
  // report_last:
  ["4c89f8", "mov rax,r15"],
  // report:
  ["f7d8", "neg eax"],
  ["891c24", "mov [rsp],ebx"],
  ["89442404", "mov [rsp+0x4],eax"],
  ["bf06000000", "mov edi,0x6"],
  ["4889e6", "mov rsi,rsp"],
  ["ba08000000", "mov edx,0x8"],
  ["b801000000", "mov eax,0x1"],
  ["0f05", "syscall"],
  // quit:
  ["bf7f000000", "mov edi,0x7f"],
  ["b8e7000000", "mov eax,0xe7"],
  ["0f05", "syscall"],
  // read_all:
  ["4d39ec", "cmp r12,r13"],
  ["7322", "jae read_done"],
  ["bf05000000", "mov edi,0x5"],
  ["4c89e6", "mov rsi,r12"],
  ["4c89ea", "mov rdx,r13"],
  ["4c29e2", "sub rdx,r12"],
  ["31c0", "xor eax,eax"],
  ["0f05", "syscall"],
  ["4883f8fc", "cmp rax,0xfffffffffffffffc"],
  ["74e3", "je read_all"],
  ["4885c0", "test rax,rax"],
  ["7ed2", "jle quit"],
  ["4901c4", "add r12,rax"],
  ["ebd9", "jmp read_all"],
  // read_done:
  ["c3", "ret"],
];

const ARM64_CODE: readonly Instruction[] = [
  ["b30080d2", "mov x19, #0x5"],
  // close_next:
  ["e00313aa", "mov x0, x19"],
  ["410080d2", "mov x1, #0x2"],
  ["220080d2", "mov x2, #0x1"],
  ["280380d2", "mov x8, #0x19"],
  ["010000d4", "svc #0x0"],
  ["73060091", "add x19, x19, #0x1"],
  ["7f2200f1", "cmp x19, #0x8"],
  ["23ffff54", "b.cc close_next"],
  ["ff4300d1", "sub sp, sp, #0x10"],
  ["f4030091", "mov x20, sp"],
  ["f5230091", "add x21, sp, #0x8"],
  ["3c000094", "bl read_all"],
  ["e10340f9", "ldr x1, [sp]"],
  ["0000a4d2", "mov x0, #0x20000000"],
  ["620080d2", "mov x2, #0x3"],
  ["430680d2", "mov x3, #0x32"],
  ["04008092", "mov x4, #0xffffffffffffffff"],
  ["050080d2", "mov x5, #0x0"],
  ["c81b80d2", "mov x8, #0xde"],
  ["010000d4", "svc #0x0"],
  ["1400a4d2", "mov x20, #0x20000000"],
  ["1f0014eb", "cmp x0, x20"],
  ["c1050054", "b.ne quit"],
  ["e10340f9", "ldr x1, [sp]"],
  ["9502018b", "add x21, x20, x1"],
  ["f60314aa", "mov x22, x20"],
  ["2d000094", "bl read_all"],
  ["330080d2", "mov x19, #0x1"],
  ["c00240f9", "ldr x0, [x22]"],
  ["280680d2", "mov x8, #0x31"],
  ["010000d4", "svc #0x0"],
  ["1f0000f1", "cmp x0, #0x0"],
  ["ab030054", "b.lt report"],
  ["d70e40f9", "ldr x23, [x22, #24]"],
  // next_limit:
  ["e10240f9", "ldr x1, [x23]"],
  ["0101f8b7", "tbnz x1, #63, limits_done"],
  ["000080d2", "mov x0, #0x0"],
  ["e2220091", "add x2, x23, #0x8"],
  ["030080d2", "mov x3, #0x0"],
  ["a82080d2", "mov x8, #0x105"],
  ["010000d4", "svc #0x0"],
  ["f7620091", "add x23, x23, #0x18"],
  ["f8ffff17", "b next_limit"],
  // limits_done:
  ["530080d2", "mov x19, #0x2"],
  ["d7820091", "add x23, x22, #0x20"],
  ["38008092", "mov x24, #0xfffffffffffffffe"],
  // next_path:
  ["e08640f8", "ldr x0, [x23], #8"],
  ["a00100b4", "cbz x0, report_last"],
  ["c10640f9", "ldr x1, [x22, #8]"],
  ["c20a40f9", "ldr x2, [x22, #16]"],
  ["a81b80d2", "mov x8, #0xdd"],
  ["010000d4", "svc #0x0"],
  ["1f0800b1", "cmn x0, #0x2"],
  ["20ffff54", "b.eq next_path"],
  ["1f5000b1", "cmn x0, #0x14"],
  ["e0feff54", "b.eq next_path"],
  ["1f3400b1", "cmn x0, #0xd"],
  ["81000054", "b.ne report"],
  ["f80300aa", "mov x24, x0"],
  ["f3ffff17", "b next_path"],
  // report_last:
  ["e00318aa", "mov x0, x24"],
  // report:
  ["e003004b", "neg w0, w0"],
  ["f3030029", "stp w19, w0, [sp]"],
  ["c00080d2", "mov x0, #0x6"],
  ["e1030091", "mov x1, sp"],
  ["020180d2", "mov x2, #0x8"],
  ["080880d2", "mov x8, #0x40"],
  ["010000d4", "svc #0x0"],
  // quit:
  ["e00f80d2", "mov x0, #0x7f"],
  ["c80b80d2", "mov x8, #0x5e"],
  ["010000d4", "svc #0x0"],
  // read_all:
  ["9f0215eb", "cmp x20, x21"],
  ["82010054", "b.cs read_done"],
  ["a00080d2", "mov x0, #0x5"],
  ["e10314aa", "mov x1, x20"],
  ["a20214cb", "sub x2, x21, x20"],
  ["e80780d2", "mov x8, #0x3f"],
  ["010000d4", "svc #0x0"],
  ["1f1000b1", "cmn x0, #0x4"],
  ["00ffff54", "b.eq read_all"],
  ["1f0000f1", "cmp x0, #0x0"],
  ["6dfeff54", "b.le quit"],
  ["9402008b", "add x20, x20, x0"],
  ["f4ffff17", "b read_all"],
  // read_done:
  ["c0035fd6", "ret"],
];

const MACHINES: Readonly<Record<string, { readonly elfMachine: number; readonly code: readonly Instruction[] }>> = {
  x64: { elfMachine: 62, code: X64_CODE },
  arm64: { elfMachine: 183, code: ARM64_CODE },
};

const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const LOAD_ADDRESS = 0x40_0000;
const PT_LOAD = 1;
const PT_GNU_STACK = 0x6474_e551;

/** Returns the executable file for `architecture` (as in process.arch); undefined for one we have no code for. */
export function launcherImage(architecture: string = process.arch): Buffer | undefined {
  const code = launcherCode(architecture);
  return code === undefined ? undefined : executableImage(architecture, code);
}

/** The launcher's instructions, which run wherever they lie. */
export function launcherCode(architecture: string): readonly Instruction[] | undefined {
  return MACHINES[architecture]?.code;
}

/** Returns a file with that code, which begins at its first instruction. */
export function executableImage(architecture: string, instructions: readonly Instruction[]): Buffer | undefined {
  const machine = MACHINES[architecture];
  if (machine === undefined) return undefined;
  const code = Buffer.from(instructions.map(([bytes]) => bytes).join(""), "hex");
  const headerBytes = ELF_HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;
  const fileBytes = headerBytes + code.length;
  const readExecute = 5;
  const readWrite = 6;
  return Buffer.concat([
    elfHeader(machine.elfMachine, LOAD_ADDRESS + headerBytes),
    programHeader({ type: PT_LOAD, flags: readExecute, address: LOAD_ADDRESS, bytes: fileBytes, align: 0x1_0000 }),
    programHeader({ type: PT_GNU_STACK, flags: readWrite, address: 0, bytes: 0, align: 16 }),
    code,
  ]);
}

/** A static little-endian 64-bit executable with two program headers and no sections. */
function elfHeader(machine: number, entryAddress: number): Buffer {
  const header = Buffer.alloc(ELF_HEADER_BYTES);
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]).copy(header); // magic, 64 bits, little-endian, version 1
  header.writeUInt16LE(2, 16); // ET_EXEC
  header.writeUInt16LE(machine, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(entryAddress), 24);
  header.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES), 32); // program headers follow this one
  header.writeUInt16LE(ELF_HEADER_BYTES, 52);
  header.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  header.writeUInt16LE(2, 56);
  header.writeUInt16LE(64, 58); // the size of a section header, of which there are none
  return header;
}

function programHeader(segment: {
  readonly type: number;
  readonly flags: number;
  readonly address: number;
  readonly bytes: number;
  readonly align: number;
}): Buffer {
  const header = Buffer.alloc(PROGRAM_HEADER_BYTES);
  header.writeUInt32LE(segment.type, 0);
  header.writeUInt32LE(segment.flags, 4);
  header.writeBigUInt64LE(BigInt(segment.address), 16);
  header.writeBigUInt64LE(BigInt(segment.address), 24);
  header.writeBigUInt64LE(BigInt(segment.bytes), 32);
  header.writeBigUInt64LE(BigInt(segment.bytes), 40);
  header.writeBigUInt64LE(BigInt(segment.align), 48);
  return header;
}
