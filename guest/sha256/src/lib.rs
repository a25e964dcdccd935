//! SHA-256 (FIPS 180-4) for code that has no allocator and no host SIMD.
//!
//! The demo's enclave hashes with it, so it must compile without panicking
//! paths: an enclave has nobody to report a panic to.
#![no_std]
#![forbid(unsafe_code)]

/// FIPS 180-4 section 4.2.2: the round constants.
const K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// FIPS 180-4 section 5.3.3: the initial hash value.
const H0: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A hash in progress.
#[derive(Clone, Debug)]
pub struct Sha256 {
    state: [u32; 8],
    block: [u8; 64],
    filled: usize,
    bytes: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        Self { state: H0, block: [0; 64], filled: 0, bytes: 0 }
    }
}

impl Sha256 {
    /// Appends bytes to the message.
    pub fn update(&mut self, data: &[u8]) {
        for &byte in data {
            self.push(byte);
        }
    }

    /// Appends one byte. Kept free of slice indexing that could panic.
    pub fn push(&mut self, byte: u8) {
        self.bytes = self.bytes.wrapping_add(1);
        self.put(byte);
    }

    fn put(&mut self, byte: u8) {
        if let Some(slot) = self.block.get_mut(self.filled) {
            *slot = byte;
        }
        self.filled += 1;
        if self.filled >= 64 {
            self.state = compress(self.state, &self.block);
            self.filled = 0;
        }
    }

    /// Pads as section 5.1.1 says and returns the digest.
    #[must_use]
    pub fn finish(mut self) -> [u8; 32] {
        let bits = self.bytes.wrapping_mul(8);
        self.put(0x80);
        while self.filled != 56 {
            self.put(0);
        }
        for byte in bits.to_be_bytes() {
            self.put(byte);
        }
        let mut digest = [0; 32];
        for (out, word) in digest.chunks_exact_mut(4).zip(self.state) {
            for (byte, value) in out.iter_mut().zip(word.to_be_bytes()) {
                *byte = value;
            }
        }
        digest
    }
}

/// Hashes a message in one call.
#[must_use]
pub fn digest(message: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::default();
    hash.update(message);
    hash.finish()
}

/// Compresses one block so often: the first two words of the state that comes of it. For measuring, so
/// that an enclave and its host have one code for it.
#[inline(never)]
#[must_use]
pub fn compress_repeatedly(times: u64) -> u64 {
    let block = [0x5a; 64];
    let [a, b, ..] = (0..times).fold(H0, |state, _| compress(state, &block));
    u64::from(a) << 32 | u64::from(b)
}

/// Section 6.2.2: one block. The message schedule is a ring of 16 words, whose
/// masked indices the compiler proves to be in bounds.
fn compress(state: [u32; 8], block: &[u8; 64]) -> [u32; 8] {
    let mut w = [0_u32; 16];
    for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |acc, &b| (acc << 8) | u32::from(b));
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    for (t, k) in K.iter().enumerate() {
        if t >= 16 {
            let (w15, w2) = (w[(t + 1) & 15], w[(t + 14) & 15]);
            let s0 = w15.rotate_right(7) ^ w15.rotate_right(18) ^ (w15 >> 3);
            let s1 = w2.rotate_right(17) ^ w2.rotate_right(19) ^ (w2 >> 10);
            w[t & 15] = w[t & 15].wrapping_add(s0).wrapping_add(w[(t + 9) & 15]).wrapping_add(s1);
        }
        let big1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choose = (e & f) ^ (!e & g);
        let t1 = h.wrapping_add(big1).wrapping_add(choose).wrapping_add(*k).wrapping_add(w[t & 15]);
        let big0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let t2 = big0.wrapping_add(majority);
        (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
        (d, c, b, a) = (c, b, a, t1.wrapping_add(t2));
    }
    let mut out = state;
    for (sum, word) in out.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *sum = sum.wrapping_add(word);
    }
    out
}
