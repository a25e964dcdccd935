//! Values of the options of `cloister run`, read from their text.

use thiserror::Error;

use crate::config::{CpusError, DiskConfig, EpcConfig, LaunchKeyError, Translate, is_identifier};
use crate::cpu_flags::CpuFlagError;
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
pub(super) fn on_or_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
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

impl DiskConfig {
    /// Reads the value of `--disk`: a file name, then perhaps `,readonly`.
    ///
    /// # Errors
    ///
    /// [`ValueError::DiskPath`].
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let (path, readonly) = match text.strip_suffix(",readonly") {
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.is_empty() {
            return Err(ValueError::DiskPath);
        }
        Ok(Self { path: path.into(), readonly })
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
