//! Sizes as the command line writes them: a number and one of the suffixes K, M, G and T.
//!
//! The suffixes are powers of 1024, in either case, and may be written out as `KiB` or `KB`: QEMU's
//! `size` type, less its fractions and its exabytes. A number without a suffix is in bytes.

pub use cloister_boot::format_size;
use cloister_x86::PAGE_SIZE;
use thiserror::Error;

use crate::layout::MIN_RAM;

/// Why a text is not a usable size.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SizeError {
    /// The text is not digits and a known suffix.
    #[error("{0:?} is not a size: write a number and K, M, G or T, such as 64M")]
    Malformed(String),
    /// The number does not fit in 64 bits.
    #[error("{0} is more than any machine can address: write a smaller size, such as 64M")]
    Overflow(String),
    /// The size is zero.
    #[error("{text} is no memory at all: write a size of at least {}", format_size(*.least))]
    Zero {
        /// What was written.
        text: String,
        /// The least size that may be written.
        least: u64,
    },
    /// The size is not a multiple of the page size.
    #[error("{text} is not a multiple of 4 KiB: the next size that is one is {next} bytes")]
    Misaligned {
        /// What was written.
        text: String,
        /// The size rounded up to whole pages, in bytes.
        next: u64,
    },
}

/// Reads the size of a machine's RAM and returns it in bytes, as [`parse_size`].
///
/// # Errors
///
/// [`SizeError`] says what is wrong and how to write it.
pub fn parse_ram_size(text: &str) -> Result<u64, SizeError> {
    parse_size(text).map_err(|error| match error {
        SizeError::Zero { text, .. } => SizeError::Zero { text, least: MIN_RAM },
        error => error,
    })
}

/// Reads a size and returns it in bytes: not zero, and a multiple of 4 KiB.
///
/// # Errors
///
/// [`SizeError`] says what is wrong and how to write it.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let bytes = parse_bytes(text)?;
    if bytes == 0 {
        return Err(SizeError::Zero { text: text.to_owned(), least: PAGE_SIZE });
    }
    if !bytes.is_multiple_of(PAGE_SIZE) {
        let next = bytes
            .checked_next_multiple_of(PAGE_SIZE)
            .ok_or_else(|| SizeError::Overflow(text.to_owned()))?;
        return Err(SizeError::Misaligned { text: text.to_owned(), next });
    }
    Ok(bytes)
}

fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let malformed = || SizeError::Malformed(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    if number.is_empty() {
        return Err(malformed());
    }
    let shift = match suffix.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(malformed()),
    };
    // Only digits are left, so the one way to fail is to be too large.
    let overflow = || SizeError::Overflow(text.to_owned());
    let number: u64 = number.parse().map_err(|_| overflow())?;
    number.checked_mul(1 << shift).ok_or_else(overflow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn suffixes_are_powers_of_1024_in_either_case() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4K", 4 << 10),
            ("64M", 64 << 20),
            ("64m", 64 << 20),
            ("64MiB", 64 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_say_how_to_write_them() {
        for (text, line) in [
            ("64X", r#""64X" is not a size: write a number and K, M, G or T, such as 64M"#),
            ("", r#""" is not a size: write a number and K, M, G or T, such as 64M"#),
            ("M", r#""M" is not a size: write a number and K, M, G or T, such as 64M"#),
            ("-4K", r#""-4K" is not a size: write a number and K, M, G or T, such as 64M"#),
            ("1.5G", r#""1.5G" is not a size: write a number and K, M, G or T, such as 64M"#),
            ("0", "0 is no memory at all: write a size of at least 4K"),
            ("0G", "0G is no memory at all: write a size of at least 4K"),
            ("5K", "5K is not a multiple of 4 KiB: the next size that is one is 8192 bytes"),
            (
                "99999999999T",
                "99999999999T is more than any machine can address: write a smaller size, such as 64M",
            ),
            (
                "18446744073709551615",
                "18446744073709551615 is more than any machine can address: write a smaller size, such as 64M",
            ),
        ] {
            let error = parse_size(text).unwrap_err();
            assert_eq!(error.to_string(), line, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_accepted_is_whole_pages(text in "\\PC*") {
            if let Ok(bytes) = parse_size(&text) {
                prop_assert!(bytes > 0);
                prop_assert_eq!(bytes % PAGE_SIZE, 0);
            }
        }

        #[test]
        fn a_formatted_size_reads_back(pages in 1_u64..=u64::MAX / PAGE_SIZE) {
            let bytes = pages * PAGE_SIZE;

            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn a_number_with_a_suffix_is_the_product_or_an_overflow(
            number in any::<u64>(),
            (suffix, unit) in prop::sample::select(&[("K", 1_u64 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)]),
        ) {
            let parsed = parse_bytes(&format!("{number}{suffix}"));

            prop_assert_eq!(parsed.ok(), number.checked_mul(unit));
        }
    }
}
