//! XMM and YMM registers and MXCSR (SDM Vol. 1, 10.2 and 14.1).

/// 128 bits, the low quadword first.
pub(crate) type Lane = [u64; 2];

/// 256 bits, the low lane first.
pub(crate) type Wide = [Lane; 2];

/// MXCSR after power-up and INIT: all exceptions masked (SDM Vol. 1, 10.2.3).
pub const MXCSR_DEFAULT: u32 = 0x1f80;
/// The bits of MXCSR that exist: MXCSR_MASK of the FXSAVE image (SDM Vol. 1, 11.6.6).
pub const MXCSR_MASK: u32 = 0xffff;

/// XMM/YMM registers and MXCSR. Aligned so that no register lies in two cache lines of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct VectorState {
    /// YMM0 to YMM15 as four quadwords each; XMM is the low two.
    pub ymm: [[u64; 4]; 16],
    /// MXCSR.
    pub mxcsr: u32,
}

impl Default for VectorState {
    fn default() -> Self {
        Self { ymm: [[0; 4]; 16], mxcsr: MXCSR_DEFAULT }
    }
}

impl VectorState {
    /// Reads an XMM register.
    #[inline(always)]
    #[must_use]
    pub(crate) fn xmm(&self, number: u8) -> Lane {
        let [low, high, ..] = self.ymm[usize::from(number & 15)];
        [low, high]
    }

    /// Writes an XMM register; the upper half of the YMM register stays, as legacy SSE
    /// instructions leave it (SDM Vol. 1, 14.1.2).
    #[inline(always)]
    pub(crate) fn set_xmm(&mut self, number: u8, value: Lane) {
        let register = &mut self.ymm[usize::from(number & 15)];
        [register[0], register[1]] = value;
    }

    /// Reads a YMM register.
    #[inline(always)]
    #[must_use]
    pub(crate) fn ymm(&self, number: u8) -> Wide {
        let [a, b, c, d] = self.ymm[usize::from(number & 15)];
        [[a, b], [c, d]]
    }

    /// Writes a YMM register.
    #[inline(always)]
    pub(crate) fn set_ymm(&mut self, number: u8, [[a, b], [c, d]]: Wide) {
        self.ymm[usize::from(number & 15)] = [a, b, c, d];
    }
}
