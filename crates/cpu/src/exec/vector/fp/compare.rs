//! CMPPS and its forms, COMISS and UCOMISS (SDM Vol. 2A, CMPPD, COMISD).

use cloister_x86::regs::Rflags;
use iced_x86::{Code, Instruction, Mnemonic};

use crate::exec::vector::form::{M32, M64, REGISTER, sse_float_imm, with_low, with_low32};
use crate::exec::vector::lane::zip_with;
use crate::float::{Comparison, Env, Format, Relation, compare};
use crate::op::{Handler, NO_MEMORY, Op};
use crate::state::{Cpu, Exec};

/// The handler of a comparison.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{Cmppd, Cmpps, Cmpsd, Cmpss, Comisd, Comiss, Ucomisd, Ucomiss};
    let memory = op.mem_operand != NO_MEMORY;
    Some(match instruction.mnemonic() {
        Cmpps => sse_float_imm!(op, M128, |env: &mut Env, a, b, imm| {
            zip_with(env, a, b, |env, a: u32, b| if holds(env, a, b, imm) { !0 } else { 0 })
        }),
        Cmppd => sse_float_imm!(op, M128, |env: &mut Env, a, b, imm| {
            zip_with(env, a, b, |env, a: u64, b| if holds(env, a, b, imm) { !0 } else { 0 })
        }),
        Cmpss => sse_float_imm!(op, M32, |env: &mut Env, a: [u64; 2], b: [u64; 2], imm| {
            let holds = holds(env, a[0] as u32, b[0] as u32, imm);
            with_low32(a, if holds { !0 } else { 0 })
        }),
        // CMPSD is also the name of a string instruction.
        Cmpsd if instruction.code() == Code::Cmpsd_xmm_xmmm64_imm8 => {
            sse_float_imm!(op, M64, |env: &mut Env, a: [u64; 2], b: [u64; 2], imm| {
                with_low(a, if holds(env, a[0], b[0], imm) { !0 } else { 0 })
            })
        }
        Comiss if memory => comiss::<M32>,
        Comiss => comiss::<REGISTER>,
        Ucomiss if memory => ucomiss::<M32>,
        Ucomiss => ucomiss::<REGISTER>,
        Comisd if memory => comisd::<M64>,
        Comisd => comisd::<REGISTER>,
        Ucomisd if memory => ucomisd::<M64>,
        Ucomisd => ucomisd::<REGISTER>,
        _ => return None,
    })
}

/// Whether a predicate of CMPPS holds: bit 2 of the immediate negates equal, less, less or equal
/// and unordered; the less-than ones object to quiet NaNs (SDM Vol. 2A, table 3-1).
#[inline(always)]
pub fn holds<F: Format>(env: &mut Env, a: F, b: F, imm: u8) -> bool {
    let comparison =
        if matches!(imm & 3, 1 | 2) { Comparison::Signaling } else { Comparison::Quiet };
    let relation = compare(env, a, b, comparison);
    let holds = match imm & 3 {
        0 => relation == Relation::Equal,
        1 => relation == Relation::Less,
        2 => matches!(relation, Relation::Less | Relation::Equal),
        _ => relation == Relation::Unordered,
    };
    holds != (imm & 4 != 0)
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
    cpu.flags.set_bits(flags.bits());
    Ok(())
}

macro_rules! ordered {
    ($($name:ident, $t:ty, $comparison:ident);*) => {$(
        fn $name<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
            cpu.check_sse()?;
            let b = cpu.xmm_source::<KIND>(op)?[0] as $t;
            let a = cpu.vector.xmm(op.dst)[0] as $t;
            set_flags(cpu, a, b, Comparison::$comparison)
        }
    )*};
}
ordered!(
    comiss, u32, Signaling; ucomiss, u32, Quiet; comisd, u64, Signaling; ucomisd, u64, Quiet
);
