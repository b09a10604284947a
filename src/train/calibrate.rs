//! From the logits of unseen benign names to false-positive rates and thresholds.
//!
//! The table says which share of benign names reaches a logit. It is measured on names whose registered domain the net
//! had not seen; names of a *list* it has not seen score higher still, because lists differ in kind. How much was measured by
//! leaving whole lists out (models/default/EXPERIMENTS.md): at one logit, such names are false positives about
//! [`UNSEEN_LISTS`] times as often. Rates in the table are multiplied by that, so that they hold for names of the world.

use crate::error::{Error, Result};

/// How much more often benign names of an unseen list reach a logit than those of the lists trained on.
pub const UNSEEN_LISTS: f64 = 2.0;
/// The rate at whose logit a name is worth a look.
pub const VET_RATE: f64 = 1e-3;
/// The rate at whose logit a name is blocked.
pub const BLOCK_RATE: f64 = 1e-4;
/// Rates measured, before the correction.
const MEASURED: [f64; 18] = [
    0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 5e-3, 3e-3, 2e-3, 1e-3, 5e-4, 3e-4, 2e-4, 1e-4,
    5e-5, 2e-5,
];
/// A rate that fewer names stand for is left out.
const LEAST_NAMES: f64 = 10.0;

/// False-positive rates by logit: knots of a logit and the share of benign names at or above it. Logits rise, rates fall.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The knots.
    pub knots: Vec<(f64, f64)>,
    /// How many benign names it was measured on.
    pub names: usize,
}

/// The fewest benign names with which two knots can be measured.
pub fn least_names() -> usize {
    (LEAST_NAMES / MEASURED[1]).ceil() as usize
}

/// How many benign names it takes to measure a rate, after the correction.
pub fn names_for(rate: f64) -> usize {
    (LEAST_NAMES * UNSEEN_LISTS / rate).ceil() as usize
}

impl Table {
    /// The table of benign logits, given in ascending order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for so few names that not even two knots can be measured.
    pub fn new(logits: &[f32]) -> Result<Table> {
        let mut knots: Vec<(f64, f64)> = Vec::new();
        for rate in MEASURED {
            let above = logits.len() as f64 * rate;
            if above < LEAST_NAMES {
                break;
            }
            let logit = f64::from(logits[logits.len() - above as usize]);
            if knots.last().is_none_or(|&(last, _)| logit > last) {
                knots.push((logit, (rate * UNSEEN_LISTS).min(1.0)));
            }
        }
        if knots.len() < 2 {
            let found = logits.len();
            return Err(Error::Invalid(format!(
                "{found} benign names are too few to measure a false-positive rate"
            )));
        }
        Ok(Table { knots, names: logits.len() })
    }

    /// The logit with a given rate, between two knots; none outside of them.
    pub fn logit(&self, rate: f64) -> Option<f64> {
        self.knots.windows(2).find_map(|pair| {
            let [(low, high_rate), (high, low_rate)] = [pair[0], pair[1]];
            let inside = (low_rate..=high_rate).contains(&rate) && high_rate > low_rate;
            let share = (rate.ln() - high_rate.ln()) / (low_rate.ln() - high_rate.ln());
            inside.then_some(low + share * (high - low))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_logits_fit_each_other() {
        let logits: Vec<f32> = (0..1_000_000).map(|i| i as f32 / 100_000.0).collect();
        let table = Table::new(&logits).unwrap();
        assert_eq!(table.knots.len(), MEASURED.len());
        for rate in [0.5, VET_RATE, BLOCK_RATE] {
            let logit = table.logit(rate).unwrap();
            let real = logits.iter().filter(|&&one| f64::from(one) >= logit).count() as f64 / 1e6;
            assert!((real * UNSEEN_LISTS / rate - 1.0).abs() < 0.1, "{rate}: {real}");
        }
        assert!(Table::new(&logits[..1_000]).unwrap().logit(BLOCK_RATE).is_none());
        assert!(Table::new(&logits[..15]).is_err());
        assert!(Table::new(&logits[..least_names()]).is_ok());
        assert!(Table::new(&logits[..least_names() - 1]).is_err());
        for rate in [VET_RATE, BLOCK_RATE] {
            let enough = names_for(rate);
            assert!(Table::new(&logits[..enough]).unwrap().logit(rate).is_some());
            assert!(Table::new(&logits[..enough * 9 / 10]).unwrap().logit(rate).is_none());
        }
    }
}
