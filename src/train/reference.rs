//! A second, plain computation of a score, to make golden scores with.
//!
//! It shares nothing with the encoder and the engines but the suffix list: names are cut with string operations, rows are
//! found in a map of whole keys, sums are in f64. What it gives is what the description of the encoder says, so golden
//! scores from here test the implementations.

use crate::model::ngram::MAX_ROWS;
use crate::model::ngram::net::Weights;
use crate::name::{MAX_WIRE, Name};
use crate::suffix::suffix_start;
use std::collections::HashMap;

/// Scores names slowly.
pub struct Reference<'a> {
    rows: HashMap<u64, usize>,
    weights: &'a Weights,
}

impl<'a> Reference<'a> {
    /// For the keys of the rows, from row 1 on.
    pub fn new(keys: &[u64], weights: &'a Weights) -> Reference<'a> {
        let rows = keys.iter().enumerate().map(|(place, &key)| (key, place + 1)).collect();
        Reference { rows, weights }
    }

    /// The score of a name.
    pub fn score(&self, name: &Name) -> f64 {
        let mut buffer = [0; MAX_WIRE];
        let name = name.dotted(&mut buffer);
        let labels: Vec<&[u8]> = name.split(|&byte| byte == b'.').collect();
        let in_suffix = 1 + name[suffix_start(name)..].iter().filter(|&&byte| byte == b'.').count();
        let in_suffix = in_suffix.min(labels.len() - 1);
        let core = labels[(labels.len() - in_suffix).saturating_sub(1)];
        let subs = &labels[..(labels.len() - in_suffix).saturating_sub(1)];
        let sub = subs.join(&b'.');

        let mut pools = vec![grams(core, 1)];
        pools.push(if subs.is_empty() || sub.is_empty() {
            vec![]
        } else {
            grams(&sub[sub.len().saturating_sub(180)..], 2)
        });
        pools.push(words(&labels, in_suffix, core, subs));
        let mut x = Vec::new();
        for (keys, most) in pools.iter().zip(MAX_ROWS) {
            let rows: Vec<usize> =
                keys.iter().filter_map(|key| self.rows.get(key).copied()).take(most).collect();
            for (column, &scale) in self.weights.scale.iter().enumerate() {
                let sum: f64 =
                    rows.iter().map(|&row| f64::from(self.weights.table[row][column])).sum();
                x.push(sum * f64::from(scale) / rows.len().max(1) as f64);
            }
        }
        let pooled = x.clone();
        x.extend(dense(name, &labels, core, &sub));
        let net = &self.weights.net;
        let first = through(&x, &net.first, &net.first_bias);
        let second = through(&first, &net.second, &net.second_bias);
        let inner =
            |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(x, &y)| x * f64::from(y)).sum::<f64>();
        let logit = inner(&second, &net.out) + inner(&pooled, &net.skip) + f64::from(net.bias[0]);
        1.0 / (1.0 + (-logit).exp())
    }
}

/// A layer with ReLU.
fn through<const O: usize>(x: &[f64], weights: &[[f32; O]], bias: &[f32; O]) -> Vec<f64> {
    let unit = |unit: usize| {
        let sum: f64 = x.iter().zip(weights).map(|(input, row)| input * f64::from(row[unit])).sum();
        (sum + f64::from(bias[unit])).max(0.0)
    };
    (0..O).map(unit).collect()
}

/// The keys of `^text$`, from its end, by length.
fn grams(text: &[u8], space: u64) -> Vec<u64> {
    let marked = [b"^", text, b"$"].concat();
    let mut keys = Vec::new();
    for start in (0..marked.len()).rev() {
        for n in 1..=5.min(marked.len() - start) {
            let gram = &marked[start..start + n];
            if gram == b"^" || gram == b"$" {
                continue;
            }
            let mut bytes = [0; 8];
            bytes[..n].copy_from_slice(gram);
            keys.push(u64::from_le_bytes(bytes) ^ (n as u64 + 8 * space + 1) << 56);
        }
    }
    keys
}

fn words(labels: &[&[u8]], in_suffix: usize, core: &[u8], subs: &[&[u8]]) -> Vec<u64> {
    let fnv = |text: &[u8]| {
        let mut hash = 1_469_598_103_934_665_603_u64;
        for &byte in text {
            hash ^= u64::from(byte);
            hash = hash.wrapping_mul(1_099_511_628_211);
        }
        hash
    };
    let last = |count: usize| labels[labels.len() - count..].join(&b'.');
    let mut words: Vec<(u64, u64)> = vec![(30, fnv(&last(1)))];
    if in_suffix > 1 {
        words.push((31, fnv(&last(in_suffix))));
    }
    if labels.len() > 2 {
        words.push((32, fnv(&last(2))));
    }
    if labels.len() > 3 {
        words.push((33, fnv(&last(3))));
    }
    let with_ids =
        std::iter::once((34, core)).chain(subs.iter().rev().take(11).map(|&label| (35, label)));
    for (id, label) in with_ids {
        words.push((id, fnv(label)));
        if label.contains(&b'-') {
            let pieces = label.split(|&byte| byte == b'-').filter(|piece| piece.len() > 1);
            words.extend(pieces.map(|piece| (36, fnv(piece))));
        }
    }
    let length = core.len().min(40) as u64;
    let mut shape = (labels.len() as u64 * 64 + length + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    shape ^= shape >> 32;
    words.push((40, shape.wrapping_mul(0xD6E8_FEB8_6659_FD93)));
    words.push((41, fnv(&last(1)).wrapping_mul(31).wrapping_add(length)));
    words.into_iter().map(|(id, hash)| hash ^ id << 56).collect()
}

fn dense(name: &[u8], labels: &[&[u8]], core: &[u8], sub: &[u8]) -> Vec<f64> {
    let share =
        |wanted: &dyn Fn(u8) -> bool| core.iter().filter(|&&byte| wanted(byte)).count() as f64;
    let longest = |wanted: &dyn Fn(u8) -> bool| {
        let runs = core.split(|&byte| !wanted(byte)).map(<[u8]>::len);
        runs.max().unwrap_or(0) as f64
    };
    let vowel = |byte: u8| b"aeiouy".contains(&byte);
    let letter = |byte: u8| byte.is_ascii_lowercase();
    let digit = |byte: u8| byte.is_ascii_digit();
    let length = core.len() as f64;
    let mut distinct = core.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let entropy: f64 = distinct
        .iter()
        .map(|&one| share(&|byte| byte == one) / length)
        .map(|p| -p * p.log2())
        .sum();
    let letters = share(&letter);
    let changes = core.windows(2).filter(|pair| digit(pair[0]) != digit(pair[1])).count() as f64;
    vec![
        name.len() as f64 / 32.0,
        length / 16.0,
        labels.len() as f64 / 4.0,
        share(&digit) / (length + 0.01),
        if letters > 0.0 { share(&vowel) / letters } else { 0.0 },
        longest(&|byte| letter(byte) && !vowel(byte)) / 6.0,
        longest(&digit) / 6.0,
        share(&|byte| byte == b'-') / 2.0,
        entropy / 4.0,
        distinct.len() as f64 / (length + 0.01),
        sub.len() as f64 / 16.0,
        share(&|byte| digit(byte) || (b'a'..=b'f').contains(&byte)) / (length + 0.01),
        changes / 4.0,
        f64::from(u8::from(sub == b"www")),
    ]
}
