//! MRENCLAVE while it is being computed (SDM Vol. 3D, 36.4.1.1): a SHA-256 state over whole
//! 64-byte blocks, kept in the SECS.

use sha2::block_api::compress256;
use zerocopy::IntoBytes as _;

use crate::epc::EpcPage;
use crate::layout::Secs;

const SHA256_INIT: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A measurement in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Measurement {
    state: [u32; 8],
    blocks: u64,
}

impl Measurement {
    /// SHA256INITIALIZE.
    pub(crate) const fn new() -> Self {
        Self { state: SHA256_INIT, blocks: 0 }
    }

    /// The measurement that the SECS in `page` holds.
    #[inline]
    pub(crate) fn load(page: EpcPage<'_>) -> Self {
        let mut state = [0; 8];
        for (pair, words) in state.chunks_exact_mut(2).enumerate() {
            let quad = page.load(Secs::MRENCLAVE + pair * 8);
            words[0] = quad as u32;
            words[1] = (quad >> 32) as u32;
        }
        Self { state, blocks: page.load(Secs::MEASURED_BLOCKS) }
    }

    /// Puts the measurement into the SECS in `page`.
    #[inline]
    pub(crate) fn store(&self, page: EpcPage<'_>) {
        for (pair, words) in self.state.chunks_exact(2).enumerate() {
            let quad = u64::from(words[0]) | u64::from(words[1]) << 32;
            page.store(Secs::MRENCLAVE + pair * 8, quad);
        }
        page.store(Secs::MEASURED_BLOCKS, self.blocks);
    }

    /// SHA256UPDATE, with whole blocks, of the measurement that the SECS in `page` holds. The
    /// caller has the lock of [`Family::Measure`](crate::epcm::Family::Measure).
    #[inline]
    pub(crate) fn extend(page: EpcPage<'_>, blocks: &[[u8; 64]]) {
        let mut measurement = Self::load(page);
        measurement.update(blocks);
        measurement.store(page);
    }

    /// SHA256UPDATE with whole blocks.
    pub(crate) fn update(&mut self, blocks: &[[u8; 64]]) {
        compress256(&mut self.state, blocks);
        self.blocks = self.blocks.wrapping_add(blocks.len() as u64);
    }

    /// SHA256FINAL with the update counter times 512 as the length in bits.
    pub(crate) fn finish(mut self) -> [u8; 32] {
        let bits = self.blocks.wrapping_mul(512);
        let mut last = [0; 64];
        last[0] = 0x80;
        last[56..].copy_from_slice(&bits.to_be_bytes());
        compress256(&mut self.state, &[last]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }
}

/// The block that ECREATE measures (SDM Vol. 3D, ECREATE).
pub(crate) fn ecreate_block(secs: &Secs) -> [u8; 64] {
    let mut block = [0; 64];
    block[..8].copy_from_slice(b"ECREATE\0");
    block[8..12].copy_from_slice(secs.ssaframesize.as_bytes());
    block[12..20].copy_from_slice(secs.size.as_bytes());
    block
}

/// The block that EADD measures: enclave offset and the first 48 bytes of SECINFO.
pub(crate) fn eadd_block(offset: u64, secinfo: &[u8; 48]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..8].copy_from_slice(b"EADD\0\0\0\0");
    block[8..16].copy_from_slice(&offset.to_le_bytes());
    block[16..].copy_from_slice(secinfo);
    block
}

/// The block with which EEXTEND begins; 256 bytes of the page follow it.
pub(crate) fn eextend_block(offset: u64) -> [u8; 64] {
    let mut block = [0; 64];
    block[..8].copy_from_slice(b"EEXTEND\0");
    block[8..16].copy_from_slice(&offset.to_le_bytes());
    block
}
