//! The text that says what an image consists of.

use super::VmdkError;

/// Bytes of a text at most. QEMU's and VMware's have 10 KiB.
pub(super) const MAX_LEN: usize = 64 << 10;
/// The parent of an image that has none.
const NO_PARENT: u32 = u32::MAX;
/// Digits of a contents' ID.
pub(super) const CID_LEN: usize = 8;
/// Bytes of the longest name of a file that is shown.
const MAX_NAME: usize = 255;

/// What a text says.
#[derive(Default)]
struct Descriptor {
    /// `createType`.
    kind: String,
    is_delta: bool,
    /// Where the digits of the contents' ID are.
    cid: Option<usize>,
    extents: Vec<Extent>,
}

/// A file with a part of the disk.
struct Extent {
    kind: String,
    name: String,
    /// In the file, in sectors.
    offset: String,
}

/// Judges the text in an image. Returns where in it the digits of the contents' ID are.
pub(super) fn judge_embedded(text: &[u8]) -> Result<Option<usize>, VmdkError> {
    let found = Descriptor::parse(text);
    if found.is_delta {
        return Err(VmdkError::Delta);
    }
    if !matches!(found.kind.as_str(), "monolithicSparse" | "streamOptimized") {
        return Err(VmdkError::Kind(found.kind));
    }
    match found.extents.as_slice() {
        [extent] if extent.kind == "SPARSE" => Ok(found.cid),
        _ => Err(VmdkError::Impossible("list of extents")),
    }
}

/// Why an image that is a text, and so has its data elsewhere, cannot be used.
pub(super) fn refuse_separate(text: &[u8]) -> VmdkError {
    let mut found = Descriptor::parse(text);
    if found.is_delta {
        return VmdkError::Delta;
    }
    match found.extents.as_mut_slice() {
        [extent] if extent.is_whole_disk() => VmdkError::Flat(std::mem::take(&mut extent.name)),
        [] | [_] => VmdkError::Kind(found.kind),
        extents => VmdkError::Split(extents.len()),
    }
}

impl Descriptor {
    fn parse(text: &[u8]) -> Self {
        let mut found = Self::default();
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        let mut offset = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            found.add(line, offset);
            offset += line.len();
        }
        found
    }

    /// Reads a line, which begins at `offset`.
    fn add(&mut self, line: &[u8], offset: usize) {
        let text = String::from_utf8_lossy(line);
        if let Some(extent) = Extent::parse(text.trim()) {
            self.extents.push(extent);
            return;
        }
        let Some((key, value)) = text.split_once('=') else { return };
        let value = value.trim();
        match key.trim() {
            "createType" => self.kind = value.trim_matches('"').chars().take(64).collect(),
            "parentCID" => self.is_delta = u32::from_str_radix(value, 16) != Ok(NO_PARENT),
            "CID" => self.cid = digits(line).map(|at| offset + at),
            _ => {}
        }
    }
}

/// Where the digits of a line with a contents' ID are.
fn digits(line: &[u8]) -> Option<usize> {
    let is_digit = u8::is_ascii_hexdigit;
    let start = line.iter().position(|&byte| byte == b'=')? + 1;
    let start = start + line[start..].iter().position(is_digit)?;
    let len = line[start..].iter().take_while(|byte| is_digit(byte)).count();
    (len == CID_LEN).then_some(start)
}

impl Extent {
    /// Reads a line such as `RW 143360 FLAT "disk-flat.vmdk" 0`, if it is one.
    fn parse(line: &str) -> Option<Self> {
        let mut quoted = line.split('"');
        let mut words = quoted.next()?.split_ascii_whitespace();
        if !matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS")) {
            return None;
        }
        let kind = words.nth(1).unwrap_or_default().to_owned();
        let mut rest = || quoted.next().unwrap_or_default().trim().to_owned();
        Some(Self { kind, name: rest(), offset: rest() })
    }

    /// Whether the file has the disk's bytes as they are, and nothing else.
    fn is_whole_disk(&self) -> bool {
        matches!(self.kind.as_str(), "FLAT" | "VMFS")
            && matches!(self.offset.as_str(), "" | "0")
            && (1..=MAX_NAME).contains(&self.name.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPARSE: &str = "# Disk DescriptorFile\nversion=1\nCID=dbf965a6\nparentCID=ffffffff\n\
                          createType=\"monolithicSparse\"\n\n# Extent description\n\
                          RW 143360 SPARSE \"a=b.vmdk\"\n\nddb.adapterType = \"ide\"\n";

    #[test]
    fn a_whole_image_says_so_and_where_the_id_of_its_contents_is() {
        let padded = [SPARSE.as_bytes(), &[0; 100], b"CID=12345678\n"].concat();
        let at = judge_embedded(&padded).unwrap().unwrap();
        assert_eq!(&SPARSE[at..at + CID_LEN], "dbf965a6");

        let spaced = SPARSE.replace("CID=dbf965a6\n", " CID = DBF965A6 \r\n");
        let at = judge_embedded(spaced.as_bytes()).unwrap().unwrap();
        assert_eq!(&spaced[at..at + CID_LEN], "DBF965A6");

        for other in ["CID=1", "CID=123456789", "CID=", "CID", ""] {
            let text = SPARSE.replace("CID=dbf965a6", other);
            assert_eq!(judge_embedded(text.as_bytes()).unwrap(), None, "{other}");
        }
    }

    #[test]
    fn an_image_that_is_not_whole_or_of_another_kind_is_refused() {
        for (old, new, line) in [
            ("=ffffffff", "=dbf965a5", "it is based on another image"),
            ("=ffffffff", "=", "it is based on another image"),
            ("monolithicSparse", "custom\n", "it is a vmdk image of the kind custom"),
            ("monolithicSparse", "a\x1b[m", "it is a vmdk image of the kind a\\u{1b}[m"),
            ("SPARSE", "FLAT", "its list of extents cannot be"),
            ("RW ", "RWX ", "its list of extents cannot be"),
            ("\n\nddb", "\nRW 1 SPARSE \"b\"\nddb", "its list of extents cannot be"),
        ] {
            let text = SPARSE.replace(old, new);
            assert_eq!(judge_embedded(text.as_bytes()).unwrap_err().to_string(), line);
        }
        assert!(judge_embedded(b"").is_err());
    }

    #[test]
    fn a_text_of_its_own_names_where_the_data_are() {
        let flat = SPARSE.replace("monolithicSparse", "monolithicFlat");
        let flat = flat.replace("SPARSE \"a=b.vmdk\"", "FLAT \"a-flat.vmdk\" 0");
        let long = "n".repeat(300);
        for (old, new, line) in [
            ("", "", "its data are in a-flat.vmdk, and no file is opened because an image says so"),
            (" 0\n", "\n", "its data are in a-flat.vmdk, and no file is opened"),
            ("a-flat.vmdk", "/etc/\x1b[2J", "its data are in /etc/\\u{1b}[2J, and no file"),
            ("FLAT", "VMFS", "its data are in a-flat.vmdk, and no file is opened"),
            ("FLAT", "SESPARSE", "it is a vmdk image of the kind monolithicFlat"),
            ("\" 0", "\" 63", "it is a vmdk image of the kind monolithicFlat"),
            ("a-flat.vmdk", &long, "it is a vmdk image of the kind monolithicFlat"),
            ("\n\nddb", "\nRW 1 FLAT \"b\" 0\nddb", "its data are in 2 files"),
            ("=ffffffff", "=0", "it is based on another image"),
        ] {
            let found = refuse_separate(flat.replace(old, new).as_bytes()).to_string();
            assert!(found.starts_with(line), "{found}");
        }
        assert!(matches!(refuse_separate(b"\xff\xff"), VmdkError::Kind(_)));
    }
}
