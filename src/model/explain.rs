//! Why a name got its score: integrated gradients over the rows of the fused network.
//!
//! Every input (the rows of the three pools and the dense numbers) is led from nothing to what it is along a straight
//! line, and what each adds to the logit on the way is summed up (Sundararajan, Taly and Yan, "Axiomatic attribution for
//! deep networks", 2017; midpoints of [`STEPS`] steps). A row's contribution is its share of its pool's mean times the
//! mean gradient there, so contributions of rows add up to those of pools, and all together to the logit less that of a name
//! of which nothing is known (within the error of the steps: about 0.01, up to 0.1 for the longest names).

use super::fused::Fused;
use super::ngram::net::WIDTH;
use super::ngram::{self, CORE, MAX_ROWS, POOLS, Parts, SUB};
use super::{Explanation, Span, kernel};
use std::collections::BTreeMap;

/// How many steps the way from nothing to the name has.
const STEPS: u16 = 256;
/// How many n-grams of a name are told at most: those that contribute most.
const MAX_GRAMS: usize = 12;

/// The method's name in an explanation.
pub(super) const METHOD: &str = "integrated gradients";

/// One known key of the name.
struct Known {
    pool: usize,
    row: u32,
    start: usize,
    end: usize,
}

/// Explains a dotted lower-case name. The spans, by kind:
///
/// - `core`, `sub-domain`: all n-grams of the part together; `suffix`: a word that ends the name (its last labels, its
///   public suffix); `label`: a whole label, or a piece of one between hyphens, as a word; `shape`: lengths, digits,
///   vowels and the like, over the whole name. Together they add up to the logit less that of nothing known.
/// - `n-gram`: the known n-grams, those that contribute most, which are part of the sums above. An n-gram that the
///   dictionary lacks is not there: it contributes nothing.
pub(super) fn explain(fused: &Fused, name: &[u8]) -> Explanation {
    let parts = Parts::of(name);
    let mut known = Vec::new();
    let mut counts = [0_usize; POOLS];
    ngram::visit(&parts, &mut |pool: usize, key: u64, start: usize, len: usize| {
        let row = fused.dictionary().row(ngram::hash(key));
        let (Some(count), Some(&most)) = (counts.get_mut(pool), MAX_ROWS.get(pool)) else { return };
        if row != 0 && *count < most {
            *count += 1;
            known.push(Known { pool, row, start, end: start + len });
        }
    });
    let dense = ngram::dense(&parts);
    let slopes = fused.mean_gradient(name, STEPS);
    let (pool_slopes, dense_slopes) = slopes.split_at(POOLS * WIDTH);
    let pool_slopes = pool_slopes.as_chunks::<WIDTH>().0;
    let contribution = |one: &Known| {
        let (Some(slope), Some(&count)) = (pool_slopes.get(one.pool), counts.get(one.pool)) else {
            return 0.0;
        };
        let row = fused.row(one.row);
        row.iter().zip(slope).map(|(value, slope)| value * slope).sum::<f32>() / count.max(1) as f32
    };
    let core = (parts.core_start(), parts.core_start() + parts.core.len());
    let shape: f32 = dense.iter().zip(dense_slopes).map(|(value, slope)| value * slope).sum();
    let mut sums: BTreeMap<(usize, usize, &'static str), f32> = BTreeMap::new();
    let mut grams: BTreeMap<(usize, usize), f32> = BTreeMap::new();
    *sums.entry((0, name.len(), "shape")).or_default() += shape;
    for one in &known {
        let key = match one.pool {
            CORE => (core.0, core.1, "core"),
            SUB => (0, parts.sub.len(), "sub-domain"),
            _ if (one.start, one.end) == (0, name.len()) && parts.labels > 1 => {
                (0, name.len(), "shape")
            }
            _ if one.end == name.len() => (one.start, one.end, "suffix"),
            _ => (one.start, one.end, "label"),
        };
        let part = contribution(one);
        *sums.entry(key).or_default() += part;
        if one.pool == CORE || one.pool == SUB {
            *grams.entry((one.start, one.end)).or_default() += part;
        }
    }
    let mut grams: Vec<((usize, usize), f32)> = grams.into_iter().collect();
    grams.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    grams.truncate(MAX_GRAMS);
    grams.sort_by_key(|gram| gram.0);
    let span = |start: usize, end: usize, kind: &'static str, contribution: f32| Span {
        start,
        end,
        text: String::from_utf8_lossy(name.get(start..end).unwrap_or(&[])).into_owned(),
        kind,
        contribution,
    };
    let sums = sums.into_iter().map(|((start, end, kind), part)| span(start, end, kind, part));
    let grams = grams.into_iter().map(|((start, end), part)| span(start, end, "n-gram", part));
    let logit = fused.logit(&parts);
    let (score, logit, base) = (kernel::sigmoid(logit), Some(logit), Some(fused.base()));
    Explanation { score, logit, base, method: METHOD, spans: sums.chain(grams).collect() }
}
