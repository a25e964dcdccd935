//! INVLPG, INVPCID and the cache instructions INVD, WBINVD and WBNOINVD (SDM Vol. 2;
//! Vol. 3A, 4.10.4).

use cloister_x86::addr::is_canonical;
use cloister_x86::regs::Cr4;
use cloister_x86::vmx::{ExitReason, ProcControls, SecondaryControls};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::Op;
use crate::vmx::{VmExit, info};

rows! {
    Invlpg => always(invlpg).ends_block(),
    Invpcid => always(invpcid).ends_block(),
    // Memory is always coherent: the caches have nothing to write back or lose.
    Invd => always(invd).ends_block(),
    Wbinvd => always(wbinvd).ends_block(),
}

extern "C" fn invlpg(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    // The operand is an address only: no limit, no canonicality (a non-canonical one is a NOP).
    let la = cpu.operand_address(op);
    if cpu.guest_controls().is_some_and(|c| c.proc.contains(ProcControls::INVLPG)) {
        return Err(cpu.vm_exit(VmExit::of(ExitReason::Invlpg, op).qualified(la)));
    }
    cpu.run.tlb.flush_page(la);
    Ok(())
}

extern "C" fn invpcid(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_enabled(SecondaryControls::INVPCID)?;
    cpu.require_cpl0()?;
    let information = info::operand_and_register(op, op.dst);
    cpu.intercept_operand(op, ExitReason::Invpcid, information, |c| {
        c.proc.contains(ProcControls::INVLPG)
    })?;
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

extern "C" fn invd(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.intercept_always(op, ExitReason::Invd)
}

extern "C" fn wbinvd(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.intercept(op, ExitReason::Wbinvd, |c| c.secondary.contains(SecondaryControls::WBINVD))
}
