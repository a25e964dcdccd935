//! Shifts of packed integers.

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::exec::vector::form::packed;
use crate::exec::vector::lane::{Lane, map};
use crate::op::{Handler, Op};
use crate::state::{Cpu, Exec};

/// The handler of a shift: the count is a register, memory (both 64 bits of it) or an immediate.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{Pslld, Pslldq, Psllq, Psllw, Psrad, Psraw, Psrld, Psrldq, Psrlq, Psrlw};
    macro_rules! shift {
        ($f:ident) => {
            if instruction.op1_kind() != OpKind::Immediate8 {
                packed!(instruction, op, |a, b: Lane| $f(a, b[0]))
            } else if instruction.op0_register().is_mm() {
                |cpu, op| by_immediate_mmx(cpu, op, |a| $f([a, 0], op.imm & 0xff)[0])
            } else {
                |cpu, op| by_immediate(cpu, op, |a| $f(a, op.imm & 0xff))
            }
        };
    }
    Some(match instruction.mnemonic() {
        Psllw => shift!(psllw),
        Pslld => shift!(pslld),
        Psllq => shift!(psllq),
        Psrlw => shift!(psrlw),
        Psrld => shift!(psrld),
        Psrlq => shift!(psrlq),
        Psraw => shift!(psraw),
        Psrad => shift!(psrad),
        Pslldq => |cpu, op| by_immediate(cpu, op, |a| pslldq(a, op.imm as u8)),
        Psrldq => |cpu, op| by_immediate(cpu, op, |a| psrldq(a, op.imm as u8)),
        _ => return None,
    })
}

#[inline(always)]
fn by_immediate(cpu: &mut Cpu, op: &Op, f: impl Fn(Lane) -> Lane) -> Exec {
    cpu.check_sse()?;
    let a = cpu.vector.xmm(op.dst);
    cpu.vector.set_xmm(op.dst, f(a));
    Ok(())
}

#[inline(always)]
fn by_immediate_mmx(cpu: &mut Cpu, op: &Op, f: impl Fn(u64) -> u64) -> Exec {
    cpu.check_mmx()?;
    let a = cpu.mmx(op.dst);
    cpu.set_mmx(op.dst, f(a));
    Ok(())
}

macro_rules! logical {
    ($($name:ident, $mnemonic:literal, $t:ty, $operator:tt);*) => {$(
        #[doc = $mnemonic]
        #[doc = ": a count as wide as the element or more gives zero."]
        #[inline(always)]
        #[must_use]
        pub fn $name(a: Lane, count: u64) -> Lane {
            if count >= u64::from(<$t>::BITS) {
                return [0; 2];
            }
            map(a, |a: $t| a $operator count)
        }
    )*};
}
logical!(
    psllw, "PSLLW", u16, <<; pslld, "PSLLD", u32, <<; psllq, "PSLLQ", u64, <<;
    psrlw, "PSRLW", u16, >>; psrld, "PSRLD", u32, >>; psrlq, "PSRLQ", u64, >>
);

/// PSRAW: a count of 16 or more fills with the sign.
#[inline(always)]
#[must_use]
pub fn psraw(a: Lane, count: u64) -> Lane {
    let count = count.min(15);
    map(a, |a: i16| a >> count)
}

/// PSRAD: a count of 32 or more fills with the sign.
#[inline(always)]
#[must_use]
pub fn psrad(a: Lane, count: u64) -> Lane {
    let count = count.min(31);
    map(a, |a: i32| a >> count)
}

/// PSLLDQ: a shift by bytes.
#[inline(always)]
#[must_use]
pub fn pslldq(a: Lane, bytes: u8) -> Lane {
    let bits = u32::from(bytes) * 8;
    match bits {
        0 => a,
        1..64 => [a[0] << bits, a[1] << bits | a[0] >> (64 - bits)],
        64..128 => [0, a[0] << (bits - 64)],
        _ => [0; 2],
    }
}

/// PSRLDQ: a shift by bytes.
#[inline(always)]
#[must_use]
pub fn psrldq(a: Lane, bytes: u8) -> Lane {
    let bits = u32::from(bytes) * 8;
    match bits {
        0 => a,
        1..64 => [a[0] >> bits | a[1] << (64 - bits), a[1] >> bits],
        64..128 => [a[1] >> (bits - 64), 0],
        _ => [0; 2],
    }
}
