//! State after power-up and INIT (SDM Vol. 3A, table 9-1).

use cloister_x86::regs::{Cr0, Cr4, Efer, Rflags, Xfeatures};
use cloister_x86::segment::seg;
use cloister_x86::{Gpr, Rights, Segment, TableRegister};

use super::{Activity, ArchState, Fpu, Gprs, Msrs, Shadow, VectorState, VmxState};
use crate::flags::Flags;

/// What RDX holds: family 6, model 6AH, stepping 6 (Ice Lake server).
const SIGNATURE: u64 = 0x606a6;

impl ArchState {
    /// State after power-up. The `bootstrap` processor runs from the reset vector; others wait for
    /// a start-up IPI.
    #[must_use]
    pub fn at_reset(bootstrap: bool) -> Self {
        let data = Segment { selector: 0, base: 0, limit: 0xffff, rights: Rights(0x93) };
        let mut segs = [data; 8];
        segs[seg::CS] =
            Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, rights: Rights(0x9b) };
        segs[seg::TR].rights = Rights(0x8b);
        segs[seg::LDTR].rights = Rights(0x82);
        let table = TableRegister { base: 0, limit: 0xffff };
        let mut gpr = Gprs::new([0; Gpr::COUNT]);
        gpr[Gpr::Rdx] = SIGNATURE;
        Self {
            gpr,
            rip: 0xfff0,
            flags: Flags::default(),
            system_flags: Rflags::empty(),
            cpl: 0,
            segs,
            gdtr: table,
            idtr: table,
            cr0: Cr0::CD | Cr0::NW | Cr0::ET,
            cr2: 0,
            cr3: 0,
            cr4: Cr4::empty(),
            efer: Efer::empty(),
            xcr0: Xfeatures::X87,
            pdptes: [0; 4],
            dr: [0; 4],
            dr6: 0xffff_0ff0,
            dr7: 0x400,
            debug_pending: 0,
            shadow: Shadow::None,
            nmi_blocked: false,
            activity: if bootstrap { Activity::Active } else { Activity::WaitForSipi },
            msrs: Msrs::default(),
            fpu: Fpu::default(),
            vector: VectorState::default(),
            vmx: VmxState::default(),
        }
    }

    /// State after INIT: as after power-up, but for the cache controls of CR0, XCR0, the MSRs, and
    /// x87 and vector state, which stay.
    #[must_use]
    pub(crate) fn after_init(self, bootstrap: bool) -> Self {
        // Every field is named, so that a new one is decided on here.
        let Self {
            cr0,
            xcr0,
            msrs,
            fpu,
            vector,
            gpr: _,
            rip: _,
            flags: _,
            system_flags: _,
            cpl: _,
            segs: _,
            gdtr: _,
            idtr: _,
            cr2: _,
            cr3: _,
            cr4: _,
            // Cleared though it is an MSR: LME and LMA would not go with CR0.PG clear.
            efer: _,
            pdptes: _,
            dr: _,
            dr6: _,
            dr7: _,
            debug_pending: _,
            shadow: _,
            nmi_blocked: _,
            activity: _,
            // It blocks INIT.
            vmx: _,
        } = self;
        let fresh = Self::at_reset(bootstrap);
        let caches = Cr0::CD | Cr0::NW;
        Self { cr0: (fresh.cr0 - caches) | (cr0 & caches), xcr0, msrs, fpu, vector, ..fresh }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_keeps_cache_controls_xcr0_msrs_and_the_register_files_alone() {
        let mut before = ArchState::at_reset(true);
        before.cr0 = Cr0::PE | Cr0::PG | Cr0::NW;
        before.efer = Efer::LME | Efer::LMA;
        before.xcr0 = Xfeatures::X87 | Xfeatures::SSE;
        before.msrs.lstar = 0x1234;
        before.fpu.control = 0x27f;
        before.vector.ymm[3][1] = 7;
        before.gpr[Gpr::Rax] = 5;
        before.nmi_blocked = true;
        before.shadow = Shadow::MovSs;
        before.segs[seg::CS].selector = 0x10;

        let after = before.clone().after_init(false);

        let fresh = ArchState::at_reset(false);
        let expected = ArchState {
            cr0: Cr0::NW | Cr0::ET,
            xcr0: before.xcr0,
            msrs: before.msrs,
            fpu: before.fpu,
            vector: before.vector,
            ..fresh
        };
        assert_eq!(after, expected);
        assert_eq!(after.activity, Activity::WaitForSipi);
    }

    #[test]
    fn slots_of_the_running_instruction_are_not_state() {
        let reset = ArchState::at_reset(true);
        let mut other = reset.clone();
        other.gpr[Gpr::COUNT + 1] = 9;
        assert_eq!(other, reset);
        other.gpr[Gpr::R15] = 9;
        assert_ne!(other, reset);
    }
}
