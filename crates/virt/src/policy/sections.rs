//! Where the EPC sections of a guest are.

use cloister_x86::cpuid::CpuidResult;
use cloister_x86::{Gpa, PAGE_SIZE};
use thiserror::Error;

/// EPC sections that a guest can have: the number that Linux reads (`SGX_MAX_EPC_SECTIONS`).
pub const MAX_SECTIONS: usize = 8;

/// One past the highest address of a section: CPUID.12H tells bits 51:12 (SDM Vol. 3D, 34.7.2).
const ADDRESS_END: u64 = 1 << 52;
/// CPUID.12H subleaf 2 and up: a subleaf that describes an EPC section (EAX bits 3:0).
const SUBLEAF_EPC: u32 = 1;
/// The same: the section has confidentiality and integrity protection (ECX bits 3:0).
const SECTION_PROTECTED: u32 = 1;

/// An EPC section requested for a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectionConfig {
    /// First guest-physical address, a multiple of the page size.
    pub base: Gpa,
    /// Size in bytes, a multiple of the page size and not 0.
    pub size: u64,
    /// Host NUMA node to take pages from first.
    pub node: u32,
    /// Whether every page is backed from the beginning.
    pub preallocate: bool,
}

/// Why a guest cannot see its EPC like that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SectionError {
    /// A section is empty, or not made of whole pages.
    #[error("EPC section {0} is not a whole number of 4 KiB pages")]
    Size(usize),
    /// More sections than Linux reads from CPUID.
    #[error("{0} EPC sections are more than the {MAX_SECTIONS} that a guest looks for")]
    Count(usize),
    /// A section does not lie within 52 bits of address, all that CPUID 12H can tell.
    #[error("EPC section {0} ends above the highest physical address")]
    Address(usize),
    /// A section shares pages with an earlier one.
    #[error("EPC section {0} overlaps another")]
    Overlap(usize),
}

/// Whether a guest can have these sections.
///
/// # Errors
///
/// [`SectionError`] names the first that it cannot.
pub fn check_sections(sections: &[SectionConfig]) -> Result<(), SectionError> {
    if sections.len() > MAX_SECTIONS {
        return Err(SectionError::Count(sections.len()));
    }
    for (n, section) in sections.iter().enumerate() {
        let SectionConfig { base, size, .. } = *section;
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) || !base.is_aligned(PAGE_SIZE) {
            return Err(SectionError::Size(n));
        }
        let end = base.0.checked_add(size).filter(|&end| end <= ADDRESS_END);
        let end = end.ok_or(SectionError::Address(n))?;
        // Those before were found to end within the address space.
        let meets =
            |other: &SectionConfig| base.0 < other.base.0 + other.size && other.base.0 < end;
        if sections[..n].iter().any(meets) {
            return Err(SectionError::Overlap(n));
        }
    }
    Ok(())
}

impl SectionConfig {
    /// The subleaf of CPUID.12H that describes the section (SDM Vol. 3D, 34.7.2).
    #[expect(clippy::cast_possible_truncation, reason = "a register has a part of an address")]
    pub(super) const fn cpuid_subleaf(&self) -> CpuidResult {
        CpuidResult {
            eax: (self.base.0 as u32 & 0xffff_f000) | SUBLEAF_EPC,
            ebx: (self.base.0 >> 32) as u32 & 0xf_ffff,
            ecx: (self.size as u32 & 0xffff_f000) | SECTION_PROTECTED,
            edx: (self.size >> 32) as u32 & 0xf_ffff,
        }
    }
}
