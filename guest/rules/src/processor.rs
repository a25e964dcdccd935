//! Instructions that may fault, and what comes of them.

use core::arch::{asm, global_asm};
use core::fmt::{Display, Formatter, Result};
use core::ptr;

/// What an instruction came to.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// It was carried out and left this in RAX.
    Done(u64),
    /// An exception, and its error code if it has one.
    Fault { vector: u8, error: u32 },
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Self::Done(rax) => write!(f, "{rax:#x}"),
            Self::Fault { vector: 6, .. } => write!(f, "#UD"),
            Self::Fault { vector: 13, error } => write!(f, "#GP({error:#x})"),
            Self::Fault { vector: 14, error } => write!(f, "#PF({error:#x})"),
            Self::Fault { vector, error } => write!(f, "vector {vector} ({error:#x})"),
        }
    }
}

/// RAX, RBX, RCX and RDX of an instruction.
#[repr(C)]
struct Registers([u64; 4]);

/// What [`attempt`] may execute.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Instruction {
    Encls,
    Rdmsr,
    Wrmsr,
}

// An exception leaves `attempt` at once: nothing else runs, so the frame is not needed.
global_asm!(
    r#"
    .pushsection .text, "ax"
attempt: /* RDI: registers, RSI: instruction; RAX: 0, or vector + 1 and error code above it */
    push rbx
    mov [rip + attempt_rsp], rsp
    mov rax, [rdi]
    mov rbx, [rdi + 8]
    mov rcx, [rdi + 16]
    mov rdx, [rdi + 24]
    cmp esi, 1
    jb 1f
    je 2f
    wrmsr
    jmp 3f
1:  .byte 0x0f, 0x01, 0xcf /* encls */
    jmp 3f
2:  rdmsr
3:  mov [rdi], rax
    mov [rdi + 24], rdx
    xor eax, eax
    pop rbx
    ret
ud: mov eax, 7
    jmp 4f
gp: pop rax
    shl rax, 32
    or rax, 14
    jmp 4f
pf: pop rax
    shl rax, 32
    or rax, 15
4:  mov rsp, [rip + attempt_rsp]
    pop rbx
    ret
    .popsection
    .pushsection .bss
    .balign 16
attempt_rsp:
    .skip 8
    .popsection
    "#
);

// SAFETY: `attempt` keeps the registers that the C calling convention has kept, whether it faults or not, and
// writes the registers given to it.
unsafe extern "C" {
    fn attempt(registers: *mut Registers, instruction: Instruction) -> u64;
    static ud: u8;
    static gp: u8;
    static pf: u8;
    static WITHOUT_PAGING: i32;
}

fn execute(instruction: Instruction, registers: &mut Registers) -> Outcome {
    // SAFETY: what the leaves write is EPC, which Rust knows nothing of; registers that are written as MSRs
    // change nothing for the program.
    match unsafe { attempt(registers, instruction) } {
        0 => Outcome::Done(registers.0[0]),
        fault => Outcome::Fault { vector: fault as u8 - 1, error: (fault >> 32) as u32 },
    }
}

/// ENCLS with a leaf and its operands.
pub(crate) fn encls(leaf: u32, rbx: u64, rcx: u64, rdx: u64) -> Outcome {
    execute(Instruction::Encls, &mut Registers([leaf.into(), rbx, rcx, rdx]))
}

/// RDMSR, all 64 bits.
pub(crate) fn rdmsr(index: u32) -> Outcome {
    let mut registers = Registers([0, 0, index.into(), 0]);
    match execute(Instruction::Rdmsr, &mut registers) {
        Outcome::Done(low) => Outcome::Done(registers.0[3] << 32 | low),
        fault => fault,
    }
}

/// WRMSR; it leaves 0 where it is carried out.
pub(crate) fn wrmsr(index: u32, value: u64) -> Outcome {
    let halves = Registers([value & 0xffff_ffff, 0, index.into(), value >> 32]);
    match execute(Instruction::Wrmsr, &mut { halves }) {
        Outcome::Done(_) => Outcome::Done(0),
        fault => fault,
    }
}

/// What ECREATE came to before there was paging.
pub(crate) fn without_paging() -> Outcome {
    // SAFETY: it was written before `main`.
    match unsafe { WITHOUT_PAGING } {
        -1 => Outcome::Done(0),
        vector => Outcome::Fault { vector: vector as u8, error: 0 },
    }
}

/// EAX, EBX, ECX and EDX of CPUID.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// A gate of the IDT in 64-bit mode.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate([u64; 2]);

static mut IDT: [Gate; 15] = [Gate([0; 2]); 15];

/// Directs #UD, #GP and #PF to [`attempt`].
pub(crate) fn set_up_exceptions() {
    const CODE_64: u64 = 24;
    const INTERRUPT_GATE: u64 = 0x8e00 << 32;
    // SAFETY: the only thread runs, and no exception comes before LIDT.
    unsafe {
        for (vector, handler) in [(6, &raw const ud), (13, &raw const gp), (14, &raw const pf)] {
            let at = handler as u64;
            let low = (at & 0xffff) | CODE_64 << 16 | INTERRUPT_GATE | (at >> 16 & 0xffff) << 48;
            (&raw mut IDT).cast::<Gate>().add(vector).write(Gate([low, at >> 32]));
        }
        let mut pointer = [0_u8; 10];
        let limit = size_of::<[Gate; 15]>() as u16 - 1;
        pointer[..2].copy_from_slice(&limit.to_le_bytes());
        pointer[2..].copy_from_slice(&(&raw const IDT as u64).to_le_bytes());
        asm!("lidt [{}]", in(reg) ptr::from_ref(&pointer), options(nostack));
    }
}
