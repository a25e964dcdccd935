//! System instructions, event delivery, debug, MSRs and the local APIC (SDM Vol. 3A).

pub mod control;
pub mod debug;
pub mod descriptor;
pub mod far;
pub mod flags;
pub mod interrupt;
pub mod io;
pub mod iret;
pub mod msr;
pub mod segments;
pub mod stack;
pub mod syscall;
pub mod tables;
pub mod task;
pub mod time;
pub mod translation;
pub mod verify;
pub mod virtual_8086;

use iced_x86::{Instruction, Mnemonic};

use crate::mode::Mode;
use crate::op::{Handler, Op};

/// The handler of a system instruction. VMX, SMX, MONITOR, MWAIT, RSM and SERIALIZE have none:
/// the processor does not enumerate them, and they are #UD.
pub fn select(instruction: &Instruction, mode: Mode, op: &mut Op) -> Option<Handler> {
    flags::select(instruction)
        .or_else(|| segments::select(instruction, op))
        .or_else(|| control::select(instruction, op))
        .or_else(|| debug::select(instruction))
        .or_else(|| msr::select(instruction))
        .or_else(|| time::select(instruction))
        .or_else(|| translation::select(instruction))
        .or_else(|| interrupt::select(instruction))
        .or_else(|| iret::select(instruction, op))
        .or_else(|| far::select(instruction, op))
        .or_else(|| syscall::select(instruction, op))
        .or_else(|| tables::select(instruction, mode, op))
        .or_else(|| verify::select(instruction))
}

/// Whether a system instruction changes what the code behind it means, or what may interrupt it.
#[must_use]
pub fn ends_block(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Clts, Cpuid, Encls, Enclv, In, Insb, Insd, Insw, Invlpg, Invpcid, Lds, Les, Lfs, Lgs, Lldt,
        Lmsw, Lss, Ltr, Mov, Out, Outsb, Outsd, Outsw, Pop, Popf, Popfd, Popfq, Rdmsr, Sti, Wbinvd,
        Wrmsr, Xrstor, Xsetbv,
    };
    match instruction.mnemonic() {
        Clts | Cpuid | Encls | Enclv | Invlpg | Invpcid | Lds | Les | Lfs | Lgs | Lldt | Lmsw
        | Lss | Ltr | Popf | Popfd | Popfq | Rdmsr | Sti | Wbinvd | Wrmsr | Xrstor | Xsetbv
        | In | Insb | Insd | Insw | Out | Outsb | Outsd | Outsw => true,
        Mov | Pop => {
            let register = instruction.op0_register();
            register.is_segment_register() || register.is_cr() || register.is_dr()
        }
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
