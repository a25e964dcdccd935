//! Binary arithmetic and logic: ADD, ADC, SUB, SBB, CMP, AND, OR, XOR, TEST, INC, DEC, NEG, NOT,
//! ADCX, ADOX.

use iced_x86::{Instruction, OpKind};

use super::by_size;
use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::flags::Flags;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, LOCK, NO_MEMORY, Op};

/// What an instruction with two operands computes.
trait Binary {
    /// Whether the result is kept.
    const WRITES: bool = true;
    /// The result; `cf` is CF before.
    fn value<T: Int>(a: T, b: T, cf: bool) -> T;
    /// Sets the flags after it.
    fn flags<T: Int>(flags: &mut Flags, a: T, b: T, result: T);
}

macro_rules! binary {
    ($name:ident, $writes:expr, |$a:ident, $b:ident, $cf:ident| $value:expr, $kind:ident) => {
        struct $name;
        impl Binary for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn value<T: Int>($a: T, $b: T, $cf: bool) -> T {
                $value
            }
            #[inline(always)]
            fn flags<T: Int>(flags: &mut Flags, a: T, b: T, result: T) {
                flags_after!($kind, flags, a, b, result);
            }
        }
    };
}
macro_rules! flags_after {
    (add, $flags:ident, $a:ident, $b:ident, $result:ident) => {
        $flags.add($a, $b, $result)
    };
    (sub, $flags:ident, $a:ident, $b:ident, $result:ident) => {
        $flags.sub($a, $b, $result)
    };
    (logic, $flags:ident, $a:ident, $b:ident, $result:ident) => {{
        let _ = ($a, $b);
        $flags.logic($result)
    }};
}

binary!(Add, true, |a, b, _cf| a.plus(b), add);
binary!(Adc, true, |a, b, cf| a.plus(b).plus(T::trunc(u64::from(cf))), add);
binary!(Sub, true, |a, b, _cf| a.minus(b), sub);
binary!(Sbb, true, |a, b, cf| a.minus(b).minus(T::trunc(u64::from(cf))), sub);
binary!(Cmp, false, |a, b, _cf| a.minus(b), sub);
binary!(And, true, |a, b, _cf| a & b, logic);
binary!(Or, true, |a, b, _cf| a | b, logic);
binary!(Xor, true, |a, b, _cf| a ^ b, logic);
binary!(Test, false, |a, b, _cf| a & b, logic);

/// What an instruction with one operand computes.
trait Unary {
    /// The result.
    fn value<T: Int>(a: T) -> T;
    /// Sets the flags after it.
    fn flags<T: Int>(flags: &mut Flags, a: T, result: T);
}

struct Inc;
impl Unary for Inc {
    #[inline(always)]
    fn value<T: Int>(a: T) -> T {
        a.plus(T::trunc(1))
    }
    #[inline(always)]
    fn flags<T: Int>(flags: &mut Flags, a: T, result: T) {
        let cf = flags.cf();
        flags.add(a, T::trunc(1), result);
        flags.set_cf(cf);
    }
}

struct Dec;
impl Unary for Dec {
    #[inline(always)]
    fn value<T: Int>(a: T) -> T {
        a.minus(T::trunc(1))
    }
    #[inline(always)]
    fn flags<T: Int>(flags: &mut Flags, a: T, result: T) {
        let cf = flags.cf();
        flags.sub(a, T::trunc(1), result);
        flags.set_cf(cf);
    }
}

struct Neg;
impl Unary for Neg {
    #[inline(always)]
    fn value<T: Int>(a: T) -> T {
        T::trunc(0).minus(a)
    }
    #[inline(always)]
    fn flags<T: Int>(flags: &mut Flags, a: T, result: T) {
        flags.sub(T::trunc(0), a, result);
    }
}

struct Not;
impl Unary for Not {
    #[inline(always)]
    fn value<T: Int>(a: T) -> T {
        !a
    }
    #[inline(always)]
    fn flags<T: Int>(_flags: &mut Flags, _a: T, _result: T) {}
}

rows! {
    Add => choose(binary_form::<Add>),
    Adc => choose(binary_form::<Adc>),
    Sub => choose(binary_form::<Sub>),
    Sbb => choose(binary_form::<Sbb>),
    Cmp => choose(binary_form::<Cmp>),
    And => choose(binary_form::<And>),
    Or => choose(binary_form::<Or>),
    Xor => choose(binary_form::<Xor>),
    Test => choose(binary_form::<Test>),
    Inc => choose(unary_form::<Inc>),
    Dec => choose(unary_form::<Dec>),
    Neg => choose(unary_form::<Neg>),
    Not => choose(unary_form::<Not>),
    Adcx => choose(carry_chain_form::<false>),
    Adox => choose(carry_chain_form::<true>),
}

fn binary_form<O: Binary>(instruction: &Instruction, op: &Op) -> Handler {
    let immediate = !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory);
    match (op.mem_operand, immediate) {
        (NO_MEMORY, false) => by_size!(op.size, register_register[O]),
        (NO_MEMORY, true) => by_size!(op.size, register_immediate[O]),
        (0, false) if op.prefix & LOCK != 0 => by_size!(op.size, locked[O, false]),
        (0, true) if op.prefix & LOCK != 0 => by_size!(op.size, locked[O, true]),
        (0, false) => by_size!(op.size, memory_register[O]),
        (0, true) => by_size!(op.size, memory_immediate[O]),
        _ => by_size!(op.size, register_memory[O]),
    }
}

fn unary_form<O: Unary>(_instruction: &Instruction, op: &Op) -> Handler {
    match op.mem_operand {
        NO_MEMORY => by_size!(op.size, unary_register[O]),
        _ if op.prefix & LOCK != 0 => by_size!(op.size, unary_locked[O]),
        _ => by_size!(op.size, unary_memory[O]),
    }
}

#[inline(always)]
fn finish<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op, a: T, b: T) {
    let result = O::value(a, b, cpu.arch.flags.cf());
    O::flags(&mut cpu.arch.flags, a, b, result);
    if O::WRITES {
        cpu.set_dst(op, result);
    }
}

extern "C" fn register_register<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (a, b) = (cpu.dst::<T>(op), cpu.src::<T>(op));
    finish::<T, O>(cpu, op, a, b);
    Ok(())
}

extern "C" fn register_immediate<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.dst::<T>(op);
    finish::<T, O>(cpu, op, a, T::trunc(op.imm));
    Ok(())
}

// Memory forms do the common case without a call, so that they need no stack frame, and leave the
// rest to a second function.

extern "C" fn register_memory<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op) -> Exec {
    let Some(b) = cpu.quick_operand::<T>(op) else {
        return register_memory_slow::<T, O>(cpu, op);
    };
    let a = cpu.dst::<T>(op);
    finish::<T, O>(cpu, op, a, b);
    Ok(())
}

#[inline(never)]
fn register_memory_slow<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = cpu.load_operand::<T>(op)?;
    let a = cpu.dst::<T>(op);
    finish::<T, O>(cpu, op, a, b);
    Ok(())
}

#[inline(always)]
fn memory<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op, b: T) -> Option<()> {
    let cf = cpu.arch.flags.cf();
    let a = if O::WRITES {
        cpu.quick_modify_operand::<T>(op, |a| O::value(a, b, cf))?
    } else {
        cpu.quick_operand::<T>(op)?
    };
    O::flags(&mut cpu.arch.flags, a, b, O::value(a, b, cf));
    Some(())
}

#[inline(never)]
fn memory_slow<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op, b: T) -> Exec {
    let cf = cpu.arch.flags.cf();
    if !O::WRITES {
        let a = cpu.load_operand::<T>(op)?;
        O::flags(&mut cpu.arch.flags, a, b, O::value(a, b, cf));
        return Ok(());
    }
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let (a, place) = cpu.open::<T>(la)?;
    let result = O::value(a, b, cf);
    cpu.close(place, result)?;
    O::flags(&mut cpu.arch.flags, a, b, result);
    Ok(())
}

extern "C" fn memory_register<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = cpu.src::<T>(op);
    match memory::<T, O>(cpu, op, b) {
        Some(()) => Ok(()),
        None => memory_slow::<T, O>(cpu, op, b),
    }
}

extern "C" fn memory_immediate<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op) -> Exec {
    match memory::<T, O>(cpu, op, T::trunc(op.imm)) {
        Some(()) => Ok(()),
        None => memory_slow::<T, O>(cpu, op, T::trunc(op.imm)),
    }
}

extern "C" fn locked<T: Int, O: Binary, const IMMEDIATE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = if IMMEDIATE { T::trunc(op.imm) } else { cpu.src::<T>(op) };
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let cf = cpu.arch.flags.cf();
    let a = cpu.locked::<T>(la, |a| O::value(a, b, cf))?;
    O::flags(&mut cpu.arch.flags, a, b, O::value(a, b, cf));
    Ok(())
}

extern "C" fn unary_register<T: Int, O: Unary>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.dst::<T>(op);
    let result = O::value(a);
    O::flags(&mut cpu.arch.flags, a, result);
    cpu.set_dst(op, result);
    Ok(())
}

extern "C" fn unary_memory<T: Int, O: Unary>(cpu: &mut Cpu, op: &Op) -> Exec {
    let Some(a) = cpu.quick_modify_operand::<T>(op, O::value) else {
        return unary_memory_slow::<T, O>(cpu, op);
    };
    O::flags(&mut cpu.arch.flags, a, O::value(a));
    Ok(())
}

#[inline(never)]
fn unary_memory_slow<T: Int, O: Unary>(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let (a, place) = cpu.open::<T>(la)?;
    let result = O::value(a);
    cpu.close(place, result)?;
    O::flags(&mut cpu.arch.flags, a, result);
    Ok(())
}

extern "C" fn unary_locked<T: Int, O: Unary>(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let a = cpu.locked::<T>(la, O::value)?;
    O::flags(&mut cpu.arch.flags, a, O::value(a));
    Ok(())
}

fn carry_chain_form<const OVERFLOW: bool>(_instruction: &Instruction, op: &Op) -> Handler {
    match (op.size, op.mem_operand != NO_MEMORY) {
        (8, false) => carry_chain::<u64, OVERFLOW, false> as Handler,
        (8, true) => carry_chain::<u64, OVERFLOW, true>,
        (_, false) => carry_chain::<u32, OVERFLOW, false>,
        (_, true) => carry_chain::<u32, OVERFLOW, true>,
    }
}

/// ADCX and ADOX: addition with carry through CF, or OF, alone.
extern "C" fn carry_chain<T: Int, const OVERFLOW: bool, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    let b = cpu.source::<T, MEMORY>(op)?;
    let a = cpu.dst::<T>(op);
    let (cf, of) = (cpu.arch.flags.cf(), cpu.arch.flags.of());
    let carry = if OVERFLOW { of } else { cf };
    let sum = u128::from(a.zext()) + u128::from(b.zext()) + u128::from(carry);
    let out = sum >> T::BITS != 0;
    if OVERFLOW {
        cpu.arch.flags.set_cf_of(cf, out);
    } else {
        cpu.arch.flags.set_cf_of(out, of);
    }
    cpu.set_dst(op, T::trunc(sum as u64));
    Ok(())
}
