//! x87, SSE and AVX state in the XSAVE area that KVM exchanges: the standard format (SDM Vol. 1, 13.4).

#![expect(unsafe_code, reason = "KVM reads as many bytes as the host's state components have")]

use cloister_cpu::ArchState;
use cloister_x86::regs::Xfeatures;
use kvm_bindings::kvm_xsave;
use kvm_ioctls::VcpuFd;
use zerocopy::IntoBytes as _;

/// Offsets in the legacy region (SDM Vol. 1, table 10-2), in its 64-bit form.
const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FDP: usize = 16;
const MXCSR: usize = 24;
const ST0: usize = 32;
const XMM0: usize = 160;
/// XSTATE_BV, the first field of the header.
const XSTATE_BV: usize = 512;
/// The upper halves of YMM registers: where Intel and AMD have them in the standard format.
const YMM0_HIGH: usize = 576;
/// Bytes of a register, or its place.
const REGISTER: usize = 16;

/// The area as KVM declares it.
type Region = [u32; 1024];

/// What of the area [`ArchState`] has.
const KNOWN: Xfeatures = Xfeatures::X87.union(Xfeatures::SSE).union(Xfeatures::AVX);

/// Writes an area.
///
/// # Errors
///
/// KVM's.
pub(super) fn put(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: KVM reads more than the 4096 bytes of the region only after the process has asked for state
    // components that are enabled on demand (arch_prctl(2), ARCH_REQ_XCOMP_GUEST_PERM), which it never
    // does.
    unsafe { vcpu.set_xsave(xsave) }
}

/// Takes the state out of an area.
pub(super) fn get(region: &Region, state: &mut ArchState) {
    let area = region.as_bytes();
    let short = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| area[at + n]));
    let long = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|n| area[at + n]));
    let present = Xfeatures::from_bits_retain(long(XSTATE_BV));
    let fpu = &mut state.fpu;
    fpu.control = short(FCW);
    fpu.set_status_word(short(FSW));
    fpu.tags = area[FTW];
    fpu.fop = short(FOP);
    (fpu.fip, fpu.fdp) = (long(FIP), long(FDP));
    for n in 0..8 {
        let at = ST0 + n * REGISTER;
        let register = &mut fpu.regs[physical(fpu.top, n)];
        (register.mantissa, register.sign_exp) = (long(at), short(at + 8));
    }
    state.vector.mxcsr = word(MXCSR);
    for (n, register) in state.vector.ymm.iter_mut().enumerate() {
        let (low, high) = (XMM0 + n * REGISTER, YMM0_HIGH + n * REGISTER);
        let upper = present.contains(Xfeatures::AVX);
        let upper = if upper { [long(high), long(high + 8)] } else { [0; 2] };
        *register = [long(low), long(low + 8), upper[0], upper[1]];
    }
}

/// Puts the state into an area, whose other components stay.
pub(super) fn set(state: &ArchState, region: &mut Region) {
    let area = region.as_mut_bytes();
    let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
    let fpu = &state.fpu;
    put(FCW, &fpu.control.to_le_bytes());
    put(FSW, &fpu.status_word().to_le_bytes());
    put(FTW, &[fpu.tags, 0]);
    put(FOP, &fpu.fop.to_le_bytes());
    put(FIP, &fpu.fip.to_le_bytes());
    put(FDP, &fpu.fdp.to_le_bytes());
    for n in 0..8 {
        let (at, register) = (ST0 + n * REGISTER, fpu.regs[physical(fpu.top, n)]);
        put(at, &register.mantissa.to_le_bytes());
        put(at + 8, &register.sign_exp.to_le_bytes());
    }
    put(MXCSR, &state.vector.mxcsr.to_le_bytes());
    // A component that the guest has not enabled keeps its initial state.
    let known = KNOWN & (state.xcr0 | Xfeatures::X87 | Xfeatures::SSE);
    for (n, [a, b, c, d]) in state.vector.ymm.into_iter().enumerate() {
        put(XMM0 + n * REGISTER, &[a, b].map(u64::to_le_bytes).concat());
        if known.contains(Xfeatures::AVX) {
            put(YMM0_HIGH + n * REGISTER, &[c, d].map(u64::to_le_bytes).concat());
        }
    }
    let mut present = [0; 8];
    present.copy_from_slice(&area[XSTATE_BV..XSTATE_BV + 8]);
    let present = u64::from_le_bytes(present) | known.bits();
    area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&present.to_le_bytes());
}

/// The physical register that is ST(`n`).
fn physical(top: u8, n: usize) -> usize {
    (usize::from(top) + n) & 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_survive_the_way_into_an_area_and_back_and_leave_the_rest_alone() {
        let mut state = ArchState::at_reset(true);
        state.xcr0 = KNOWN;
        state.fpu.set_status_word(5 << 11 | 0x4000);
        state.fpu.control = 0x27f;
        (state.fpu.tags, state.fpu.fop) = (0b1010_0001, 0x123);
        (state.fpu.fip, state.fpu.fdp) = (0x1111_2222_3333, 0x4444);
        for n in 0..8 {
            state.fpu.regs[n].mantissa = 1 << 63 | n as u64;
            state.fpu.regs[n].sign_exp = 0x3fff + n as u16;
        }
        for (n, register) in state.vector.ymm.iter_mut().enumerate() {
            *register = [0, 1, 2, 3].map(|quarter| (n * 4 + quarter) as u64);
        }
        state.vector.mxcsr = 0x1fa0;
        let mut region = [0xaaaa_aaaa; 1024];
        let mut back = ArchState::at_reset(true);
        back.xcr0 = KNOWN;

        set(&state, &mut region);
        get(&region, &mut back);

        assert_eq!((&back.fpu, &back.vector), (&state.fpu, &state.vector));
        // ST(0) is R5.
        assert_eq!(region[ST0 / 4], 5);
        assert_eq!(region[(YMM0_HIGH + 256) / 4..], [0xaaaa_aaaa; 1024][(YMM0_HIGH + 256) / 4..]);
    }

    #[test]
    fn without_avx_in_the_area_the_upper_halves_are_zero() {
        let mut region = [0xffff_ffff; 1024];
        region[XSTATE_BV / 4] = 3;
        let mut state = ArchState::at_reset(true);

        get(&region, &mut state);

        assert_eq!(state.vector.ymm[4], [!0, !0, 0, 0]);
    }
}
