//! The AVX registers through AEX and ERESUME.

use core::arch::asm;
use core::mem::MaybeUninit;

/// YMM0 to YMM15.
type Registers = [[u8; 32]; 16];

/// No two bytes of a register and no two registers are alike.
static PATTERN: Registers = {
    let mut pattern = [[0; 32]; 16];
    let mut i = 0;
    while i < 512 {
        pattern[i / 32][i % 32] = (i % 32 * 8 + i / 32 + 1) as u8;
        i += 1;
    }
    pattern
};

/// Fills the registers, waits for `exits` AEXs as [`crate::work::Exits`] sees them,
/// executes UD2, and counts the registers that hold what they held.
///
/// # Safety
/// `gprsgx` is the address of GPRSGX of the SSA frame that the calling thread's next
/// AEX writes.
pub(crate) unsafe fn kept(gprsgx: u64, exits: u64) -> u64 {
    let mut found = MaybeUninit::<Registers>::uninit();
    // SAFETY: the registers are read from and written to 512 bytes; RIP in the SSA
    // frame is the processor's. The handler changes RIP and RAX of the frame only.
    let found = unsafe {
        asm!(
            ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
            "vmovdqu ymm\\number, [{pattern} + 32 * \\number]",
            ".endr",
            "mov qword ptr [{rip}], 0",
            "2:",
            "pause",
            "cmp qword ptr [{rip}], 0",
            "je 2b",
            "mov qword ptr [{rip}], 0",
            "dec {exits}",
            "jnz 2b",
            "ud2",
            ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
            "vmovdqu [{found} + 32 * \\number], ymm\\number",
            ".endr",
            "vzeroall",
            pattern = in(reg) &raw const PATTERN,
            found = in(reg) found.as_mut_ptr(),
            rip = in(reg) gprsgx + 136,
            exits = inout(reg) exits.max(1) => _,
            out("rax") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
        found.assume_init_ref()
    };
    found
        .iter()
        .zip(&PATTERN)
        .map(|(found, pattern)| {
            let mut pairs = found.iter().zip(pattern);
            u64::from(pairs.all(|(found, pattern)| found == pattern))
        })
        .sum()
}
