//! A disk with an installed Debian 12: made by debootstrap, with systemd, the stock cloud kernel
//! and GRUB's configuration, as `cloister run --disk` boots it.

mod disk;
mod overlay;
mod root;
mod smallest;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::apt::Archive;
use crate::guest::Programs;
use crate::image::hex;
use crate::{enclave, process, repository, selftests};
pub(crate) use disk::{SIZE, create as create_disk, root_kib, root_offset};
use overlay::Overlay;
pub(crate) use smallest::smallest;
use tools::Tools;

/// The image, which nobody writes to: machines get copies.
pub(crate) struct Debian {
    image: PathBuf,
}

impl Debian {
    /// The image that was made before if it holds the same, else a new one.
    ///
    /// # Errors
    /// Packages that cannot be fetched, programs that do not compile, debootstrap's own.
    pub(crate) fn get() -> Result<Self> {
        Self::with("debian", "")
    }

    /// The same with cloud-init, as clouds have it.
    ///
    /// # Errors
    /// As [`Debian::get`].
    pub(crate) fn for_clouds() -> Result<Self> {
        Self::with("debian-cloud", "cloud-init,python3-cffi-backend,iproute2,iputils-ping,sudo")
    }

    /// An image in a folder of its own, with further packages.
    fn with(folder: &str, further: &str) -> Result<Self> {
        let archive = Archive::open()?;
        let programs = Programs::build()?;
        let signed = enclave::sign(&programs.enclave)?;
        let built = selftests::build(&archive)?;
        let overlay = Overlay::new(&programs, signed, &built)?;

        let folder = repository::cache().join(folder);
        let (image, key_file) = (folder.join("debian-12.img"), folder.join("debian-12.key"));
        let mut recipe = Sha256::new();
        recipe.update(root::recipe());
        recipe.update(further);
        recipe.update(disk::recipe());
        overlay.describe(&mut recipe);
        let key = hex(&recipe.finalize());
        if image.exists() && fs::read_to_string(&key_file).is_ok_and(|made| made == key) {
            return Ok(Self { image });
        }

        let tools = Tools::get(&archive)?;
        process::step("Making a disk with Debian 12");
        let start = Instant::now();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let _ = fs::remove_file(&key_file);
        let files = folder.join("files");
        overlay.write(&files)?;
        disk::create(&image)?;
        root::make(&tools, &folder, &files, &image, further)?;
        fs::write(&key_file, key)?;
        process::done(start);
        Ok(Self { image })
    }

    /// A copy of the image of a size of at least [`SIZE`], in its place if there is one.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn copy(&self, path: &Path, size: u64) -> Result<()> {
        copy_sparse(&self.image, path)
            .with_context(|| format!("cannot copy the image to {}", path.display()))?;
        if size == SIZE { Ok(()) } else { grow(path, size) }
    }
}

/// Gives the root file system of a copy all of the size that the copy shall have.
fn grow(image: &Path, size: u64) -> Result<()> {
    let partition = format!("{}?offset={}", image.display(), root_offset());
    let mut command = Command::new("resize2fs");
    // Where Debian has it; an unprivileged user's path may not.
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    process::capture(command.arg(partition).arg(format!("{}K", root_kib(size))))?;
    // Now, since the file ends with the file system, where the second table has to follow.
    disk::partition(image, size)
}

/// Copies a file; stretches of zeros take no room.
fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    // Shares the blocks where the file system can.
    let mut command = Command::new("cp");
    command.args(["--reflink=auto", "--sparse=always", "--"]).arg(from).arg(to);
    process::capture(&mut command)?;
    Ok(())
}
