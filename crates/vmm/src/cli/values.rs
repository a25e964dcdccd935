//! Values of the options of `cloister run`, read from their text.

use thiserror::Error;

use crate::accel::Choice;
use crate::config::{
    BackingConfig, CpusError, DiskConfig, EpcConfig, LaunchKeyError, Translate, is_identifier,
};
use crate::cpu_flags::CpuFlagError;
use crate::disk::{ImageFormat, ImageFormatError};
use crate::gdb::AddressError;
use crate::qmp::ListenError;
use crate::shares::ShareConfigError;
use crate::size::{SizeError, parse_ram_size, parse_size};
use crate::vsock::VsockConfigError;

/// A value that cannot be used. The message names the option and the fix.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ValueError {
    /// `--memory` is not a size.
    #[error("--memory: {0}")]
    Memory(SizeError),
    /// `--cpus` is not a number of processors.
    #[error("--cpus: {0}")]
    Cpus(CpusError),
    /// `--disk` without a file name.
    #[error("--disk: the name of the image file is missing: write FILE or FILE,readonly")]
    DiskPath,
    /// A key given twice in one `--disk`.
    #[error("--disk: the key {0} is given twice: leave one out")]
    DiskKeyTwice(&'static str),
    /// `format=` or `backing-format=` of `--disk` is not a format.
    #[error("--disk: {0}: {1}")]
    DiskFormat(&'static str, ImageFormatError),
    /// A switch of `--disk` that is neither on nor off.
    #[error("--disk: {0} is on or off, not {1:?}")]
    DiskSwitch(&'static str, String),
    /// `backing=` of `--disk` without a file name.
    #[error("--disk: backing: the name of the file is missing: write backing=FILE")]
    DiskBacking,
    /// `backing-format=` of `--disk` before any `backing=`.
    #[error(
        "--disk: backing-format goes after the backing= that it is of: write backing=FILE first"
    )]
    DiskBackingFormat,
    /// Part of a `--sgx-epc` is not `key=value`.
    #[error("--sgx-epc: {0:?} is not key=value: write id=epc0,size=64M[,prealloc=on]")]
    EpcSyntax(String),
    /// A key that `--sgx-epc` does not have.
    #[error("--sgx-epc: unknown key {0:?}: the keys are id, size and prealloc")]
    EpcKey(String),
    /// A key given twice in one `--sgx-epc`.
    #[error("--sgx-epc: the key {0} is given twice: leave one out")]
    EpcKeyTwice(String),
    /// A key that `--sgx-epc` cannot do without.
    #[error("--sgx-epc: the key {0} is missing: write id=epc0,size=64M[,prealloc=on]")]
    EpcKeyMissing(&'static str),
    /// `id=` is not an identifier.
    #[error("--sgx-epc: {0:?} is not an id: write a letter, then letters, digits, -, _ or .")]
    EpcId(String),
    /// `size=` is not a size.
    #[error("--sgx-epc: size: {0}")]
    EpcSize(SizeError),
    /// `prealloc=` is neither on nor off.
    #[error("--sgx-epc: prealloc is on or off, not {0:?}")]
    EpcPrealloc(String),
    /// `--epc-quota` is not a size.
    #[error("--epc-quota: {0}")]
    EpcQuota(SizeError),
    /// `--epc-reserve` is not a size.
    #[error("--epc-reserve: {0}")]
    EpcReserve(SizeError),
    /// `--cpu` is not the model and flags.
    #[error("--cpu: {0}")]
    Cpu(CpuFlagError),
    /// `--launch-key` is not a hash.
    #[error("--launch-key: {0}")]
    LaunchKey(LaunchKeyError),
    /// `--sandbox` is neither on nor off.
    #[error("--sandbox: it is on or off, not {0:?}: leave it out, and it is on")]
    Sandbox(String),
    /// `--translate` is neither on nor off, nor always, nor a number of runs.
    #[error(
        "--translate: it is on, off, always or a number of runs from 1 on, not {0:?}: \
         leave it out, and it is on"
    )]
    Translate(String),
    /// `--accel` is not an accelerator.
    #[error("--accel: it is auto, kvm or soft, not {0:?}: leave it out, and it is soft")]
    Accelerator(String),
    /// `--share` is not a tag and a folder.
    #[error("--share: {0}")]
    Share(ShareConfigError),
    /// `--vsock` is not a CID and a socket.
    #[error("--vsock: {0}")]
    Vsock(VsockConfigError),
    /// `--qmp` does not name a socket.
    #[error("--qmp: {0}")]
    Qmp(ListenError),
    /// `--gdb` does not name a socket.
    #[error("--gdb: {0}")]
    Gdb(AddressError),
}

/// Reads the value of `--memory`.
pub(super) fn parse_memory(text: &str) -> Result<u64, ValueError> {
    parse_ram_size(text).map_err(ValueError::Memory)
}

/// Reads the value of `--epc-quota`.
pub(super) fn parse_epc_quota(text: &str) -> Result<u64, ValueError> {
    parse_size(text).map_err(ValueError::EpcQuota)
}

/// Reads the value of `--epc-reserve`.
pub(super) fn parse_epc_reserve(text: &str) -> Result<u64, ValueError> {
    parse_size(text).map_err(ValueError::EpcReserve)
}

/// Reads the value of `--sandbox`.
pub(super) fn parse_sandbox(text: &str) -> Result<bool, ValueError> {
    on_or_off(text).ok_or_else(|| ValueError::Sandbox(text.to_owned()))
}

/// Reads what is on or off.
pub(crate) fn on_or_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// Reads the value of `--accel`.
pub(crate) fn parse_accelerator(text: &str) -> Result<Choice, ValueError> {
    match text {
        "auto" => Ok(Choice::Auto),
        "kvm" => Ok(Choice::Kvm),
        "soft" => Ok(Choice::Soft),
        _ => Err(ValueError::Accelerator(text.to_owned())),
    }
}

/// Reads the value of `--translate`.
pub(super) fn parse_translate(text: &str) -> Result<Translate, ValueError> {
    match text {
        "on" => Ok(Translate::On),
        "off" => Ok(Translate::Off),
        "always" => Ok(Translate::Always),
        _ => match text.parse() {
            Ok(runs @ 1..) => Ok(Translate::From(runs)),
            _ => Err(ValueError::Translate(text.to_owned())),
        },
    }
}

/// Keys of `--disk`, and whether each is a switch, which may stand alone for on.
const DISK_KEYS: [(&str, bool); 5] = [
    ("readonly", true),
    ("snapshot", true),
    ("format", false),
    ("backing", false),
    ("backing-format", false),
];

/// What one of the keys of `--disk` says, if it is one.
fn disk_key(word: &str) -> Option<(&'static str, &str)> {
    DISK_KEYS.into_iter().find_map(|(key, is_switch)| match word.strip_prefix(key)? {
        "" if is_switch => Some((key, "on")),
        rest => Some((key, rest.strip_prefix('=')?)),
    })
}

impl DiskConfig {
    /// Reads the value of `--disk`: a file name, which may have commas, then the keys that follow it.
    ///
    /// # Errors
    ///
    /// The `Disk` variants of [`ValueError`].
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let (mut path, mut said) = (text, Vec::new());
        while let Some((rest, word)) = path.rsplit_once(',')
            && let Some(key) = disk_key(word)
        {
            said.push(key);
            path = rest;
        }
        if path.is_empty() {
            return Err(ValueError::DiskPath);
        }
        let mut disk = Self::new(path);
        let (mut readonly, mut snapshot) = (None, None);
        for (key, value) in said.into_iter().rev() {
            let switch = || on_or_off(value).ok_or(ValueError::DiskSwitch(key, value.to_owned()));
            let format =
                || ImageFormat::parse(value).map_err(|error| ValueError::DiskFormat(key, error));
            let is_new = match key {
                "readonly" => readonly.replace(switch()?).is_none(),
                "snapshot" => snapshot.replace(switch()?).is_none(),
                "format" => disk.format.replace(format()?).is_none(),
                "backing" if value.is_empty() => return Err(ValueError::DiskBacking),
                "backing" => {
                    disk.backing.push(BackingConfig { path: value.into(), format: None });
                    true
                }
                _ => {
                    let backing = disk.backing.last_mut().ok_or(ValueError::DiskBackingFormat)?;
                    backing.format.replace(format()?).is_none()
                }
            };
            if !is_new {
                return Err(ValueError::DiskKeyTwice(key));
            }
        }
        disk.readonly = readonly.unwrap_or(false);
        disk.snapshot = snapshot.unwrap_or(false);
        Ok(disk)
    }
}

impl EpcConfig {
    /// Reads the value of one `--sgx-epc`.
    ///
    /// # Errors
    ///
    /// The `Epc` variants of [`ValueError`].
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let (mut id, mut size, mut prealloc) = (None, None, None);
        for pair in text.split(',') {
            // As in QEMU, what is on or off may be named alone.
            let (key, value) = match pair.split_once('=') {
                Some(pair) => pair,
                None if pair == "prealloc" => (pair, "on"),
                None => return Err(ValueError::EpcSyntax(pair.to_owned())),
            };
            let slot = match key {
                "id" => &mut id,
                "size" => &mut size,
                "prealloc" => &mut prealloc,
                _ => return Err(ValueError::EpcKey(key.to_owned())),
            };
            if slot.replace(value).is_some() {
                return Err(ValueError::EpcKeyTwice(key.to_owned()));
            }
        }
        let id = id.ok_or(ValueError::EpcKeyMissing("id"))?;
        let size = size.ok_or(ValueError::EpcKeyMissing("size"))?;
        if !is_identifier(id) {
            return Err(ValueError::EpcId(id.to_owned()));
        }
        Ok(Self {
            id: id.to_owned(),
            size: parse_size(size).map_err(ValueError::EpcSize)?,
            prealloc: match prealloc {
                None | Some("off") => false,
                Some("on") => true,
                Some(other) => return Err(ValueError::EpcPrealloc(other.to_owned())),
            },
            node: 0,
            host_node: 0,
        })
    }
}

#[cfg(test)]
mod tests;
