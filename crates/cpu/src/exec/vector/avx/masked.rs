//! VMASKMOVPS, VMASKMOVPD, VPMASKMOVD and VPMASKMOVQ (SDM Vol. 2C): only chosen elements touch
//! memory, and never raise #AC.

use iced_x86::Instruction;

use super::element::{self, chosen, get};
use crate::cpu::Cpu;
use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::M128_ANY;
use crate::exit::Exec;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, Op, VEX_128, VEX_256};

vector_rows! {
    Vmaskmovps | Vpmaskmovd => choose(form::<u32>),
    Vmaskmovpd | Vpmaskmovq => choose(form::<u64>),
}

fn form<T: Int>(_instruction: &Instruction, op: &Op) -> Handler {
    if op.mem_operand == 0 { store::<T> } else { load::<T> }
}

/// Number of elements.
const fn elements<T: Int>(op: &Op) -> usize {
    (if op.vex == VEX_256 { 32 } else { 16 }) / T::SIZE
}

fn linear<T: Int>(cpu: &mut Cpu, op: &Op, i: usize, kind: AccessKind) -> Exec<u64> {
    cpu.linear_within(op, (i * T::SIZE) as u64, T::SIZE, kind)
}

extern "C" fn load<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let mask = cpu.arch.vector.ymm[usize::from(op.third & 15)];
    let count = elements::<T>(op);
    if (0..count).all(|i| chosen::<T>(&mask, i)) {
        if op.vex == VEX_256 {
            let value = cpu.ymm_source::<M128_ANY>(op)?;
            cpu.arch.vector.set_ymm(op.dst, value);
        } else {
            let value = cpu.xmm_source::<VEX_128, M128_ANY>(op)?;
            cpu.arch.vector.set_low::<VEX_128>(op.dst, value);
        }
        return Ok(());
    }
    // Segment and canonicality are checked to the end before a page is looked at.
    if let Some(last) = (0..count).rfind(|&i| chosen::<T>(&mask, i)) {
        let la = linear::<T>(cpu, op, last, AccessKind::Read)?;
        cpu.check_canonical(cpu.wrap_la(la.wrapping_add(T::SIZE as u64 - 1)))?;
    }
    let mut result = [0; 4];
    for i in (0..count).filter(|&i| chosen::<T>(&mask, i)) {
        let la = linear::<T>(cpu, op, i, AccessKind::Read)?;
        element::set(&mut result, i, element::load::<T>(cpu, la)?);
    }
    cpu.arch.vector.ymm[usize::from(op.dst & 15)] = result;
    Ok(())
}

extern "C" fn store<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let mask = cpu.arch.vector.ymm[usize::from(op.third & 15)];
    let data = cpu.arch.vector.ymm[usize::from(op.src & 15)];
    let count = elements::<T>(op);
    let mut touched = (0..count).filter(|&i| chosen::<T>(&mask, i));
    let Some(first) = touched.next() else { return Ok(()) };
    let last = touched.next_back().unwrap_or(first);
    // All of it can be written, or nothing is: the first and the last byte say so for each of at
    // most two pages.
    let start = linear::<T>(cpu, op, first, AccessKind::Write)?;
    let end = linear::<T>(cpu, op, last, AccessKind::Write)?;
    let end = cpu.wrap_la(end.wrapping_add(T::SIZE as u64 - 1));
    cpu.check_canonical(end)?;
    cpu.probe_write(start, 1)?;
    cpu.probe_write(end, 1)?;
    for i in (0..count).filter(|&i| chosen::<T>(&mask, i)) {
        let la = linear::<T>(cpu, op, i, AccessKind::Write)?;
        element::store(cpu, la, get::<T>(&data, i))?;
    }
    Ok(())
}
