//! Code that runs until an exception, an interrupt of software, or the end of an enclave brings it back.
//!
//! Each processor has a block of 64 KiB, by whose alignment the entries find it: what [`run`] keeps, GDT and TSS,
//! then the stacks of code of ring 0 under test (up to 4000H), of traps from ring 3 (8000H) and of this program
//! (F000H).

use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::ptr;

/// Selectors: kernel code is 8.
pub(crate) const CODE: u64 = 8;
pub(crate) const DATA: u64 = 16;
pub(crate) const USER_DATA: u64 = 24 | 3;
pub(crate) const USER_CODE: u64 = 32 | 3;
const TSS: u16 = 40;
/// The software interrupt that ends code under test.
pub(crate) const END: u64 = 0x80;
/// The vector of the local APIC's timer.
pub(crate) const TIMER: u32 = 0x20;
/// The timer's last interval before code ends, in its ticks.
const LIMIT: u32 = 1 << 24;
/// Of the local APIC (SDM Vol. 3A, table 11-1).
pub(crate) const APIC: u64 = 0xfee0_0000;
const SPURIOUS: u64 = 0xf0;
pub(crate) const ICR_LOW: u64 = 0x300;
const LVT_TIMER: u64 = 0x320;
const INITIAL_COUNT: u64 = 0x380;
const DIVIDE: u64 = 0x3e0;

/// What code is entered with, and what it had when it came back.
#[repr(C, align(64))]
pub(crate) struct Context {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub(crate) gpr: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    pub(crate) cs: u64,
    pub(crate) ss: u64,
    /// Why it came back: a vector, its error code or 0, and CR2.
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) cr2: u64,
    pad: u64,
    /// In the standard format (SDM Vol. 1, 13.4).
    pub(crate) xsave: [u8; 1024],
}

const _: () = assert!(offset_of!(Context, xsave) == 192);

/// Places in [`Context::gpr`].
pub(crate) const RAX: usize = 0;
pub(crate) const RCX: usize = 1;
pub(crate) const RDX: usize = 2;
pub(crate) const RBX: usize = 3;
pub(crate) const RSP: usize = 4;
pub(crate) const RBP: usize = 5;
pub(crate) const RSI: usize = 6;
pub(crate) const RDI: usize = 7;

/// What a processor's block begins with.
#[repr(C)]
pub(crate) struct Block {
    current: u64,
    rsp: u64,
    /// Interrupts of the timer, and of those, what came in an enclave.
    pub(crate) interrupts: u64,
    pub(crate) in_enclaves: u64,
    /// How often the timer is set again, and the state of the numbers that say for how long.
    pub(crate) timers: u64,
    timer_numbers: u64,
    /// Whether code of ring 3 ends when the timer has come that often and [`LIMIT`] is over.
    ends: u64,
    /// Where an interrupt in an enclave comes out.
    pub(crate) aep: u64,
}

global_asm!(
    r#"
    .pushsection .text, "ax"
run: /* RDI: Context */
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov rax, rsp
    and rax, -0x10000
    mov [rax], rdi
    mov [rax + 8], rsp
    mov eax, 7
    xor edx, edx
    xrstor64 [rdi + 192]
    push qword ptr [rdi + 152]
    push qword ptr [rdi + 32]
    push qword ptr [rdi + 136]
    push qword ptr [rdi + 144]
    push qword ptr [rdi + 128]
    mov rax, [rdi]
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov r8, [rdi + 64]
    mov r9, [rdi + 72]
    mov r10, [rdi + 80]
    mov r11, [rdi + 88]
    mov r12, [rdi + 96]
    mov r13, [rdi + 104]
    mov r14, [rdi + 112]
    mov r15, [rdi + 120]
    mov rdi, [rdi + 56]
    iretq

trap: /* from an entry: its place, an error code or not, and the frame */
    cli /* a gate may have left them on */
    cld
    push rbx
    push rax
    mov rbx, rsp
    and rbx, -0x10000
    cmp qword ptr [rbx], 0
    je lost
    mov rbx, [rbx]
    mov rax, [rsp]
    mov [rbx], rax
    mov [rbx + 8], rcx
    mov [rbx + 16], rdx
    mov rax, [rsp + 8]
    mov [rbx + 24], rax
    mov [rbx + 40], rbp
    mov [rbx + 48], rsi
    mov [rbx + 56], rdi
    mov [rbx + 64], r8
    mov [rbx + 72], r9
    mov [rbx + 80], r10
    mov [rbx + 88], r11
    mov [rbx + 96], r12
    mov [rbx + 104], r13
    mov [rbx + 112], r14
    mov [rbx + 120], r15
    mov rax, [rsp + 16]
    lea rcx, [rip + entries + 5]
    sub rax, rcx
    shr rax, 3
    mov [rbx + 160], rax
    lea rdx, [rsp + 24]
    xor ecx, ecx
    cmp eax, 32
    jae 1f
    mov esi, 0x60227d00 /* 8, 10 to 14, 17, 21, 29 and 30 have an error code */
    bt esi, eax
    jnc 1f
    mov rcx, [rdx]
    add rdx, 8
1:  mov [rbx + 168], rcx
    mov rax, [rdx]
    mov [rbx + 128], rax
    mov rax, [rdx + 8]
    mov [rbx + 144], rax
    mov rax, [rdx + 16]
    mov [rbx + 136], rax
    mov rax, [rdx + 24]
    mov [rbx + 32], rax
    mov rax, [rdx + 32]
    mov [rbx + 152], rax
    mov rax, cr2
    mov [rbx + 176], rax
    mov eax, 7
    xor edx, edx
    xsave64 [rbx + 192]
    mov rax, rsp
    and rax, -0x10000
    mov qword ptr [rax], 0
    mov rsp, [rax + 8]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
lost: /* this program itself has raised an exception */
    mov rdi, [rsp + 16]
    lea rcx, [rip + entries + 5]
    sub rdi, rcx
    shr rdi, 3
    mov rsi, [rsp + 24]
    mov rdx, [rsp + 32]
    and rsp, -16
    call lost_exception

timer: /* while code of ring 3 runs */
    push rax
    push rcx
    mov rcx, rsp
    and rcx, -0x10000
    inc qword ptr [rcx + 16]
    mov rax, [rsp + 16]
    cmp rax, [rcx + 56]
    jne 1f
    inc qword ptr [rcx + 24]
1:  mov eax, 0xfee000b0
    mov dword ptr [rax], 0
    cmp qword ptr [rcx + 32], 0
    je 3f
    dec qword ptr [rcx + 32]
    mov eax, {limit}
    jnz 2f
    cmp qword ptr [rcx + 48], 0
    jne 4f
2:  mov rax, [rcx + 40]
    imul rax, rax, 1103515245
    add rax, 12345
    mov [rcx + 40], rax
    shr rax, 16
    and eax, 0x1fff
    or eax, 0x200
    jmp 4f
3:  cmp qword ptr [rcx + 48], 0
    je 5f
    test byte ptr [rsp + 24], 3 /* or a trap that has left interrupts on */
    jz 5f
    pop rcx
    pop rax
    jmp entries + 8 * {vector}
4:  mov ecx, 0xfee00380
    mov [rcx], eax
5:  pop rcx
    pop rax
    iretq

    .balign 8
entries:
    .rept 256
    call trap
    .balign 8
    .endr
    .popsection
    "#,
    limit = const LIMIT,
    vector = const TIMER,
);

// SAFETY: `run` keeps the registers that the C calling convention has kept, and writes the context.
unsafe extern "C" {
    #[link_name = "run"]
    fn run_context(context: *mut Context);
    static timer: u8;
    static entries: u8;
    static BLOCKS: u8;
}

impl Context {
    /// With zeros, and the state components in their INIT state.
    pub(crate) const fn new() -> Self {
        let mut xsave = [0; 1024];
        // FCW and MXCSR.
        (xsave[0], xsave[1]) = (0x7f, 0x03);
        (xsave[24], xsave[25]) = (0x80, 0x1f);
        Self {
            gpr: [0; 16],
            rip: 0,
            rflags: 2,
            cs: CODE,
            ss: DATA,
            vector: 0,
            error: 0,
            cr2: 0,
            pad: 0,
            xsave,
        }
    }

    /// Runs it until it comes back.
    pub(crate) fn run(&mut self) {
        // SAFETY: what runs has stacks of its own, and writes EPC, user memory and what it was given.
        unsafe { run_context(self) }
    }
}

/// The block of a processor.
pub(crate) fn block(processor: u32) -> *mut Block {
    (&raw const BLOCKS).wrapping_add((processor as usize) << 16).cast::<Block>().cast_mut()
}

/// The stack of ring 0's code under test.
pub(crate) fn stack_under_test(processor: u32) -> u64 {
    block(processor) as u64 + 0x4000
}

static mut IDT: [[u64; 2]; 256] = [[0; 2]; 256];

/// Where the IDT is.
pub(crate) fn idt() -> *mut [u64; 2] {
    (&raw mut IDT).cast()
}

/// A gate to the entry of a vector.
pub(crate) fn gate(vector: u64) -> [u64; 2] {
    let at = &raw const entries as u64 + 8 * vector;
    gate_to(at, if matches!(vector, 3 | 4 | END) { 3 } else { 0 })
}

fn gate_to(at: u64, dpl: u64) -> [u64; 2] {
    let kind = (0x8e00 | dpl << 13) << 32;
    [(at & 0xffff) | CODE << 16 | kind | (at >> 16 & 0xffff) << 48, at >> 32]
}

/// Loads an IDT of 256 gates.
pub(crate) fn load_idt(at: u64) {
    let mut pointer = [0_u8; 10];
    pointer[..2].copy_from_slice(&0xfff_u16.to_le_bytes());
    pointer[2..].copy_from_slice(&at.to_le_bytes());
    // SAFETY: the gates there lead to the entries.
    unsafe { asm!("lidt [{}]", in(reg) ptr::from_ref(&pointer), options(nostack)) };
}

/// GDT, TSS, IDT and XCR0 of a processor, and its local APIC.
pub(crate) fn set_up(processor: u32) {
    let block = block(processor) as u64;
    let (tss, gdt) = (block + 0x100, block + 0x200);
    // SAFETY: the places are the processor's own, and the descriptors are those of the program's code.
    unsafe {
        if processor == 0 {
            for vector in 0..256 {
                idt().add(vector as usize).write(gate(vector));
            }
            idt().add(TIMER as usize).write(gate_to(&raw const timer as u64, 0));
        }
        ((tss + 4) as *mut u64).write_unaligned(block + 0x8000);
        // There is no bitmap of ports.
        ((tss + 102) as *mut u16).write_unaligned(104);
        let low = 103 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
        let descriptors = [
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            low,
            tss >> 32,
        ];
        (gdt as *mut [u64; 7]).write(descriptors);
        let mut pointer = [0_u8; 10];
        pointer[..2].copy_from_slice(&55_u16.to_le_bytes());
        pointer[2..].copy_from_slice(&gdt.to_le_bytes());
        asm!(
            "lgdt [{pointer}]",
            "push 8",
            "lea {at}, [rip + 2f]",
            "push {at}",
            "retfq",
            "2:",
            "ltr {tss:x}",
            "xsetbv",
            pointer = in(reg) ptr::from_ref(&pointer),
            at = out(reg) _,
            tss = in(reg) TSS,
            in("eax") 7,
            in("ecx") 0,
            in("edx") 0,
        );
    }
    load_idt(idt() as u64);
    apic_write(SPURIOUS, 0x1ff);
    apic_write(LVT_TIMER, TIMER);
    apic_write(DIVIDE, 0b1011);
}

/// Writes a register of the local APIC.
pub(crate) fn apic_write(register: u64, value: u32) {
    // SAFETY: the page is mapped, and no memory.
    unsafe { ((APIC + register) as *mut u32).write_volatile(value) };
}

/// Has the timer come `times` times at most, at moments that these numbers say; and once more to end code of ring 3
/// that then goes on, with the vector [`TIMER`], if it `ends`.
pub(crate) fn start_timer(processor: u32, times: u64, ends: bool, numbers: u64, aep: u64) {
    // SAFETY: interrupts are off.
    unsafe {
        let block = block(processor);
        (*block).timers = times;
        (*block).ends = u64::from(ends);
        (*block).timer_numbers = numbers;
        (*block).aep = aep;
    }
    apic_write(INITIAL_COUNT, 1 << (numbers >> 60) | 0x40);
}

/// Stops it. One more interrupt may be on its way.
pub(crate) fn stop_timer(processor: u32) {
    // SAFETY: as above.
    unsafe { (*block(processor)).timers = 0 };
    apic_write(INITIAL_COUNT, 0);
}
