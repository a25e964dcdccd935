//! PUSH, POP, PUSHA, POPA. POP to a segment register is with the system instructions.

use cloister_x86::Gpr;
use iced_x86::{Instruction, OpKind};

use crate::cpu::Cpu;
use crate::exec::system::{self, segments};
use crate::exec::table::{always, choose, rewrite, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::mode::Mode;
use crate::op::{Handler, NO_MEMORY, Op};

rows! {
    Push => choose(push_form),
    Pop => rewrite(pop)
        .ends_block_if(system::writes_system_register)
        .illegal_in_enclave_if(system::writes_segment),
    Pusha => always(push_all::<u16>),
    Pushad => always(push_all::<u32>),
    Popa => always(pop_all::<u16>),
    Popad => always(pop_all::<u32>),
}

/// POP, of which the forms without segment registers are here.
fn pop(instruction: &Instruction, _mode: Mode, op: Op) -> Option<Op> {
    Some(if system::writes_segment(instruction) {
        segments::pop(instruction, op)
    } else {
        Op { run: pop_form(instruction, &op), ..op }
    })
}

/// Picks an instance by what the instruction moves the stack pointer by.
macro_rules! by_stack {
    ($instruction:ident, $handler:ident) => {
        match $instruction.stack_pointer_increment().unsigned_abs() {
            2 => $handler::<u16> as Handler,
            4 => $handler::<u32>,
            _ => $handler::<u64>,
        }
    };
}

fn push_form(instruction: &Instruction, _op: &Op) -> Handler {
    let eight = instruction.stack_pointer_increment() == -8;
    match instruction.op0_kind() {
        OpKind::Register if instruction.op0_register().is_segment_register() => {
            by_stack!(instruction, push_segment)
        }
        OpKind::Register if eight => push_register_64,
        OpKind::Register => by_stack!(instruction, push_register),
        OpKind::Memory => by_stack!(instruction, push_memory),
        _ => by_stack!(instruction, push_immediate),
    }
}

fn pop_form(instruction: &Instruction, op: &Op) -> Handler {
    let eight = instruction.stack_pointer_increment() == 8;
    match op.mem_operand {
        NO_MEMORY if eight => pop_register_64,
        NO_MEMORY => by_stack!(instruction, pop_register),
        _ => by_stack!(instruction, pop_memory),
    }
}

/// PUSH of RSP pushes its value before (SDM Vol. 2B, PUSH).
extern "C" fn push_register_64(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.arch.gpr[usize::from(op.dst & 31)];
    let top = cpu.arch.gpr[Gpr::Rsp].wrapping_sub(8);
    if !cpu.quick_store(top, value) {
        return push_register::<u64>(cpu, op);
    }
    cpu.arch.gpr[Gpr::Rsp] = top;
    Ok(())
}

extern "C" fn push_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.dst::<T>(op);
    cpu.push(value)
}

extern "C" fn push_immediate<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.push(T::trunc(op.imm))
}

extern "C" fn push_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.load_operand::<T>(op)?;
    cpu.push(value)
}

/// The selector, zero-extended to the operand size.
/// Of a slot of four bytes only two are written (SDM Vol. 2B, PUSH, of recent processors).
extern "C" fn push_segment<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let selector = cpu.arch.segs[usize::from(op.dst & 7)].selector;
    if T::SIZE != 4 {
        return cpu.push(T::trunc(u64::from(selector)));
    }
    let top = cpu.arch.gpr[Gpr::Rsp].wrapping_sub(T::SIZE as u64);
    cpu.stack_store(top, selector)?;
    cpu.set_stack_pointer(top);
    Ok(())
}

/// POP of RSP keeps what was popped.
extern "C" fn pop_register_64(cpu: &mut Cpu, op: &Op) -> Exec {
    let Some(value) = cpu.quick_load::<u64>(cpu.arch.gpr[Gpr::Rsp]) else {
        return pop_register::<u64>(cpu, op);
    };
    cpu.arch.gpr[Gpr::Rsp] = cpu.arch.gpr[Gpr::Rsp].wrapping_add(8);
    cpu.arch.gpr[usize::from(op.dst & 31)] = value;
    Ok(())
}

extern "C" fn pop_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.pop::<T>()?;
    cpu.set_dst(op, value);
    Ok(())
}

/// A destination that is addressed by the stack pointer is where the incremented one points
/// (SDM Vol. 2B, POP).
extern "C" fn pop_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let old = cpu.arch.gpr[Gpr::Rsp];
    let value = cpu.pop::<T>()?;
    let stored = match cpu.linear(op, T::SIZE, AccessKind::Write) {
        Ok(la) => cpu.store(la, value),
        Err(stop) => Err(stop),
    };
    if stored.is_err() {
        cpu.arch.gpr[Gpr::Rsp] = old;
    }
    stored
}

/// AX, CX, DX, BX, SP as it was, BP, SI, DI. Where one of the stores faults, those before it stay,
/// as on Intel processors; the stack pointer is as it was.
extern "C" fn push_all<T: Int>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let top = cpu.arch.gpr[Gpr::Rsp];
    let at = |n: u64| top.wrapping_sub((n + 1) * T::SIZE as u64);
    for n in 0..8 {
        let value = cpu.reg::<T>(n, false);
        cpu.stack_store(at(u64::from(n)), value)?;
    }
    cpu.set_stack_pointer(at(7));
    Ok(())
}

/// The reverse; the value for SP is dropped. Where one of the loads faults, the registers before
/// it keep what they got, as on Intel processors; the stack pointer is as it was.
extern "C" fn pop_all<T: Int>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let top = cpu.arch.gpr[Gpr::Rsp];
    for (n, number) in (0u64..).zip((0u8..8).rev()) {
        let value = cpu.stack_load::<T>(top.wrapping_add(n * T::SIZE as u64))?;
        if number != Gpr::Rsp as u8 {
            cpu.set_reg(number, false, value);
        }
    }
    cpu.set_stack_pointer(top.wrapping_add(8 * T::SIZE as u64));
    Ok(())
}
