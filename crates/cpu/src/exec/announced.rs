//! Which of the encodings that the decoder knows the processor has, and how it reads the others.
//!
//! The decoder knows every extension; the processor has those that CPUID announces. An encoding of
//! another extension is what it was before that one came: #UD mostly; a no-operation in the opcodes
//! that are set aside for hints; the instruction without its prefix where the prefix alone tells
//! the two apart (SDM Vol. 2, the "CPUID Feature Flag" of each instruction's page, and NOP). This
//! is the one place that tells.

use cloister_sgx::SgxFeatures;
use cloister_x86::regs::Xfeatures;
use iced_x86::{CpuidFeature, DecoderOptions, EncodingKind, Instruction};

use crate::controls::Features;
use crate::mode::Mode;

/// Extensions, and how the decoder is told to read their encodings on a processor that announces
/// none of them.
const OLDER_MEANINGS: [(&[CpuidFeature], u32); 4] = [
    // 0F 0DH and 0F 18H to 0F 1FH are hints: no-operations, the forms too that an extension makes
    // #UD (SDM Vol. 2B, NOP; Vol. 1, 17.1 and 18.1 on ENDBR, RDSSP and BND instructions).
    (
        &[
            CpuidFeature::CET_IBT,
            CpuidFeature::CET_SS,
            CpuidFeature::CLDEMOTE,
            CpuidFeature::MPX,
            CpuidFeature::PREFETCHITI,
        ],
        DecoderOptions::FORCE_RESERVED_NOP,
    ),
    // TZCNT is BSF, LZCNT is BSR and WBNOINVD is WBINVD with a prefix that says nothing.
    (&[CpuidFeature::BMI1], DecoderOptions::NO_MPFX_0FBC),
    (&[CpuidFeature::LZCNT], DecoderOptions::NO_MPFX_0FBD),
    (&[CpuidFeature::WBNOINVD], DecoderOptions::NO_WBNOINVD),
];

impl Features {
    /// Whether the processor has an extension, by the decoder's name for it.
    #[must_use]
    pub(crate) fn has(&self, feature: CpuidFeature) -> bool {
        use CpuidFeature as F;
        match feature {
            // What every processor with Intel 64 has.
            F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::CPUID
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::RDPMC => true,
            // CPUID.1.
            F::TSC
            | F::MSR
            | F::CX8
            | F::SEP
            | F::CMOV
            | F::CLFSH
            | F::MMX
            | F::FXSR
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::PCLMULQDQ
            | F::SSSE3
            | F::CMPXCHG16B
            | F::SSE4_1
            | F::SSE4_2
            | F::MOVBE
            | F::POPCNT
            | F::AES
            | F::XSAVE
            | F::RDRAND => true,
            // CPUID.7.0.
            F::FSGSBASE
            | F::BMI1
            | F::BMI2
            | F::INVPCID
            | F::RDSEED
            | F::ADX
            | F::SMAP
            | F::CLFLUSHOPT
            | F::CLWB
            | F::SHA
            | F::RDPID => true,
            // CPUID.(0DH,1).
            F::XSAVEOPT | F::XSAVEC | F::XSAVES => true,
            // CPUID.80000001H.
            F::LZCNT | F::PREFETCHW | F::SYSCALL | F::RDTSCP => true,
            // CPUID.1 and CPUID.7.0, for instructions of the registers that XCR0.AVX enables.
            F::AVX | F::F16C | F::FMA | F::AVX2 => self.xcr0.contains(Xfeatures::AVX),
            // CPUID.1.
            F::VMX | F::INVEPT | F::INVVPID => self.vmx,
            // CPUID.12H.0. ENCLV is the owner's affair besides.
            F::SGX1 | F::OSS => self.has_sgx(SgxFeatures::SGX1),
            _ => false,
        }
    }

    /// Whether the processor has the encoding of an instruction: that of its extensions, and with a
    /// VEX prefix in protected mode only.
    #[must_use]
    pub(crate) fn has_encoding(&self, instruction: &Instruction, mode: Mode) -> bool {
        let encoding = match instruction.encoding() {
            EncodingKind::Legacy => true,
            EncodingKind::VEX => !mode.is_real(),
            _ => false,
        };
        encoding && instruction.cpuid_features().iter().all(|&feature| self.has(feature))
    }

    /// How the decoder has to read code.
    #[must_use]
    pub(crate) fn decoder_options(&self) -> u32 {
        OLDER_MEANINGS
            .iter()
            .filter(|(extensions, _)| !extensions.iter().any(|&feature| self.has(feature)))
            .fold(DecoderOptions::NONE, |options, (_, option)| options | option)
    }
}

#[cfg(test)]
mod tests;
