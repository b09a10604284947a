//! placeholder
use super::metrics;
use std::sync::atomic::{AtomicBool, Ordering};
/// Watches one net's training.
pub struct Watch<'a> {
    /// net
    pub net: &'a str,
    /// stop
    pub stop: &'a AtomicBool,
    /// validation names
    pub validation: &'a [u32],
    /// labels
    pub labels: &'a [f32],
}
impl Watch<'_> {
    /// progress
    #[inline(never)]
    pub fn progress(&self, _epoch: u32, _done: usize, _all: usize, _loss: f64) -> Option<()> {
        (!self.stop.load(Ordering::Relaxed)).then_some(())
    }
    /// epoch
    #[inline(never)]
    pub fn epoch(&self, epoch: u32, loss: f64, logits: impl FnOnce(&[u32]) -> Vec<f32>) {
        let z = logits(self.validation);
        let b = metrics::sorted(z.iter().zip(self.validation).filter(|x| self.labels[*x.1 as usize] < 0.5).map(|x| *x.0));
        let m = metrics::sorted(z.iter().zip(self.validation).filter(|x| self.labels[*x.1 as usize] > 0.5).map(|x| *x.0));
        let t: Vec<_> = metrics::RATES.iter().map(|&r| format!("{:.2}", 100.0*metrics::share_above(m.iter().copied(), metrics::threshold(&b, r)))).collect();
        eprintln!("{} epoch {epoch} loss {loss:.4} auc {:.4} {}", self.net, metrics::auc(&b, &m), t.join(" / "));
    }
}
