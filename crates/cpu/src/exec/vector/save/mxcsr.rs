//! LDMXCSR and STMXCSR (SDM Vol. 2A, 2B).

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::Op;
use crate::state::vector::MXCSR_MASK;

rows! {
    Ldmxcsr | Vldmxcsr => always(ldmxcsr).ends_block(),
    Stmxcsr | Vstmxcsr => always(stmxcsr),
}

extern "C" fn ldmxcsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value: u32 = cpu.load_operand(op)?;
    if value & !MXCSR_MASK != 0 {
        return Err(cpu.gp(0));
    }
    cpu.arch.vector.mxcsr = value;
    Ok(())
}

extern "C" fn stmxcsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value = cpu.arch.vector.mxcsr;
    cpu.store_operand(op, value)
}
