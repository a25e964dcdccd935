//! Procedure entry and bounds: ENTER, LEAVE, BOUND.

use cloister_x86::{Exception, Gpr, Vector};
use iced_x86::Code;

use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, Op};

rows! {
    Enter => choose(|instruction, _| match instruction.code() {
        Code::Enterw_imm16_imm8 => enter::<u16> as Handler,
        Code::Enterd_imm16_imm8 => enter::<u32>,
        _ => enter::<u64>,
    }),
    Leave => choose(|instruction, _| match instruction.code() {
        Code::Leavew => leave::<u16> as Handler,
        Code::Leaved => leave::<u32>,
        _ => leave::<u64>,
    }),
    Bound => choose(|_, op| if op.size == 2 { bound::<u16> as Handler } else { bound::<u32> }),
}

/// ENTER (SDM Vol. 2A): the immediate is the frame's size, `extra` the nesting level.
extern "C" fn enter<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let size = T::SIZE as u64;
    let level = u64::from(op.nesting_level());
    let old_rbp = cpu.arch.gpr[Gpr::Rbp];
    let mut top = cpu.arch.gpr[Gpr::Rsp].wrapping_sub(size);
    cpu.stack_store(top, T::trunc(old_rbp))?;
    let frame = top;
    for n in 1..level {
        // The enclosing frames' pointers lie below the one that RBP points at.
        let pointer: T = cpu.stack_load(old_rbp.wrapping_sub(n * size))?;
        top = top.wrapping_sub(size);
        cpu.stack_store(top, pointer)?;
    }
    if level > 0 {
        top = top.wrapping_sub(size);
        cpu.stack_store(top, T::trunc(frame))?;
    }
    top = top.wrapping_sub(op.imm & 0xffff);
    // The stack must take a write where the frame ends.
    let la = cpu.stack_linear(top, T::SIZE, AccessKind::Write)?;
    if let Err(stop) = cpu.open::<T>(la) {
        return Err(cpu.stack_stop(stop));
    }
    cpu.set_reg(Gpr::Rbp as u8, false, T::trunc(frame));
    cpu.set_stack_pointer(top);
    Ok(())
}

extern "C" fn leave<T: Int>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let frame = cpu.arch.gpr[Gpr::Rbp];
    let value: T = cpu.stack_load(frame)?;
    cpu.set_stack_pointer(frame.wrapping_add(T::SIZE as u64));
    cpu.set_reg(Gpr::Rbp as u8, false, value);
    Ok(())
}

/// BOUND: #BR if the signed index is outside the two bounds in memory. The upper one is not read
/// where the lower one decides.
extern "C" fn bound<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, 2 * T::SIZE, AccessKind::Read)?;
    let lower = cpu.load::<T>(la)?.sext() as i64;
    let above = cpu.wrap_la(la.wrapping_add(T::SIZE as u64));
    let index = cpu.dst::<T>(op).sext() as i64;
    if index < lower || index > cpu.load::<T>(above)?.sext() as i64 {
        return Err(cpu.raise(Exception::new(Vector::Br)));
    }
    Ok(())
}
