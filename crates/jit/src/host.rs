//! Which extensions the host has, beyond what every x86-64 processor does.

use std::arch::is_x86_feature_detected;

use iced_x86::CpuidFeature;

/// A set of extensions of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HostFeatures(u32);

/// Features by the decoder's name and by the compiler's.
macro_rules! features {
    ($($feature:ident = $name:tt,)*) => {
        /// What translated code makes use of: a feature's bit is its place here.
        pub(crate) const KNOWN: &[CpuidFeature] = &[$(CpuidFeature::$feature),*];

        /// Whether this host has each of [`KNOWN`], and its operating system lets programs use it.
        fn detected() -> impl Iterator<Item = bool> {
            [$(is_x86_feature_detected!($name)),*].into_iter()
        }
    };
}

features! {
    SSE3 = "sse3",
    SSSE3 = "ssse3",
    SSE4_1 = "sse4.1",
    SSE4_2 = "sse4.2",
    POPCNT = "popcnt",
    AES = "aes",
    PCLMULQDQ = "pclmulqdq",
    SHA = "sha",
    AVX = "avx",
    AVX2 = "avx2",
    FMA = "fma",
    F16C = "f16c",
    BMI1 = "bmi1",
    BMI2 = "bmi2",
    ADX = "adx",
    LZCNT = "lzcnt",
    MOVBE = "movbe",
}

impl HostFeatures {
    /// What this host has, and its operating system lets programs use.
    pub(crate) fn detect() -> Self {
        Self(detected().enumerate().map(|(n, has)| u32::from(has) << n).sum())
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
