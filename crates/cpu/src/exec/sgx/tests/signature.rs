//! SIGSTRUCTs for enclaves of the tests, signed without a private key.
//!
//! The signature s of a message m satisfies s³ mod n = m. Whoever may choose the modulus takes n =
//! s³ - m, where s is a little below 2^1024. Then Q1, the quotient of s² by n, is 0 and Q2, that of
//! s³ by n, is 1. Each enclave so has a signer of its own.

use cloister_sgx::Attributes;
use cloister_sgx::layout::SigStruct;
use sha2::{Digest as _, Sha256};
use zerocopy::FromZeros as _;

/// 32-bit digits of a number of 3072 bits, the lowest first.
type Number = [u32; 96];

fn product(a: &Number, b: &Number) -> Number {
    let mut digits = [0; 96];
    for i in 0..96 {
        let mut carry = 0;
        for j in 0..96 - i {
            let sum = u64::from(a[i]) * u64::from(b[j]) + u64::from(digits[i + j]) + carry;
            digits[i + j] = sum as u32;
            carry = sum >> 32;
        }
    }
    digits
}

fn difference(a: &Number, b: &Number) -> Number {
    let mut borrow = false;
    std::array::from_fn(|i| {
        let (digit, one) = a[i].overflowing_sub(b[i]);
        let (digit, two) = digit.overflowing_sub(u32::from(borrow));
        borrow = one || two;
        digit
    })
}

fn bytes(number: &Number) -> [u8; 384] {
    std::array::from_fn(|i| number[i / 4].to_le_bytes()[i % 4])
}

/// The encoded message of a digest (RFC 8017, 9.2).
fn message(digest: [u8; 32]) -> Number {
    const ALGORITHM: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    let mut text = [0xff; 384];
    text[0] = 0;
    text[1] = 1;
    text[332] = 0;
    text[333..352].copy_from_slice(&ALGORITHM);
    text[352..].copy_from_slice(&digest);
    std::array::from_fn(|i| {
        let end = 384 - 4 * i;
        u32::from_be_bytes([text[end - 4], text[end - 3], text[end - 2], text[end - 1]])
    })
}

/// A SIGSTRUCT for an enclave with this measurement and these attributes, and the hash of its
/// signer's key.
pub(super) fn sign(mrenclave: [u8; 32], attributes: Attributes) -> (Box<SigStruct>, [u8; 32]) {
    let mut signed: Box<SigStruct> = SigStruct::new_box_zeroed().expect("there is memory");
    signed.header = SigStruct::HEADER;
    signed.header2 = SigStruct::HEADER2;
    signed.exponent = 3.into();
    signed.attributes = attributes;
    // Which signs for a debug enclave and the same without DEBUG.
    signed.attributemask.flags = (!2).into();
    signed.attributemask.xfrm = u64::MAX.into();
    signed.enclavehash = mrenclave;
    let digest =
        signed.signed_parts().iter().fold(Sha256::new(), |hash, part| hash.chain_update(part));
    let message = message(digest.finalize().into());
    let mut root = [0; 96];
    root[..32].fill(u32::MAX);
    let cube = product(&product(&root, &root), &root);
    signed.modulus = bytes(&difference(&cube, &message));
    signed.signature = bytes(&root);
    signed.q2[0] = 1;
    let mrsigner = Sha256::digest(signed.modulus).into();
    (signed, mrsigner)
}
