//! MASKMOVDQU and MASKMOVQ (SDM Vol. 2B).

use cloister_x86::Gpr;

use super::lane::{Element, Lane};
use super::transfer::sign_mask;
use crate::cpu::Cpu;
use crate::exec::table::{always, vector_rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::{MEM_SEGMENT, Op};

vector_rows! {
    Maskmovdqu | Vmaskmovdqu => always(maskmovdqu),
    Maskmovq => always(maskmovq),
}

extern "C" fn maskmovdqu(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let (data, mask) = (cpu.arch.vector.xmm(op.src), cpu.arch.vector.xmm(op.third));
    store_masked(cpu, op, 16, data, mask)
}

extern "C" fn maskmovq(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let (data, mask) = (cpu.mmx(op.src), cpu.mmx(op.third));
    // As on hardware the change to MMX operation comes before any fault of the store.
    cpu.enter_mmx();
    store_masked(cpu, op, 8, [data, 0], [mask, 0])
}

/// Stores the bytes whose mask byte has its top bit set at DS:rDI. All `size` bytes have to be
/// writable, even with a mask of zeros: the manual leaves open which of them are checked.
fn store_masked(cpu: &mut Cpu, op: &Op, size: usize, data: Lane, mask: Lane) -> Exec {
    let mask = sign_mask::<u8>(mask);
    let width_mask = u64::MAX >> (64 - 8 * u32::from(op.addr_size));
    let mut parts = [0; 2];
    // In quadwords, each of which wraps at the address size, the upper one first: that is the order
    // in which Intel processors fault.
    for (n, part) in parts[..size / 8].iter_mut().enumerate().rev() {
        let offset = cpu.arch.gpr[Gpr::Rdi].wrapping_add(8 * n as u64) & width_mask;
        *part = if op.special & MEM_SEGMENT != 0 {
            cpu.segmented(usize::from(op.seg), offset, 8, AccessKind::Write)?
        } else {
            offset
        };
        cpu.probe_write(*part, 8)?;
    }
    for (i, &byte) in u8::split(data).iter().enumerate() {
        if mask >> i & 1 != 0 {
            cpu.store(cpu.wrap_la(parts[i / 8].wrapping_add(i as u64 % 8)), byte)?;
        }
    }
    Ok(())
}
