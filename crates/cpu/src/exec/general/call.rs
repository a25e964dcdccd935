//! Near CALL and RET.

use cloister_x86::Gpr;
use cloister_x86::addr::is_canonical;
use iced_x86::{Code, Instruction};

use super::branch::operand_target;
use crate::cpu::Cpu;
use crate::exec::system::far;
use crate::exec::table::{choose, rewrite, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::mode::Mode;
use crate::op::{BLOCK_SLOT, Handler, NO_MEMORY, Op};

rows! {
    Call => rewrite(call).leaves().illegal_in_enclave_if(far::is_far),
    Ret => choose(|instruction, _| match instruction.code() {
        Code::Retnq => ret_64 as Handler,
        Code::Retnq_imm16 => ret::<u64>,
        Code::Retnd | Code::Retnd_imm16 => ret::<u32>,
        _ => ret::<u16>,
    })
    .leaves(),
}

/// CALL, of which the near forms are here.
fn call(instruction: &Instruction, mode: Mode, op: Op) -> Option<Op> {
    if far::is_far(instruction) {
        return far::transfer(instruction, mode, op);
    }
    // The stack moves by the operand size.
    let size = instruction.stack_pointer_increment().unsigned_abs() as u8;
    if instruction.is_call_near() {
        let op = Op { size, ..op };
        return Some(match (mode.is_64(), size) {
            (true, _) => {
                // Where the next instruction is, relative to the block.
                let disp = u64::from(op.offset) + u64::from(op.len);
                Op { run: call_64, disp, ..op }
            }
            (false, 2) => Op { run: call_relative::<u16>, ..op },
            (false, _) => Op { run: call_relative::<u32>, ..op },
        });
    }
    let memory = op.mem_operand != NO_MEMORY;
    let run = match (mode.is_64(), size, memory) {
        (true, _, false) => call_indirect::<u64, false> as Handler,
        (true, _, true) => call_indirect::<u64, true>,
        (false, 2, false) => call_indirect::<u16, false>,
        (false, 2, true) => call_indirect::<u16, true>,
        (false, _, false) => call_indirect::<u32, false>,
        (false, _, true) => call_indirect::<u32, true>,
    };
    Some(Op { run, ..op })
}

extern "C" fn call_64(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = cpu.relative_target(op);
    let top = cpu.arch.gpr[Gpr::Rsp].wrapping_sub(8);
    let next = cpu.arch.gpr[usize::from(BLOCK_SLOT)].wrapping_add(op.disp);
    if !is_canonical(target) || !cpu.quick_store(top, next) {
        return call_relative::<u64>(cpu, op);
    }
    cpu.arch.gpr[Gpr::Rsp] = top;
    cpu.arch.rip = target;
    Ok(())
}

extern "C" fn call_relative<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    call_to::<T>(cpu, op, cpu.relative_target(op))
}

extern "C" fn call_indirect<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = operand_target::<T, MEMORY>(cpu, op)?;
    call_to::<T>(cpu, op, target)
}

/// Pushes the return address and branches.
///
/// The manual checks the target first (SDM Vol. 2A, CALL). Intel processors do not: #SS or #PF of
/// the push comes before the #GP(0) of a target that is not canonical or beyond the limit of CS,
/// which leaves the return address below the stack pointer that it keeps.
fn call_to<T: Int>(cpu: &mut Cpu, op: &Op, target: u64) -> Exec {
    let next = T::trunc(cpu.next_rip(op));
    let top = cpu.arch.gpr[Gpr::Rsp].wrapping_sub(T::SIZE as u64);
    cpu.stack_store(top, next)?;
    cpu.arch.rip = cpu.near_target(target, T::SIZE as u8)?;
    cpu.set_stack_pointer(top);
    Ok(())
}

extern "C" fn ret_64(cpu: &mut Cpu, op: &Op) -> Exec {
    let Some(target) = cpu.quick_load::<u64>(cpu.arch.gpr[Gpr::Rsp]).filter(|&to| is_canonical(to))
    else {
        return ret::<u64>(cpu, op);
    };
    cpu.arch.gpr[Gpr::Rsp] = cpu.arch.gpr[Gpr::Rsp].wrapping_add(8);
    cpu.arch.rip = target;
    Ok(())
}

/// RET with an operand size of `T`, with or without bytes to drop.
extern "C" fn ret<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = cpu.stack_load::<T>(cpu.arch.gpr[Gpr::Rsp])?.zext();
    let target = cpu.near_target(target, T::SIZE as u8)?;
    cpu.set_stack_pointer(cpu.arch.gpr[Gpr::Rsp].wrapping_add(T::SIZE as u64).wrapping_add(op.imm));
    cpu.arch.rip = target;
    Ok(())
}
