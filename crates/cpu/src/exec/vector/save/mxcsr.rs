//! LDMXCSR and STMXCSR (SDM Vol. 2A, 2B).

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::op::{Handler, Op};
use crate::state::vector::MXCSR_MASK;

/// The handler of LDMXCSR or STMXCSR.
pub fn select(instruction: &Instruction) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr => Some(ldmxcsr),
        Mnemonic::Stmxcsr | Mnemonic::Vstmxcsr => Some(stmxcsr),
        _ => None,
    }
}

fn ldmxcsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value: u32 = cpu.load_operand(op)?;
    if value & !MXCSR_MASK != 0 {
        return Err(cpu.gp(0));
    }
    cpu.arch.vector.mxcsr = value;
    Ok(())
}

fn stmxcsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value = cpu.arch.vector.mxcsr;
    cpu.store_operand(op, value)
}
