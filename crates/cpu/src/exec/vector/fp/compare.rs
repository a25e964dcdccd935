//! CMPPS and its forms, COMISS and UCOMISS (SDM Vol. 2A, CMPPD, COMISD).

use cloister_float::{Comparison, Env, Format, Relation, compare};
use cloister_x86::regs::Rflags;

use crate::cpu::Cpu;
use crate::exec::table::{choose, float_rows, rewrite};
use crate::exec::vector::form::{M32, M64, REGISTER, sse_float_imm, with_low, with_low32};
use crate::exec::vector::lane::{Lane, zip_with};
use crate::exit::Exec;
use crate::op::{Handler, LEGACY, NO_MEMORY, Op, VEX_128};

/// Picks an instance of a handler that is generic over the kind of its source.
macro_rules! by_kind {
    ($op:expr, $handler:ident, $kind:ident) => {
        if $op.mem_operand == NO_MEMORY {
            $handler::<REGISTER> as Handler
        } else {
            $handler::<$kind>
        }
    };
}
/// A comparison by the predicate that the immediate names.
macro_rules! compare {
    ($kind:ident, $f:expr) => {
        |_, _, op| {
            let imm = op.imm & predicates(&op);
            Some(Op { run: sse_float_imm!(op, $kind, $f), imm, ..op })
        }
    };
}

float_rows! {
    Cmpps | Vcmpps => rewrite(compare!(M128, |env: &mut Env, a, b, predicate| {
        zip_with(env, a, b, |env, a: u32, b| if holds(env, a, b, predicate) { !0 } else { 0 })
    })),
    Cmppd | Vcmppd => rewrite(compare!(M128, |env: &mut Env, a, b, predicate| {
        zip_with(env, a, b, |env, a: u64, b| if holds(env, a, b, predicate) { !0 } else { 0 })
    })),
    Cmpss | Vcmpss => rewrite(compare!(M32, |env: &mut Env, a: Lane, b: Lane, predicate| {
        let holds = holds(env, a[0] as u32, b[0] as u32, predicate);
        with_low32(a, if holds { !0 } else { 0 })
    })),
    // CMPSD, which is also the name of a string instruction, has its row there.
    Vcmpsd => rewrite(|_, _, op| cmpsd(op)),
    Comiss | Vcomiss => choose(|_, op| by_kind!(op, comiss, M32)),
    Ucomiss | Vucomiss => choose(|_, op| by_kind!(op, ucomiss, M32)),
    Comisd | Vcomisd => choose(|_, op| by_kind!(op, comisd, M64)),
    Ucomisd | Vucomisd => choose(|_, op| by_kind!(op, ucomisd, M64)),
}

/// CMPSD and VCMPSD of XMM registers.
pub(in crate::exec) fn cmpsd(op: Op) -> Option<Op> {
    let imm = op.imm & predicates(&op);
    let run = sse_float_imm!(op, M64, |env: &mut Env, a: Lane, b: Lane, predicate| {
        with_low(a, if holds(env, a[0], b[0], predicate) { !0 } else { 0 })
    });
    Some(Op { run, imm, ..op })
}

/// The bits of the immediate that name a predicate: without a VEX prefix there are eight.
const fn predicates(op: &Op) -> u64 {
    if op.vex == LEGACY { 7 } else { 0x1f }
}

/// Whether a predicate of CMPPS holds (SDM Vol. 2A, table 3-1): bits 1:0 choose among equal, less,
/// less or equal and unordered, bit 3 inverts the answer for unordered operands, bit 2 then the
/// whole. The less-than ones object to quiet NaNs, or with bit 4 the others.
#[inline(always)]
pub(crate) fn holds<F: Format>(env: &mut Env, a: F, b: F, predicate: u8) -> bool {
    let bit = |n: u8| predicate >> n & 1 != 0;
    let signaling = matches!(predicate & 3, 1 | 2) != bit(4);
    let comparison = if signaling { Comparison::Signaling } else { Comparison::Quiet };
    let relation = compare(env, a, b, comparison);
    let basic = match predicate & 3 {
        0 => relation == Relation::Equal,
        1 => relation == Relation::Less,
        2 => matches!(relation, Relation::Less | Relation::Equal),
        _ => relation == Relation::Unordered,
    };
    (basic != (bit(3) && relation == Relation::Unordered)) != bit(2)
}

#[inline(always)]
fn set_flags<F: Format>(cpu: &mut Cpu, a: F, b: F, comparison: Comparison) -> Exec {
    let relation = cpu.simd(|env| compare(env, a, b, comparison))?;
    let flags = match relation {
        Relation::Unordered => Rflags::ZF | Rflags::PF | Rflags::CF,
        Relation::Greater => Rflags::empty(),
        Relation::Less => Rflags::CF,
        Relation::Equal => Rflags::ZF,
    };
    cpu.arch.flags.set_bits(flags.bits());
    Ok(())
}

macro_rules! ordered {
    ($($name:ident, $t:ty, $comparison:ident);*) => {$(
        extern "C" fn $name<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
            cpu.check_vector(op)?;
            let b = cpu.xmm_source::<VEX_128, KIND>(op)?[0] as $t;
            let a = cpu.arch.vector.xmm(op.dst)[0] as $t;
            set_flags(cpu, a, b, Comparison::$comparison)
        }
    )*};
}
ordered!(
    comiss, u32, Signaling; ucomiss, u32, Quiet; comisd, u64, Signaling; ucomisd, u64, Quiet
);
