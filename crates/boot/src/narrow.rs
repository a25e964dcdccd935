//! Numbers of files and disks, as memory and protocols take them. What is too large stays too large.

/// A length or an offset in memory: `number`, or the largest there is.
pub(crate) fn in_memory(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// `number`, or the largest of 32 bits.
pub(crate) fn in_32_bits(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
