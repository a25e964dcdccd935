//! The partition table of the image.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Bytes of the image that the tests have. Most are zeros, which take no room.
pub(crate) const SIZE: u64 = 1 << 30;
/// Where the partition begins, and what is left after it for the second table.
const START: u64 = 1 << 20;
const BEHIND: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// UUID of the root file system, which GRUB's configuration names.
pub(super) const ROOT_UUID: &str = "3f0c1a52-7f34-4b0e-9a63-5f2f6f0b8d11";

/// What changes the image when it changes.
pub(super) fn recipe() -> String {
    format!("{SIZE} {START} {BEHIND} {ROOT_UUID}")
}

/// Offset of the root file system in the image.
pub(crate) const fn root_offset() -> u64 {
    START
}

/// KiB of the root file system of an image.
pub(crate) const fn root_kib(size: u64) -> u64 {
    (size - START - BEHIND) >> 10
}

/// Makes an empty image with a GPT and one partition for Linux.
///
/// # Errors
/// It cannot be written.
pub(crate) fn create(image: &Path) -> Result<()> {
    File::create(image).with_context(|| format!("cannot create {}", image.display()))?;
    partition(image, SIZE)
}

/// Gives an image another size and a new table, whose partition begins where it did.
///
/// # Errors
/// It cannot be written.
pub(super) fn partition(image: &Path, size: u64) -> Result<()> {
    let context = || format!("cannot partition {}", image.display());
    let mut writer = File::options().read(true).write(true).open(image).with_context(context)?;
    writer.set_len(size).with_context(context)?;
    // The table that old systems see: the whole disk is GPT's.
    let sectors = u32::try_from(size / SECTOR - 1).unwrap_or(u32::MAX);
    gpt::mbr::ProtectiveMBR::with_lb_size(sectors)
        .overwrite_lba0(&mut writer)
        .with_context(context)?;
    let mut table = gpt::GptConfig::new().writable(true).create(image).with_context(context)?;
    let added = table
        .add_partition_at(
            "root",
            1,
            START / SECTOR,
            (size - START - BEHIND) / SECTOR,
            gpt::partition_types::LINUX_FS,
            0,
        )
        .with_context(context)?;
    if added != 1 {
        bail!("{}: the partition has number {added} instead of 1", image.display());
    }
    table.write().with_context(context)?;
    Ok(())
}
