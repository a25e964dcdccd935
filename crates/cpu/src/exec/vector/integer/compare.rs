//! Comparison of packed integers, and PTEST with its AVX relatives.

use cloister_x86::regs::Rflags;

use crate::cpu::Cpu;
use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{by_form, packed};
use crate::exec::vector::lane::zip;
use crate::exit::Exec;
use crate::op::{Op, VEX_256};

/// All ones where the comparison holds.
macro_rules! compare {
    ($t:ty, $operator:tt) => {
        packed!(|a, b| zip(a, b, |a: $t, b| if a $operator b { !0 } else { 0 }))
    };
}
macro_rules! test {
    ($mask:expr) => {
        |_, op| {
            extern "C" fn run<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
                test::<FORM, KIND>(cpu, op, $mask)
            }
            by_form!(op, run, M128)
        }
    };
}

vector_rows! {
    Pcmpeqb | Vpcmpeqb => choose(compare!(i8, ==)),
    Pcmpeqw | Vpcmpeqw => choose(compare!(i16, ==)),
    Pcmpeqd | Vpcmpeqd => choose(compare!(i32, ==)),
    Pcmpeqq | Vpcmpeqq => choose(compare!(i64, ==)),
    Pcmpgtb | Vpcmpgtb => choose(compare!(i8, >)),
    Pcmpgtw | Vpcmpgtw => choose(compare!(i16, >)),
    Pcmpgtd | Vpcmpgtd => choose(compare!(i32, >)),
    Pcmpgtq | Vpcmpgtq => choose(compare!(i64, >)),
    Ptest | Vptest => choose(test!(u64::MAX)),
    Vtestps => choose(test!(0x8000_0000_8000_0000)),
    Vtestpd => choose(test!(1 << 63)),
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
