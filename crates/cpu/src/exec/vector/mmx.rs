//! EMMS: the end of MMX operation (SDM Vol. 3A, 12.2).

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::op::{Handler, Op};

/// The handler of EMMS.
pub fn select(instruction: &Instruction) -> Option<Handler> {
    (instruction.mnemonic() == Mnemonic::Emms).then_some(emms as Handler)
}

fn emms(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.check_mmx()?;
    cpu.enter_mmx();
    cpu.arch.fpu.tags = 0;
    Ok(())
}
