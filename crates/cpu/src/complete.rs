//! What the owner of a processor answers to its exits.

use std::time::Duration;

use cloister_x86::cpuid::CpuidResult;
use cloister_x86::regs::Rflags;
use cloister_x86::{Exception, Gpr};

use crate::apic;
use crate::debugger;
use crate::engine::Vcpu;
use crate::event::{self, debug};
use crate::exit::Exit;
use crate::run_state::attention;
use crate::state::Shadow;
use crate::vmx::event::Vectoring;
use crate::vmx::{self, window};

impl Vcpu {
    /// Answers a device access: `value` is what was read (ignored for writes).
    pub fn complete(&mut self, value: u64) {
        self.cpu.run.device_log.push(value);
        self.cpu.run.attention |= attention::DEVICE;
    }

    /// Retires the instruction that exited, without effect.
    pub fn skip(&mut self) {
        // The exiting instruction was fetched a moment ago; decode it again for its length.
        let length = self.instruction_length();
        let cpu = &mut self.cpu;
        cpu.arch.rip = cpu.truncate_rip(cpu.arch.rip.wrapping_add(length));
        cpu.device_commit();
        // As `step` does after an instruction that retired by itself.
        cpu.set_shadow(Shadow::None);
        cpu.arch.system_flags.remove(Rflags::RF);
        if debug::steps(cpu, false) {
            debug::pend_single_step(cpu);
        }
        window::after_instruction(cpu);
        debugger::after_instruction(cpu);
    }

    /// Answers CPUID.
    pub fn finish_cpuid(&mut self, result: CpuidResult) {
        self.cpu.arch.gpr[Gpr::Rax] = u64::from(result.eax);
        self.cpu.arch.gpr[Gpr::Rbx] = u64::from(result.ebx);
        self.cpu.arch.gpr[Gpr::Rcx] = u64::from(result.ecx);
        self.cpu.arch.gpr[Gpr::Rdx] = u64::from(result.edx);
        self.skip();
    }

    /// Answers RDMSR.
    pub fn finish_rdmsr(&mut self, value: u64) {
        self.cpu.arch.gpr[Gpr::Rax] = value & 0xffff_ffff;
        self.cpu.arch.gpr[Gpr::Rdx] = value >> 32;
        self.skip();
    }

    /// After a leaf that exited ([`Exit::Encls`]) and that is to run again: leaves for the guest's own
    /// hypervisor, if an access to the leaf's operands said so.
    ///
    /// # Errors
    ///
    /// [`Exit::TripleFault`] if that cannot be reached.
    pub fn leave_guest(&mut self) -> Result<(), Exit> {
        match self.cpu.run.vm_exit.take() {
            Some(exit) => vmx::exit::leave(&mut self.cpu, exit, Vectoring::default()),
            None => Ok(()),
        }
    }

    /// Makes the instruction that exited fault instead.
    ///
    /// # Errors
    ///
    /// [`Exit::TripleFault`] if the exception cannot be delivered.
    pub fn inject(&mut self, exception: Exception) -> Result<(), Exit> {
        self.cpu.device_commit();
        event::deliver_exception(&mut self.cpu, exception)?;
        debugger::after_instruction(&mut self.cpu);
        Ok(())
    }

    /// Sleeps after [`Exit::Hlt`] until an event or the APIC timer wakes the processor.
    pub fn wait(&mut self) {
        let timers = [apic::time_to_timer(&self.cpu), window::time_to_timer(&self.cpu)];
        let timeout: Option<Duration> = timers.into_iter().flatten().min();
        self.cpu.kicker.sleep(timeout);
    }
}
