//! SHLD and SHRD.

use cloister_x86::Gpr;
use iced_x86::{Instruction, OpKind};

use super::by_size;
use super::shift::mask_count;
use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::flags::Flags;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, NO_MEMORY, Op};

rows! {
    Shld => choose(form::<true>),
    Shrd => choose(form::<false>),
}

fn form<const LEFT: bool>(instruction: &Instruction, op: &Op) -> Handler {
    let by_cl = instruction.op2_kind() == OpKind::Register;
    match (by_cl, op.mem_operand != NO_MEMORY) {
        (true, false) => by_size!(op.size, register[LEFT, true]),
        (false, false) => by_size!(op.size, register[LEFT, false]),
        (true, true) => by_size!(op.size, memory_form[LEFT, true]),
        (false, true) => by_size!(op.size, memory_form[LEFT, false]),
    }
}

#[inline(always)]
fn count<T: Int, const BY_CL: bool>(cpu: &Cpu, op: &Op) -> u32 {
    mask_count::<T>(if BY_CL { cpu.arch.gpr[Gpr::Rcx] } else { op.imm })
}

/// The result for a count that is not 0; sets the flags. For 16-bit operands with a count beyond
/// 16, whose result the SDM leaves undefined, the source's bits are followed by themselves again.
#[inline(always)]
fn apply<T: Int, const LEFT: bool>(flags: &mut Flags, a: T, b: T, count: u32) -> T {
    let bits = T::BITS;
    let (low, high) = (u128::from(a.zext()), u128::from(b.zext()));
    let (result, cf) = if LEFT {
        let wide = low << bits | high;
        if bits == 16 {
            let wide = wide << 16 | high;
            (wide << count >> 32, wide >> (48 - count) & 1 != 0)
        } else {
            (wide << count >> bits, wide >> (2 * bits - count) & 1 != 0)
        }
    } else {
        let mut wide = high << bits | low;
        if bits == 16 {
            wide |= high << 32;
        }
        (wide >> count, wide >> (count - 1) & 1 != 0)
    };
    let result = T::trunc(result as u64);
    flags.logic(result);
    flags.set_cf_of(cf, (result.sext() ^ a.sext()) >> 63 != 0);
    result
}

extern "C" fn register<T: Int, const LEFT: bool, const BY_CL: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    let count = count::<T, BY_CL>(cpu, op);
    let (a, b) = (cpu.dst::<T>(op), cpu.src::<T>(op));
    let result = if count == 0 { a } else { apply::<T, LEFT>(&mut cpu.arch.flags, a, b, count) };
    cpu.set_dst(op, result);
    Ok(())
}

extern "C" fn memory_form<T: Int, const LEFT: bool, const BY_CL: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    let count = count::<T, BY_CL>(cpu, op);
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let (a, place) = cpu.open::<T>(la)?;
    let b = cpu.src::<T>(op);
    let mut flags = cpu.arch.flags;
    let result = if count == 0 { a } else { apply::<T, LEFT>(&mut flags, a, b, count) };
    cpu.close(place, result)?;
    cpu.arch.flags = flags;
    Ok(())
}
