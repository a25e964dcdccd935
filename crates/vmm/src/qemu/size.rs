//! Sizes in QEMU's options.

use super::QemuError;
use crate::size::parse_size;

/// What a number without a suffix counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Bytes.
    Byte,
    /// MiB, where QEMU goes on reading what it read when RAM was small.
    Mebibyte,
}

/// Reads the size that `key` of `option` has, in bytes.
pub(super) fn bytes(
    option: &'static str,
    key: &str,
    text: &str,
    unit: Unit,
) -> Result<u64, QemuError> {
    let plain = text.ends_with(|last: char| last.is_ascii_digit());
    let size = match unit {
        Unit::Mebibyte if plain => parse_size(&format!("{text}M")),
        _ => parse_size(text),
    };
    size.map_err(|error| {
        let error = error.to_string();
        let (why, mend) = error.rsplit_once(": ").unwrap_or((&error, "write one such as 64M"));
        QemuError::value(option, format!("{key}: {why}"), mend)
    })
}
