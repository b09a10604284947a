//! The arithmetic that training and the fused engine share: loops over arrays of fixed size, which the compiler turns
//! into vector instructions.
//!
//! Everything here is `#[inline(always)]` and generic over `FMA`: callers have one entry compiled for AVX2 and FMA
//! (`FMA = true`, a fused multiply-add is one instruction) and one for any processor (`FMA = false`, where a fused one
//! would be a slow library call), and choose by [`fast`]. Results differ between the two in the last bits only.

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

/// `bias + x * weights` for a layer of `I` inputs and `O` outputs; inputs that are zero cost no less.
#[inline(always)]
pub fn layer<const FMA: bool, const I: usize, const O: usize>(
    x: &[f32; I],
    weights: &[[f32; O]; I],
    bias: &[f32; O],
) -> [f32; O] {
    let mut sum = *bias;
    for (&input, row) in x.iter().zip(weights) {
        add_scaled::<FMA, O>(&mut sum, input, row);
    }
    sum
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
