//! The value types that instructions move.
#![cfg_attr(
    not(test),
    expect(clippy::cast_possible_truncation, reason = "cuts values to the size of an operand")
)]
#![expect(unsafe_code, reason = "promises what the bytes of these types are")]

/// Plain bytes that guest memory can hold.
///
/// Implemented for the unsigned integers up to 128 bits and for 32-byte vectors.
///
/// # Safety
///
/// The type has [`Plain::SIZE`] bytes, 32 at most and none of them padding, and any such bytes are
/// a value of it: [`host`](super::host) reads and writes them as they lie in memory.
pub(crate) unsafe trait Plain: Copy + 'static {
    /// Size in bytes.
    const SIZE: usize;
    /// The value with these little-endian bytes (`bytes.len() == SIZE`).
    fn from_bytes(bytes: &[u8]) -> Self;
    /// Writes the value's little-endian bytes (`bytes.len() == SIZE`).
    fn put_bytes(self, bytes: &mut [u8]);
}

/// An integer register or operand of 8, 16, 32 or 64 bits.
pub(crate) trait Int:
    Plain
    + PartialEq
    + std::fmt::Debug
    + std::ops::BitAnd<Output = Self>
    + std::ops::BitOr<Output = Self>
    + std::ops::BitXor<Output = Self>
    + std::ops::Not<Output = Self>
{
    /// Width in bits.
    const BITS: u32;
    /// The low bits of `value`.
    fn trunc(value: u64) -> Self;
    /// Zero-extends to 64 bits.
    fn zext(self) -> u64;
    /// Sign-extends to 64 bits.
    fn sext(self) -> u64;
    /// Sum modulo 2^BITS.
    fn plus(self, other: Self) -> Self;
    /// Difference modulo 2^BITS.
    fn minus(self, other: Self) -> Self;
}

macro_rules! plain {
    ($($t:ty),*) => {$(
        // SAFETY: an integer has as many bytes as its size says, and all their values.
        unsafe impl Plain for $t {
            const SIZE: usize = size_of::<$t>();
            #[inline(always)]
            fn from_bytes(bytes: &[u8]) -> Self {
                let mut copy = [0; size_of::<$t>()];
                copy.copy_from_slice(bytes);
                Self::from_le_bytes(copy)
            }
            #[inline(always)]
            fn put_bytes(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
plain!(u8, u16, u32, u64, u128);

// SAFETY: four integers without a gap, of 8 bytes each, which may have any value.
unsafe impl Plain for [u64; 4] {
    const SIZE: usize = 32;
    #[inline(always)]
    fn from_bytes(bytes: &[u8]) -> Self {
        std::array::from_fn(|i| u64::from_bytes(&bytes[i * 8..i * 8 + 8]))
    }
    #[inline(always)]
    fn put_bytes(self, bytes: &mut [u8]) {
        for (word, chunk) in self.iter().zip(bytes.chunks_exact_mut(8)) {
            word.put_bytes(chunk);
        }
    }
}

macro_rules! int {
    ($($t:ty, $s:ty);*) => {$(
        impl Int for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn trunc(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn zext(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sext(self) -> u64 {
                self as $s as i64 as u64
            }
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
        }
    )*};
}
int!(u8, i8; u16, i16; u32, i32; u64, i64);
