//! Comparison of packed integers, and PTEST with its AVX relatives.

use cloister_x86::regs::Rflags;
use iced_x86::{Instruction, Mnemonic};

use crate::cpu::Cpu;
use crate::exec::vector::form::{by_form, packed};
use crate::exec::vector::lane::zip;
use crate::exit::Exec;
use crate::op::{Handler, Op, VEX_256};

/// The handler of a comparison.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{
        Pcmpeqb, Pcmpeqd, Pcmpeqq, Pcmpeqw, Pcmpgtb, Pcmpgtd, Pcmpgtq, Pcmpgtw, Ptest, Vpcmpeqb,
        Vpcmpeqd, Vpcmpeqq, Vpcmpeqw, Vpcmpgtb, Vpcmpgtd, Vpcmpgtq, Vpcmpgtw, Vptest, Vtestpd,
        Vtestps,
    };
    /// All ones where the comparison holds.
    macro_rules! compare {
        ($t:ty, $operator:tt) => {
            packed!(instruction, op, |a, b| zip(a, b, |a: $t, b| if a $operator b { !0 } else { 0 }))
        };
    }
    macro_rules! test {
        ($mask:expr) => {{
            fn run<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
                test::<FORM, KIND>(cpu, op, $mask)
            }
            by_form!(op, run, M128)
        }};
    }
    Some(match instruction.mnemonic() {
        Pcmpeqb | Vpcmpeqb => compare!(i8, ==),
        Pcmpeqw | Vpcmpeqw => compare!(i16, ==),
        Pcmpeqd | Vpcmpeqd => compare!(i32, ==),
        Pcmpeqq | Vpcmpeqq => compare!(i64, ==),
        Pcmpgtb | Vpcmpgtb => compare!(i8, >),
        Pcmpgtw | Vpcmpgtw => compare!(i16, >),
        Pcmpgtd | Vpcmpgtd => compare!(i32, >),
        Pcmpgtq | Vpcmpgtq => compare!(i64, >),
        Ptest | Vptest => test!(u64::MAX),
        Vtestps => test!(0x8000_0000_8000_0000),
        Vtestpd => test!(1 << 63),
        _ => return None,
    })
}

/// PTEST, VTESTPS and VTESTPD: ZF says whether `a AND b` is zero, CF whether `NOT a AND b` is, in
/// the bits of each quadword that `mask` has.
#[inline(always)]
fn test<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op, mask: u64) -> Exec {
    cpu.check_form::<FORM>()?;
    let (a, b) = if FORM == VEX_256 {
        (cpu.arch.vector.ymm(op.dst), cpu.ymm_source::<KIND>(op)?)
    } else {
        ([cpu.arch.vector.xmm(op.dst), [0; 2]], [cpu.xmm_source::<FORM, KIND>(op)?, [0; 2]])
    };
    let (mut both, mut only_b) = (0, 0);
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        both |= a & b;
        only_b |= !a & b;
    }
    let mut flags = Rflags::empty();
    flags.set(Rflags::ZF, both & mask == 0);
    flags.set(Rflags::CF, only_b & mask == 0);
    cpu.arch.flags.set_bits(flags.bits());
    Ok(())
}
