//! `cloister seed`: a disk by which cloud-init configures a machine at its first boot (its data source
//! NoCloud): a FAT file system labelled CIDATA, with files of fixed names.

use std::fs::OpenOptions;
use std::io::{self, Cursor, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::host_file::read_at_most;

/// What cloud-init looks for, as a FAT file system has it.
const LABEL: [u8; 11] = *b"CIDATA     ";
/// The most that a file may hold. cloud-init reads each into memory.
const LONGEST: u64 = 16 << 20;
/// Bytes of a file system that holds next to nothing, and what one needs besides its files.
const SMALLEST: usize = 1 << 20;
/// File systems are of whole parts of this.
const UNIT: usize = 64 << 10;
/// How user data begin that cloud-init does something with (its documentation, "User data formats").
const BEGINNINGS: [&[u8]; 9] = [
    b"#cloud-config",
    b"#!",
    b"#include",
    b"#cloud-boothook",
    b"#part-handler",
    b"## template: jinja",
    b"Content-Type:",
    b"MIME-Version:",
    // Any of them, compressed by gzip.
    b"\x1f\x8b",
];

/// Options of `cloister seed`.
#[derive(Args, Debug)]
pub struct SeedArgs {
    /// The image to make
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// What to configure: a file that begins with #cloud-config, or a script
    #[arg(long, value_name = "FILE")]
    user_data: PathBuf,
    /// What the machine is called and known by [default: an instance of its own for each user data]
    #[arg(long, value_name = "FILE", conflicts_with = "hostname")]
    meta_data: Option<PathBuf>,
    /// The machine's name, instead of meta data
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// The network's configuration, of version 1 or 2
    #[arg(long, value_name = "FILE")]
    network_config: Option<PathBuf>,
}

/// Why there is no image. Each message is one line that names the option and the fix.
#[derive(Debug, Error)]
pub enum SeedError {
    /// A file cannot be read.
    #[error("{option}: cannot read {path}: {why}: name {what}", path = .path.display())]
    Read {
        /// Which option names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What is wanted.
        what: &'static str,
    },
    /// User data of which cloud-init takes no notice.
    #[error(
        "--user-data: cloud-init does not know what {path} is: begin it with #cloud-config or #!",
        path = .0.display()
    )]
    Unknown(PathBuf),
    /// A name that no machine can have.
    #[error(
        "--hostname: {0:?} is not a name: write letters, digits and dashes, 63 at most, with dots between"
    )]
    Hostname(String),
    /// The image is there already.
    #[error("{path} is there already: name another file, or remove it first", path = .0.display())]
    Exists(PathBuf),
    /// The image cannot be written.
    #[error("cannot write {path}: {reason}: name one in a folder that you may write", path = .path.display())]
    Write {
        /// The image.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
}

/// Makes the image, and says how it is used.
///
/// # Errors
///
/// [`SeedError`]. There is no image then.
pub fn seed(args: &SeedArgs) -> Result<String, SeedError> {
    let user_data = read("--user-data", &args.user_data, "cloud-init's user data")?;
    if !BEGINNINGS.iter().any(|beginning| user_data.starts_with(beginning)) {
        return Err(SeedError::Unknown(args.user_data.clone()));
    }
    let meta_data = match &args.meta_data {
        Some(path) => read("--meta-data", path, "cloud-init's meta data")?,
        None => meta_data(args.hostname.as_deref(), &user_data)?,
    };
    let mut files = vec![("user-data", user_data), ("meta-data", meta_data)];
    if let Some(path) = &args.network_config {
        let config = read("--network-config", path, "a configuration of the network")?;
        files.push(("network-config", config));
    }
    let failed = |reason: io::Error| match reason.kind() {
        io::ErrorKind::AlreadyExists => SeedError::Exists(args.out.clone()),
        _ => SeedError::Write { path: args.out.clone(), reason },
    };
    let image = image(&files).map_err(failed)?;
    // Only its user's: there may be passwords in it.
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.out);
    let mut file = options.map_err(failed)?;
    if let Err(reason) = file.write_all(&image) {
        // Whether it is there or not: it is of no use.
        let _ = std::fs::remove_file(&args.out);
        return Err(failed(reason));
    }
    let shown = args.out.display();
    Ok(format!("{shown}: add --disk {shown},readonly after the machine's own disk\n"))
}

fn read(option: &'static str, path: &Path, what: &'static str) -> Result<Vec<u8>, SeedError> {
    let unreadable = |why: String| SeedError::Read { option, path: path.to_owned(), why, what };
    let bytes = read_at_most(path, LONGEST).map_err(unreadable)?;
    if bytes.is_empty() {
        return Err(unreadable("it is empty".to_owned()));
    }
    Ok(bytes)
}

/// Meta data by which other user data are another instance's, which cloud-init configures anew.
fn meta_data(hostname: Option<&str>, user_data: &[u8]) -> Result<Vec<u8>, SeedError> {
    let digest = Sha256::digest(user_data);
    let id: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = format!("instance-id: cloister-{id}\n");
    if let Some(name) = hostname {
        if !is_hostname(name) {
            return Err(SeedError::Hostname(name.to_owned()));
        }
        text += &format!("local-hostname: {name}\n");
    }
    Ok(text.into_bytes())
}

/// Whether a text is a name of RFC 1123, section 2.1, which means the same in YAML.
fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// A file system with these files.
fn image(files: &[(&str, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let needed: usize = files.iter().map(|(_, bytes)| bytes.len().next_multiple_of(UNIT)).sum();
    let mut bytes = vec![0; SMALLEST + needed];
    // The same files are the same image.
    let digest = files.iter().fold(Sha256::new(), |digest, (_, bytes)| digest.chain_update(bytes));
    let [a, b, c, d, ..] = digest.finalize()[..] else { return Err(io::ErrorKind::Other.into()) };
    let options =
        FormatVolumeOptions::new().volume_id(u32::from_le_bytes([a, b, c, d])).volume_label(LABEL);
    fatfs::format_volume(Cursor::new(&mut bytes[..]), options)?;
    let system = FileSystem::new(Cursor::new(&mut bytes[..]), FsOptions::new())?;
    for (name, contents) in files {
        system.root_dir().create_file(name)?.write_all(contents)?;
    }
    system.unmount()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_image_holds_its_files_under_their_long_names_and_the_label() {
        let large = vec![7; 3 << 20];
        let files = [("user-data", large), ("meta-data", b"instance-id: x\n".to_vec())];

        let bytes = image(&files).unwrap();

        let again = image(&files).unwrap();
        let system = FileSystem::new(Cursor::new(bytes.clone()), FsOptions::new()).unwrap();
        assert_eq!(system.volume_label(), "CIDATA");
        let label = system.read_volume_label_from_root_dir().unwrap();
        assert_eq!(label.as_deref(), Some("CIDATA"));
        for (name, contents) in &files {
            let mut read = Vec::new();
            system.root_dir().open_file(name).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == *contents, "{name}");
        }
        assert!(bytes == again);
    }

    #[test]
    fn other_user_data_are_another_instance() {
        let text = |name, data: &[u8]| String::from_utf8(meta_data(name, data).unwrap()).unwrap();

        let (one, other) =
            (text(None, b"#cloud-config\n"), text(Some("web-1.local"), b"#!/bin/sh\n"));

        let id = |text: &str| text.lines().next().unwrap().to_owned();
        assert!(id(&one).starts_with("instance-id: cloister-") && id(&one) != id(&other));
        assert!(other.ends_with("\nlocal-hostname: web-1.local\n"), "{other}");
    }

    #[test]
    fn names_of_machines_have_no_way_into_the_meta_data() {
        for name in ["", "a b", "-a", "a-", "a..b", "a\nb: c", "a:", "ä", &"x".repeat(64)] {
            assert!(meta_data(Some(name), b"").is_err(), "{name:?}");
        }
    }
}
