//! Formats of disk images: those that are read here, and those of other programs, which would be a heap of
//! nonsense to a guest that gets their bytes as those of a disk.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use thiserror::Error;

/// A format that is read and written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageFormat {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's: clusters that are there once they are written, on top of a backing file or of nothing.
    Qcow2,
    /// VMware's, in one file: grains that are there once they are written.
    Vmdk,
}

/// A word that is not the name of such a format.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ImageFormatError {
    /// It is the name of another.
    #[error("{0} images are not read: convert it with qemu-img convert -f {0} -O qcow2")]
    NotRead(&'static str),
    /// It is none.
    #[error("{0:?} is not a format: write raw, qcow2 or vmdk")]
    Unknown(String),
}

impl ImageFormat {
    /// The format of this name for `qemu-img -f`.
    ///
    /// # Errors
    ///
    /// [`ImageFormatError`].
    pub fn parse(name: &str) -> Result<Self, ImageFormatError> {
        match name {
            "raw" => Ok(Self::Raw),
            QCOW2 => Ok(Self::Qcow2),
            VMDK => Ok(Self::Vmdk),
            other => Err(match MAGICS.iter().find(|magic| magic.name == other) {
                Some(magic) => ImageFormatError::NotRead(magic.name),
                None => ImageFormatError::Unknown(other.to_owned()),
            }),
        }
    }
}

/// Names of the formats that are read here besides raw.
const QCOW2: &str = "qcow2";
const VMDK: &str = "vmdk";
/// Bytes at the start of an image by which it is told.
pub(crate) const PROBED: usize = 512;

/// Where an image of a format has which bytes.
struct Magic {
    /// The format's name for `qemu-img -f`.
    name: &'static str,
    offset: usize,
    bytes: &'static [u8],
}

const fn magic(name: &'static str, offset: usize, bytes: &'static [u8]) -> Magic {
    Magic { name, offset, bytes }
}

/// Formats that no disk's own contents begin with. (A disk that is encrypted by LUKS begins with the
/// bytes of QEMU's format `luks`, and a VHD of fixed size is a disk followed by one sector.)
const MAGICS: &[Magic] = &[
    magic("qcow", 0, b"QFI\xfb\0\0\0\x01"),
    magic(QCOW2, 0, b"QFI\xfb"),
    magic("qed", 0, b"QED\0"),
    magic(VMDK, 0, b"KDMV"),
    magic(VMDK, 0, b"COWD"),
    magic(VMDK, 0, b"# Disk DescriptorFile"),
    magic("vhdx", 0, b"vhdxfile"),
    magic("vpc", 0, b"conectix"),
    magic("vdi", 0x40, b"\x7f\x10\xda\xbe"),
    magic("parallels", 0, b"WithoutFreeSpace"),
    magic("parallels", 0, b"WithouFreSpacExt"),
];

/// The format of an image that is not raw, by the bytes that it has for it. One that cannot be read is
/// for its user to refuse.
#[must_use]
pub fn probe(image: &File) -> Option<&'static str> {
    let mut start = [0; PROBED];
    let mut len = 0;
    while let Some(rest) = start.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match image.read_at(rest, len as u64) {
            Ok(0) | Err(_) => break,
            Ok(read) => len += read,
        }
    }
    probe_bytes(&start[..len])
}

/// As [`probe`], of an image that begins with these bytes.
pub(crate) fn probe_bytes(start: &[u8]) -> Option<&'static str> {
    let has = |magic: &&Magic| {
        start.get(magic.offset..).is_some_and(|bytes| bytes.starts_with(magic.bytes))
    };
    MAGICS.iter().find(has).map(|magic| magic.name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn probed(bytes: &[u8]) -> Option<&'static str> {
        let path = std::env::temp_dir().join(format!("cloister-format-{}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        let found = probe(&File::open(&path).unwrap());
        fs::remove_file(&path).unwrap();
        found
    }

    #[test]
    fn formats_are_told_by_their_magic_and_disks_are_raw() {
        let mut vdi = b"<<< Oracle VM VirtualBox Disk Image >>>\n".to_vec();
        vdi.resize(0x40, 0);
        vdi.extend([0x7f, 0x10, 0xda, 0xbe, 1, 0, 1, 0]);
        let mut mbr = vec![0xeb; 0x1fe];
        mbr.extend([0x55, 0xaa]);
        for (bytes, format) in [
            (&b"QFI\xfb\0\0\0\x03\0\0\0\0"[..], Some("qcow2")),
            (b"QFI\xfb\0\0\0\x01\0\0\0\0", Some("qcow")),
            (b"QED\0rest", Some("qed")),
            (b"KDMV\x01\0\0\0", Some("vmdk")),
            (b"# Disk DescriptorFile\nversion=1\n", Some("vmdk")),
            (b"vhdxfile", Some("vhdx")),
            (b"conectix", Some("vpc")),
            (b"WithoutFreeSpace\x02", Some("parallels")),
            (&vdi, Some("vdi")),
            (&mbr, None),
            (b"LUKS\xba\xbe\0\x01", None),
            (&[0; 512], None),
            (b"", None),
        ] {
            assert_eq!(probed(bytes), format, "{bytes:x?}");
        }
    }

    #[test]
    fn formats_that_are_not_read_say_how_they_are_converted() {
        assert_eq!(ImageFormat::parse("raw"), Ok(ImageFormat::Raw));
        assert_eq!(ImageFormat::parse("qcow2"), Ok(ImageFormat::Qcow2));
        assert_eq!(ImageFormat::parse("vmdk"), Ok(ImageFormat::Vmdk));
        for (name, line) in [
            ("vdi", "vdi images are not read: convert it with qemu-img convert -f vdi -O qcow2"),
            ("jpeg", "\"jpeg\" is not a format: write raw, qcow2 or vmdk"),
            ("", "\"\" is not a format: write raw, qcow2 or vmdk"),
        ] {
            assert_eq!(ImageFormat::parse(name).unwrap_err().to_string(), line);
        }
    }
}
