//! The signed enclave image: an SGXS stream, a SIGSTRUCT and the MRENCLAVE that
//! the `sgxs` crate computed, as xtask wrote them.

use std::fs;
use std::path::Path;

/// Bytes of an EPC page.
pub(crate) const PAGE: usize = 4096;
/// Bytes of a SIGSTRUCT (SDM vol. 3D, table 35-19).
pub(crate) const SIGSTRUCT_SIZE: usize = 1808;

/// One page of the enclave in the order in which it is measured.
pub(crate) struct Page {
    pub(crate) offset: u64,
    /// SECINFO.FLAGS.
    pub(crate) flags: u64,
    pub(crate) contents: Box<[u8; PAGE]>,
}

/// A whole image.
pub(crate) struct Image {
    /// Bytes of ELRANGE, a power of two.
    pub(crate) size: u64,
    /// SECS.SSAFRAMESIZE in pages.
    pub(crate) ssa_frame_size: u32,
    pub(crate) pages: Vec<Page>,
    pub(crate) sigstruct: Vec<u8>,
    pub(crate) mrenclave: Vec<u8>,
}

impl Image {
    /// Reads `demo.sgxs`, `demo.sig` and `demo.mrenclave`.
    pub(crate) fn load(directory: &str) -> Result<Self, String> {
        let read = |name: &str| {
            let path = Path::new(directory).join(name);
            fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let sigstruct = read("demo.sig")?;
        if sigstruct.len() != SIGSTRUCT_SIZE {
            return Err("demo.sig is not a SIGSTRUCT".to_owned());
        }
        let (size, ssa_frame_size, pages) =
            parse(&read("demo.sgxs")?).ok_or("demo.sgxs is not an SGXS stream")?;
        Ok(Self { size, ssa_frame_size, pages, sigstruct, mrenclave: read("demo.mrenclave")? })
    }
}

/// The SGXS stream is what ECREATE, EADD and EEXTEND feed to MRENCLAVE: records
/// of 64 bytes that begin with the leaf's name, EEXTEND's followed by its 256 bytes.
fn parse(mut stream: &[u8]) -> Option<(u64, u32, Vec<Page>)> {
    let header = stream.split_off(..64)?;
    if !header.starts_with(b"ECREATE\0") {
        return None;
    }
    let ssa_frame_size = u32::from_le_bytes(header.get(8..12)?.try_into().ok()?);
    let size = u64_at(header, 12)?;
    let mut pages: Vec<Page> = Vec::new();
    while let Some(record) = stream.split_off(..64) {
        let offset = u64_at(record, 8)?;
        if record.starts_with(b"EADD\0\0\0\0") {
            let contents = Box::new([0; PAGE]);
            pages.push(Page { offset, flags: u64_at(record, 16)?, contents });
        } else if record.starts_with(b"EEXTEND\0") {
            let data = stream.split_off(..256)?;
            let page = pages.last_mut()?;
            let at = usize::try_from(offset.checked_sub(page.offset)?).ok()?;
            page.contents.get_mut(at..at + 256)?.copy_from_slice(data);
        } else {
            return None;
        }
    }
    Some((size, ssa_frame_size, pages))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
