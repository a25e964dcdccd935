//! A platform and who certifies it.

use std::io;
use std::path::{Path, PathBuf, absolute};

use clap::Args;
use cloister_attest::pki::{Authority, Names};
use cloister_sgx::PlatformFuses;

use super::AttestationError;
use crate::platform_dir::{self, PlatformDirError, provisioning_right};

/// What names the directory of a platform, and of an authority.
pub(super) const PLATFORM: &str = "--platform";
pub(super) const AUTHORITY: &str = "--authority";

/// How a directory is opened: [`platform_dir::open`], which makes a platform where there is none, or
/// [`platform_dir::open_existing`].
pub(super) type Open = fn(&Path) -> Result<PlatformFuses, PlatformDirError>;

/// Options of who certifies a platform.
#[derive(Args, Debug)]
pub(super) struct CertifierArgs {
    /// Directory of the platform whose keys certify this one, as for cloister pki [default: its own]
    #[arg(long, value_name = "DIR")]
    pub(super) authority: Option<PathBuf>,
    /// Give certificates the names that Intel's have, as cloister pki did
    #[arg(long)]
    intel_names: bool,
}

impl CertifierArgs {
    /// A platform that is certified so.
    pub(super) fn of(&self, platform: &Path) -> Certified {
        Certified {
            platform: platform.to_owned(),
            authority: self.authority.clone(),
            intel_names: self.intel_names,
        }
    }
}

/// A platform whose REPORTs are quoted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certified {
    /// The platform's directory.
    pub platform: PathBuf,
    /// The directory of the platform whose keys certify it, if it is another.
    pub authority: Option<PathBuf>,
    /// Certificates have the names that Intel's have.
    pub intel_names: bool,
}

impl Certified {
    /// The same by names that hold in any folder.
    pub(super) fn absolute(&self) -> io::Result<Self> {
        Ok(Self {
            platform: absolute(&self.platform)?,
            authority: self.authority.as_deref().map(absolute).transpose()?,
            intel_names: self.intel_names,
        })
    }

    /// What the directories hold; the platform's by `open`. An authority that is not there has certified nothing.
    pub(super) fn open(&self, open: Open) -> Result<(PlatformFuses, Authority), AttestationError> {
        let platform = open_platform(PLATFORM, &self.platform, open)?;
        let authority = match &self.authority {
            Some(other) => open_authority(other, self.intel_names, platform_dir::open_existing)?,
            None => Authority::of_platform(&platform, names(self.intel_names))?,
        };
        Ok((platform, authority))
    }
}

/// The authority that the keys of the platform in `directory` make.
pub(super) fn open_authority(
    directory: &Path,
    intel_names: bool,
    open: Open,
) -> Result<Authority, AttestationError> {
    let platform = open_platform(AUTHORITY, directory, open)?;
    Ok(Authority::of_platform(&platform, names(intel_names))?)
}

/// The platform in the directory that `option` names, for who may have its provisioning key: it certifies.
pub(super) fn open_platform(
    option: &'static str,
    directory: &Path,
    open: Open,
) -> Result<PlatformFuses, AttestationError> {
    let fuses = open(directory).map_err(|why| AttestationError::Platform { option, why })?;
    provisioning_right(&platform_dir::provision_file(directory))
        .map_err(|why| AttestationError::Provision { option, why })?;
    Ok(fuses)
}

/// Whose names certificates have.
pub(super) fn names(intel: bool) -> Names {
    if intel { Names::Intel } else { Names::Cloister }
}
