//! DPPS and DPPD: dot products (SDM Vol. 2A). An unmasked exception of one step keeps the next
//! step from reporting any.

use iced_x86::{Instruction, Mnemonic};

use crate::exec::vector::form::sse_float_imm;
use crate::exec::vector::lane::{Element, Lane};
use crate::float::{Env, add, mul};
use crate::op::{Handler, Op};

/// The handler of a dot product.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Dpps => Some(sse_float_imm!(op, M128, dpps)),
        Mnemonic::Dppd => Some(sse_float_imm!(op, M128, dppd)),
        _ => None,
    }
}

/// DPPS: products where bits 7:4 of the immediate have ones, their sum where bits 3:0 have.
pub fn dpps(env: &mut Env, a: Lane, b: Lane, imm: u8) -> Lane {
    let (a, b) = (u32::split(a), u32::split(b));
    let products: [u32; 4] =
        std::array::from_fn(|i| if imm >> (4 + i) & 1 != 0 { mul(env, a[i], b[i]) } else { 0 });
    if !env.pending.is_empty() {
        return [0; 2];
    }
    let low = add(env, products[0], products[1]);
    let high = add(env, products[2], products[3]);
    if !env.pending.is_empty() {
        return [0; 2];
    }
    let sum = add(env, low, high);
    u32::join(std::array::from_fn(|i| if imm >> i & 1 != 0 { sum } else { 0 }))
}

/// DPPD: products where bits 5:4 of the immediate have ones, their sum where bits 1:0 have.
pub fn dppd(env: &mut Env, a: Lane, b: Lane, imm: u8) -> Lane {
    let products: Lane =
        std::array::from_fn(|i| if imm >> (4 + i) & 1 != 0 { mul(env, a[i], b[i]) } else { 0 });
    if !env.pending.is_empty() {
        return [0; 2];
    }
    let sum = add(env, products[0], products[1]);
    std::array::from_fn(|i| if imm >> i & 1 != 0 { sum } else { 0 })
}
