//! BT, BTS, BTR, BTC.

use iced_x86::{Instruction, OpKind};

use super::by_size;
use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, LOCK, NO_MEMORY, Op};

/// What happens to the bit.
trait Change {
    /// Whether it changes at all.
    const WRITES: bool = true;
    /// The operand with the bit in `mask` changed.
    fn value<T: Int>(a: T, mask: T) -> T;
}

struct Keep;
impl Change for Keep {
    const WRITES: bool = false;
    #[inline(always)]
    fn value<T: Int>(a: T, _mask: T) -> T {
        a
    }
}

struct Set;
impl Change for Set {
    #[inline(always)]
    fn value<T: Int>(a: T, mask: T) -> T {
        a | mask
    }
}

struct Reset;
impl Change for Reset {
    #[inline(always)]
    fn value<T: Int>(a: T, mask: T) -> T {
        a & !mask
    }
}

struct Complement;
impl Change for Complement {
    #[inline(always)]
    fn value<T: Int>(a: T, mask: T) -> T {
        a ^ mask
    }
}

rows! {
    Bt => choose(form::<Keep>),
    Bts => choose(form::<Set>),
    Btr => choose(form::<Reset>),
    Btc => choose(form::<Complement>),
}

fn form<C: Change>(instruction: &Instruction, op: &Op) -> Handler {
    let by_register = instruction.op1_kind() == OpKind::Register;
    let memory = op.mem_operand != NO_MEMORY;
    match (memory, by_register, op.prefix & LOCK != 0) {
        (false, true, _) => by_size!(op.size, register[C, true]),
        (false, false, _) => by_size!(op.size, register[C, false]),
        (true, true, false) => by_size!(op.size, memory_form[C, true, false]),
        (true, false, false) => by_size!(op.size, memory_form[C, false, false]),
        (true, true, true) => by_size!(op.size, memory_form[C, true, true]),
        (true, false, true) => by_size!(op.size, memory_form[C, false, true]),
    }
}

#[inline(always)]
fn offset<T: Int, const BY_REGISTER: bool>(cpu: &Cpu, op: &Op) -> u64 {
    if BY_REGISTER { cpu.src::<T>(op).sext() } else { op.imm }
}

#[inline(always)]
fn bit<T: Int>(offset: u64) -> T {
    T::trunc(1 << (offset & u64::from(T::BITS - 1)))
}

/// ZF does not change; OF, SF, AF and PF, which are undefined, do not either.
#[inline(always)]
fn set_cf<T: Int>(cpu: &mut Cpu, a: T, mask: T) {
    cpu.arch.flags.set_cf((a & mask).zext() != 0);
}

extern "C" fn register<T: Int, C: Change, const BY_REGISTER: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let mask = bit::<T>(offset::<T, BY_REGISTER>(cpu, op));
    let a = cpu.dst::<T>(op);
    set_cf(cpu, a, mask);
    if C::WRITES {
        cpu.set_dst(op, C::value(a, mask));
    }
    Ok(())
}

/// An offset in a register is signed and reaches beyond the operand: the operand is then the start
/// of a bit string (SDM Vol. 2A, BT).
extern "C" fn memory_form<T: Int, C: Change, const BY_REGISTER: bool, const LOCKED: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    let offset = offset::<T, BY_REGISTER>(cpu, op);
    let mask = bit::<T>(offset);
    let operand = (offset as i64 >> T::BITS.trailing_zeros()) as u64;
    let bytes = if BY_REGISTER { operand.wrapping_mul(T::SIZE as u64) } else { 0 };
    let kind = if C::WRITES { AccessKind::Write } else { AccessKind::Read };
    let la = cpu.linear_plus(op, bytes, T::SIZE, kind)?;
    let a = if !C::WRITES {
        cpu.load::<T>(la)?
    } else if LOCKED {
        cpu.locked::<T>(la, |a| C::value(a, mask))?
    } else {
        let (a, place) = cpu.open::<T>(la)?;
        cpu.close(place, C::value(a, mask))?;
        a
    };
    set_cf(cpu, a, mask);
    Ok(())
}
