//! Verification of SIGSTRUCT's signature: RSA-3072 with exponent 3, PKCS #1 v1.5 and SHA-256
//! (SDM Vol. 3D, 35.13 and EINIT).

use crypto_bigint::{Limb, U3072};
use sha2::{Digest as _, Sha256};

use crate::keys::PKCS1_5_PADDING;
use crate::layout::SigStruct;

/// The encoded message of a signature that verifies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EncodedMessage {
    /// Its upper 352 bytes, most significant first.
    pub(crate) padding: [u8; 352],
}

/// Verifies the signature with the enclosed public key, Q1 and Q2; `None` if it does not verify.
///
/// Q1 and Q2 must be the quotients that the SDM defines: they turn both modular reductions into
/// one multiplication and one comparison each.
pub(crate) fn verify(sigstruct: &SigStruct) -> Option<EncodedMessage> {
    let modulus = U3072::from_le_slice(&sigstruct.modulus);
    let signature = U3072::from_le_slice(&sigstruct.signature);
    let q1 = U3072::from_le_slice(&sigstruct.q1);
    let q2 = U3072::from_le_slice(&sigstruct.q2);
    if signature >= modulus {
        return None;
    }
    let squared = reduce(signature.widening_square(), &q1, &modulus)?;
    let cubed = reduce(squared.widening_mul(&signature), &q2, &modulus)?;

    let mut message = [0; 384];
    for (to, from) in message.iter_mut().zip(cubed.to_le_bytes().as_ref().iter().rev()) {
        *to = *from;
    }
    let mut hash = Sha256::new();
    for part in sigstruct.signed_parts() {
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    if message[..352] != PKCS1_5_PADDING || message[352..] != digest {
        return None;
    }
    Some(EncodedMessage { padding: PKCS1_5_PADDING })
}

/// `value` minus `quotient` times `modulus`, if that is a residue, that is, if the quotient is
/// the right one. `value` is given as low and high half.
fn reduce(value: (U3072, U3072), quotient: &U3072, modulus: &U3072) -> Option<U3072> {
    let (low, high) = quotient.widening_mul(modulus);
    let (low, borrow) = value.0.borrowing_sub(&low, Limb::ZERO);
    let (high, borrow) = value.1.borrowing_sub(&high, borrow);
    (borrow == Limb::ZERO && high == U3072::ZERO && low < *modulus).then_some(low)
}

/// MRSIGNER: SHA-256 of the modulus.
pub(crate) fn mrsigner(sigstruct: &SigStruct) -> [u8; 32] {
    Sha256::digest(sigstruct.modulus).into()
}
