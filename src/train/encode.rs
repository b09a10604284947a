//! Names as training sees them: counted into a dictionary, then turned into rows once, so that every net of a run
//! reads the same arrays.

use super::names::Names;
use crate::error::Result;
use crate::model::ngram::{self, Builder, DENSE, Dictionary, MAX_ROWS, POOLS, Parts};
use std::collections::HashMap;

/// Every name's row numbers, pool after pool, and its dense numbers.
pub struct Encoded {
    rows: Vec<u32>,
    /// Where each name's rows begin; one more than names.
    starts: Vec<u64>,
    counts: Vec<[u8; POOLS]>,
    dense: Vec<[f32; DENSE]>,
    /// How many keys of the names, other than the dictionary's, were taken for one of its keys.
    pub collisions: u64,
}

/// One name's part of [`Encoded`].
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// Row numbers: core, sub-domain, words.
    pub rows: &'a [u32],
    /// How many of them belong to each pool.
    pub counts: [u8; POOLS],
    /// The dense numbers.
    pub dense: &'a [f32; DENSE],
}

impl Encoded {
    /// The sample of the name at `index`.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Sample<'_> {
        let rows = &self.rows[self.starts[index] as usize..self.starts[index + 1] as usize];
        Sample { rows, counts: self.counts[index], dense: &self.dense[index] }
    }
}

/// Counts the keys of the names at `chosen` and keeps those met at least `min_count` times, at most `max_rows` of them
/// (the most frequent, ties by the smaller key). Gives the dictionary and the key of each row.
///
/// Counts are exact. A first pass counts in a fixed table where keys may share a cell, so that it can only
/// overestimate; a second one counts exactly, and only those keys whose cell reached the minimum.
pub fn dictionary(
    names: &Names,
    chosen: &[u32],
    min_count: u32,
    max_rows: usize,
) -> Result<(Dictionary, Vec<u64>)> {
    const CELLS: u32 = 24;
    let mut cells = vec![0_u32; 1 << CELLS];
    for &index in chosen {
        let parts = Parts::of(names.get(index as usize));
        ngram::visit(&parts, &mut |_: usize, key: u64, _: usize, _: usize| {
            cells[(ngram::hash(key) >> (64 - CELLS)) as usize] += 1;
        });
    }
    let mut counts: HashMap<u64, u32, ahash::RandomState> = HashMap::default();
    for &index in chosen {
        let parts = Parts::of(names.get(index as usize));
        ngram::visit(&parts, &mut |_: usize, key: u64, _: usize, _: usize| {
            if cells[(ngram::hash(key) >> (64 - CELLS)) as usize] >= min_count {
                *counts.entry(key).or_insert(0) += 1;
            }
        });
    }
    let mut kept: Vec<(u32, u64)> = counts
        .into_iter()
        .filter(|&(_, count)| count >= min_count)
        .map(|(key, count)| (u32::MAX - count, key))
        .collect();
    kept.sort_unstable();
    kept.truncate(max_rows);
    let mut builder = Builder::default();
    kept.iter().for_each(|&(_, key)| builder.add(key));
    builder.build()
}

/// Encodes all names, on `threads` threads; the result does not depend on their number.
pub fn encode(names: &Names, dictionary: &Dictionary, keys: &[u64], threads: usize) -> Encoded {
    let share = names.len().div_ceil(threads.max(1)).max(1);
    let mut parts: Vec<Encoded> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..names.len())
            .step_by(share)
            .map(|from| {
                let to = (from + share).min(names.len());
                scope.spawn(move || encode_range(names, dictionary, keys, from, to))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("encoding does not panic")).collect()
    });
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut all = Encoded {
        rows: Vec::new(),
        starts: vec![0],
        counts: Vec::new(),
        dense: Vec::new(),
        collisions: 0,
    };
    for part in parts {
        let base = all.rows.len() as u64;
        all.rows.extend_from_slice(&part.rows);
        all.starts.extend(part.starts.iter().skip(1).map(|start| base + start));
        all.counts.extend_from_slice(&part.counts);
        all.dense.extend_from_slice(&part.dense);
        all.collisions += part.collisions;
    }
    all
}

fn encode_range(
    names: &Names,
    dictionary: &Dictionary,
    keys: &[u64],
    from: usize,
    to: usize,
) -> Encoded {
    let mut rows = Vec::with_capacity((to - from) * 50);
    let mut starts = Vec::with_capacity(to - from + 1);
    starts.push(0);
    let mut all_counts = Vec::with_capacity(to - from);
    let mut dense = Vec::with_capacity(to - from);
    let mut collisions = 0;
    for index in from..to {
        let parts = Parts::of(names.get(index));
        let mut counts = [0_u8; POOLS];
        ngram::visit(&parts, &mut |pool: usize, key: u64, _: usize, _: usize| {
            let row = dictionary.row(ngram::hash(key));
            if row != 0 && usize::from(counts[pool]) < MAX_ROWS[pool] {
                collisions += u64::from(keys[row as usize - 1] != key);
                counts[pool] += 1;
                rows.push(row);
            }
        });
        starts.push(rows.len() as u64);
        all_counts.push(counts);
        dense.push(ngram::dense(&parts));
    }
    Encoded { rows, starts, counts: all_counts, dense, collisions }
}
