//! XRSTOR and XRSTORS (SDM Vol. 1, 13.8 and 13.12).

use cloister_x86::regs::Xfeatures;

use super::area::{Area, BASE_SIZE, COMPACTED, Format, HEADER, MXCSR, Plan};
use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::{Op, handler};

rows! {
    // They load MXCSR.
    Xrstor => always(handler!(|cpu, op| restore(cpu, op, false, false))).ends_block(),
    Xrstor64 => always(handler!(|cpu, op| restore(cpu, op, false, true))).ends_block(),
    Xrstors => always(handler!(|cpu, op| restore(cpu, op, true, false))).ends_block(),
    Xrstors64 => always(handler!(|cpu, op| restore(cpu, op, true, true))).ends_block(),
}

fn restore(cpu: &mut Cpu, op: &Op, supervisor: bool, wide: bool) -> Exec {
    cpu.check_xsave(supervisor)?;
    let requested = cpu.requested_features();
    let size = Cpu::area_size(requested);
    let la = cpu.area_address(op, 64, size, AccessKind::Read)?;
    let mut area = Area::new(Format { wide, all_registers: cpu.run.mode.is_64() });
    // XCOMP_BV comes first. The legacy region is not looked at for a component that it does not
    // have.
    cpu.probe_read(cpu.wrap_la(la.wrapping_add(HEADER as u64 + 8)), 8)?;
    let start = if requested.contains(Xfeatures::X87) {
        0
    } else if requested.intersects(Xfeatures::SSE | Xfeatures::AVX) {
        MXCSR.start
    } else {
        HEADER
    };
    let from = cpu.wrap_la(la.wrapping_add(start as u64));
    cpu.read_bytes(from, &mut area.bytes[start..BASE_SIZE], cpu.run.mmu_mode)?;
    // XRSTORS knows the compacted form only (13.12).
    if supervisor && area.quadword(HEADER + 8) & COMPACTED == 0 {
        return Err(cpu.gp(0));
    }
    let mut header = [0; 64];
    header.copy_from_slice(&area.bytes[HEADER..BASE_SIZE]);
    let Some(plan) = Plan::new(&header, requested, cpu.arch.xcr0) else {
        return Err(cpu.gp(0));
    };
    let size = Cpu::area_size(plan.load);
    if size > BASE_SIZE {
        let at = cpu.wrap_la(la.wrapping_add(BASE_SIZE as u64));
        cpu.read_bytes(at, &mut area.bytes[BASE_SIZE..size], cpu.run.mmu_mode)?;
    }
    match plan.apply(&area, &mut cpu.arch.fpu, &mut cpu.arch.vector) {
        Some(()) => Ok(()),
        None => Err(cpu.gp(0)),
    }
}
