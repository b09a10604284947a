//! What a model does on labelled names.

use super::metrics::{self, RATES};
use super::names::Names;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::name::Name;
use serde::Serialize;
use std::collections::BTreeMap;

/// A model's figures on labelled names. Rates and shares are from 0 to 1.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// Benign names.
    pub benign: usize,
    /// Malicious names.
    pub malicious: usize,
    /// Area under the ROC curve.
    pub auc: f64,
    /// The logits that 1e-2, 1e-3 and 1e-4 of these benign names lie above.
    pub logits: [f32; 3],
    /// Recall at those.
    pub recall: [f64; 3],
    /// The same by class, and by family of the classes that have them.
    pub groups: Vec<Group>,
    /// At the model's own thresholds: the false-positive rate it states, the one found here, and the recall.
    pub thresholds: Vec<AtThreshold>,
    /// The stated and the found false-positive rate at scores.
    pub rates: Vec<Rate>,
    /// At a score of 0.5: benign taken for benign, for malicious; malicious taken for benign, for malicious.
    pub confusion: [[usize; 2]; 2],
    /// Share of names right at 0.5.
    pub accuracy: f64,
    /// Names by score, in tenths.
    pub calibration: Vec<Bin>,
    /// Mean difference between score and share of malicious names, weighted by names, over the tenths.
    pub calibration_error: f64,
    /// The mean logistic loss, by name.
    pub loss: f64,
}

/// Figures of one class or family.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// The class.
    pub class: String,
    /// The family; none for a whole class.
    pub family: Option<String>,
    /// Its names.
    pub names: usize,
    /// Area under the curve against all benign names; none for a benign class.
    pub auc: Option<f64>,
    /// The share of its names above the logits of 1e-2, 1e-3, 1e-4: recall of a malicious class, false positives of a benign one.
    pub above: [f64; 3],
}

/// What happens at one of the model's thresholds.
#[derive(Debug, Clone, Serialize)]
pub struct AtThreshold {
    /// `vet` or `block`.
    pub decision: &'static str,
    /// The score.
    pub score: f32,
    /// The false-positive rate that the model states.
    pub stated: f32,
    /// The one found.
    pub found: f64,
    /// The share of malicious names at or above it.
    pub recall: f64,
}

/// Stated and found false-positive rate of a score.
#[derive(Debug, Clone, Serialize)]
pub struct Rate {
    /// The score.
    pub score: f32,
    /// The rate that the model states.
    pub stated: f32,
    /// The share of these benign names at or above it.
    pub found: f64,
}

/// Names with scores in a range.
#[derive(Debug, Clone, Serialize)]
pub struct Bin {
    /// Names.
    pub names: usize,
    /// Their mean score.
    pub score: f64,
    /// The share of them that is malicious.
    pub malicious: f64,
}

/// The classes with more families than this are told by class only.
const MOST_FAMILIES: usize = 200;
/// Families of fewer names are not told by themselves.
const LEAST_NAMES: usize = 50;

/// The scores of names, in their order.
///
/// # Errors
/// [`Error::Model`] if the model fails on a name.
pub fn scores(model: &Model, names: &Names, chosen: &[u32]) -> Result<Vec<f32>> {
    let score = |&index: &u32| {
        // Names were parsed when they were read; a dot inside a label makes another name of a few strange ones.
        let name = Name::from_text(names.get(index as usize)).unwrap_or(Name::ROOT);
        model.score(&name)
    };
    chosen.iter().map(score).collect()
}

/// The logit of a score, finite also for 0 and 1.
pub fn logit(score: f32) -> f32 {
    let score = f64::from(score).clamp(1e-12, 1.0 - 1e-9);
    (score / (1.0 - score)).ln() as f32
}

/// Evaluates scores of the names at `chosen`.
///
/// # Errors
/// [`Error::Invalid`] if one of the labels is missing.
pub fn evaluate(
    model: &Model,
    names: &Names,
    chosen: &[u32],
    scores: &[f32],
) -> Result<Evaluation> {
    let logits: Vec<f32> = scores.iter().map(|&score| logit(score)).collect();
    let bad = |place: usize| names.about[chosen[place] as usize].malicious;
    let of = |malicious: bool| {
        metrics::sorted(
            (0..chosen.len()).filter(|&place| bad(place) == malicious).map(|place| logits[place]),
        )
    };
    let (benign, malicious) = (of(false), of(true));
    if benign.is_empty() || malicious.is_empty() {
        let text = format!(
            "{} benign and {} malicious names: both labels are needed",
            benign.len(),
            malicious.len()
        );
        return Err(Error::Invalid(text));
    }
    let at = RATES.map(|rate| metrics::threshold(&benign, rate));
    let above =
        |all: &[f32]| at.map(|threshold| metrics::share_above(all.iter().copied(), threshold));
    let from = |all: &[f32], score: f32| {
        let logit = logit(score);
        (all.len() - all.partition_point(|&one| one < logit)) as f64 / all.len() as f64
    };
    let mut by_group: BTreeMap<(u32, bool, Option<u32>), Vec<f32>> = BTreeMap::new();
    for (place, &logit) in logits.iter().enumerate() {
        let about = names.about[chosen[place] as usize];
        by_group.entry((about.class, about.malicious, None)).or_default().push(logit);
        if about.family != 0 && about.malicious {
            by_group.entry((about.class, true, Some(about.family))).or_default().push(logit);
        }
    }
    let families =
        |class: u32| by_group.keys().filter(|key| key.0 == class && key.2.is_some()).count();
    let mut groups: Vec<Group> = by_group
        .iter()
        .filter(|((class, _, family), all)| {
            family.is_none() || all.len() >= LEAST_NAMES && families(*class) <= MOST_FAMILIES
        })
        .map(|((class, is_malicious, family), all)| Group {
            class: names.word(*class).to_owned(),
            family: family.map(|family| names.word(family).to_owned()),
            names: all.len(),
            auc: is_malicious.then(|| metrics::auc(&benign, all)),
            above: above(all),
        })
        .collect();
    groups.sort_by(|a, b| (&a.class, &a.family).cmp(&(&b.class, &b.family)));
    let thresholds = [("vet", model.vet_threshold()), ("block", model.block_threshold())];
    let thresholds = thresholds.into_iter().filter_map(|(decision, score)| {
        let score = score?;
        Some(AtThreshold {
            decision,
            score,
            stated: model.fpr(score),
            found: from(&benign, score),
            recall: from(&malicious, score),
        })
    });
    let steps =
        [0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999];
    let rates =
        steps.map(|score| Rate { score, stated: model.fpr(score), found: from(&benign, score) });
    let taken = |all: &[f32]| {
        let bad = all.len() - all.partition_point(|&one| one < 0.0);
        [all.len() - bad, bad]
    };
    let confusion = [taken(&benign), taken(&malicious)];
    let mut bins = vec![(0_usize, 0.0_f64, 0_usize); 10];
    let mut loss = 0.0;
    for (place, &score) in scores.iter().enumerate() {
        let score = f64::from(score);
        let bin = &mut bins[((score * 10.0) as usize).min(9)];
        *bin = (bin.0 + 1, bin.1 + score, bin.2 + usize::from(bad(place)));
        let own = if bad(place) { score } else { 1.0 - score };
        loss -= own.max(1e-12).ln();
    }
    let all = scores.len() as f64;
    let error = |&(count, sum, bad): &(usize, f64, usize)| {
        if count > 0 { (sum - bad as f64).abs() } else { 0.0 }
    };
    Ok(Evaluation {
        benign: benign.len(),
        malicious: malicious.len(),
        auc: metrics::auc(&benign, &malicious),
        logits: at,
        recall: above(&malicious),
        groups,
        thresholds: thresholds.collect(),
        rates: rates.into(),
        confusion,
        accuracy: (confusion[0][0] + confusion[1][1]) as f64 / all,
        calibration_error: bins.iter().map(error).sum::<f64>() / all,
        calibration: bins
            .into_iter()
            .map(|(count, sum, bad)| {
                let share = |value: f64| if count > 0 { value / count as f64 } else { 0.0 };
                Bin { names: count, score: share(sum), malicious: share(bad as f64) }
            })
            .collect(),
        loss: loss / all,
    })
}
