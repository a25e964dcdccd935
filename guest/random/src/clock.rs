//! The time stamp counter.

use core::arch::x86_64::{__cpuid, _rdtsc};
use core::hint;

/// Of software processors, for a machine that does not tell.
const USUAL_HERTZ: u64 = 2_000_000_000;

/// What it counts to now.
pub(crate) fn now() -> u64 {
    // SAFETY: RDTSC is there in 64-bit mode.
    unsafe { _rdtsc() }
}

/// Its frequency in Hz, which CPUID tells (SDM Vol. 2A, CPUID 15H).
pub(crate) fn frequency() -> u64 {
    let highest = __cpuid(0).eax;
    let leaf = __cpuid(0x15);
    let crystal = u64::from(leaf.ecx) * u64::from(leaf.ebx);
    match crystal.checked_div(u64::from(leaf.eax)) {
        Some(hertz) if hertz != 0 && highest >= 0x15 => hertz,
        _ => USUAL_HERTZ,
    }
}

/// Waits for so many counts.
pub(crate) fn wait(counts: u64) {
    let start = now();
    while now().wrapping_sub(start) < counts {
        hint::spin_loop();
    }
}
