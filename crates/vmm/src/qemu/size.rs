//! Sizes in QEMU's options.

use super::QemuError;
use crate::size::{SizeError, parse_ram_size, parse_size};

/// What a number without a suffix counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Bytes.
    Byte,
    /// MiB, where QEMU goes on reading what it read when RAM was small.
    Mebibyte,
}

/// Reads the size of the machine's RAM, in bytes.
pub(super) fn ram_bytes(option: &'static str, key: &str, text: &str) -> Result<u64, QemuError> {
    read(option, key, text, Unit::Mebibyte, parse_ram_size)
}

/// Reads the size that `key` of `option` has, in bytes.
pub(super) fn bytes(
    option: &'static str,
    key: &str,
    text: &str,
    unit: Unit,
) -> Result<u64, QemuError> {
    read(option, key, text, unit, parse_size)
}

fn read(
    option: &'static str,
    key: &str,
    text: &str,
    unit: Unit,
    parse: fn(&str) -> Result<u64, SizeError>,
) -> Result<u64, QemuError> {
    let plain = text.ends_with(|last: char| last.is_ascii_digit());
    let size = match unit {
        Unit::Mebibyte if plain => parse(&format!("{text}M")),
        _ => parse(text),
    };
    size.map_err(|error| QemuError::refused(option, format!("{key}: {error}")))
}
