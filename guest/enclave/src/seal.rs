//! Sealing: a message that only this enclave on this platform can open again.
//!
//! A cipher as small as it can be, for a program that shows where the key comes
//! from: SHA-256 makes the key stream and the tag. Real enclaves take AES-GCM.

use core::arch::asm;

use guest_sha256::Sha256;

use crate::leaves;

/// Bytes of a message.
pub(crate) const MESSAGE_SIZE: usize = 32;
/// Bytes of a sealed message: KEYID, ciphertext and tag.
pub(crate) const SEALED_SIZE: usize = 96;

/// What a hash is used for.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Use {
    KeyStream = 1,
    Tag = 2,
}

/// Encrypts under a key that is used for this message only; `None` if the processor
/// does not give it.
pub(crate) fn seal(message: &[u8; MESSAGE_SIZE]) -> Option<[u8; SEALED_SIZE]> {
    let key_id = random();
    let key = leaves::seal_key(key_id)?;
    let ciphertext = xor(message, &hash(&key, Use::KeyStream, &[]));
    let tag = hash(&key, Use::Tag, &ciphertext);
    let mut sealed = [0; SEALED_SIZE];
    let parts = key_id.iter().chain(&ciphertext).chain(&tag);
    sealed.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
    Some(sealed)
}

/// The message, if the tag proves that this enclave sealed it on this platform.
pub(crate) fn open(sealed: &[u8; SEALED_SIZE]) -> Option<[u8; MESSAGE_SIZE]> {
    let (key_id, rest) = sealed.split_first_chunk::<32>()?;
    let (ciphertext, rest) = rest.split_first_chunk::<MESSAGE_SIZE>()?;
    let tag = rest.first_chunk::<32>()?;
    let key = leaves::seal_key(*key_id)?;
    let difference = xor(tag, &hash(&key, Use::Tag, ciphertext));
    // All bytes, whatever the first says: the time tells nothing of the tag.
    let differs = difference.iter().fold(0, |all, byte| all | byte) != 0;
    (!differs).then(|| xor(ciphertext, &hash(&key, Use::KeyStream, &[])))
}

fn hash(key: &[u8; 16], purpose: Use, data: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::default();
    hash.update(key);
    hash.push(purpose as u8);
    hash.update(data);
    hash.finish()
}

fn xor(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut out = *left;
    out.iter_mut().zip(right).for_each(|(to, with)| *to ^= with);
    out
}

/// RDRAND until it gives: the host has no say in it.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_exact_mut(8) {
        let word: u64;
        // SAFETY: RDRAND changes a register and flags only.
        unsafe { asm!("2:", "rdrand {}", "jnc 2b", out(reg) word, options(nomem, nostack)) }
        chunk.iter_mut().zip(word.to_le_bytes()).for_each(|(to, from)| *to = from);
    }
    bytes
}
