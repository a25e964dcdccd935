//! The processor that the tests compare with.

use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

use iced_x86::{Code, CpuidFeature};

use super::variance::Processor;

/// What the host's CPUID says.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    processor: Processor,
    leaf_1: CpuidResult,
    leaf_7: CpuidResult,
    leaf_d_1: CpuidResult,
    leaf_80000001: CpuidResult,
    /// AT_HWCAP2.
    hwcap2: u32,
}

impl Host {
    /// Asks the processor that runs this.
    pub(crate) fn detect() -> Self {
        let none = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
        let basic = __cpuid(0);
        let leaf = |number, subleaf| {
            if number <= basic.eax { __cpuid_count(number, subleaf) } else { none }
        };
        Self {
            processor: Processor::detect(),
            leaf_1: leaf(1, 0),
            leaf_7: leaf(7, 0),
            leaf_d_1: leaf(0xd, 1),
            leaf_80000001: __cpuid(0x8000_0001),
            hwcap2: hwcap2(),
        }
    }

    /// What the table of differences between hosts asks for.
    pub(crate) fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Its name (SDM Vol. 2A, CPUID, brand string).
    pub(crate) fn brand() -> String {
        let leaves = (0x8000_0002..=0x8000_0004u32).map(__cpuid);
        let bytes: Vec<u8> = leaves
            .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
            .flat_map(u32::to_le_bytes)
            .filter(|&byte| byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Whether it has YMM registers, and its kernel lets user mode use them.
    pub(crate) fn has_avx(&self) -> bool {
        self.has_feature(CpuidFeature::AVX)
    }

    /// Whether the host executes an encoding.
    pub(crate) fn has(&self, code: Code) -> bool {
        code.cpuid_features().iter().all(|&feature| self.has_feature(feature))
    }

    /// Features that a 64-bit processor may lack; every one has the others that the interpreter
    /// implements (SDM Vol. 2A, CPUID, tables 3-10, 3-11 and 3-17).
    fn has_feature(&self, feature: CpuidFeature) -> bool {
        use CpuidFeature as F;
        let (register, bit) = match feature {
            F::SSE3 => (self.leaf_1.ecx, 0),
            F::PCLMULQDQ => (self.leaf_1.ecx, 1),
            F::SSSE3 => (self.leaf_1.ecx, 9),
            F::CMPXCHG16B => (self.leaf_1.ecx, 13),
            F::SSE4_1 => (self.leaf_1.ecx, 19),
            F::SSE4_2 => (self.leaf_1.ecx, 20),
            F::MOVBE => (self.leaf_1.ecx, 22),
            F::POPCNT => (self.leaf_1.ecx, 23),
            F::AES => (self.leaf_1.ecx, 25),
            F::XSAVE => (self.leaf_1.ecx, 27),
            F::FMA => (self.leaf_1.ecx, 12),
            // With OSXSAVE, which is one bit below.
            F::AVX => (self.leaf_1.ecx & self.leaf_1.ecx << 1, 28),
            F::F16C => (self.leaf_1.ecx, 29),
            F::RDRAND => (self.leaf_1.ecx, 30),
            // What counts is whether the kernel lets user mode use it.
            F::FSGSBASE => (self.hwcap2, 1),
            F::BMI1 => (self.leaf_7.ebx, 3),
            F::AVX2 => (self.leaf_7.ebx, 5),
            F::BMI2 => (self.leaf_7.ebx, 8),
            F::RDSEED => (self.leaf_7.ebx, 18),
            F::ADX => (self.leaf_7.ebx, 19),
            F::CLFLUSHOPT => (self.leaf_7.ebx, 23),
            F::CLWB => (self.leaf_7.ebx, 24),
            F::SHA => (self.leaf_7.ebx, 29),
            F::XSAVEOPT => (self.leaf_d_1.eax, 0),
            F::XSAVEC => (self.leaf_d_1.eax, 1),
            F::LZCNT => (self.leaf_80000001.ecx, 5),
            F::PREFETCHW => (self.leaf_80000001.ecx, 8),
            _ => return true,
        };
        register >> bit & 1 != 0
    }
}

#[expect(unsafe_code, reason = "the C library's function takes a number")]
fn hwcap2() -> u32 {
    // SAFETY: reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_HWCAP2) as u32 }
}
