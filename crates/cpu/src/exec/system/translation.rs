//! INVLPG, INVPCID and the cache instructions INVD, WBINVD and WBNOINVD (SDM Vol. 2;
//! Vol. 3A, 4.10.4).

use cloister_x86::addr::is_canonical;
use cloister_x86::regs::Cr4;

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::Op;

rows! {
    Invlpg => always(invlpg).ends_block(),
    Invpcid => always(invpcid).ends_block(),
    // Memory is always coherent: the caches have nothing to write back or lose.
    Invd => always(cache).ends_block(),
    Wbinvd => always(cache).ends_block(),
}

extern "C" fn invlpg(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    // The operand is an address only: no limit, no canonicality (a non-canonical one is a NOP).
    let offset = cpu.effective(op);
    let la = if cpu.run.mode.is_64() && op.special & crate::op::MEM_SEGMENT == 0 {
        offset
    } else {
        cpu.system_linear(cpu.arch.segs[usize::from(op.seg & 7)].base.wrapping_add(offset))
    };
    cpu.run.tlb.flush_page(la);
    Ok(())
}

extern "C" fn invpcid(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let kind = cpu.dst::<u64>(op);
    let kind = if cpu.run.mode.is_64() { kind } else { kind & 0xffff_ffff };
    let la = cpu.linear(op, 16, AccessKind::Read)?;
    let pcid = cpu.load::<u64>(la)?;
    let address = cpu.load::<u64>(cpu.system_linear(la.wrapping_add(8)))?;
    // SDM Vol. 2A, INVPCID: the descriptor's bits 63:12 are reserved; without CR4.PCIDE only
    // PCID 0 exists.
    let invalid = kind > 3
        || pcid > 0xfff
        || (kind < 2 && pcid != 0 && !cpu.arch.cr4.contains(Cr4::PCIDE))
        || (kind == 0 && !is_canonical(address));
    if invalid {
        return Err(cpu.gp(0));
    }
    match kind {
        0 => cpu.run.tlb.flush_page(address),
        1 => cpu.run.tlb.flush_pcid(pcid as u16),
        2 => cpu.run.tlb.flush_all(),
        _ => cpu.run.tlb.flush_non_global(),
    }
    Ok(())
}

extern "C" fn cache(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.require_cpl0()
}
