//! ENCLU (SDM Vol. 2A, ENCLU), and the processor state that its leaves read and replace.

use cloister_sgx::{ProcessorState, SgxFeatures, Stepping, XsaveArea, enclu};
use cloister_x86::regs::{Cr0, Cr4, Rflags, Xfeatures};
use cloister_x86::segment::seg;
use cloister_x86::{Exception, Gpr, Vector};

use super::port::Port;
use crate::cpu::Cpu;
use crate::event::debug;
use crate::exit::Exec;
use crate::op::Op;
use crate::run_state::attention;
use crate::vmx::window;

/// ENCLU: the checks before the leaf, in the order of the pseudo-code, then the leaf.
pub(super) extern "C" fn enclu(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.arch.cr0.contains(Cr0::PE)
        || cpu.arch.system_flags.contains(Rflags::VM)
        || !cpu.ctl.features.has_sgx(SgxFeatures::SGX1)
    {
        return Err(cpu.ud());
    }
    if cpu.arch.cr0.contains(Cr0::TS) {
        return Err(cpu.raise(Exception::new(Vector::Nm)));
    }
    if cpu.arch.cpl < 3 {
        return Err(cpu.ud());
    }
    // 16-bit code has no ENCLU. A DS that expands down is the leaves' business.
    if !cpu.ctl.sgx_enabled
        || !cpu.arch.cr0.contains(Cr0::PG | Cr0::NE)
        || (!cpu.run.mode.is_64() && !cpu.arch.segs[seg::CS].rights.big())
    {
        return Err(cpu.gp(0));
    }
    let Some(platform) = cpu.package.platform.clone() else {
        return Err(cpu.gp(0));
    };
    let mut state = cpu.leaf_state();
    state.rip = cpu.next_rip(op);
    let mut enclave = std::mem::take(&mut cpu.enclave);
    let mut xsave = XsaveArea::default();
    let mut port = Port::new(cpu);
    let number = state.gpr[Gpr::Rax] as u32;
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
    if cpu.arch.system_flags.contains(Rflags::RF) {
        // ERESUME loaded it for one instruction, which the engine has to see retire.
        cpu.run.attention |= attention::ALONE;
    }
    if let Some(xfrm) = outcome.xrstor {
        let loaded = cpu.xrstor_image(xsave.image(xfrm), Xfeatures::from_bits_truncate(xfrm));
        debug_assert!(loaded.is_ok(), "ERESUME checked the image");
    }
    if outcome.flush {
        if cpu.enclave.in_enclave() {
            let code_stays = cpu.enclave_code_stays();
            cpu.run.tlb.enter_enclave(code_stays);
            // SDM Vol. 3D, EENTER and ERESUME: what suppresses one trap suppresses the other.
            cpu.run.monitor_trap &= outcome.stepping != Stepping::Suppressed;
            window::update_attention(cpu);
        } else {
            cpu.run.tlb.leave_enclave();
            // Unlike the single step, whatever the entry was (SDM Vol. 3D, EEXIT).
            window::update_attention(cpu);
            window::after_instruction(cpu);
        }
    }
    match outcome.stepping {
        Stepping::Usual => {}
        Stepping::Pending => debug::pend_single_step(cpu),
        Stepping::Suppressed => {
            cpu.run.single_step = false;
            debug::cancel(cpu, 0);
        }
    }
    Ok(())
}

impl Cpu {
    /// The state that ENCLU leaves and AEX work on.
    #[must_use]
    pub(crate) fn leaf_state(&self) -> ProcessorState {
        let segment = |n: usize| self.arch.segs[n];
        ProcessorState {
            gpr: self.arch.gpr.registers(),
            rip: self.arch.rip,
            rflags: self.rflags(),
            cs: segment(seg::CS),
            ss: segment(seg::SS),
            ds: segment(seg::DS),
            es: segment(seg::ES),
            fs: segment(seg::FS),
            gs: segment(seg::GS),
            xcr0: self.arch.xcr0.bits(),
            mode64: self.run.mode.is_64(),
            osfxsr: self.arch.cr4.contains(Cr4::OSFXSR),
            osxsave: self.arch.cr4.contains(Cr4::OSXSAVE),
        }
    }

    /// Takes over what a leaf or an AEX replaced.
    pub(crate) fn set_leaf_state(&mut self, state: &ProcessorState) {
        self.arch.gpr.set_registers(&state.gpr);
        self.arch.rip = state.rip;
        self.arch.segs[seg::FS] = state.fs;
        self.arch.segs[seg::GS] = state.gs;
        self.arch.xcr0 = Xfeatures::from_bits_retain(state.xcr0);
        self.set_rflags(state.rflags);
    }
}
