//! EMMS: the end of MMX operation (SDM Vol. 3A, 12.2).

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::Op;

rows! {
    Emms => always(emms),
}

extern "C" fn emms(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.check_mmx()?;
    cpu.enter_mmx();
    cpu.arch.fpu.tags = 0;
    Ok(())
}
