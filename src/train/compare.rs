//! Whether a new model may take an old one's place.
//!
//! A finished model has learnt the validation names too, so on them it looks better than it is: measured so, the old
//! model beats nearly every new one, even that of the same names. What its manifest keeps of its own first stage, which
//! had not seen them, is the fair figure, as long as both runs validate with about the same names. Whether they do is told
//! by a sample of hashes of these names, which the manifest keeps as well (the smallest ones: Broder, "On the resemblance
//! and containment of documents", 1997).

use super::evaluate::Evaluation;
use super::metrics::RATES;
use super::names::Names;
use super::run::text_hash;
use serde_json::Value;
use std::collections::BTreeSet;

/// How much worse than the old model a new one may be, in area under the curve and in recall.
const TOLERATED: (f64, f64) = (0.002, 0.02);
/// A recall whose false-positive rate stands for fewer benign names than this is chance.
const LEAST_NAMES: f64 = 10.0;
/// Hashes in a sample.
const SAMPLE: usize = 64;
/// From this share in common on, two runs validate with about the same names.
const SAME: f64 = 0.2;
/// The sample's key in the manifest, under `training`.
pub const KEY: &str = "validation_sample";

/// What two models are compared by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Area under the curve.
    pub auc: f64,
    /// Recall at [`RATES`].
    pub recall: [f64; 3],
}

impl From<&Evaluation> for Figures {
    fn from(found: &Evaluation) -> Figures {
        Figures { auc: found.auc, recall: found.recall }
    }
}

/// A sample of the names at `chosen`: hashes in hexadecimal.
pub fn sample(names: &Names, chosen: &[u32]) -> String {
    let hashes = chosen.iter().map(|&index| text_hash(names.get(index as usize)));
    let mut hashes: Vec<u64> = hashes.collect();
    hashes.sort_unstable();
    hashes.dedup();
    let words: Vec<String> =
        hashes.iter().take(SAMPLE).map(|hash| format!("{hash:016x}")).collect();
    words.join(" ")
}

/// The share of names that those of two samples have in common, about.
fn in_common(one: &str, other: &str) -> f64 {
    let [one, other] = [one, other].map(|text| text.split(' ').collect::<BTreeSet<&str>>());
    let least: Vec<&&str> = one.union(&other).take(SAMPLE).collect();
    let both = least.iter().filter(|&&word| one.contains(word) && other.contains(word)).count();
    both as f64 / least.len().max(1) as f64
}

/// What an old model's manifest says of its first stage, if that was measured on about the names of `sample`.
pub fn stated(manifest: &Value, sample: &str) -> Option<Figures> {
    let own = manifest.get("training")?.get(KEY)?.as_str()?;
    let metrics = manifest.get("metrics")?;
    let recall: Vec<f64> =
        metrics.get("recall")?.as_array()?.iter().filter_map(Value::as_f64).collect();
    let figures = Figures { auc: metrics.get("auc")?.as_f64()?, recall: recall.try_into().ok()? };
    (in_common(own, sample) >= SAME).then_some(figures)
}

/// Whether a model is worse than an old one, by more than chance; so many benign and malicious names were measured.
pub fn is_worse(new: &Figures, old: &Figures, benign: usize, malicious: usize) -> bool {
    let (auc, recall) = TOLERATED;
    let counts = |rate: f64| benign as f64 * rate >= LEAST_NAMES;
    let fell = |((rate, new), old): ((&f64, &f64), &f64)| counts(*rate) && *new < old - recall;
    // The area's standard error is at most about this (Hanley and McNeil 1982).
    let error = (old.auc * (1.0 - old.auc) / benign.min(malicious).max(1) as f64).sqrt();
    new.auc < old.auc - auc.max(error) || RATES.iter().zip(&new.recall).zip(&old.recall).any(fell)
}

#[cfg(test)]
mod tests {
    use super::super::names::Kind;
    use super::*;
    use serde_json::json;
    use std::io::Write;

    fn sample_of(range: std::ops::Range<u32>) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for number in range {
            writeln!(file, "name{number}.example").unwrap();
        }
        let mut names = Names::new();
        names.read(file.path(), Kind { malicious: false, validation: true }).unwrap();
        sample(&names, &(0..names.len() as u32).collect::<Vec<u32>>())
    }

    #[test]
    fn samples_tell_what_is_in_common() {
        let all = sample_of(0..3_000);
        assert_eq!(all.split(' ').count(), SAMPLE);
        assert_eq!(in_common(&all, &all), 1.0);
        assert_eq!(in_common(&all, &sample_of(3_000..6_000)), 0.0);
        let half = in_common(&all, &sample_of(1_000..4_000));
        assert!((half - 0.5).abs() < 0.2, "{half}");
        assert_eq!(in_common(&sample_of(0..10), &sample_of(0..10)), 1.0);
    }

    #[test]
    fn a_manifest_speaks_for_its_own_names_only() {
        let sample = sample_of(0..500);
        let manifest = json!({
            "metrics": {"auc": 0.9, "recall": [0.5, 0.25, 0.125]}, "training": {KEY: sample},
        });
        let expected = Figures { auc: 0.9, recall: [0.5, 0.25, 0.125] };
        assert_eq!(stated(&manifest, &sample), Some(expected));
        assert_eq!(stated(&manifest, &sample_of(500..1_000)), None);
        assert_eq!(stated(&json!({"metrics": {"auc": 0.9}}), &sample), None);
    }

    #[test]
    fn chance_makes_no_model_worse() {
        let old = Figures { auc: 0.9, recall: [0.5, 0.3, 0.1] };
        assert!(!is_worse(
            &Figures { auc: 0.899, recall: [0.49, 0.29, 0.0] },
            &old,
            20_000,
            30_000
        ));
        let lower = Figures { auc: 0.89, ..old };
        assert!(is_worse(&lower, &old, 20_000, 30_000) && !is_worse(&lower, &old, 20_000, 100));
        let fewer = Figures { recall: [0.5, 0.2, 0.1], ..old };
        assert!(is_worse(&fewer, &old, 20_000, 30_000) && !is_worse(&fewer, &old, 2_000, 3_000));
    }
}
