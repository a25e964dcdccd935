//! Code of AVX2 and FMA: integers, shuffles and single precision, in registers and over 64 KiB.
#![expect(unsafe_code, reason = "vector instructions that not every processor has")]

use std::arch::x86_64::*;

const ROUNDS: u32 = 400;
/// Of 32 bytes: together as much as a second-level cache holds easily.
const VECTORS: usize = 2048;

/// What was computed, or that it cannot be.
pub(crate) fn run() -> String {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return "there is no AVX2".to_owned();
    }
    // SAFETY: the processor has both.
    unsafe { format!("{:016x} {:08x}", integers(), floats().to_bits()) }
}

/// Multiplies, shifts, shuffles, compares and blends.
#[target_feature(enable = "avx2")]
fn integers() -> u64 {
    let mut data: Vec<__m256i> = (0..VECTORS as i32)
        .map(|n| _mm256_set1_epi32(n.wrapping_mul(0x9e37_79b1_u32 as i32)))
        .collect();
    let (factor, mask) = (_mm256_set1_epi32(0x0100_0193), _mm256_set1_epi8(0x3f));
    let order = _mm256_setr_epi32(3, 0, 7, 4, 1, 6, 5, 2);
    let mut sum = _mm256_setzero_si256();
    for _ in 0..ROUNDS {
        for vector in &mut data {
            let mut x = _mm256_mullo_epi32(*vector, factor);
            x = _mm256_xor_si256(x, _mm256_srli_epi32::<15>(x));
            x = _mm256_shuffle_epi8(x, _mm256_and_si256(sum, mask));
            x = _mm256_permutevar8x32_epi32(x, order);
            let greater = _mm256_cmpgt_epi32(x, sum);
            x = _mm256_blendv_epi8(x, _mm256_add_epi32(x, factor), greater);
            sum = _mm256_add_epi64(sum, _mm256_sad_epu8(x, *vector));
            *vector = x;
        }
    }
    let lanes = [
        _mm256_extract_epi64::<0>(sum),
        _mm256_extract_epi64::<1>(sum),
        _mm256_extract_epi64::<2>(sum),
        _mm256_extract_epi64::<3>(sum),
    ];
    lanes.iter().fold(0, |all, lane| all.rotate_left(13) ^ *lane as u64)
}

/// A polynomial, its root and reciprocal: each result is exact or rounded once, so the same everywhere.
#[target_feature(enable = "avx2,fma")]
fn floats() -> f32 {
    let (half, one) = (_mm256_set1_ps(0.5), _mm256_set1_ps(1.0));
    let step = _mm256_setr_ps(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8);
    let (mut x, mut sum) = (step, _mm256_setzero_ps());
    for _ in 0..ROUNDS * VECTORS as u32 / 4 {
        let y = _mm256_fmadd_ps(x, half, one);
        let y = _mm256_fmsub_ps(y, y, half);
        let root = _mm256_sqrt_ps(_mm256_max_ps(y, half));
        x = _mm256_div_ps(step, root);
        sum = _mm256_add_ps(_mm256_mul_ps(sum, half), _mm256_min_ps(x, one));
    }
    let halves = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let pairs = _mm_hadd_ps(halves, halves);
    _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs))
}
