//! What the rows ask of a processor.

use std::arch::x86_64::{__cpuid, __cpuid_count};

/// Who made a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vendor {
    Intel,
    /// AuthenticAMD, and HygonGenuine, which makes the same.
    Amd,
    Other,
}

/// A processor as far as the rows depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Processor {
    pub(crate) vendor: Vendor,
    /// CPUID.(7,0):ECX bit 16: linear addresses of 57 bits.
    pub(crate) la57: bool,
    /// CPUID.(7,0):EBX bit 6: the x87 data pointer changes with x87 exceptions only.
    pub(crate) fdp_on_exceptions_only: bool,
    /// CPUID.(7,0):EBX bit 13: images have zeros for the segments of the x87 pointers.
    pub(crate) deprecates_fpu_cs_ds: bool,
}

impl Processor {
    /// The processor that runs this.
    pub(crate) fn detect() -> Self {
        let basic = __cpuid(0);
        let vendor = match &basic.ebx.to_le_bytes() {
            b"Genu" => Vendor::Intel,
            b"Auth" | b"Hygo" => Vendor::Amd,
            _ => Vendor::Other,
        };
        let (ebx, ecx) = if basic.eax >= 7 {
            let leaf = __cpuid_count(7, 0);
            (leaf.ebx, leaf.ecx)
        } else {
            (0, 0)
        };
        Self {
            vendor,
            la57: ecx >> 16 & 1 != 0,
            fdp_on_exceptions_only: ebx >> 6 & 1 != 0,
            deprecates_fpu_cs_ds: ebx >> 13 & 1 != 0,
        }
    }
}
