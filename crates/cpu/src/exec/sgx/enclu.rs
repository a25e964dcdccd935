//! ENCLU (SDM Vol. 2A, ENCLU), and the processor state that its leaves read and replace.

use cloister_sgx::{
    ProcessorState, Segment as LeafSegment, SgxFeatures, Stepping, XsaveArea, enclu,
};
use cloister_x86::regs::{Cr0, Cr4, Rflags, Xfeatures};
use cloister_x86::{Exception, Vector};

use super::port::Port;
use crate::exec::system::debug;
use crate::op::Op;
use crate::segment::{Rights, Segment, seg};
use crate::state::{Cpu, Exec, attention};

/// ENCLU: the checks before the leaf, in the order of the pseudo-code, then the leaf.
pub(super) fn enclu(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.cr0.contains(Cr0::PE)
        || cpu.system_flags.contains(Rflags::VM)
        || !cpu.features.has_sgx(SgxFeatures::SGX1)
    {
        return Err(cpu.ud());
    }
    if cpu.cr0.contains(Cr0::TS) {
        return Err(cpu.raise(Exception::new(Vector::Nm)));
    }
    if cpu.cpl < 3 {
        return Err(cpu.ud());
    }
    // 16-bit code has no ENCLU. A DS that expands down is the leaves' business.
    if !cpu.sgx_enabled
        || !cpu.cr0.contains(Cr0::PG | Cr0::NE)
        || (!cpu.mode.is_64() && !cpu.segs[seg::CS].rights.big())
    {
        return Err(cpu.gp(0));
    }
    let Some(platform) = cpu.shared.platform.clone() else {
        return Err(cpu.gp(0));
    };
    let mut state = cpu.leaf_state();
    state.rip = cpu.next_rip(op);
    let mut enclave = std::mem::take(&mut cpu.enclave);
    let mut xsave = XsaveArea::default();
    let mut port = Port::new(cpu);
    let number = state.gpr[0] as u32;
    if matches!(number, enclu::leaf::EREPORT | enclu::leaf::EGETKEY) && !enclave.debug_opt_out() {
        port.watch_operands();
    }
    let outcome = enclu::execute(&platform, &mut enclave, &mut port, &mut state, &mut xsave);
    let outcome = match outcome {
        Ok(outcome) => {
            port.written();
            Ok(outcome)
        }
        Err(stop) => Err(port.stop(stop)),
    };
    cpu.enclave = enclave;
    let outcome = outcome?;
    cpu.set_leaf_state(&state);
    if cpu.system_flags.contains(Rflags::RF) {
        // ERESUME loaded it for one instruction, which the engine has to see retire.
        cpu.attention |= attention::ALONE;
    }
    if let Some(xfrm) = outcome.xrstor {
        let loaded = cpu.xrstor_image(xsave.image(xfrm), Xfeatures::from_bits_truncate(xfrm));
        debug_assert!(loaded.is_ok(), "ERESUME checked the image");
    }
    if outcome.flush {
        cpu.tlb.flush_enclave();
    }
    match outcome.stepping {
        Stepping::Usual => {}
        Stepping::Pending => debug::pend_single_step(cpu),
        Stepping::Suppressed => {
            cpu.single_step = false;
            debug::cancel(cpu, 0);
        }
    }
    Ok(())
}

const fn leaf_segment(segment: &Segment) -> LeafSegment {
    LeafSegment {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        rights: segment.rights.0,
    }
}

const fn cpu_segment(segment: &LeafSegment) -> Segment {
    Segment {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        rights: Rights(segment.rights),
    }
}

impl Cpu {
    /// The state that ENCLU leaves and AEX work on.
    #[must_use]
    pub fn leaf_state(&self) -> ProcessorState {
        let mut gpr = [0; 16];
        gpr.copy_from_slice(&self.gpr[..16]);
        let segment = |n: usize| leaf_segment(&self.segs[n]);
        ProcessorState {
            gpr,
            rip: self.rip,
            rflags: self.rflags(),
            cs: segment(seg::CS),
            ss: segment(seg::SS),
            ds: segment(seg::DS),
            es: segment(seg::ES),
            fs: segment(seg::FS),
            gs: segment(seg::GS),
            xcr0: self.xcr0.bits(),
            mode64: self.mode.is_64(),
            osfxsr: self.cr4.contains(Cr4::OSFXSR),
            osxsave: self.cr4.contains(Cr4::OSXSAVE),
        }
    }

    /// Takes over what a leaf or an AEX replaced.
    pub fn set_leaf_state(&mut self, state: &ProcessorState) {
        self.gpr[..16].copy_from_slice(&state.gpr);
        self.rip = state.rip;
        self.segs[seg::FS] = cpu_segment(&state.fs);
        self.segs[seg::GS] = cpu_segment(&state.gs);
        self.xcr0 = Xfeatures::from_bits_retain(state.xcr0);
        self.set_rflags(state.rflags);
    }
}
