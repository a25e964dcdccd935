//! PMOVSX and PMOVZX: elements widened (SDM Vol. 1, 12.10.8).

use iced_x86::{Instruction, Mnemonic};

use crate::exec::vector::form::sse_widen;
use crate::exec::vector::lane::Element;
use crate::op::{Handler, Op};

/// The handler of a widening move; it reads as much memory as it uses.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{
        Pmovsxbd, Pmovsxbq, Pmovsxbw, Pmovsxdq, Pmovsxwd, Pmovsxwq, Pmovzxbd, Pmovzxbq, Pmovzxbw,
        Pmovzxdq, Pmovzxwd, Pmovzxwq, Vpmovsxbd, Vpmovsxbq, Vpmovsxbw, Vpmovsxdq, Vpmovsxwd,
        Vpmovsxwq, Vpmovzxbd, Vpmovzxbq, Vpmovzxbw, Vpmovzxdq, Vpmovzxwd, Vpmovzxwq,
    };
    macro_rules! extend {
        ($bytes:literal, $from:ty, $to:ty) => {
            sse_widen!(op, $bytes, |b| {
                let b = <$from>::split(b);
                <$to>::join(std::array::from_fn(|i| b[i].into()))
            })
        };
    }
    Some(match instruction.mnemonic() {
        Pmovsxbw | Vpmovsxbw => extend!(8, i8, i16),
        Pmovsxbd | Vpmovsxbd => extend!(4, i8, i32),
        Pmovsxbq | Vpmovsxbq => extend!(2, i8, i64),
        Pmovsxwd | Vpmovsxwd => extend!(8, i16, i32),
        Pmovsxwq | Vpmovsxwq => extend!(4, i16, i64),
        Pmovsxdq | Vpmovsxdq => extend!(8, i32, i64),
        Pmovzxbw | Vpmovzxbw => extend!(8, u8, u16),
        Pmovzxbd | Vpmovzxbd => extend!(4, u8, u32),
        Pmovzxbq | Vpmovzxbq => extend!(2, u8, u64),
        Pmovzxwd | Vpmovzxwd => extend!(8, u16, u32),
        Pmovzxwq | Vpmovzxwq => extend!(4, u16, u64),
        Pmovzxdq | Vpmovzxdq => extend!(8, u32, u64),
        _ => return None,
    })
}
