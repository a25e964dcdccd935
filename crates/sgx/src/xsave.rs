//! The XSAVE area of an SSA frame (SDM Vol. 1, 13.4, and Vol. 3D, 39.7).

use core::ops::Range;

/// XFRM bits that the model can save: x87, SSE, AVX, MPX, AVX-512 and PKRU.
pub const XFRM_SUPPORTED: u64 = 0x2ff;

/// Largest XSAVE area in bytes, that of [`XFRM_SUPPORTED`].
pub const XSAVE_AREA_MAX: usize = 2696;

/// Legacy region and XSAVE header: the smallest XSAVE area.
pub const XSAVE_AREA_MIN: usize = 576;

/// Offset and size of each state component in the standard format, by bit of XCR0; the same as
/// CPUID leaf 0DH reports on processors with these features.
const COMPONENTS: [(usize, usize); 10] = [
    (0, 160),
    (160, 256),
    (576, 256),
    (960, 64),
    (1024, 64),
    (1088, 64),
    (1152, 512),
    (1664, 1024),
    (0, 0),
    (2688, 8),
];

const XSTATE_BV: usize = 512;
const MXCSR: usize = 24;
const MXCSR_MASK: u32 = 0xffff;

/// The value that MXCSR has in its INIT state.
pub const MXCSR_INIT: u32 = 0x1f80;

/// An image in the standard (non-compacted) format of XSAVE.
#[derive(Clone, Debug)]
pub struct XsaveArea {
    bytes: [u8; XSAVE_AREA_MAX],
}

impl Default for XsaveArea {
    fn default() -> Self {
        Self { bytes: [0; XSAVE_AREA_MAX] }
    }
}

impl XsaveArea {
    /// The image for state components `xfrm`.
    #[must_use]
    pub fn image(&self, xfrm: u64) -> &[u8] {
        &self.bytes[..area_size(xfrm)]
    }

    /// The image for state components `xfrm`, to be filled.
    pub fn image_mut(&mut self, xfrm: u64) -> &mut [u8] {
        &mut self.bytes[..area_size(xfrm)]
    }

    /// XSTATE_BV of the header.
    #[must_use]
    pub fn xstate_bv(&self) -> u64 {
        self.quad(XSTATE_BV)
    }

    /// Keeps in the header of the image only what `xfrm` enables and clears the 16 bytes after
    /// XSTATE_BV, as an AEX stores it (SDM Vol. 3D, 37.4.1).
    pub(crate) fn confine_header(&mut self, xfrm: u64) {
        let kept = self.xstate_bv() & xfrm;
        self.bytes[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&kept.to_le_bytes());
        self.bytes[XSTATE_BV + 8..XSTATE_BV + 24].fill(0);
    }

    /// Whether XRSTOR with XCR0 and the mask both `xfrm` would load the image without #GP
    /// (SDM Vol. 1, 13.8.1, and Vol. 3D, 39.7.6.1).
    #[must_use]
    pub fn loadable(&self, xfrm: u64) -> bool {
        let mxcsr = self.quad(MXCSR) as u32;
        // XCOMP_BV must be zero for the standard form, as must the 16 bytes after XSTATE_BV,
        // which begin with it.
        self.xstate_bv() & !xfrm == 0
            && self.quad(XSTATE_BV + 8) == 0
            && self.quad(XSTATE_BV + 16) == 0
            && (xfrm & 2 == 0 || mxcsr & !MXCSR_MASK == 0)
    }

    fn quad(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.bytes[offset..offset + 8]);
        u64::from_le_bytes(bytes)
    }
}

/// Size in bytes of the standard-format XSAVE area for state components `xfrm`, of which bits
/// outside [`XFRM_SUPPORTED`] are ignored (SDM Vol. 3D, 39.7.2.2, compute_xsave_size).
#[must_use]
pub fn area_size(xfrm: u64) -> usize {
    COMPONENTS
        .iter()
        .enumerate()
        .skip(2)
        .filter(|(bit, _)| xfrm & 1 << bit != 0)
        .map(|(_, (offset, size))| offset + size)
        .fold(XSAVE_AREA_MIN, usize::max)
}

/// The byte ranges of the area that XSAVE with the mask `xfrm` writes (SDM Vol. 1, 13.7): the
/// legacy region without the bytes left to software, XSTATE_BV and the 16 bytes after it, and
/// the extended components.
pub(crate) fn stored_ranges(xfrm: u64) -> impl Iterator<Item = Range<usize>> {
    let extended = COMPONENTS
        .iter()
        .enumerate()
        .skip(2)
        .filter(move |(bit, (_, size))| xfrm & 1 << bit != 0 && *size != 0)
        .map(|(_, &(offset, size))| offset..offset + size);
    [0..416, XSTATE_BV..XSTATE_BV + 24].into_iter().chain(extended)
}

/// Whether XSETBV would accept `xfrm` on a processor that supports it (SDM Vol. 1, 13.3).
#[must_use]
pub fn legal_xcr0(xfrm: u64) -> bool {
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const MPX: u64 = 3 << 3;
    const AVX512: u64 = 7 << 5;
    xfrm & 1 != 0
        && (xfrm & AVX == 0 || xfrm & SSE != 0)
        && (xfrm & MPX == 0 || xfrm & MPX == MPX)
        && (xfrm & AVX512 == 0 || xfrm & (AVX512 | AVX) == AVX512 | AVX)
}
