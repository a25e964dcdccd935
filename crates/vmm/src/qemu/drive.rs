//! `-drive`: images as virtio disks.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::QemuError;
use super::list::OptionList;
use super::wording::BACKING;
use crate::config::{BackingConfig, DiskConfig};
use crate::disk::{self, ImageFormat};

const DRIVE: &str = "-drive";
const EXAMPLE: &str = "-drive file=FILE,if=virtio,format=raw";
const KEYS: &[&str] = &[
    "file",
    "if",
    "format",
    "readonly",
    "id",
    "media",
    "cache",
    "snapshot",
    "discard",
    "backing.driver",
    "backing.file.filename",
];
const IN_QEMU: &[&str] = &[
    "addr",
    "aio",
    "auto-read-only",
    "backing.*",
    "bps",
    "bps_*",
    "bus",
    "cache.*",
    "copy-on-read",
    "cyls",
    "detect-zeroes",
    "driver",
    "file.*",
    "force-share",
    "group",
    "heads",
    "index",
    "iops",
    "iops_*",
    "node-name",
    "offset",
    "read-only",
    "rerror",
    "secs",
    "serial",
    "size",
    "stats-*",
    "throttling.*",
    "trans",
    "unit",
    "werror",
];
/// Values of `if=` that QEMU has besides.
const INTERFACES: [&str; 7] = ["ide", "scsi", "sd", "mtd", "floppy", "pflash", "none"];
/// Formats of images that QEMU has besides.
const FORMATS: [&str; 13] = [
    "bochs",
    "cloop",
    "dmg",
    "host_device",
    "luks",
    "parallels",
    "qcow",
    "qed",
    "replication",
    "vdi",
    "vhdx",
    "vpc",
    "vvfat",
];
/// How a LUKS container begins. With `format=raw` the guest may have made one of the whole disk.
const LUKS: &[u8; 6] = b"LUKS\xba\xbe";

/// Reads a `-drive`.
pub(super) fn drive(text: &str) -> Result<DiskConfig, QemuError> {
    let mut list = OptionList::parse(DRIVE, None, text);
    let file = list.require("file", EXAMPLE)?;
    if file.is_empty() {
        return Err(QemuError::value(DRIVE, "file is empty", format!("write {EXAMPLE}")));
    }
    judge_interface(&list.require("if", EXAMPLE)?)?;
    let format = judge_format(&file, list.take("format")?.as_deref())?;
    let readonly = list.take_bool("readonly")?.unwrap_or(false);
    let snapshot = list.take_bool("snapshot")?.unwrap_or(false);
    let backing = backing(&mut list)?;
    // A name that nothing here can refer to.
    list.take("id")?;
    list.allow(&[("media", "disk"), ("cache", "writeback"), ("discard", "unmap")])?;
    list.finish(IN_QEMU, KEYS)?;
    Ok(DiskConfig { path: file.into(), readonly, format, snapshot, backing })
}

/// Takes out what the image is based on: each layer's keys begin with one `backing.` more.
fn backing(list: &mut OptionList) -> Result<Vec<BackingConfig>, QemuError> {
    let mut layers = Vec::new();
    loop {
        let start = BACKING.repeat(layers.len() + 1);
        let file = list.take(&format!("{start}file.filename"))?.filter(|file| !file.is_empty());
        let driver = list.take(&format!("{start}driver"))?;
        let (file, driver) = match (file, driver) {
            (None, None) => return Ok(layers),
            (None, Some(_)) => {
                let fix = format!("write {start}file.filename=FILE");
                return Err(QemuError::value(DRIVE, format!("{start}driver is of no file"), fix));
            }
            (Some(file), driver) => (file, driver),
        };
        let format = driver.map(|driver| judge_format(&file, Some(&driver))).transpose()?;
        layers.push(BackingConfig { path: file.into(), format: format.flatten() });
    }
}

fn judge_interface(name: &str) -> Result<(), QemuError> {
    let why = match name {
        "virtio" => return Ok(()),
        name if INTERFACES.contains(&name) => {
            format!("QEMU has if={name} and Cloister does not")
        }
        name => format!("if: {name:?} is not an interface"),
    };
    Err(QemuError::value(DRIVE, why, "write if=virtio"))
}

/// The format that is said, if one is. One that is not said must be one that is read here.
fn judge_format(file: &str, format: Option<&str>) -> Result<Option<ImageFormat>, QemuError> {
    let name = format.or_else(|| probe(Path::new(file)));
    let Some(name) = name else { return Ok(None) };
    match ImageFormat::parse(name) {
        Ok(read) => Ok(format.map(|_| read)),
        Err(_) if format.is_none() || FORMATS.contains(&name) => Err(QemuError::value(
            DRIVE,
            format!(
                "{}: QEMU reads {name} and Cloister raw, qcow2 and vmdk only",
                file.escape_debug()
            ),
            format!("convert it with qemu-img convert -f {name} -O qcow2"),
        )),
        Err(_) => {
            let why = format!("format: {name:?} is not a format");
            Err(QemuError::value(DRIVE, why, "write format=raw, format=qcow2 or format=vmdk"))
        }
    }
}

/// The format of an image that is not raw, by its first bytes. One that cannot be read is for the
/// machine to refuse.
fn probe(file: &Path) -> Option<&'static str> {
    let image = File::open(file).ok()?;
    let mut start = [0; LUKS.len()];
    if image.read_exact_at(&mut start, 0).is_ok() && start == *LUKS {
        return Some("luks");
    }
    disk::probe(&image)
}
