//! Near jumps: JMP, Jcc, JCXZ, JECXZ, JRCXZ, LOOP, LOOPE, LOOPNE.

use cloister_x86::Gpr;
use cloister_x86::addr::is_canonical;
use cloister_x86::segment::seg;
use iced_x86::{Code, Instruction, OpKind};

use super::condition::{self, by_condition, holds};
use crate::cpu::Cpu;
use crate::exec::system::far;
use crate::exec::table::{rewrite, rows};
use crate::exit::{Exec, Stop};
use crate::mode::Mode;
use crate::op::{BLOCK_SLOT, Handler, NO_MEMORY, Op};

rows! {
    Jmp => rewrite(jump).leaves().illegal_in_enclave_if(far::is_far),
    Jcxz | Jecxz | Jrcxz => rewrite(|i, _, op| counted(i, op, jump_if_counter_zero)).branches(),
    Loop => rewrite(|i, _, op| counted(i, op, repeat::<ANY>)).branches(),
    Loope => rewrite(|i, _, op| counted(i, op, repeat::<WHILE_EQUAL>)).branches(),
    Loopne => rewrite(|i, _, op| counted(i, op, repeat::<WHILE_NOT_EQUAL>)).branches(),
    Ja | Jae | Jb | Jbe | Je | Jg | Jge | Jl | Jle | Jne | Jno | Jnp | Jns | Jo | Jp | Js =>
        rewrite(conditional).branches(),
}

/// JMP, of which the near forms are here.
fn jump(instruction: &Instruction, mode: Mode, op: Op) -> Option<Op> {
    match instruction.op0_kind() {
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            let run = if mode.is_64() { jump_64 as Handler } else { jump_legacy };
            Some(Op { run, size: target_size(instruction), ..op })
        }
        OpKind::Register | OpKind::Memory if !instruction.is_jmp_far_indirect() => {
            Some(Op { run: indirect_form(mode, &op), ..op })
        }
        _ => far::transfer(instruction, mode, op),
    }
}

/// A branch that depends on CX, ECX or RCX.
fn counted(instruction: &Instruction, op: Op, run: Handler) -> Option<Op> {
    let addr_size = counter_size(instruction.code());
    Some(Op { run, size: target_size(instruction), addr_size, ..op })
}

fn conditional(instruction: &Instruction, mode: Mode, op: Op) -> Option<Op> {
    let code = condition::code(instruction);
    let run = if mode.is_64() {
        by_condition!(code, jump_if_64)
    } else {
        by_condition!(code, jump_if_legacy)
    };
    Some(Op { run, size: target_size(instruction), ..op })
}

/// Operand size of a relative branch in bytes.
fn target_size(instruction: &Instruction) -> u8 {
    match instruction.op0_kind() {
        OpKind::NearBranch16 => 2,
        OpKind::NearBranch32 => 4,
        _ => 8,
    }
}

/// Bytes of the counter that a LOOP or JCXZ has: the address size.
fn counter_size(code: Code) -> u8 {
    use Code::{
        Jcxz_rel8_16, Jcxz_rel8_32, Jrcxz_rel8_16, Jrcxz_rel8_64, Loop_rel8_16_CX,
        Loop_rel8_16_RCX, Loop_rel8_32_CX, Loop_rel8_64_RCX, Loope_rel8_16_CX, Loope_rel8_16_RCX,
        Loope_rel8_32_CX, Loope_rel8_64_RCX, Loopne_rel8_16_CX, Loopne_rel8_16_RCX,
        Loopne_rel8_32_CX, Loopne_rel8_64_RCX,
    };
    match code {
        Jcxz_rel8_16 | Jcxz_rel8_32 | Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX
        | Loope_rel8_32_CX | Loopne_rel8_16_CX | Loopne_rel8_32_CX => 2,
        Jrcxz_rel8_16 | Jrcxz_rel8_64 | Loop_rel8_16_RCX | Loop_rel8_64_RCX | Loope_rel8_16_RCX
        | Loope_rel8_64_RCX | Loopne_rel8_16_RCX | Loopne_rel8_64_RCX => 8,
        _ => 4,
    }
}

impl Cpu {
    /// Checks a near branch's target against the address space or CS (SDM Vol. 2A, JMP): the
    /// instruction pointer to use, for an operand size in bytes.
    ///
    /// # Errors
    ///
    /// #GP(0).
    #[inline(always)]
    pub(crate) fn near_target(&mut self, target: u64, size: u8) -> Exec<u64> {
        if self.run.mode.is_64() {
            if is_canonical(target) { Ok(target) } else { Err(self.gp(0)) }
        } else {
            self.near_target_legacy(target, size)
        }
    }

    #[inline(never)]
    fn near_target_legacy(&mut self, target: u64, size: u8) -> Exec<u64> {
        let target = target & if size == 2 { 0xffff } else { 0xffff_ffff };
        if target > u64::from(self.arch.segs[seg::CS].limit) {
            return Err(self.gp(0));
        }
        Ok(target)
    }

    /// The target of a relative branch.
    #[inline(always)]
    pub(super) fn relative_target(&self, op: &Op) -> u64 {
        self.arch.gpr[usize::from(BLOCK_SLOT)].wrapping_add(op.imm)
    }
}

extern "C" fn jump_64(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = cpu.relative_target(op);
    if !is_canonical(target) {
        return Err(cpu.gp(0));
    }
    cpu.arch.rip = target;
    Ok(())
}

extern "C" fn jump_legacy(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.arch.rip = cpu.near_target_legacy(cpu.relative_target(op), op.size)?;
    Ok(())
}

// A conditional branch that is taken leaves its block; one that is not lets the block go on.

extern "C" fn jump_if_64<const CODE: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    if !holds::<CODE>(&cpu.arch.flags) {
        return Ok(());
    }
    let target = cpu.relative_target(op);
    if !is_canonical(target) {
        return Err(cpu.gp(0));
    }
    cpu.arch.rip = target;
    Err(Stop::JUMP)
}

#[inline(always)]
fn branch(cpu: &mut Cpu, op: &Op, taken: bool) -> Exec {
    if !taken {
        return Ok(());
    }
    cpu.arch.rip = cpu.near_target(cpu.relative_target(op), op.size)?;
    Err(Stop::JUMP)
}

extern "C" fn jump_if_legacy<const CODE: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    let taken = holds::<CODE>(&cpu.arch.flags);
    branch(cpu, op, taken)
}

/// Ones in the bits of RCX that the address size uses.
#[inline(always)]
fn counter_mask(op: &Op) -> u64 {
    match op.addr_size {
        8 => u64::MAX,
        4 => 0xffff_ffff,
        _ => 0xffff,
    }
}

extern "C" fn jump_if_counter_zero(cpu: &mut Cpu, op: &Op) -> Exec {
    let taken = cpu.arch.gpr[Gpr::Rcx] & counter_mask(op) == 0;
    branch(cpu, op, taken)
}

const ANY: u8 = 0;
const WHILE_EQUAL: u8 = 1;
const WHILE_NOT_EQUAL: u8 = 2;

/// LOOP, LOOPE, LOOPNE. The counter changes only if the branch does not fault.
extern "C" fn repeat<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    let count = cpu.arch.gpr[Gpr::Rcx].wrapping_sub(1);
    let taken = count & counter_mask(op) != 0
        && match KIND {
            ANY => true,
            WHILE_EQUAL => cpu.arch.flags.zf(),
            _ => !cpu.arch.flags.zf(),
        };
    let outcome = branch(cpu, op, taken);
    if matches!(outcome, Ok(()) | Err(Stop::JUMP)) {
        match op.addr_size {
            8 => cpu.set_reg(1, false, count),
            4 => cpu.set_reg(1, false, count as u32),
            _ => cpu.set_reg(1, false, count as u16),
        }
    }
    outcome
}

fn indirect_form(mode: Mode, op: &Op) -> Handler {
    let memory = op.mem_operand != NO_MEMORY;
    match (mode.is_64(), op.size, memory) {
        (true, _, false) => indirect_64::<false>,
        (true, _, true) => indirect_64::<true>,
        (false, 2, false) => indirect_legacy::<u16, false>,
        (false, 2, true) => indirect_legacy::<u16, true>,
        (false, _, false) => indirect_legacy::<u32, false>,
        (false, _, true) => indirect_legacy::<u32, true>,
    }
}

/// The target of an indirect near branch: operand 0.
#[inline(always)]
pub(super) fn operand_target<T: crate::mem::Int, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Result<u64, Stop> {
    let target = if MEMORY { cpu.load_operand::<T>(op)? } else { cpu.dst::<T>(op) };
    Ok(target.zext())
}

extern "C" fn indirect_64<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = operand_target::<u64, MEMORY>(cpu, op)?;
    if !is_canonical(target) {
        return Err(cpu.gp(0));
    }
    cpu.arch.rip = target;
    Ok(())
}

extern "C" fn indirect_legacy<T: crate::mem::Int, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    let target = operand_target::<T, MEMORY>(cpu, op)?;
    cpu.arch.rip = cpu.near_target_legacy(target, T::SIZE as u8)?;
    Ok(())
}
