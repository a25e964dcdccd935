//! The header of a sparse extent, as somebody hostile may have written it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::{SECTOR, VmdkError, descriptor, read_padded};

/// Bytes of a header.
const LEN: usize = 512;
const MAGIC: &[u8] = b"KDMV";
/// How VMware ESX's sparse extents begin.
const COWD: &[u8] = b"COWD";
/// How its SE sparse extents begin.
const SE_SPARSE: &[u8] = &[0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0];
/// How an image begins that is a text.
const TEXT: &[u8] = b"# Disk DescriptorFile";

/// Flags.
const CHECKS_LINE_ENDS: u32 = 1 << 0;
const HAS_REDUNDANT_TABLES: u32 = 1 << 1;
const HAS_ZERO_GRAINS: u32 = 1 << 2;
const IS_COMPRESSED: u32 = 1 << 16;
const HAS_MARKERS: u32 = 1 << 17;
const KNOWN_FLAGS: u32 =
    CHECKS_LINE_ENDS | HAS_REDUNDANT_TABLES | HAS_ZERO_GRAINS | IS_COMPRESSED | HAS_MARKERS;

/// What a copy as text would have changed.
const LINE_ENDS: &[u8] = b"\n \r\n";
/// The compression that is known: RFC 1950's.
const DEFLATE: u16 = 1;
/// The place of a grain directory that a second header, at the file's end, tells.
const AT_END: u64 = u64::MAX;
/// Bytes of the file's end that have it: a marker, the header, and the marker of the end.
const FOOTER: u64 = 3 * SECTOR;
/// The marker of a second header.
const FOOTER_MARKER: u32 = 3;

/// Entries of a grain table; the format has no other number.
pub(super) const TABLE: u64 = 512;
/// Sectors of a grain. No fewer are allowed by the format; the most are those of qcow2's largest cluster.
const GRAIN_SECTORS: std::ops::RangeInclusive<u64> = 8..=4096;
/// Most grain tables of an image: those of 32 TiB with usual grains, and of all that a file of this format can
/// have with the smallest.
const MAX_TABLES: u64 = 1 << 20;

/// A header whose numbers are possible. Offsets and lengths without a unit are in sectors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Bytes of a grain.
    pub(super) grain: u64,
    pub(super) version: u32,
    pub(super) is_compressed: bool,
    /// An entry of 1 is a grain of zeros.
    pub(super) has_zero_grains: bool,
    pub(super) descriptor: Range<u64>,
    pub(super) directory: u64,
    pub(super) redundant_directory: Option<u64>,
    /// Where grains begin, in an image without compressed ones.
    pub(super) first_grain: u64,
}

impl Header {
    /// Reads the header of a file of `file_len` bytes.
    pub(super) fn judge(file: &File, file_len: u64) -> Result<Self, VmdkError> {
        let mut raw = Raw([0; LEN]);
        read_padded(file, 0, &mut raw.0).map_err(VmdkError::Read)?;
        if !raw.0.starts_with(MAGIC) {
            return Err(refuse(file, &raw.0));
        }
        let (version, flags) = (raw.u32(4), raw.u32(8));
        if !(1..=3).contains(&version) {
            return Err(VmdkError::Version(version));
        }
        if flags & !KNOWN_FLAGS != 0 {
            return Err(VmdkError::Flags(flags));
        }
        if flags & CHECKS_LINE_ENDS != 0 && &raw.0[73..77] != LINE_ENDS {
            return Err(VmdkError::Impossible("mark of line ends"));
        }
        let is_compressed = match (flags & (IS_COMPRESSED | HAS_MARKERS), raw.u16(77)) {
            (0, 0) => false,
            (flags, DEFLATE) if flags == IS_COMPRESSED | HAS_MARKERS => true,
            (0, compression) => return Err(VmdkError::Compression(compression)),
            (_, compression) if compression != DEFLATE => {
                return Err(VmdkError::Compression(compression));
            }
            _ => return Err(VmdkError::Flags(flags)),
        };
        let (capacity, grain) = (raw.u64(12), raw.u64(20));
        if !grain.is_power_of_two() || !GRAIN_SECTORS.contains(&grain) {
            return Err(VmdkError::Impossible("grain size"));
        }
        if u64::from(raw.u32(44)) != TABLE {
            return Err(VmdkError::Impossible("size of grain tables"));
        }
        if !(1..=MAX_TABLES).contains(&capacity.div_ceil(grain * TABLE)) {
            return Err(VmdkError::Impossible("size"));
        }
        let first_grain = raw.u64(64);
        if first_grain > file_len / SECTOR {
            return Err(VmdkError::Impossible("length"));
        }
        let has_redundant = flags & HAS_REDUNDANT_TABLES != 0 && !is_compressed;
        Ok(Self {
            size: capacity * SECTOR,
            grain: grain * SECTOR,
            version,
            is_compressed,
            has_zero_grains: flags & HAS_ZERO_GRAINS != 0,
            descriptor: judge_descriptor(raw.u64(28), raw.u64(36), file_len)?,
            directory: match raw.u64(56) {
                AT_END => directory_at_end(file, file_len, &raw)?,
                at => at,
            },
            redundant_directory: has_redundant.then(|| raw.u64(48)),
            first_grain,
        })
    }

    /// How many grain tables there are.
    pub(super) const fn tables(&self) -> u64 {
        self.size.div_ceil(self.grain * TABLE)
    }

    /// The image's text.
    pub(super) fn text(&self, file: &File) -> Result<Vec<u8>, VmdkError> {
        let len = (self.descriptor.end - self.descriptor.start) * SECTOR;
        let mut text = vec![0; usize::try_from(len).unwrap_or_default()];
        read(file, self.descriptor.start * SECTOR, &mut text)?;
        Ok(text)
    }
}

/// A header's bytes.
struct Raw([u8; LEN]);

impl Raw {
    fn read(file: &File, offset: u64) -> Result<Self, VmdkError> {
        let mut bytes = [0; LEN];
        read(file, offset, &mut bytes)?;
        Ok(Self(bytes))
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|index| self.0[at + index])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }
}

/// Why a file that begins with these bytes cannot be used.
fn refuse(file: &File, start: &[u8]) -> VmdkError {
    if start.starts_with(COWD) {
        return VmdkError::Kind("COWD".to_owned());
    }
    if start.starts_with(SE_SPARSE) {
        return VmdkError::Kind("seSparse".to_owned());
    }
    if !start.starts_with(TEXT) {
        return VmdkError::NotVmdk;
    }
    let mut text = vec![0; descriptor::MAX_LEN];
    match read_padded(file, 0, &mut text) {
        Ok(()) => descriptor::refuse_separate(&text),
        Err(error) => VmdkError::Read(error),
    }
}

fn judge_descriptor(start: u64, len: u64, file_len: u64) -> Result<Range<u64>, VmdkError> {
    if start == 0 || len == 0 {
        return Err(VmdkError::Part);
    }
    match start.checked_add(len) {
        Some(end) if len <= descriptor::MAX_LEN as u64 / SECTOR && end <= file_len / SECTOR => {
            Ok(start..end)
        }
        _ => Err(VmdkError::Impossible("descriptor")),
    }
}

/// The place of the grain directory by the second header, which is like the first but for it.
fn directory_at_end(file: &File, file_len: u64, first: &Raw) -> Result<u64, VmdkError> {
    const WRONG: VmdkError = VmdkError::Impossible("second header");
    let start = file_len.checked_sub(FOOTER).ok_or(WRONG)?;
    let [marker, header, end] = [0, 1, 2].map(|sector| Raw::read(file, start + sector * SECTOR));
    let (marker, header, end) = (marker?, header?, end?);
    // The size of what a marker is of, and the marker's kind.
    let markers = [(marker.u32(8), marker.u32(12)), (end.u32(8), end.u32(12))];
    let is_like = header.0[..28] == first.0[..28] && header.bytes::<4>(44) == first.bytes(44);
    match header.u64(56) {
        AT_END => Err(WRONG),
        at if is_like && markers == [(0, FOOTER_MARKER), (0, 0)] => Ok(at),
        _ => Err(WRONG),
    }
}

/// Reads what must be there.
pub(super) fn read(file: &File, offset: u64, buffer: &mut [u8]) -> Result<(), VmdkError> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => VmdkError::NotVmdk,
        _ => VmdkError::Read(error),
    })
}
