//! Which extensions the host has, beyond what every x86-64 processor does.

use std::arch::is_x86_feature_detected;

use iced_x86::CpuidFeature;

/// A set of extensions of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HostFeatures(u32);

/// What translated code makes use of: a feature's bit is its place here.
const KNOWN: [CpuidFeature; 17] = [
    CpuidFeature::SSE3,
    CpuidFeature::SSSE3,
    CpuidFeature::SSE4_1,
    CpuidFeature::SSE4_2,
    CpuidFeature::POPCNT,
    CpuidFeature::AES,
    CpuidFeature::PCLMULQDQ,
    CpuidFeature::SHA,
    CpuidFeature::AVX,
    CpuidFeature::AVX2,
    CpuidFeature::FMA,
    CpuidFeature::F16C,
    CpuidFeature::BMI1,
    CpuidFeature::BMI2,
    CpuidFeature::ADX,
    CpuidFeature::LZCNT,
    CpuidFeature::MOVBE,
];

impl HostFeatures {
    /// What this host has, and its operating system lets programs use.
    pub(crate) fn detect() -> Self {
        let detected = [
            is_x86_feature_detected!("sse3"),
            is_x86_feature_detected!("ssse3"),
            is_x86_feature_detected!("sse4.1"),
            is_x86_feature_detected!("sse4.2"),
            is_x86_feature_detected!("popcnt"),
            is_x86_feature_detected!("aes"),
            is_x86_feature_detected!("pclmulqdq"),
            is_x86_feature_detected!("sha"),
            is_x86_feature_detected!("avx"),
            is_x86_feature_detected!("avx2"),
            is_x86_feature_detected!("fma"),
            is_x86_feature_detected!("f16c"),
            is_x86_feature_detected!("bmi1"),
            is_x86_feature_detected!("bmi2"),
            is_x86_feature_detected!("adx"),
            is_x86_feature_detected!("lzcnt"),
            is_x86_feature_detected!("movbe"),
        ];
        let bit = |(n, &has): (usize, &bool)| u32::from(has) << n;
        Self(detected.iter().enumerate().map(bit).sum())
    }

    /// Whether the host has a feature: never one that translated code makes no use of.
    pub(crate) fn has(self, feature: CpuidFeature) -> bool {
        if matches!(feature, CpuidFeature::SSE | CpuidFeature::SSE2) {
            return true;
        }
        KNOWN.iter().position(|&known| known == feature).is_some_and(|n| self.0 >> n & 1 != 0)
    }

    /// The features of a host that has none of `features`.
    #[cfg(test)]
    pub(crate) fn without(self, features: &[CpuidFeature]) -> Self {
        let bits = KNOWN.iter().enumerate().filter(|(_, known)| features.contains(known));
        Self(self.0 & !bits.map(|(n, _)| 1 << n).sum::<u32>())
    }
}
