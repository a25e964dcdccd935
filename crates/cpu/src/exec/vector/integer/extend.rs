//! PMOVSX and PMOVZX: elements widened (SDM Vol. 1, 12.10.8).

use iced_x86::{Instruction, Mnemonic};

use crate::exec::vector::form::sse;
use crate::exec::vector::lane::Element;
use crate::op::{Handler, Op};

/// The handler of a widening move; it reads as much memory as it uses.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{
        Pmovsxbd, Pmovsxbq, Pmovsxbw, Pmovsxdq, Pmovsxwd, Pmovsxwq, Pmovzxbd, Pmovzxbq, Pmovzxbw,
        Pmovzxdq, Pmovzxwd, Pmovzxwq,
    };
    macro_rules! extend {
        ($kind:ident, $from:ty, $to:ty) => {
            sse!(op, $kind, |_, b| {
                let b = <$from>::split(b);
                <$to>::join(std::array::from_fn(|i| b[i].into()))
            })
        };
    }
    Some(match instruction.mnemonic() {
        Pmovsxbw => extend!(M64, i8, i16),
        Pmovsxbd => extend!(M32, i8, i32),
        Pmovsxbq => extend!(M16, i8, i64),
        Pmovsxwd => extend!(M64, i16, i32),
        Pmovsxwq => extend!(M32, i16, i64),
        Pmovsxdq => extend!(M64, i32, i64),
        Pmovzxbw => extend!(M64, u8, u16),
        Pmovzxbd => extend!(M32, u8, u32),
        Pmovzxbq => extend!(M16, u8, u64),
        Pmovzxwd => extend!(M64, u16, u32),
        Pmovzxwq => extend!(M32, u16, u64),
        Pmovzxdq => extend!(M64, u32, u64),
        _ => return None,
    })
}
