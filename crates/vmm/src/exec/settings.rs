//! What the machine's PID 1 is told: records of a letter, a length and that many bytes (`guest/exec-init`,
//! `settings.rs`, has their meaning).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// The file of records.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<u8>);

impl Settings {
    pub(super) fn put(&mut self, letter: u8, value: &[u8]) {
        self.0.push(letter);
        // Command lines and environments end long before 4 GiB.
        self.0.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend(value);
    }

    /// A record of `name=value`.
    pub(super) fn put_pair(&mut self, letter: u8, name: &OsStr, value: &OsStr) {
        self.put(letter, &[name.as_bytes(), b"=", value.as_bytes()].concat());
    }

    pub(super) fn put_numbers(&mut self, letter: u8, numbers: impl IntoIterator<Item = u32>) {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        self.put(letter, &bytes);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
