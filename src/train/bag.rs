//! The field n-gram bag: rows of a table, averaged by pool, and a small perceptron on top.
//!
//! Stochastic descent name by name: rows by row-wise Adagrad (Duchi et al. 2011, one accumulator a row), the perceptron
//! by Adam (Kingma and Ba 2015) on the mean gradient of 128 names; both steps fall linearly to one per cent. The loss is
//! logistic; a student adds a share of the squared error to its teacher's logit. One thread a net; the same settings and
//! the same processor features give the same bits.

use super::adam::Adam;
use super::encode::{Encoded, Sample};
use super::run::Watch;
use crate::model::kernel::{add_scaled, dot, mul_add, sigmoid};
use crate::model::ngram::net::{HIDDEN, INPUTS, Net, POOLED, Pass, SECOND, WIDTH, Weights};
use crate::model::ngram::{CORE, DENSE, POOLS, SUB, WORD};
use rand::RngCore;
use rand_pcg::Pcg32;

const ROW_STEP: f32 = 0.1;
const ROW_START: f32 = 0.01;
const NET_STEP: f32 = 2e-3;
const BATCH: usize = 128;
const LAST_SHARE: f32 = 0.01;
const WORD_DROPOUT: f32 = 0.1;
/// How much the squared error to the teacher's logit weighs, and where that error is clipped.
const TEACHER_WEIGHT: f32 = 0.3;
const TEACHER_CLIP: f32 = 3.0;

/// A perceptron to begin with.
fn random_net(random: &mut Pcg32) -> Box<Net> {
    let mut net = Net::zero();
    let spread = |inputs: f32, gain: f32| (gain / inputs).sqrt();
    fill(random, net.first.as_flattened_mut(), spread(42.0, 3.0));
    net.first_bias.iter_mut().for_each(|bias| *bias = 0.2 * uniform(random));
    fill(random, net.second.as_flattened_mut(), spread(HIDDEN as f32 + 1.0, 6.0));
    fill(random, &mut net.out, spread(SECOND as f32 + 1.0, 3.0));
    fill(random, &mut net.skip, spread(WIDTH as f32, 3.0));
    net
}

/// A number from 0 up to 1.
pub fn uniform(random: &mut Pcg32) -> f32 {
    (random.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Numbers from `-spread` to `spread`.
pub fn fill(random: &mut Pcg32, values: &mut [f32], spread: f32) {
    values.iter_mut().for_each(|value| *value = (uniform(random) * 2.0 - 1.0) * spread);
}

/// Puts numbers into a random order.
pub fn shuffle(random: &mut Pcg32, order: &mut [u32]) {
    for last in (1..order.len()).rev() {
        let place = (u64::from(random.next_u32()) * (last as u64 + 1)) >> 32;
        order.swap(last, place as usize);
    }
}

/// A trained bag.
pub struct Bag {
    /// The table; row 0 is zero.
    pub table: Vec<[f32; WIDTH]>,
    /// The perceptron.
    pub net: Box<Net>,
}

/// What a net learns from.
#[derive(Clone, Copy)]
pub struct Lesson<'a> {
    /// All names of the run.
    pub encoded: &'a Encoded,
    /// Which of them to learn from.
    pub chosen: &'a [u32],
    /// The label of each name of the run: 1 malicious, 0 benign.
    pub labels: &'a [f32],
    /// The weight of each name of the run.
    pub weights: &'a [f32],
    /// The teacher's logit for each name of the run.
    pub teacher: Option<&'a [f32]>,
    /// Rows of the table, without row 0.
    pub rows: usize,
    /// How often to go through the names.
    pub epochs: u32,
    /// Where randomness starts.
    pub seed: u64,
}

/// Trains a bag; nothing if the run was stopped.
pub fn train(lesson: &Lesson<'_>, watch: &Watch<'_>) -> Option<Bag> {
    #[cfg(target_arch = "x86_64")]
    if crate::model::kernel::fast() {
        #[target_feature(enable = "avx2,fma")]
        fn fast(lesson: &Lesson<'_>, watch: &Watch<'_>) -> Option<Bag> {
            train_with::<true>(lesson, watch)
        }
        // SAFETY: `fast()` above says that the processor has AVX2 and FMA.
        return unsafe { fast(lesson, watch) };
    }
    train_with::<false>(lesson, watch)
}

#[inline(always)]
fn train_with<const FMA: bool>(lesson: &Lesson<'_>, watch: &Watch<'_>) -> Option<Bag> {
    let mut random = Pcg32::new(lesson.seed, 1);
    let mut bag = Bag { table: vec![[0.0; WIDTH]; lesson.rows + 1], net: random_net(&mut random) };
    let mut squares = vec![0.0_f32; lesson.rows + 1];
    let mut adam = Adam::new(size_of::<Net>() / size_of::<f32>(), BATCH);
    let mut gradient = Net::zero();
    let mut order = lesson.chosen.to_vec();
    let steps = order.len() as f32 * lesson.epochs as f32;
    let mut seen = 0_usize;
    let mut kept = [0_u32; 512];
    for epoch in 0..lesson.epochs {
        shuffle(&mut random, &mut order);
        let mut loss = 0.0_f64;
        for (place, &index) in order.iter().enumerate() {
            if place % 4096 == 0 {
                watch.progress(epoch, place, order.len(), loss)?;
            }
            let left = 1.0 - seen as f32 / steps;
            let share = left + LAST_SHARE;
            let index = index as usize;
            let sample = lesson.encoded.get(index);
            let sample = drop_words(sample, &mut kept, &mut random);
            let target = Target {
                label: lesson.labels[index],
                weight: lesson.weights[index],
                teacher: lesson.teacher.map(|teacher| teacher[index]),
            };
            loss += f64::from(step::<FMA>(
                &mut bag,
                &mut squares,
                &mut gradient,
                &sample,
                target,
                ROW_STEP * share,
            ));
            seen += 1;
            if seen.is_multiple_of(BATCH) {
                adam.step(
                    bag.net.parts_mut().into_iter().zip(gradient.parts_mut()),
                    NET_STEP * share,
                );
            }
        }
        let mean = loss / order.len().max(1) as f64;
        watch.epoch(epoch, mean, |names| logits(&bag.quantise(), lesson.encoded, names));
    }
    Some(bag)
}

/// A sample whose words were thinned; `scale` counts what was there before.
struct Thinned<'a> {
    rows: &'a [u32],
    kept: [usize; POOLS],
    scale: [f32; POOLS],
    dense: &'a [f32; DENSE],
}

#[inline(always)]
fn drop_words<'a>(sample: Sample<'a>, kept: &'a mut [u32; 512], random: &mut Pcg32) -> Thinned<'a> {
    let counts = sample.counts.map(usize::from);
    let grams = counts[CORE] + counts[SUB];
    kept[..grams].copy_from_slice(&sample.rows[..grams]);
    let mut end = grams;
    for &row in &sample.rows[grams..] {
        kept[end] = row;
        end += usize::from(uniform(random) >= WORD_DROPOUT);
    }
    Thinned {
        rows: &kept[..end],
        kept: [counts[CORE], counts[SUB], end - grams],
        scale: counts.map(|count| 1.0 / count.max(1) as f32),
        dense: sample.dense,
    }
}

#[derive(Clone, Copy)]
struct Target {
    label: f32,
    weight: f32,
    teacher: Option<f32>,
}

/// Learns from one name: moves its rows, adds to the perceptron's gradient, gives the logistic loss.
#[inline(always)]
fn step<const FMA: bool>(
    bag: &mut Bag,
    squares: &mut [f32],
    gradient: &mut Net,
    sample: &Thinned<'_>,
    target: Target,
    row_step: f32,
) -> f32 {
    let net = &bag.net;
    let mut x = [0.0_f32; INPUTS];
    let mut from = 0;
    for pool in [CORE, SUB, WORD] {
        let mut sum = [0.0_f32; WIDTH];
        for &row in &sample.rows[from..from + sample.kept[pool]] {
            let values = &bag.table[row as usize];
            for (total, &value) in sum.iter_mut().zip(values) {
                *total += value;
            }
        }
        from += sample.kept[pool];
        for (input, total) in x[pool * WIDTH..].iter_mut().zip(sum) {
            *input = total * sample.scale[pool];
        }
    }
    x[POOLED..].copy_from_slice(sample.dense);
    let Pass { first: h1, second: h2, logit } = net.forward::<FMA>(&x);
    let pooled: &[f32; POOLED] = x.first_chunk().expect("there are more inputs than pooled ones");
    let probability = sigmoid(logit);
    let mut g = target.weight * (probability - target.label);
    if let Some(teacher) = target.teacher {
        g += TEACHER_WEIGHT * (logit - teacher).clamp(-TEACHER_CLIP, TEACHER_CLIP);
    }
    gradient.bias[0] += g;
    add_scaled::<FMA, SECOND>(&mut gradient.out, g, &h2);
    add_scaled::<FMA, POOLED>(&mut gradient.skip, g, pooled);
    let mut g2 = [0.0_f32; SECOND];
    for ((slot, &hidden), &weight) in g2.iter_mut().zip(&h2).zip(&net.out) {
        *slot = if hidden > 0.0 { g * weight } else { 0.0 };
    }
    add_scaled::<FMA, SECOND>(&mut gradient.second_bias, 1.0, &g2);
    let mut g1 = [0.0_f32; HIDDEN];
    for (unit, slot) in g1.iter_mut().enumerate() {
        // A unit that is off passes nothing on.
        if h1[unit] > 0.0 {
            *slot = dot::<FMA, SECOND>(&net.second[unit], &g2);
            add_scaled::<FMA, SECOND>(&mut gradient.second[unit], h1[unit], &g2);
        }
    }
    add_scaled::<FMA, HIDDEN>(&mut gradient.first_bias, 1.0, &g1);
    let mut gx = [0.0_f32; INPUTS];
    for (input, slot) in gx.iter_mut().enumerate() {
        if x[input] != 0.0 {
            add_scaled::<FMA, HIDDEN>(&mut gradient.first[input], x[input], &g1);
        }
        if input < POOLED {
            *slot = mul_add::<FMA>(g, net.skip[input], dot::<FMA, HIDDEN>(&net.first[input], &g1));
        }
    }
    let mut from = 0;
    for pool in [CORE, SUB, WORD] {
        let mut pull = [0.0_f32; WIDTH];
        for (slot, &value) in pull.iter_mut().zip(&gx[pool * WIDTH..]) {
            *slot = value * sample.scale[pool];
        }
        let square = dot::<FMA, WIDTH>(&pull, &pull) / WIDTH as f32;
        for &row in &sample.rows[from..from + sample.kept[pool]] {
            let row = row as usize;
            squares[row] += square;
            let length = row_step / (squares[row] + ROW_START).sqrt();
            add_scaled::<FMA, WIDTH>(&mut bag.table[row], -length, &pull);
        }
        from += sample.kept[pool];
    }
    let own = if target.label > 0.5 { probability } else { 1.0 - probability };
    -(own + 1e-9).ln()
}

impl Bag {
    /// The same in whole numbers: each column of the table as multiples of one number, from -127 to 127.
    pub fn quantise(&self) -> Weights {
        let mut scale = [0.0_f32; WIDTH];
        for row in &self.table {
            for (most, value) in scale.iter_mut().zip(row) {
                *most = most.max(value.abs());
            }
        }
        let scale = scale.map(|most| if most > 0.0 { most / 127.0 } else { 1.0 });
        let whole =
            |row: &[f32; WIDTH]| std::array::from_fn(|at| (row[at] / scale[at]).round() as i8);
        Weights { table: self.table.iter().map(whole).collect(), scale, net: self.net.clone() }
    }
}

/// The logits of the names at `chosen`, as the shipped model gives them.
pub fn logits(weights: &Weights, encoded: &Encoded, chosen: &[u32]) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if crate::model::kernel::fast() {
        #[target_feature(enable = "avx2,fma")]
        fn fast(weights: &Weights, encoded: &Encoded, chosen: &[u32]) -> Vec<f32> {
            logits_with::<true>(weights, encoded, chosen)
        }
        // SAFETY: `fast()` above says that the processor has AVX2 and FMA.
        return unsafe { fast(weights, encoded, chosen) };
    }
    logits_with::<false>(weights, encoded, chosen)
}

#[inline(always)]
fn logits_with<const FMA: bool>(weights: &Weights, encoded: &Encoded, chosen: &[u32]) -> Vec<f32> {
    let mut logits = Vec::with_capacity(chosen.len());
    for &index in chosen {
        let sample = encoded.get(index as usize);
        let mut x = [0.0_f32; INPUTS];
        let mut from = 0;
        for pool in [CORE, SUB, WORD] {
            let count = usize::from(sample.counts[pool]);
            let mut sum = [0_i32; WIDTH];
            for &row in &sample.rows[from..from + count] {
                for (total, &value) in sum.iter_mut().zip(&weights.table[row as usize]) {
                    *total += i32::from(value);
                }
            }
            from += count;
            let inverse = 1.0 / count.max(1) as f32;
            for ((input, total), scale) in x[pool * WIDTH..].iter_mut().zip(sum).zip(weights.scale)
            {
                *input = total as f32 * scale * inverse;
            }
        }
        x[POOLED..].copy_from_slice(sample.dense);
        logits.push(weights.net.forward::<FMA>(&x).logit);
    }
    logits
}
