//! The arithmetic that training and the fused engine share: loops over arrays of fixed size, which the compiler turns
//! into vector instructions.
//!
//! Everything here is generic over `FMA`: callers have one entry compiled for AVX2 and FMA (`FMA = true`, a fused
//! multiply-add is one instruction) and one for any processor (`FMA = false`, where a fused one would be a slow library
//! call), and choose by [`fast`]. `FMA = true` may only be used under such an entry. Results differ between the two in the
//! last bits only. Some places are written with intrinsics, where the compiler used half the width or none.

/// Whether this processor has AVX2 and FMA.
pub fn fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// `a * b + c`, rounded once if `FMA`.
#[inline(always)]
pub fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Adds `x * row` to `sum`.
#[inline(always)]
pub fn add_scaled<const FMA: bool, const N: usize>(sum: &mut [f32; N], x: f32, row: &[f32; N]) {
    for (total, &value) in sum.iter_mut().zip(row) {
        *total = mul_add::<FMA>(x, value, *total);
    }
}

/// The inner product of two arrays, summed in `LANES` lanes.
#[inline(always)]
pub fn dot<const FMA: bool, const N: usize>(a: &[f32; N], b: &[f32; N]) -> f32 {
    const LANES: usize = 32;
    let mut lanes = [0.0; LANES];
    let (a_full, a_rest) = a.as_chunks::<LANES>();
    let (b_full, b_rest) = b.as_chunks::<LANES>();
    for (left, right) in a_full.iter().zip(b_full) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(left).zip(right) {
            *lane = mul_add::<FMA>(x, y, *lane);
        }
    }
    let rest = a_rest.iter().zip(b_rest).fold(0.0, |sum, (&x, &y)| mul_add::<FMA>(x, y, sum));
    sum_lanes(&lanes) + rest
}

/// The sum of 32 lanes, halved again and again as vector code does.
#[inline(always)]
fn sum_lanes(lanes: &[f32; 32]) -> f32 {
    let mut left = *lanes;
    let mut width = 16;
    while width > 0 {
        let (low, high) = left.split_at_mut(width);
        for (total, &value) in low.iter_mut().zip(high.iter()) {
            *total += value;
        }
        width /= 2;
    }
    left[0]
}

/// `bias + x * weights` for a layer of `I` inputs and `O` outputs; `O` is a multiple of 32, `I` of 2. Even and odd
/// inputs have a sum each.
#[inline(always)]
pub fn layer<const FMA: bool, const I: usize, const O: usize>(
    x: &[f32; I],
    weights: &[[f32; O]; I],
    bias: &[f32; O],
) -> [f32; O] {
    const { assert!(O.is_multiple_of(BLOCK) && I.is_multiple_of(2)) };
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: FMA is only true under an entry that was chosen because the processor has AVX2 and FMA.
        return unsafe { avx2::layer(x, weights, bias) };
    }
    let mut even = *bias;
    let mut odd = [0.0; O];
    for (inputs, rows) in x.as_chunks::<2>().0.iter().zip(weights.as_chunks::<2>().0) {
        let ([first, second], [one, other]) = (inputs, rows);
        add_scaled::<FMA, O>(&mut even, *first, one);
        add_scaled::<FMA, O>(&mut odd, *second, other);
    }
    for (sum, odd) in even.iter_mut().zip(odd) {
        *sum += odd;
    }
    even
}

/// A bit for each of eight numbers that equals `wanted`, the first in bit 0.
#[inline(always)]
pub fn equal<const FMA: bool>(numbers: &[u32; 8], wanted: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: as in `layer`.
        return unsafe { avx2::equal(numbers, wanted) };
    }
    let bits = numbers.iter().enumerate();
    bits.fold(0, |found, (lane, &number)| found | u32::from(number == wanted) << lane)
}

/// Calls what will be read soon into the processor's cache.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; every x86-64 processor has it, and it may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Adds a row to sums.
#[inline(always)]
pub fn add_row<const FMA: bool>(sums: &mut [i16; 16], row: &[i8; 16]) {
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: as in `layer`.
        return unsafe { avx2::add_row(sums, row) };
    }
    for (sum, &value) in sums.iter_mut().zip(row) {
        *sum += i16::from(value);
    }
}

/// Outputs that [`layer`] computes at once: with two sums each that is eight vector registers, as many as it takes to
/// hide the latency of a fused multiply-add.
const BLOCK: usize = 32;

#[cfg(target_arch = "x86_64")]
// Indices are lanes and blocks of arrays of fixed size.
#[allow(clippy::indexing_slicing)]
mod avx2 {
    use super::BLOCK;
    use std::arch::x86_64::{
        __m256, _mm_loadu_si128, _mm256_add_epi16, _mm256_add_ps, _mm256_castsi256_ps,
        _mm256_cmpeq_epi32, _mm256_cvtepi8_epi16, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_loadu_si256, _mm256_movemask_ps, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_storeu_ps, _mm256_storeu_si256,
    };

    const LANES: usize = 8;
    /// Inputs that are passed over together if all are zero: a pool without rows.
    const GROUP: usize = 16;
    const SUMS: usize = BLOCK / LANES;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn layer<const I: usize, const O: usize>(
        x: &[f32; I],
        weights: &[[f32; O]; I],
        bias: &[f32; O],
    ) -> [f32; O] {
        let mut out = [0.0; O];
        let places = (0..O).step_by(BLOCK);
        let blocks = out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bias.as_chunks::<BLOCK>().0);
        for (place, (out, bias)) in places.zip(blocks) {
            let mut even: [__m256; SUMS] = load(bias);
            let mut odd = [_mm256_setzero_ps(); SUMS];
            for (inputs, rows) in x.chunks(GROUP).zip(weights.chunks(GROUP)) {
                if inputs.iter().all(|&input| input == 0.0) {
                    continue;
                }
                for (inputs, rows) in inputs.as_chunks::<2>().0.iter().zip(rows.as_chunks::<2>().0)
                {
                    let ([first, second], [one, other]) = (inputs, rows);
                    add(&mut even, *first, &one.as_chunks::<BLOCK>().0[place / BLOCK]);
                    add(&mut odd, *second, &other.as_chunks::<BLOCK>().0[place / BLOCK]);
                }
            }
            for (lane, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                // SAFETY: `out` is eight numbers long.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_add_ps(even[lane], odd[lane])) };
            }
        }
        out
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn add(sums: &mut [__m256; SUMS], x: f32, row: &[f32; BLOCK]) {
        let x = _mm256_set1_ps(x);
        for (sum, values) in sums.iter_mut().zip(load(row)) {
            *sum = _mm256_fmadd_ps(x, values, *sum);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(values: &[f32; BLOCK]) -> [__m256; SUMS] {
        let mut registers = [_mm256_setzero_ps(); SUMS];
        for (register, eight) in registers.iter_mut().zip(values.as_chunks::<LANES>().0) {
            // SAFETY: `eight` is eight numbers long.
            *register = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
        }
        registers
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn equal(numbers: &[u32; 8], wanted: u32) -> u32 {
        // SAFETY: `numbers` is eight numbers of four bytes long.
        let numbers = unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) };
        let same = _mm256_cmpeq_epi32(numbers, _mm256_set1_epi32(wanted.cast_signed()));
        _mm256_movemask_ps(_mm256_castsi256_ps(same)).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn add_row(sums: &mut [i16; 16], row: &[i8; 16]) {
        // SAFETY: sums are 32 bytes long, a row is 16.
        unsafe {
            let values = _mm256_cvtepi8_epi16(_mm_loadu_si128(row.as_ptr().cast()));
            let before = _mm256_loadu_si256(sums.as_ptr().cast());
            _mm256_storeu_si256(sums.as_mut_ptr().cast(), _mm256_add_epi16(before, values));
        }
    }
}

/// Sets what is negative to zero.
#[inline(always)]
pub fn relu<const N: usize>(values: &mut [f32; N]) {
    for value in values {
        *value = value.max(0.0);
    }
}

/// The logistic function.
#[inline(always)]
pub fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}
