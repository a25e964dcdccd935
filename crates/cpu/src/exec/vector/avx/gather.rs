//! VGATHERDPS and its relatives (SDM Vol. 2C): elements from addresses of their own, chosen by a
//! mask that records what is done. The decoder knows none with the same register twice.

use iced_x86::Instruction;

use super::element::{self, chosen, get, set};
use crate::cpu::Cpu;
use crate::exec::table::{rewrite, vector_rows};
use crate::exit::{Exec, Stop};
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, Op, VEX_256, ZERO_SLOT};

vector_rows! {
    Vgatherdps | Vpgatherdd => rewrite(|i, _, op| form(i, op, gather::<u32, u32>, 4)),
    Vgatherdpd | Vpgatherdq => rewrite(|i, _, op| form(i, op, gather::<u64, u32>, 8)),
    Vgatherqps | Vpgatherqd => rewrite(|i, _, op| form(i, op, gather::<u32, u64>, 8)),
    Vgatherqpd | Vpgatherqq => rewrite(|i, _, op| form(i, op, gather::<u64, u64>, 8)),
}

/// A gather whose elements or indices have `widest` bytes. [`Op::extra`] becomes the index
/// register, in bits 7:0, and the number of elements.
fn form(instruction: &Instruction, mut op: Op, run: Handler, widest: u32) -> Option<Op> {
    let index = instruction.memory_index();
    if index.is_ymm() {
        op.vex = VEX_256;
    }
    let extra = index.number() as u32 | (vector_size(&op) / widest) << 8;
    Some(Op { run, index: ZERO_SLOT, extra, ..op })
}

/// Register number of the indices.
const fn index_register(op: &Op) -> usize {
    (op.extra & 15) as usize
}

/// Number of elements that are gathered.
const fn element_count(op: &Op) -> usize {
    (op.extra >> 8) as usize
}

/// Bytes of the longest of destination and index.
const fn vector_size(op: &Op) -> u32 {
    if op.vex == VEX_256 { 32 } else { 16 }
}

extern "C" fn gather<T: Int, I: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let count = element_count(op);
    let indices = cpu.arch.vector.ymm[index_register(op)];
    let mask = cpu.arch.vector.ymm[usize::from(op.third & 15)];
    let mut result = cpu.arch.vector.ymm[usize::from(op.dst & 15)];
    for i in (0..count).filter(|&i| chosen::<T>(&mask, i)) {
        let offset = get::<I>(&indices, i).sext() << (op.scale & 3);
        let loaded = cpu
            .linear_plus(op, offset, T::SIZE, AccessKind::Read)
            .and_then(|la| element::load::<T>(cpu, la));
        match loaded {
            Ok(value) => set(&mut result, i, value),
            Err(Stop::FAULT) => {
                // What comes before the element that faults stays done. Another stop starts the
                // instruction over, with the answers of the devices that it has read.
                if op.vex != VEX_256 && (0..i).any(|j| chosen::<T>(&mask, j)) {
                    (result[2], result[3]) = (0, 0);
                }
                // The mask has all ones or zeros then in each element, even where there is
                // nothing to gather.
                let mut left = [0; 4];
                let elements = vector_size(op) as usize / T::SIZE;
                for j in (i..elements).filter(|&j| chosen::<T>(&mask, j)) {
                    set(&mut left, j, T::trunc(u64::MAX));
                }
                cpu.arch.vector.ymm[usize::from(op.dst & 15)] = result;
                cpu.arch.vector.ymm[usize::from(op.third & 15)] = left;
                return Err(Stop::FAULT);
            }
            Err(stop) => return Err(stop),
        }
    }
    // Zeros above the last element.
    for (n, quadword) in result.iter_mut().enumerate() {
        let ones = (count * T::SIZE).saturating_sub(8 * n).min(8) as u32;
        *quadword &= u64::MAX.checked_shr(64 - 8 * ones).unwrap_or(0);
    }
    cpu.arch.vector.ymm[usize::from(op.dst & 15)] = result;
    cpu.arch.vector.ymm[usize::from(op.third & 15)] = [0; 4];
    Ok(())
}
