//! LAR, LSL, VERR, VERW and ARPL (SDM Vol. 2; Vol. 3A, 5.10).

use cloister_x86::regs::Rflags;

use super::descriptor::{Descriptor, is_null, system_type};
use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::{NO_MEMORY, Op};

rows! {
    Lar => always(lar),
    Lsl => always(lsl),
    Verr => always(verify::<false>),
    Verw => always(verify::<true>),
    Arpl => always(arpl),
}

fn set_zf(cpu: &mut Cpu, zf: bool) {
    let zf = if zf { Rflags::ZF.bits() } else { 0 };
    cpu.arch.flags.merge(Rflags::ZF.bits(), zf);
}

/// The descriptor of a selector that software at this level may see.
fn visible(cpu: &mut Cpu, selector: u16) -> Exec<Option<Descriptor>> {
    if is_null(selector) {
        return Ok(None);
    }
    let level = cpu.arch.cpl.max((selector & 3) as u8);
    let descriptor = cpu.descriptor(selector)?;
    Ok(descriptor.filter(|descriptor| {
        let rights = descriptor.rights();
        (rights.is_code() && rights.bit_ec()) || level <= rights.dpl()
    }))
}

fn source(cpu: &mut Cpu, op: &Op) -> Exec<u16> {
    cpu.require_protected()?;
    if op.mem_operand == NO_MEMORY { Ok(cpu.src(op)) } else { cpu.load_operand(op) }
}

fn finish(cpu: &mut Cpu, op: &Op, result: Option<u32>) {
    if let Some(value) = result {
        match op.size {
            2 => cpu.set_dst(op, value as u16),
            _ => cpu.set_dst(op, value),
        }
    }
    set_zf(cpu, result.is_some());
}

extern "C" fn lar(cpu: &mut Cpu, op: &Op) -> Exec {
    use system_type::{
        CALL_GATE, CALL_GATE16, LDT, TASK_GATE, TSS_AVAILABLE, TSS_BUSY, TSS16_AVAILABLE,
        TSS16_BUSY,
    };
    let selector = source(cpu, op)?;
    let long = cpu.long_mode();
    let found = visible(cpu, selector)?.filter(|descriptor| match descriptor.kind() {
        LDT | TSS_AVAILABLE | TSS_BUSY | CALL_GATE => true,
        TSS16_AVAILABLE | TSS16_BUSY | CALL_GATE16 | TASK_GATE => !long,
        _ => descriptor.rights().is_code_or_data(),
    });
    finish(cpu, op, found.map(|descriptor| (descriptor.raw >> 32) as u32 & 0x00ff_ff00));
    Ok(())
}

extern "C" fn lsl(cpu: &mut Cpu, op: &Op) -> Exec {
    use system_type::{LDT, TSS_AVAILABLE, TSS_BUSY, TSS16_AVAILABLE, TSS16_BUSY};
    let selector = source(cpu, op)?;
    let long = cpu.long_mode();
    let found = visible(cpu, selector)?.filter(|descriptor| match descriptor.kind() {
        LDT | TSS_AVAILABLE | TSS_BUSY => true,
        TSS16_AVAILABLE | TSS16_BUSY => !long,
        _ => descriptor.rights().is_code_or_data(),
    });
    finish(cpu, op, found.map(Descriptor::limit));
    Ok(())
}

extern "C" fn verify<const WRITE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    let selector: u16 =
        if op.mem_operand == NO_MEMORY { cpu.dst(op) } else { cpu.load_operand(op)? };
    let found = visible(cpu, selector)?.is_some_and(|descriptor| {
        let rights = descriptor.rights();
        if WRITE { rights.writable() } else { rights.readable() }
    });
    set_zf(cpu, found);
    Ok(())
}

extern "C" fn arpl(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    let source: u16 = cpu.src(op);
    if op.mem_operand == NO_MEMORY {
        let old: u16 = cpu.dst(op);
        if old & 3 < source & 3 {
            cpu.set_dst(op, old & !3 | source & 3);
        }
        set_zf(cpu, old & 3 < source & 3);
        return Ok(());
    }
    // Nothing is written, and nothing has to be writable, where the level stays.
    let old: u16 = cpu.load_operand(op)?;
    if old & 3 < source & 3 {
        cpu.store_operand(op, old & !3 | source & 3)?;
    }
    set_zf(cpu, old & 3 < source & 3);
    Ok(())
}
