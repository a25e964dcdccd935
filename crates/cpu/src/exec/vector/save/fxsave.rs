//! FXSAVE and FXRSTOR (SDM Vol. 2A).

use cloister_x86::regs::Cr0;
use cloister_x86::{Exception, Vector};

use super::area::{Area, Format};
use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::{Op, handler};
use crate::state::vector::MXCSR_MASK;

rows! {
    Fxsave => always(handler!(|cpu, op| save(cpu, op, false))),
    Fxsave64 => always(handler!(|cpu, op| save(cpu, op, true))),
    Fxrstor => always(handler!(|cpu, op| restore(cpu, op, false))).ends_block(),
    Fxrstor64 => always(handler!(|cpu, op| restore(cpu, op, true))).ends_block(),
}

/// Where the last byte of an area is, which processors look at first.
fn last(cpu: &Cpu, la: u64) -> u64 {
    cpu.wrap_la(la.wrapping_add(511))
}

/// CR0.EM, CR0.TS, and an area at a 16-byte boundary.
fn operand(cpu: &mut Cpu, op: &Op, kind: AccessKind) -> Exec<u64> {
    if cpu.arch.cr0.contains(Cr0::EM) {
        return Err(cpu.ud());
    }
    if cpu.arch.cr0.contains(Cr0::TS) {
        return Err(cpu.raise(Exception::new(Vector::Nm)));
    }
    cpu.area_address(op, 16, 512, kind)
}

fn save(cpu: &mut Cpu, op: &Op, wide: bool) -> Exec {
    let la = operand(cpu, op, AccessKind::Write)?;
    // Reserved bytes and those for software (464 to 511) are left as they are.
    let mut area = Area::new(Format { wide, all_registers: cpu.run.mode.is_64() });
    area.put_x87(&cpu.arch.fpu);
    area.put_mxcsr(&cpu.arch.vector);
    area.put_sse(&cpu.arch.vector);
    cpu.probe_write(last(cpu, la), 1)?;
    cpu.probe_write(la, 512)?;
    cpu.write_bytes(la, &area.bytes[..area.format.xmm().end], cpu.run.mmu_mode)
}

fn restore(cpu: &mut Cpu, op: &Op, wide: bool) -> Exec {
    let la = operand(cpu, op, AccessKind::Read)?;
    let mut area = Area::new(Format { wide, all_registers: cpu.run.mode.is_64() });
    cpu.probe_read(last(cpu, la), 1)?;
    cpu.read_bytes(la, &mut area.bytes[..512], cpu.run.mmu_mode)?;
    if area.mxcsr() & !MXCSR_MASK != 0 {
        return Err(cpu.gp(0));
    }
    cpu.arch.fpu = area.x87();
    cpu.arch.vector.mxcsr = area.mxcsr();
    area.take_sse(&mut cpu.arch.vector);
    Ok(())
}
