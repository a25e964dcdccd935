//! System instructions, event delivery, debug, MSRs and the local APIC (SDM Vol. 3A).

pub mod apic;
pub mod debug;
pub mod event;
pub mod io;
pub mod msr;
pub mod reset;

use iced_x86::{Instruction, Mnemonic};

use crate::mode::Mode;
use crate::op::{Handler, Op};

/// The handler of a system instruction.
pub fn select(_instruction: &Instruction, _mode: Mode, _op: &mut Op) -> Option<Handler> {
    None
}

/// Whether a system instruction changes what the code behind it means, or what may interrupt it.
#[must_use]
pub fn ends_block(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Clac, Cli, Clts, Cpuid, Encls, In, Insb, Insd, Insw, Invlpg, Invpcid, Lds, Les, Lfs, Lgs,
        Lldt, Lmsw, Lss, Ltr, Mov, Out, Outsb, Outsd, Outsw, Pop, Popf, Popfd, Popfq, Rdmsr,
        Serialize, Stac, Sti, Swapgs, Vmcall, Wbinvd, Wrmsr, Xrstor, Xsetbv,
    };
    match instruction.mnemonic() {
        Cli | Clts | Cpuid | Encls | Invlpg | Invpcid | Lds | Les | Lfs | Lgs | Lldt | Lmsw
        | Lss | Ltr | Popf | Popfd | Popfq | Rdmsr | Sti | Swapgs | Vmcall | Wbinvd | Wrmsr
        | Xrstor | Xsetbv | Clac | Stac | In | Insb | Insd | Insw | Out | Outsb | Outsd | Outsw
        | Serialize => true,
        Mov | Pop => {
            let register = instruction.op0_register();
            register.is_segment_register() || register.is_cr() || register.is_dr()
        }
        _ => false,
    }
}
