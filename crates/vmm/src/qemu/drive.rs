//! `-drive`: raw images as virtio disks.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::QemuError;
use super::list::OptionList;
use crate::config::DiskConfig;
use crate::image_format;

const DRIVE: &str = "-drive";
const EXAMPLE: &str = "-drive file=FILE,if=virtio,format=raw";
const KEYS: &[&str] = &["file", "if", "format", "readonly", "id", "media", "cache", "snapshot"];
const IN_QEMU: &[&str] = &[
    "addr",
    "aio",
    "auto-read-only",
    "bps",
    "bps_*",
    "bus",
    "cache.*",
    "copy-on-read",
    "cyls",
    "detect-zeroes",
    "discard",
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
const FORMATS: [&str; 15] = [
    "bochs",
    "cloop",
    "dmg",
    "host_device",
    "luks",
    "parallels",
    "qcow",
    "qcow2",
    "qed",
    "replication",
    "vdi",
    "vhdx",
    "vmdk",
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
    let format = list.take("format")?;
    judge_format(&file, format.as_deref())?;
    let readonly = list.take_bool("readonly")?.unwrap_or(false);
    // A name that nothing here can refer to.
    list.take("id")?;
    list.allow(&[("media", "disk"), ("cache", "writeback"), ("snapshot", "off")])?;
    list.finish(IN_QEMU, KEYS)?;
    Ok(DiskConfig { path: file.into(), readonly })
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

fn judge_format(file: &str, format: Option<&str>) -> Result<(), QemuError> {
    let other = match format {
        Some("raw") => return Ok(()),
        Some(name) if FORMATS.contains(&name) => name,
        Some(name) => {
            let why = format!("format: {name:?} is not a format");
            return Err(QemuError::value(DRIVE, why, "write format=raw"));
        }
        None => match probe(Path::new(file)) {
            Some(name) => name,
            None => return Ok(()),
        },
    };
    Err(QemuError::value(
        DRIVE,
        format!("{}: QEMU reads {other} and Cloister raw images only", file.escape_debug()),
        format!("convert it with qemu-img convert -f {other} -O raw"),
    ))
}

/// The format of an image that is not raw, by its first bytes. One that cannot be read is for the
/// machine to refuse.
fn probe(file: &Path) -> Option<&'static str> {
    let image = File::open(file).ok()?;
    let mut start = [0; LUKS.len()];
    if image.read_exact_at(&mut start, 0).is_ok() && start == *LUKS {
        return Some("luks");
    }
    image_format::probe(&image)
}
