//! VZEROALL and VZEROUPPER (SDM Vol. 2C).

use crate::cpu::Cpu;
use crate::exec::table::{always, vector_rows};
use crate::exit::Exec;
use crate::op::Op;

vector_rows! {
    Vzeroall => always(vzeroall),
    Vzeroupper => always(vzeroupper),
}

/// The registers that the mode has: the others keep their value outside 64-bit mode.
const fn registers(cpu: &Cpu) -> usize {
    if cpu.run.mode.is_64() { 16 } else { 8 }
}

extern "C" fn vzeroall(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.check_avx()?;
    let count = registers(cpu);
    cpu.arch.vector.ymm[..count].fill([0; 4]);
    Ok(())
}

extern "C" fn vzeroupper(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.check_avx()?;
    let count = registers(cpu);
    for register in &mut cpu.arch.vector.ymm[..count] {
        [register[2], register[3]] = [0; 2];
    }
    Ok(())
}
