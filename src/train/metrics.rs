//! How good scores are: area under the curve, recall at a false-positive rate, calibration.

/// The false-positive rates that tables speak of.
pub const RATES: [f64; 3] = [1e-2, 1e-3, 1e-4];

/// The logit that `rate` of the benign logits lie above (the next lower one). Malicious is what lies *above* it.
/// `sorted` is ascending; infinite without names.
pub fn threshold(sorted: &[f32], rate: f64) -> f32 {
    let above = (sorted.len() as f64 * rate) as usize;
    match sorted.len().checked_sub(above + 1) {
        Some(place) => sorted[place],
        None => f32::INFINITY,
    }
}

/// The share of `logits` above `threshold`; 0 without any.
pub fn share_above(logits: impl Iterator<Item = f32>, threshold: f32) -> f64 {
    let (mut above, mut all) = (0_u64, 0_u64);
    for logit in logits {
        all += 1;
        above += u64::from(logit > threshold);
    }
    if all == 0 { 0.0 } else { above as f64 / all as f64 }
}

/// Area under the ROC curve: the chance that a malicious name has the higher logit, ties counting half.
pub fn auc(benign: &[f32], malicious: &[f32]) -> f64 {
    let mut all: Vec<(f32, bool)> = benign.iter().map(|&logit| (logit, false)).collect();
    all.extend(malicious.iter().map(|&logit| (logit, true)));
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0_u64;
    let mut won = 0.0;
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let bad = group.iter().filter(|entry| entry.1).count() as u64;
        let good = group.len() as u64 - bad;
        won += bad as f64 * (below as f64 + good as f64 / 2.0);
        below += good;
    }
    won / (benign.len() as f64 * malicious.len() as f64)
}

/// Sorts logits ascending.
pub fn sorted(logits: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut all: Vec<f32> = logits.collect();
    all.sort_unstable_by(f32::total_cmp);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area_and_recall() {
        assert_eq!(auc(&[0.0, 1.0], &[2.0, 3.0]), 1.0);
        assert_eq!(auc(&[0.0, 1.0], &[0.0, 1.0]), 0.5);
        assert_eq!(auc(&[1.0], &[1.0, 0.0]), 0.25);
        let benign = sorted((0..1000).map(|i| i as f32));
        assert_eq!(threshold(&benign, 0.01), 989.0);
        assert_eq!(share_above(benign.iter().copied(), threshold(&benign, 0.01)), 0.01);
        assert_eq!(threshold(&[], 0.1), f32::INFINITY);
    }
}
