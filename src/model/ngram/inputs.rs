//! A name as the network's five inputs.

use super::{CORE, DENSE, Dictionary, MAX_ROWS, POOLS, Parts, SUB, WORD, dense, hash, visit};

/// The inputs of the network for one name, in its order; `models/README.md` tells their shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// Row numbers of the core's n-grams, then zeros.
    pub core: [i64; MAX_ROWS[CORE]],
    /// Row numbers of the sub-domain's n-grams, then zeros.
    pub sub: [i64; MAX_ROWS[SUB]],
    /// Row numbers of the words, then zeros.
    pub word: [i64; MAX_ROWS[WORD]],
    /// One over how many rows each pool has; 1 for none.
    pub inverse: [f32; POOLS],
    /// The dense numbers.
    pub dense: [f32; DENSE],
}

impl Inputs {
    /// The inputs for a dotted lower-case name.
    pub fn of(dictionary: &Dictionary, name: &[u8]) -> Inputs {
        let parts = Parts::of(name);
        let mut core = [0; MAX_ROWS[CORE]];
        let mut sub = [0; MAX_ROWS[SUB]];
        let mut word = [0; MAX_ROWS[WORD]];
        let mut counts = [0_usize; POOLS];
        visit(&parts, &mut |pool: usize, key: u64, _: usize, _: usize| {
            let list: &mut [i64] = match pool {
                CORE => &mut core,
                SUB => &mut sub,
                _ => &mut word,
            };
            let row = dictionary.row(hash(key));
            let Some(count) = counts.get_mut(pool) else { return };
            // A list that is full takes no more.
            if let (true, Some(slot)) = (row != 0, list.get_mut(*count)) {
                *slot = i64::from(row);
                *count += 1;
            }
        });
        let inverse = counts.map(|count| 1.0 / count.max(1) as f32);
        Inputs { core, sub, word, inverse, dense: dense(&parts) }
    }
}
