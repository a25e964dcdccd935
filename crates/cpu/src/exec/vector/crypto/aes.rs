//! AESENC and its relatives (SDM Vol. 2A; FIPS 197).
//!
//! The `aes` crate gives whole rounds and the column steps; a last round is a round whose column
//! step is undone.

use aes::Block;
use aes::hazmat::{cipher_round, equiv_inv_cipher_round, inv_mix_columns, mix_columns};

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{sse, sse_imm};
use crate::exec::vector::lane::{Element, Lane};

vector_rows! {
    Aesenc | Vaesenc => choose(|_, op| sse!(op, M128, aesenc)),
    Aesenclast | Vaesenclast => choose(|_, op| sse!(op, M128, aesenclast)),
    Aesdec | Vaesdec => choose(|_, op| sse!(op, M128, aesdec)),
    Aesdeclast | Vaesdeclast => choose(|_, op| sse!(op, M128, aesdeclast)),
    Aesimc | Vaesimc => choose(|_, op| sse!(op, M128, |_, b| aesimc(b))),
    Aeskeygenassist | Vaeskeygenassist => choose(|_, op| {
        sse_imm!(op, M128, |_, b, imm| aeskeygenassist(b, imm))
    }),
}

fn block(lane: Lane) -> Block {
    Block::from(u8::split(lane))
}

fn lane(block: Block) -> Lane {
    u8::join(block.into())
}

fn xor(a: Lane, b: Lane) -> Lane {
    [a[0] ^ b[0], a[1] ^ b[1]]
}

/// AESENC: one round of encryption.
#[must_use]
pub(crate) fn aesenc(state: Lane, key: Lane) -> Lane {
    let mut state = block(state);
    cipher_round(&mut state, &block(key));
    lane(state)
}

/// ShiftRows and SubBytes.
fn substitute(state: Lane) -> Lane {
    let mut state = block(aesenc(state, [0; 2]));
    inv_mix_columns(&mut state);
    lane(state)
}

/// AESENCLAST: the last round of encryption.
#[must_use]
pub(crate) fn aesenclast(state: Lane, key: Lane) -> Lane {
    xor(substitute(state), key)
}

/// AESDEC: one round of the equivalent inverse cipher.
#[must_use]
pub(crate) fn aesdec(state: Lane, key: Lane) -> Lane {
    let mut state = block(state);
    equiv_inv_cipher_round(&mut state, &block(key));
    lane(state)
}

/// AESDECLAST: the last round of the equivalent inverse cipher.
#[must_use]
pub(crate) fn aesdeclast(state: Lane, key: Lane) -> Lane {
    let mut state = block(aesdec(state, [0; 2]));
    mix_columns(&mut state);
    xor(lane(state), key)
}

/// AESIMC: InvMixColumns.
#[must_use]
pub(crate) fn aesimc(key: Lane) -> Lane {
    let mut key = block(key);
    inv_mix_columns(&mut key);
    lane(key)
}

/// AESKEYGENASSIST: SubWord of doublewords 1 and 3, each also rotated with the round constant.
#[must_use]
pub(crate) fn aeskeygenassist(key: Lane, constant: u8) -> Lane {
    let [_, x1, _, x3] = u32::split(key);
    // In a state of equal columns ShiftRows does nothing.
    let sub_word = |x: u32| substitute(u32::join([x; 4]))[0] as u32;
    let (x1, x3) = (sub_word(x1), sub_word(x3));
    let rotated = |x: u32| x.rotate_right(8) ^ u32::from(constant);
    u32::join([x1, rotated(x1), x3, rotated(x3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: u128) -> Lane {
        u8::join(hex.to_be_bytes())
    }

    /// FIPS 197, appendix B: key expansion by AESKEYGENASSIST as in the SDM's example.
    fn expand(key: Lane) -> Vec<Lane> {
        let mut keys = vec![key];
        let mut constant = 1u8;
        for _ in 0..10 {
            let last = keys[keys.len() - 1];
            let assist = u32::split(aeskeygenassist(last, constant))[3];
            constant = constant << 1 ^ if constant & 0x80 != 0 { 0x1b } else { 0 };
            let mut words = u32::split(last);
            words[0] ^= assist;
            for i in 1..4 {
                words[i] ^= words[i - 1];
            }
            keys.push(u32::join(words));
        }
        keys
    }

    #[test]
    fn fips_197_appendix_b_encrypts_and_decrypts() {
        let keys = expand(bytes(0x2b7e151628aed2a6abf7158809cf4f3c));
        let plain = bytes(0x3243f6a8885a308d313198a2e0370734);

        let mut state = xor(plain, keys[0]);
        for &key in &keys[1..10] {
            state = aesenc(state, key);
        }
        let cipher = aesenclast(state, keys[10]);
        assert_eq!(cipher, bytes(0x3925841d02dc09fbdc118597196a0b32));

        let mut state = xor(cipher, keys[10]);
        for &key in keys[1..10].iter().rev() {
            state = aesdec(state, aesimc(key));
        }
        assert_eq!(aesdeclast(state, keys[0]), plain);
    }
}
