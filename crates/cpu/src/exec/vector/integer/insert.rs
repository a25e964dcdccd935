//! PINSR, PEXTR, INSERTPS, EXTRACTPS.

use crate::cpu::Cpu;
use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{by_memory, sse_imm};
use crate::exec::vector::lane::{Element, Lane};
use crate::exit::Exec;
use crate::mem::Int;
use crate::op::{NO_MEMORY, Op};

vector_rows! {
    Pinsrb | Vpinsrb => choose(|_, op| by_memory!(op, insert, u8)),
    Pinsrw | Vpinsrw => choose(|instruction, op| {
        if instruction.op0_register().is_mm() {
            by_memory!(op, pinsrw_mmx)
        } else {
            by_memory!(op, insert, u16)
        }
    }),
    Pinsrd | Vpinsrd => choose(|_, op| by_memory!(op, insert, u32)),
    Pinsrq | Vpinsrq => choose(|_, op| by_memory!(op, insert, u64)),
    Pextrb | Vpextrb => choose(|_, op| by_memory!(op, extract, u8)),
    Pextrw | Vpextrw => choose(|instruction, op| {
        if instruction.op1_register().is_mm() {
            pextrw_mmx
        } else {
            by_memory!(op, extract, u16)
        }
    }),
    Pextrd | Extractps | Vpextrd | Vextractps => choose(|_, op| by_memory!(op, extract, u32)),
    Pextrq | Vpextrq => choose(|_, op| by_memory!(op, extract, u64)),
    Insertps | Vinsertps => choose(|_, op| {
        if op.mem_operand == NO_MEMORY {
            sse_imm!(op, M32, insertps)
        } else {
            // Memory has one element, so that bits 7:6 of the immediate do not count.
            sse_imm!(op, M32, |a, b, imm: u8| insertps(a, b, imm & 0x3f))
        }
    }),
}

extern "C" fn insert<T: Element + Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value: T = element_source::<T, MEMORY>(cpu, op)?;
    let mut elements = T::split(cpu.arch.vector.xmm(op.third));
    let count = elements.as_ref().len();
    elements.as_mut()[op.imm as usize % count] = value;
    cpu.set_vector_dst(op, T::join(elements));
    Ok(())
}

/// The low bits of a general-purpose register (a byte never is AH to DH here), or memory.
fn element_source<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec<T> {
    if MEMORY { cpu.load_operand(op) } else { Ok(cpu.reg(op.src, false)) }
}

extern "C" fn extract<T: Element + Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let elements = T::split(cpu.arch.vector.xmm(op.src));
    let elements = elements.as_ref();
    let value = elements[op.imm as usize % elements.len()];
    if MEMORY {
        return cpu.store_operand(op, value);
    }
    // A register receives the element zero-extended.
    cpu.set_reg(op.dst, false, value.zext());
    Ok(())
}

extern "C" fn pinsrw_mmx<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let value: u16 = element_source::<u16, MEMORY>(cpu, op)?;
    let shift = 16 * (op.imm & 3);
    let old = cpu.mmx(op.dst);
    cpu.set_mmx(op.dst, old & !(0xffff << shift) | u64::from(value) << shift);
    Ok(())
}

extern "C" fn pextrw_mmx(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    cpu.enter_mmx();
    let word = cpu.mmx(op.src) >> (16 * (op.imm & 3)) & 0xffff;
    cpu.set_reg(op.dst, false, word);
    Ok(())
}

/// INSERTPS: a doubleword of `b` at a place of `a`, then zeros.
#[inline(always)]
#[must_use]
pub(crate) fn insertps(a: Lane, b: Lane, imm: u8) -> Lane {
    let mut result = u32::split(a);
    result[usize::from(imm >> 4 & 3)] = u32::split(b)[usize::from(imm >> 6)];
    for (i, element) in result.iter_mut().enumerate() {
        if imm >> i & 1 != 0 {
            *element = 0;
        }
    }
    u32::join(result)
}
