//! Data transfer: MOV.

use iced_x86::{Instruction, OpKind};

use super::by_size;
use crate::cpu::Cpu;
use crate::exec::system;
use crate::exec::table::{choose, rewrite, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::mode::Mode;
use crate::op::{Handler, NO_MEMORY, Op};

rows! {
    Mov => rewrite(mov)
        .ends_block_if(system::writes_system_register)
        .illegal_in_enclave_if(system::writes_segment),
    // The hint about caches means nothing here.
    Movnti => choose(form),
}

/// MOV, of which the forms without segment, control and debug registers are here.
fn mov(instruction: &Instruction, _mode: Mode, op: Op) -> Option<Op> {
    let is_plain = |n| match instruction.op_kind(n) {
        OpKind::Register => {
            let register = instruction.op_register(n);
            register.is_gpr8() || register.is_gpr16() || register.is_gpr32() || register.is_gpr64()
        }
        _ => true,
    };
    let run = if is_plain(0) && is_plain(1) {
        form(instruction, &op)
    } else {
        system::mov(instruction, &op)?
    };
    Some(Op { run, ..op })
}

fn form(instruction: &Instruction, op: &Op) -> Handler {
    let immediate = !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory);
    match (op.mem_operand, immediate) {
        (NO_MEMORY, false) => by_size!(op.size, register_register),
        (NO_MEMORY, true) => by_size!(op.size, register_immediate),
        (0, false) => by_size!(op.size, memory_register),
        (0, true) => by_size!(op.size, memory_immediate),
        _ => by_size!(op.size, register_memory),
    }
}

extern "C" fn register_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value: T = cpu.src(op);
    cpu.set_dst(op, value);
    Ok(())
}

extern "C" fn register_immediate<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.set_dst(op, T::trunc(op.imm));
    Ok(())
}

// Memory forms do the common case without a call, so that they need no stack frame, and leave the
// rest to a second function.

extern "C" fn register_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    match cpu.quick_operand::<T>(op) {
        Some(value) => {
            cpu.set_dst(op, value);
            Ok(())
        }
        None => register_memory_slow::<T>(cpu, op),
    }
}

#[inline(never)]
fn register_memory_slow<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value: T = cpu.load_operand(op)?;
    cpu.set_dst(op, value);
    Ok(())
}

extern "C" fn memory_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value: T = cpu.src(op);
    if cpu.quick_store_operand(op, value) {
        return Ok(());
    }
    memory_register_slow::<T>(cpu, op)
}

#[inline(never)]
fn memory_register_slow<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value: T = cpu.src(op);
    cpu.store_operand(op, value)
}

extern "C" fn memory_immediate<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    if cpu.quick_store_operand(op, T::trunc(op.imm)) {
        return Ok(());
    }
    memory_immediate_slow::<T>(cpu, op)
}

#[inline(never)]
fn memory_immediate_slow<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.store_operand(op, T::trunc(op.imm))
}
