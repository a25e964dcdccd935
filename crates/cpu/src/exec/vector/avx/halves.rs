//! The two halves of a YMM register: VINSERTF128, VEXTRACTF128, VPERM2F128 and their integer twins
//! (SDM Vol. 2C).

use crate::cpu::Cpu;
use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{M128, REGISTER, value_of, wide_imm};
use crate::exec::vector::lane::Wide;
use crate::exit::Exec;
use crate::op::{Handler, NO_MEMORY, Op, VEX_128};

vector_rows! {
    Vinsertf128 | Vinserti128 => choose(|_, op| match op.mem_operand {
        NO_MEMORY => insert::<REGISTER> as Handler,
        _ => insert::<M128>,
    }),
    Vextractf128 | Vextracti128 => choose(|_, op| match op.mem_operand {
        NO_MEMORY => extract as Handler,
        _ => extract_to_memory,
    }),
    Vperm2f128 | Vperm2i128 => choose(|_, op| wide_imm!(op, permute)),
}

extern "C" fn insert<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let half = cpu.xmm_source::<VEX_128, KIND>(op)?;
    let mut result = cpu.arch.vector.ymm(op.third);
    result[(op.imm & 1) as usize] = half;
    cpu.arch.vector.set_ymm(op.dst, result);
    Ok(())
}

extern "C" fn extract(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let half = cpu.arch.vector.ymm(op.src)[(op.imm & 1) as usize];
    cpu.arch.vector.set_low::<VEX_128>(op.dst, half);
    Ok(())
}

extern "C" fn extract_to_memory(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let half = cpu.arch.vector.ymm(op.src)[(op.imm & 1) as usize];
    cpu.store_operand(op, value_of(half))
}

/// VPERM2F128: for each half, four bits choose one of `a` and `b`, or zero.
#[inline(always)]
#[must_use]
pub(crate) fn permute(a: Wide, b: Wide, imm: u8) -> Wide {
    let halves = [a[0], a[1], b[0], b[1]];
    [imm, imm >> 4].map(|pick| if pick & 8 != 0 { [0; 2] } else { halves[usize::from(pick & 3)] })
}
