//! Shifts and rotates: SAL, SHL, SHR, SAR, ROL, ROR, RCL, RCR, and without flags RORX, SARX, SHLX,
//! SHRX.

use cloister_x86::Gpr;
use iced_x86::{Instruction, OpKind};

use super::by_size;
use crate::cpu::Cpu;
use crate::exec::table::{choose, rewrite, rows};
use crate::exit::Exec;
use crate::flags::Flags;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::mode::Mode;
use crate::op::{Handler, NO_MEMORY, Op};

/// The count as the processor masks it: 6 bits for 64-bit operands, else 5.
#[inline(always)]
#[must_use]
pub(crate) fn mask_count<T: Int>(count: u64) -> u32 {
    (count & if T::BITS == 64 { 63 } else { 31 }) as u32
}

/// What a shift or rotate computes.
trait Shift {
    /// The result for a masked count that is not 0; sets the flags. OF, which is defined for
    /// counts of 1 only, follows the same rule for all counts.
    fn apply<T: Int>(flags: &mut Flags, a: T, count: u32) -> T;
}

#[inline(always)]
fn top<T: Int>(value: T) -> bool {
    value.zext() >> (T::BITS - 1) != 0
}

#[inline(always)]
fn below_top<T: Int>(value: T) -> bool {
    value.zext() >> (T::BITS - 2) & 1 != 0
}

struct Shl;
impl Shift for Shl {
    #[inline(always)]
    fn apply<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let result = T::trunc(a.zext() << count);
        // Beyond the operand's width (8 and 16 bits) only zeros come out.
        let cf = count <= T::BITS && a.zext() >> (T::BITS - count.min(T::BITS)) & 1 != 0;
        flags.logic(result);
        flags.set_cf_of(cf, cf ^ top(result));
        result
    }
}

struct Shr;
impl Shift for Shr {
    #[inline(always)]
    fn apply<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let result = T::trunc(a.zext() >> count);
        flags.logic(result);
        flags.set_cf_of(a.zext() >> (count - 1) & 1 != 0, top(a));
        result
    }
}

struct Sar;
impl Shift for Sar {
    #[inline(always)]
    fn apply<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let wide = a.sext() as i64;
        let result = T::trunc((wide >> count) as u64);
        flags.logic(result);
        flags.set_cf_of(wide >> (count - 1) & 1 != 0, false);
        result
    }
}

#[inline(always)]
fn rotate_left<T: Int>(a: T, count: u32) -> T {
    let count = count % T::BITS;
    if count == 0 {
        return a;
    }
    T::trunc(a.zext() << count | a.zext() >> (T::BITS - count))
}

struct Rol;
impl Shift for Rol {
    #[inline(always)]
    fn apply<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let result = rotate_left(a, count);
        let cf = result.zext() & 1 != 0;
        flags.set_cf_of(cf, cf ^ top(result));
        result
    }
}

struct Ror;
impl Shift for Ror {
    #[inline(always)]
    fn apply<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let result = rotate_left(a, T::BITS - count % T::BITS);
        let cf = top(result);
        flags.set_cf_of(cf, cf ^ below_top(result));
        result
    }
}

/// Rotates CF and the operand, BITS + 1 bits in all, to the left.
#[inline(always)]
fn rotate_with_carry<T: Int>(a: T, cf: bool, count: u32) -> (T, bool) {
    let bits = T::BITS + 1;
    let all = u128::from(cf) << T::BITS | u128::from(a.zext());
    let count = count % bits;
    let rotated = all << count | all >> (bits - count);
    (T::trunc(rotated as u64), rotated >> T::BITS & 1 != 0)
}

struct Rcl;
impl Shift for Rcl {
    #[inline(always)]
    fn apply<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let (result, cf) = rotate_with_carry(a, flags.cf(), count);
        flags.set_cf_of(cf, cf ^ top(result));
        result
    }
}

struct Rcr;
impl Shift for Rcr {
    #[inline(always)]
    fn apply<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let left = T::BITS + 1 - count % (T::BITS + 1);
        let (result, cf) = rotate_with_carry(a, flags.cf(), left);
        flags.set_cf_of(cf, top(result) ^ below_top(result));
        result
    }
}

rows! {
    Shl | Sal => rewrite(form::<Shl>),
    Shr => rewrite(form::<Shr>),
    Sar => rewrite(form::<Sar>),
    Rol => rewrite(form::<Rol>),
    Ror => rewrite(form::<Ror>),
    Rcl => rewrite(form::<Rcl>),
    Rcr => rewrite(form::<Rcr>),
    Rorx => choose(flagless_form::<RotateRight>),
    Shlx => choose(flagless_form::<ShiftLeft>),
    Shrx => choose(flagless_form::<ShiftRight>),
    Sarx => choose(flagless_form::<ShiftRightSigned>),
}

fn form<S: Shift>(instruction: &Instruction, _mode: Mode, op: Op) -> Option<Op> {
    let by_cl = instruction.op1_kind() == OpKind::Register;
    let width_mask = if op.size == 8 { 63 } else { 31 };
    let imm = op.imm & width_mask;
    let run = match (op.mem_operand, by_cl) {
        // A count of 0 changes no flag, and a register only by clearing its upper half.
        (NO_MEMORY, false) if imm != 0 => by_size!(op.size, register_immediate[S]),
        (NO_MEMORY, _) => by_size!(op.size, register_count[S]),
        _ => by_size!(op.size, memory_count[S]),
    };
    Some(Op { run, imm, ..op })
}

/// The masked count of an instruction whose operand 1 is CL or an immediate.
#[inline(always)]
fn count<T: Int>(cpu: &Cpu, op: &Op) -> u32 {
    // With an immediate, `src` is 0: no register of that form has its number in `src`.
    if op.src == Gpr::Rcx as u8 { mask_count::<T>(cpu.arch.gpr[Gpr::Rcx]) } else { op.imm as u32 }
}

extern "C" fn register_immediate<T: Int, S: Shift>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.dst::<T>(op);
    let result = S::apply(&mut cpu.arch.flags, a, op.imm as u32);
    cpu.set_dst(op, result);
    Ok(())
}

extern "C" fn register_count<T: Int, S: Shift>(cpu: &mut Cpu, op: &Op) -> Exec {
    let count = count::<T>(cpu, op);
    let a = cpu.dst::<T>(op);
    let result = if count == 0 { a } else { S::apply(&mut cpu.arch.flags, a, count) };
    cpu.set_dst(op, result);
    Ok(())
}

extern "C" fn memory_count<T: Int, S: Shift>(cpu: &mut Cpu, op: &Op) -> Exec {
    let count = count::<T>(cpu, op);
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let (a, place) = cpu.open::<T>(la)?;
    let mut flags = cpu.arch.flags;
    let result = if count == 0 { a } else { S::apply(&mut flags, a, count) };
    cpu.close(place, result)?;
    cpu.arch.flags = flags;
    Ok(())
}

/// What a shift without flags computes.
trait Flagless {
    /// The result; `count` is masked.
    fn value<T: Int>(a: T, count: u32) -> T;
    /// Whether the count is an immediate.
    const IMMEDIATE: bool = false;
}

struct RotateRight;
impl Flagless for RotateRight {
    const IMMEDIATE: bool = true;
    #[inline(always)]
    fn value<T: Int>(a: T, count: u32) -> T {
        rotate_left(a, T::BITS - count)
    }
}

struct ShiftLeft;
impl Flagless for ShiftLeft {
    #[inline(always)]
    fn value<T: Int>(a: T, count: u32) -> T {
        T::trunc(a.zext() << count)
    }
}

struct ShiftRight;
impl Flagless for ShiftRight {
    #[inline(always)]
    fn value<T: Int>(a: T, count: u32) -> T {
        T::trunc(a.zext() >> count)
    }
}

struct ShiftRightSigned;
impl Flagless for ShiftRightSigned {
    #[inline(always)]
    fn value<T: Int>(a: T, count: u32) -> T {
        T::trunc((a.sext() as i64 >> count) as u64)
    }
}

fn flagless_form<S: Flagless>(_instruction: &Instruction, op: &Op) -> Handler {
    match (op.size, op.mem_operand != NO_MEMORY) {
        (8, false) => flagless::<u64, S, false> as Handler,
        (8, true) => flagless::<u64, S, true>,
        (_, false) => flagless::<u32, S, false>,
        (_, true) => flagless::<u32, S, true>,
    }
}

extern "C" fn flagless<T: Int, S: Flagless, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.source::<T, MEMORY>(op)?;
    let count = if S::IMMEDIATE { op.imm } else { cpu.reg::<u64>(op.third, false) };
    cpu.set_dst(op, S::value(a, mask_count::<T>(count)));
    Ok(())
}
