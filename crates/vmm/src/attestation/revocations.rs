//! The file `revoked` in a platform's directory: what its authority has revoked, one line each, `pck`,
//! `pck-ca` or `tcb-signing` and the second since 1970.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use cloister_attest::pki::{Revocation, Revoked};

use super::{AttestationError, files};
use crate::host_file::read_at_most;
use crate::platform_dir;

/// The name of the file.
const FILE: &str = platform_dir::REVOKED;

/// Bytes of the file at most: some ten thousand lines.
const LONGEST: u64 = 1 << 20;

/// What can be revoked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Certificate {
    /// The platform's PCK certificates
    Pck,
    /// The authority that certifies platforms
    PckCa,
    /// The signer of TCB info and QE identity
    TcbSigning,
}

impl Certificate {
    const fn name(self) -> &'static str {
        match self {
            Self::Pck => "pck",
            Self::PckCa => "pck-ca",
            Self::TcbSigning => "tcb-signing",
        }
    }

    const fn revoked(self) -> Revoked {
        match self {
            Self::Pck => Revoked::Pck,
            Self::PckCa => Revoked::PckCa,
            Self::TcbSigning => Revoked::TcbSigning,
        }
    }
}

/// What has been revoked; nothing where there is no file.
pub(super) fn read(platform: &Path) -> Result<Vec<Revocation>, AttestationError> {
    let path = platform.join(FILE);
    parse_all(&path, &text(&path)?)
}

/// What the file says; nothing where there is none.
fn text(path: &Path) -> Result<String, AttestationError> {
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(String::new());
    }
    let bytes = read_at_most(path, LONGEST).map_err(|why| {
        let why = format!("cannot read it: {why}: make it readable, or remove it");
        AttestationError::Revocations { path: path.into(), why }
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse_all(path: &Path, text: &str) -> Result<Vec<Revocation>, AttestationError> {
    let lines = (1..).zip(text.lines());
    let parsed = lines.map(|(number, line)| {
        parse(line).ok_or_else(|| {
            let why = format!("line {number} is not a certificate and a time: remove the line");
            AttestationError::Revocations { path: path.into(), why }
        })
    });
    parsed.collect()
}

fn parse(line: &str) -> Option<Revocation> {
    let (name, since) = line.split_once(' ')?;
    let certificate = Certificate::value_variants().iter().find(|one| one.name() == name)?;
    let since = Duration::from_secs(since.parse().ok()?);
    Some(Revocation {
        what: certificate.revoked(),
        since: SystemTime::UNIX_EPOCH.checked_add(since)?,
    })
}

/// Adds what has not been revoked yet.
pub(super) fn add(
    platform: &Path,
    certificates: &[Certificate],
    now: SystemTime,
) -> Result<(), AttestationError> {
    let path = platform.join(FILE);
    let Some(_locked) = platform_dir::lock(platform) else {
        let why = "another command has the directory locked: try again".into();
        return Err(AttestationError::Revocations { path, why });
    };
    let mut text = text(&path)?;
    let known = parse_all(&path, &text)?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_err(AttestationError::Clock)?;
    for certificate in certificates {
        if known.iter().all(|one| one.what != certificate.revoked()) {
            text += &format!("{} {}\n", certificate.name(), now.as_secs());
        }
    }
    files::write(&path, text.as_bytes())
}
