//! PMOVSX and PMOVZX: elements widened (SDM Vol. 1, 12.10.8).

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::sse_widen;
use crate::exec::vector::lane::Element;

macro_rules! extend {
    ($bytes:literal, $from:ty, $to:ty) => {
        |_, op| {
            sse_widen!(op, $bytes, |b| {
                let b = <$from>::split(b);
                <$to>::join(std::array::from_fn(|i| b[i].into()))
            })
        }
    };
}

vector_rows! {
    Pmovsxbw | Vpmovsxbw => choose(extend!(8, i8, i16)),
    Pmovsxbd | Vpmovsxbd => choose(extend!(4, i8, i32)),
    Pmovsxbq | Vpmovsxbq => choose(extend!(2, i8, i64)),
    Pmovsxwd | Vpmovsxwd => choose(extend!(8, i16, i32)),
    Pmovsxwq | Vpmovsxwq => choose(extend!(4, i16, i64)),
    Pmovsxdq | Vpmovsxdq => choose(extend!(8, i32, i64)),
    Pmovzxbw | Vpmovzxbw => choose(extend!(8, u8, u16)),
    Pmovzxbd | Vpmovzxbd => choose(extend!(4, u8, u32)),
    Pmovzxbq | Vpmovzxbq => choose(extend!(2, u8, u64)),
    Pmovzxwd | Vpmovzxwd => choose(extend!(8, u16, u32)),
    Pmovzxwq | Vpmovzxwq => choose(extend!(4, u16, u64)),
    Pmovzxdq | Vpmovzxdq => choose(extend!(8, u32, u64)),
}
