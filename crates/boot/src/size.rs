//! Sizes as the command line writes them.

/// Writes a number of bytes with the largest of the suffixes K, M, G and T that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (shift, suffix) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}
