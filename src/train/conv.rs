//! The convolution net: a teacher that reads a name's characters and knows nothing of its parts.
//!
//! Symbols of the whole name between markers, its last 94 bytes; filters over 2 to 5 neighbours, 64 of each width, the
//! largest value over all places, bias, ReLU; 256 -> 64 ReLU -> 1. A filter's weight for (offset, symbol) is a row of 64
//! of a table, so a place costs as many row additions as the filter is wide. Adam on batches of 128, 3 epochs.

use super::adam::Adam;
use super::bag::{Lesson, fill, shuffle, uniform};
use super::names::Names;
use super::run::Watch;
use crate::model::kernel::{add_scaled, dot, layer, relu, sigmoid};
use rand_pcg::Pcg32;

const FILTERS: usize = 64;
const WIDTHS: [usize; 4] = [2, 3, 4, 5];
/// Rows of all tables: one for each offset of each width and each symbol.
const OFFSETS: usize = 2 + 3 + 4 + 5;
const SYMBOLS: usize = 40;
const FEATURES: usize = WIDTHS.len() * FILTERS;
const HIDDEN: usize = 64;
const LONGEST: usize = 96;
const STEP: f32 = 2e-3;
const BATCH: usize = 128;
const LAST_SHARE: f32 = 0.01;

struct Net {
    tables: [[f32; FILTERS]; OFFSETS * SYMBOLS],
    filter_bias: [[f32; FILTERS]; WIDTHS.len()],
    hidden: [[f32; HIDDEN]; FEATURES],
    hidden_bias: [f32; HIDDEN],
    out: [f32; HIDDEN],
    bias: [f32; 1],
}

impl Net {
    fn zero() -> Box<Net> {
        Box::new(Net {
            tables: [[0.0; FILTERS]; OFFSETS * SYMBOLS],
            filter_bias: [[0.0; FILTERS]; WIDTHS.len()],
            hidden: [[0.0; HIDDEN]; FEATURES],
            hidden_bias: [0.0; HIDDEN],
            out: [0.0; HIDDEN],
            bias: [0.0],
        })
    }

    fn random(random: &mut Pcg32) -> Box<Net> {
        let mut net = Net::zero();
        let mut from = 0;
        for width in WIDTHS {
            let rows = &mut net.tables[from..from + width * SYMBOLS];
            fill(random, rows.as_flattened_mut(), 0.35 * (3.0 / width as f32).sqrt());
            from += width * SYMBOLS;
        }
        fill(random, net.hidden.as_flattened_mut(), (3.0 / 128.0_f32).sqrt());
        net.hidden_bias.iter_mut().for_each(|bias| *bias = 0.2 * uniform(random));
        fill(random, &mut net.out, (3.0 / (HIDDEN as f32 + 1.0)).sqrt());
        net
    }

    fn parts(&mut self) -> [&mut [f32]; 6] {
        [
            self.tables.as_flattened_mut(),
            self.filter_bias.as_flattened_mut(),
            self.hidden.as_flattened_mut(),
            &mut self.hidden_bias,
            &mut self.out,
            &mut self.bias,
        ]
    }
}

/// A trained convolution net.
pub struct Conv {
    net: Box<Net>,
}

/// The symbols of a name, `^` and `$` around its last bytes.
#[inline(always)]
fn symbols<'a>(name: &[u8], buffer: &'a mut [u8; LONGEST]) -> &'a [u8] {
    let tail = &name[name.len().saturating_sub(LONGEST - 2)..];
    buffer[0] = 38;
    for (slot, &byte) in buffer[1..].iter_mut().zip(tail) {
        *slot = match byte {
            b'a'..=b'z' => byte - b'a' + 1,
            b'0'..=b'9' => byte - b'0' + 27,
            b'-' | b'_' => 37,
            _ => 0,
        };
    }
    buffer[tail.len() + 1] = 39;
    &buffer[..tail.len() + 2]
}

struct Pass {
    features: [f32; FEATURES],
    /// The place of each filter's largest value.
    places: [[u32; FILTERS]; WIDTHS.len()],
    hidden: [f32; HIDDEN],
    logit: f32,
}

#[inline(always)]
fn forward<const FMA: bool>(net: &Net, text: &[u8]) -> Pass {
    let mut features = [0.0; FEATURES];
    let mut places = [[0_u32; FILTERS]; WIDTHS.len()];
    let mut table = 0;
    for (kind, width) in WIDTHS.into_iter().enumerate() {
        let mut best = [-1e9_f32; FILTERS];
        let place = &mut places[kind];
        for (at, window) in text.windows(width).enumerate() {
            let mut sum = net.tables[table * SYMBOLS + usize::from(window[0])];
            for (offset, &symbol) in window.iter().enumerate().skip(1) {
                let row = &net.tables[(table + offset) * SYMBOLS + usize::from(symbol)];
                for (total, &value) in sum.iter_mut().zip(row) {
                    *total += value;
                }
            }
            for ((most, from), &value) in best.iter_mut().zip(place.iter_mut()).zip(&sum) {
                let larger = value > *most;
                *most = if larger { value } else { *most };
                *from = if larger { at as u32 } else { *from };
            }
        }
        let out = &mut features[kind * FILTERS..(kind + 1) * FILTERS];
        for ((slot, &most), &bias) in out.iter_mut().zip(&best).zip(&net.filter_bias[kind]) {
            *slot = (most + bias).max(0.0);
        }
        table += width;
    }
    let mut hidden = layer::<FMA, FEATURES, HIDDEN>(&features, &net.hidden, &net.hidden_bias);
    relu(&mut hidden);
    let logit = net.bias[0] + dot::<FMA, HIDDEN>(&hidden, &net.out);
    Pass { features, places, hidden, logit }
}

#[inline(always)]
fn backward<const FMA: bool>(net: &Net, gradient: &mut Net, text: &[u8], pass: &Pass, g: f32) {
    gradient.bias[0] += g;
    add_scaled::<FMA, HIDDEN>(&mut gradient.out, g, &pass.hidden);
    let mut g_hidden = [0.0; HIDDEN];
    for ((slot, &hidden), &weight) in g_hidden.iter_mut().zip(&pass.hidden).zip(&net.out) {
        *slot = if hidden > 0.0 { g * weight } else { 0.0 };
    }
    add_scaled::<FMA, HIDDEN>(&mut gradient.hidden_bias, 1.0, &g_hidden);
    let mut table = 0;
    for (kind, width) in WIDTHS.into_iter().enumerate() {
        for filter in 0..FILTERS {
            let feature = kind * FILTERS + filter;
            if pass.features[feature] <= 0.0 {
                continue;
            }
            let pull = dot::<FMA, HIDDEN>(&net.hidden[feature], &g_hidden);
            add_scaled::<FMA, HIDDEN>(
                &mut gradient.hidden[feature],
                pass.features[feature],
                &g_hidden,
            );
            gradient.filter_bias[kind][filter] += pull;
            let at = pass.places[kind][filter] as usize;
            for (offset, &symbol) in text[at..at + width].iter().enumerate() {
                gradient.tables[(table + offset) * SYMBOLS + usize::from(symbol)][filter] += pull;
            }
        }
        table += width;
    }
}

/// Trains a convolution net on the names themselves; nothing if the run was stopped.
pub fn train(names: &Names, lesson: &Lesson<'_>, watch: &Watch<'_>) -> Option<Conv> {
    #[cfg(target_arch = "x86_64")]
    if crate::model::kernel::fast() {
        #[target_feature(enable = "avx2,fma")]
        fn fast(names: &Names, lesson: &Lesson<'_>, watch: &Watch<'_>) -> Option<Conv> {
            train_with::<true>(names, lesson, watch)
        }
        // SAFETY: `fast()` above says that the processor has AVX2 and FMA.
        return unsafe { fast(names, lesson, watch) };
    }
    train_with::<false>(names, lesson, watch)
}

#[inline(always)]
fn train_with<const FMA: bool>(
    names: &Names,
    lesson: &Lesson<'_>,
    watch: &Watch<'_>,
) -> Option<Conv> {
    let mut random = Pcg32::new(lesson.seed, 2);
    let mut conv = Conv { net: Net::random(&mut random) };
    let mut gradient = Net::zero();
    let mut adam = Adam::new(size_of::<Net>() / size_of::<f32>(), BATCH);
    let mut order = lesson.chosen.to_vec();
    let steps = order.len() as f32 * lesson.epochs as f32;
    let mut seen = 0_usize;
    let mut buffer = [0; LONGEST];
    for epoch in 0..lesson.epochs {
        shuffle(&mut random, &mut order);
        let mut loss = 0.0_f64;
        for (place, &index) in order.iter().enumerate() {
            if place % 4096 == 0 {
                watch.progress(epoch, place, order.len(), loss)?;
            }
            let index = index as usize;
            let text = symbols(names.get(index), &mut buffer);
            let pass = forward::<FMA>(&conv.net, text);
            let label = lesson.labels[index];
            let probability = sigmoid(pass.logit);
            let own = if label > 0.5 { probability } else { 1.0 - probability };
            loss -= f64::from((own + 1e-9).ln());
            let g = lesson.weights[index] * (probability - label);
            backward::<FMA>(&conv.net, &mut gradient, text, &pass, g);
            seen += 1;
            if seen.is_multiple_of(BATCH) {
                let share = 1.0 - seen as f32 / steps + LAST_SHARE;
                adam.step(conv.net.parts().into_iter().zip(gradient.parts()), STEP * share);
            }
        }
        let mean = loss / order.len().max(1) as f64;
        watch.epoch(epoch, mean, |chosen| conv.logits(names, chosen));
    }
    Some(conv)
}

impl Conv {
    /// The logits of the names at `chosen`.
    pub fn logits(&self, names: &Names, chosen: &[u32]) -> Vec<f32> {
        #[cfg(target_arch = "x86_64")]
        if crate::model::kernel::fast() {
            #[target_feature(enable = "avx2,fma")]
            fn fast(conv: &Conv, names: &Names, chosen: &[u32]) -> Vec<f32> {
                conv.logits_with::<true>(names, chosen)
            }
            // SAFETY: `fast()` above says that the processor has AVX2 and FMA.
            return unsafe { fast(self, names, chosen) };
        }
        self.logits_with::<false>(names, chosen)
    }

    #[inline(always)]
    fn logits_with<const FMA: bool>(&self, names: &Names, chosen: &[u32]) -> Vec<f32> {
        let mut buffer = [0; LONGEST];
        let mut logits = Vec::with_capacity(chosen.len());
        for &index in chosen {
            let text = symbols(names.get(index as usize), &mut buffer);
            logits.push(forward::<FMA>(&self.net, text).logit);
        }
        logits
    }
}
