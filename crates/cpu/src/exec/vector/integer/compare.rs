//! Comparison of packed integers, and PTEST.

use cloister_x86::regs::Rflags;
use iced_x86::{Instruction, Mnemonic};

use crate::exec::vector::form::{self, packed};
use crate::exec::vector::lane::zip;
use crate::op::{Handler, NO_MEMORY, Op};
use crate::state::{Cpu, Exec};

/// The handler of a comparison.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{Pcmpeqb, Pcmpeqd, Pcmpeqq, Pcmpeqw, Pcmpgtb, Pcmpgtd, Pcmpgtq, Pcmpgtw, Ptest};
    /// All ones where the comparison holds.
    macro_rules! compare {
        ($t:ty, $operator:tt) => {
            packed!(instruction, op, |a, b| zip(a, b, |a: $t, b| if a $operator b { !0 } else { 0 }))
        };
    }
    Some(match instruction.mnemonic() {
        Pcmpeqb => compare!(i8, ==),
        Pcmpeqw => compare!(i16, ==),
        Pcmpeqd => compare!(i32, ==),
        Pcmpeqq => compare!(i64, ==),
        Pcmpgtb => compare!(i8, >),
        Pcmpgtw => compare!(i16, >),
        Pcmpgtd => compare!(i32, >),
        Pcmpgtq => compare!(i64, >),
        Ptest if op.mem_operand == NO_MEMORY => ptest::<{ form::REGISTER }>,
        Ptest => ptest::<{ form::M128 }>,
        _ => return None,
    })
}

fn ptest<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_sse()?;
    let b = cpu.xmm_source::<KIND>(op)?;
    let a = cpu.vector.xmm(op.dst);
    let mut flags = Rflags::empty();
    flags.set(Rflags::ZF, a[0] & b[0] | a[1] & b[1] == 0);
    flags.set(Rflags::CF, !a[0] & b[0] | !a[1] & b[1] == 0);
    cpu.flags.set_bits(flags.bits());
    Ok(())
}
