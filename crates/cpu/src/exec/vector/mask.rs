//! MASKMOVDQU and MASKMOVQ (SDM Vol. 2B).

use iced_x86::{Instruction, Mnemonic};

use super::lane::{Element, Lane};
use super::transfer::sign_mask;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, MEM_SEGMENT, Op};
use crate::state::{Cpu, Exec};

/// The handler of a byte-masked store.
pub fn select(instruction: &Instruction) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Maskmovdqu => Some(maskmovdqu),
        Mnemonic::Maskmovq => Some(maskmovq),
        _ => None,
    }
}

fn maskmovdqu(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_sse()?;
    let (data, mask) = (cpu.vector.xmm(op.src), cpu.vector.xmm(op.third));
    store_masked(cpu, op, data, mask)
}

fn maskmovq(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let (data, mask) = (cpu.mmx(op.src), cpu.mmx(op.third));
    store_masked(cpu, op, [data, 0], [mask, 0])?;
    cpu.enter_mmx();
    Ok(())
}

/// Stores the bytes whose mask byte has its top bit set at DS:rDI.
fn store_masked(cpu: &mut Cpu, op: &Op, data: Lane, mask: Lane) -> Exec {
    let mask = sign_mask::<u8>(mask);
    if mask == 0 {
        return Ok(());
    }
    let data = u8::split(data);
    let (first, last) = (mask.trailing_zeros(), 31 - mask.leading_zeros());
    let width_mask = u64::MAX >> (64 - 8 * u32::from(op.addr_size));
    let offset = (cpu.gpr[7] & width_mask).wrapping_add(u64::from(first)) & width_mask;
    let span = (last - first + 1) as usize;
    let start = if op.special & MEM_SEGMENT != 0 {
        cpu.segmented(usize::from(op.seg), offset, span, AccessKind::Write)?
    } else {
        offset
    };
    let address = |bit: u32| start.wrapping_add(u64::from(bit - first));
    cpu.probe_write(start, span)?;
    for bit in first..=last {
        if mask >> bit & 1 != 0 {
            cpu.store(address(bit), data[bit as usize])?;
        }
    }
    Ok(())
}
