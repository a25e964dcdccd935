//! From the compiled enclave to what the guest loads: an SGXS stream, the MRENCLAVE
//! of its pages by the `sgxs` crate, and a signed SIGSTRUCT.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use sgx_isa::{AttributesFlags, Miscselect, PageType, SecinfoFlags, Tcs};
use sgxs::sgxs::{CanonicalSgxsWriter, MeasECreate, PageChunk, SecinfoTruncated};
use sgxs::sigstruct::{self, EnclaveHash};

use crate::process;
use crate::signer::{Hasher, Signer};

/// Bytes of an EPC page.
const PAGE: usize = 4096;
/// Bytes of ELRANGE; guest/enclave/src/main.rs says the same.
const ELRANGE_SIZE: u64 = 0x1000_0000;
/// The same of the enclave that has no page; guest/rules/src/operands.rs says the same.
const EMPTY_ELRANGE_SIZE: u64 = 0x1_0000;
/// Threads, whose pages lie one after the other from the beginning of ELRANGE.
const THREADS: u64 = 4;
/// Bytes of a thread's pages.
const THREAD_SIZE: u64 = 0x4000;
/// SSA frames of a thread: one for its faults, one for the handler's.
const SSA_FRAMES: u32 = 2;
/// From a TCS to its first SSA frame, in bytes.
const SSA_OFFSET: u64 = 0x1000;
/// From a TCS to its page of data, in bytes.
const PROBE_OFFSET: u64 = 0x3000;

/// Bytes of ELRANGE of the enclaves of random programs, and the pages that they begin with: offset in pages and
/// SECINFO.FLAGS. guest/random/src/enclave.rs says the same.
const RANDOM_ELRANGE_SIZE: u64 = 32 * PAGE as u64;
const RANDOM_LAYOUT: [(u64, u64); 12] = [
    (0, 0x100),
    (1, 0x203),
    (2, 0x203),
    (4, 0x207),
    (8, 0x203),
    (9, 0x203),
    (10, 0x201),
    (12, 0x203),
    (20, 0x100),
    (21, 0x203),
    (22, 0x205),
    (28, 0x203),
];

/// XFRM of every enclave.
const X87_AND_SSE: u64 = 3;
/// XFRM.AVX.
const AVX: u64 = 4;

/// A signed enclave.
pub(crate) struct Signed {
    /// ECREATE, EADD and EEXTEND as the `sgxs` crate writes them.
    pub(crate) stream: Vec<u8>,
    /// MRENCLAVE as the `sgxs` crate computes it.
    pub(crate) mrenclave: [u8; 32],
    /// SIGSTRUCT, 1808 bytes.
    pub(crate) sigstruct: Vec<u8>,
}

/// One page before it is measured.
struct Page {
    offset: u64,
    flags: SecinfoFlags,
    contents: Vec<u8>,
}

/// Lays out, measures and signs the enclave in an ELF file.
///
/// # Errors
/// A file that is not such an enclave; failures of the signer.
pub(crate) fn sign(program: &Path) -> Result<Signed> {
    let elf = process::read(program)?;
    let pages = pages(&elf).with_context(|| format!("{} is not an enclave", program.display()))?;
    let mut stream = Vec::new();
    let header = MeasECreate { size: ELRANGE_SIZE, ssaframesize: 1 };
    let mut writer = CanonicalSgxsWriter::new(&mut stream, header, true)?;
    for page in &pages {
        let secinfo = SecinfoTruncated { flags: page.flags };
        let chunks = [PageChunk::IncludedMeasured; 16];
        writer.write_page((&mut &page.contents[..], chunks), Some(page.offset), secinfo)?;
    }
    let (hash, sigstruct) = sigstruct_of(&stream)?;
    Ok(Signed { stream, mrenclave: hash.hash(), sigstruct })
}

/// SIGSTRUCT of an enclave of no page, which `guest/rules` creates.
///
/// # Errors
/// Failures of the signer.
pub(crate) fn sign_nothing() -> Result<Vec<u8>> {
    let mut stream = Vec::new();
    let header = MeasECreate { size: EMPTY_ELRANGE_SIZE, ssaframesize: 1 };
    CanonicalSgxsWriter::new(&mut stream, header, true)?;
    Ok(sigstruct_of(&stream)?.1)
}

/// SIGSTRUCT of the enclaves of `guest/random`: whatever their pages hold, which is not measured, and with EXINFO.
///
/// # Errors
/// Failures of the signer.
pub(crate) fn sign_random() -> Result<Vec<u8>> {
    let mut stream = Vec::new();
    let header = MeasECreate { size: RANDOM_ELRANGE_SIZE, ssaframesize: 1 };
    let mut writer = CanonicalSgxsWriter::new(&mut stream, header, true)?;
    for (page, flags) in RANDOM_LAYOUT {
        let secinfo = SecinfoTruncated { flags: SecinfoFlags::from_bits_truncate(flags) };
        let chunks = [PageChunk::Included; 16];
        writer.write_page((&mut &[0; PAGE][..], chunks), Some(page * PAGE as u64), secinfo)?;
    }
    Ok(sigstruct_with(&stream, Miscselect::EXINFO)?.1)
}

fn sigstruct_of(stream: &[u8]) -> Result<(EnclaveHash, Vec<u8>)> {
    sigstruct_with(stream, Miscselect::default())
}

fn sigstruct_with(stream: &[u8], miscselect: Miscselect) -> Result<(EnclaveHash, Vec<u8>)> {
    let hash = EnclaveHash::from_stream::<_, Hasher>(&mut Cursor::new(stream))?;
    let signer = Signer::get()?;
    let mut sigstruct = sigstruct::Signer::new(hash);
    // Whoever builds the enclave chooses DEBUG, the provisioning key, and AVX.
    let chosen = AttributesFlags::DEBUG | AttributesFlags::PROVISIONKEY;
    sigstruct.attributes_flags(AttributesFlags::MODE64BIT, !chosen.bits());
    sigstruct.attributes_xfrm(X87_AND_SSE, !(X87_AND_SSE | AVX));
    sigstruct.miscselect(miscselect, u32::MAX);
    let signed = sigstruct.sign::<_, Hasher>(&signer)?;
    sigstruct::verify::<_, Hasher>(&signed, &signer).context("the SIGSTRUCT does not verify")?;
    let sigstruct: &[u8] = signed.as_ref();
    Ok((hash, sigstruct.to_vec()))
}

/// The threads, then the segments of the ELF file.
fn pages(elf: &[u8]) -> Result<Vec<Page>> {
    let entry = u64_at(elf, 24)?;
    let mut pages: Vec<Page> =
        (0..THREADS).flat_map(|thread| thread_pages(thread * THREAD_SIZE, entry)).collect();
    for segment in segments(elf)? {
        let flags = segment.flags | PageType::Reg.into();
        for (index, contents) in segment.contents.chunks(PAGE).enumerate() {
            pages.push(page(segment.address + (index * PAGE) as u64, flags, contents));
        }
    }
    let last = pages.last().map_or(0, |page| page.offset);
    ensure!(last < ELRANGE_SIZE, "it does not fit into ELRANGE of {ELRANGE_SIZE:#x} bytes");
    Ok(pages)
}

/// TCS, SSA frames and page of data.
fn thread_pages(offset: u64, entry: u64) -> Vec<Page> {
    let data = SecinfoFlags::R | SecinfoFlags::W | PageType::Reg.into();
    let tcs = Tcs {
        ossa: offset + SSA_OFFSET,
        nssa: SSA_FRAMES,
        oentry: entry,
        // Segment limits count in 32-bit enclaves only, where they end a page.
        fslimit: 0xfff,
        gslimit: 0xfff,
        ..Tcs::default()
    };
    let tcs: &[u8] = tcs.as_ref();
    let mut pages = vec![page(offset, PageType::Tcs.into(), tcs)];
    for frame in 0..u64::from(SSA_FRAMES) {
        pages.push(page(offset + SSA_OFFSET + frame * PAGE as u64, data, &[]));
    }
    pages.push(page(offset + PROBE_OFFSET, data, &[]));
    pages
}

fn page(offset: u64, flags: SecinfoFlags, start: &[u8]) -> Page {
    let mut contents = start.to_vec();
    contents.resize(PAGE, 0);
    Page { offset, flags, contents }
}

/// A loadable segment.
struct Segment<'a> {
    address: u64,
    flags: SecinfoFlags,
    contents: &'a [u8],
}

/// The program headers of a 64-bit ELF file. Relocations are refused: nobody
/// would apply them inside the enclave.
fn segments(elf: &[u8]) -> Result<Vec<Segment<'_>>> {
    const PT_LOAD: u64 = 1;
    const PT_DYNAMIC: u64 = 2;
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "it is not a 64-bit ELF file");
    let (table, count) = (u64_at(elf, 32)? as usize, u64_at(elf, 56)? & 0xffff);
    let mut segments = Vec::new();
    for index in 0..count as usize {
        let header = table + index * 56;
        let kind = u64_at(elf, header)? & 0xffff_ffff;
        let (start, size) = (u64_at(elf, header + 8)? as usize, u64_at(elf, header + 32)? as usize);
        let contents = elf.get(start..start + size).context("a segment lies outside the file")?;
        let address = u64_at(elf, header + 16)?;
        if kind == PT_LOAD {
            ensure!(address.is_multiple_of(PAGE as u64), "segment {index} is not page aligned");
            ensure!(u64_at(elf, header + 40)? as usize == size, "segment {index} has zero fill");
            segments.push(Segment { address, flags: access(u64_at(elf, header)? >> 32), contents });
        } else if kind == PT_DYNAMIC {
            refuse_relocations(contents)?;
        }
    }
    Ok(segments)
}

fn refuse_relocations(dynamic: &[u8]) -> Result<()> {
    const DT_RELASZ: u64 = 8;
    for entry in dynamic.chunks_exact(16) {
        if u64_at(entry, 0)? == DT_RELASZ && u64_at(entry, 8)? != 0 {
            bail!("it needs relocations, which nobody applies inside an enclave");
        }
    }
    Ok(())
}

/// PF_X, PF_W and PF_R.
fn access(bits: u64) -> SecinfoFlags {
    let mut flags = SecinfoFlags::empty();
    for (bit, flag) in [(1, SecinfoFlags::X), (2, SecinfoFlags::W), (4, SecinfoFlags::R)] {
        flags.set(flag, bits & bit != 0);
    }
    flags
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..at + 8).context("it ends too early")?;
    Ok(u64::from_le_bytes(field.try_into()?))
}
