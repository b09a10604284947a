//! The fused engine: a name's bytes in, its logit out, in one pass without allocating.
//!
//! Made for the network of [`super::ngram::net`]: rows are looked up and added while the name is read, in 16-bit
//! integers (at most 128 rows of a pool, each within 127), so sums are exact in any order; then the perceptron. Weights come
//! from the same ONNX file that tract would run ([`super::onnx`]). One compilation for AVX2 with FMA, chosen when the
//! processor has them, one for every other.

use super::kernel;
use super::ngram::net::{INPUTS, Net, POOLED, WIDTH, Weights};
use super::ngram::{self, Dictionary, MAX_ROWS, POOLS, Parts, Visitor};

// Sums of rows must fit into 16 bits.
const _: () = assert!(MAX_ROWS[0] <= 256 && MAX_ROWS[1] <= 256 && MAX_ROWS[2] <= 256);

/// Rows of one pool at most.
const MOST: usize = MAX_ROWS[0];
const _: () = assert!(MAX_ROWS[1] <= MOST && MAX_ROWS[2] <= MOST);

/// A row at an address that one aligned load can read.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Row([i8; WIDTH]);

/// A model in the form that scores fastest. Immutable.
pub(super) struct Fused {
    dictionary: Dictionary,
    table: Vec<Row>,
    scale: [f32; WIDTH],
    net: Box<Net>,
    fast: bool,
}

/// The sums of a name's rows.
struct Pools {
    sums: [[i16; WIDTH]; POOLS],
    counts: [usize; POOLS],
}

impl Fused {
    /// Joins a dictionary with the table it numbers.
    ///
    /// # Errors
    /// If the table has another number of rows than the dictionary says.
    pub(super) fn new(dictionary: Dictionary, weights: Weights) -> Result<Fused, String> {
        let Weights { table, scale, net } = weights;
        if table.len() != dictionary.len() + 1 {
            return Err(format!(
                "the table has {} rows, but the dictionary {} and the zero row",
                table.len(),
                dictionary.len()
            ));
        }
        let table = table.into_iter().map(Row).collect();
        Ok(Fused { dictionary, table, scale, net, fast: kernel::fast() })
    }

    /// The logit of a name.
    pub(super) fn logit(&self, parts: &Parts<'_>) -> f32 {
        #[cfg(target_arch = "x86_64")]
        if self.fast {
            #[target_feature(enable = "avx2,fma")]
            fn fast(fused: &Fused, parts: &Parts<'_>) -> f32 {
                fused.logit_with::<true>(parts)
            }
            // SAFETY: `fast` was set because the processor has AVX2 and FMA.
            return unsafe { fast(self, parts) };
        }
        self.logit_with::<false>(parts)
    }

    /// The dictionary of its rows.
    pub(super) fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// A row's numbers; zero for a row that there is not.
    pub(super) fn row(&self, row: u32) -> [f32; WIDTH] {
        let Row(values) = self.table.get(row as usize).copied().unwrap_or(Row([0; WIDTH]));
        let mut scaled = self.scale;
        scaled.iter_mut().zip(values).for_each(|(scale, value)| *scale *= f32::from(value));
        scaled
    }

    /// The logit's gradient by the perceptron's inputs, averaged over the way from no input to the name's, at the
    /// midpoints of `steps` steps.
    pub(super) fn mean_gradient(&self, name: &[u8], steps: u16) -> [f32; INPUTS] {
        let parts = Parts::of(name);
        let x = self.inputs(&self.pools::<false>(&parts), &ngram::dense(&parts));
        let mut mean = [0.0_f32; INPUTS];
        for step in 0..steps {
            let share = (f32::from(step) + 0.5) / f32::from(steps);
            let gradient = self.net.gradient(&x.map(|input| input * share));
            mean.iter_mut().zip(gradient).for_each(|(sum, slope)| *sum += slope / f32::from(steps));
        }
        mean
    }

    /// The logit of no input at all.
    pub(super) fn base(&self) -> f32 {
        self.net.forward::<false>(&[0.0; INPUTS]).logit
    }

    /// As [`Fused::logit`], as a processor without AVX2 computes it.
    #[cfg(test)]
    pub(super) fn portable_logit(&self, parts: &Parts<'_>) -> f32 {
        self.logit_with::<false>(parts)
    }

    #[inline(always)]
    fn logit_with<const FMA: bool>(&self, parts: &Parts<'_>) -> f32 {
        let x = self.inputs(&self.pools::<FMA>(parts), &ngram::dense(parts));
        self.net.forward::<FMA>(&x).logit
    }

    /// First the rows of all keys, each called into the cache; then their sums: the table does not fit near the processor,
    /// and so the waits overlap.
    #[inline(always)]
    fn pools<const FMA: bool>(&self, parts: &Parts<'_>) -> Pools {
        let mut rows = Rows::<FMA> { fused: self, rows: [[0; MOST]; POOLS], counts: [0; POOLS] };
        ngram::visit(parts, &mut rows);
        let mut pools = Pools { sums: [[0; WIDTH]; POOLS], counts: rows.counts };
        for ((sums, rows), &count) in pools.sums.iter_mut().zip(&rows.rows).zip(&rows.counts) {
            for &row in rows.iter().take(count) {
                if let Some(Row(values)) = self.table.get(row as usize) {
                    kernel::add_row::<FMA>(sums, values);
                }
            }
        }
        pools
    }

    #[inline(always)]
    fn inputs(&self, pools: &Pools, dense: &[f32; ngram::DENSE]) -> [f32; INPUTS] {
        let mut x = [0.0; INPUTS];
        let (means, rest) = x.split_at_mut(POOLED);
        let pools = pools.sums.iter().zip(&pools.counts);
        for (out, (sums, &count)) in means.as_chunks_mut::<WIDTH>().0.iter_mut().zip(pools) {
            let inverse = 1.0 / count.max(1) as f32;
            for ((slot, &sum), &scale) in out.iter_mut().zip(sums).zip(&self.scale) {
                *slot = f32::from(sum) * scale * inverse;
            }
        }
        rest.copy_from_slice(dense);
        x
    }
}

/// Looks up the rows of the keys it is given.
struct Rows<'a, const FMA: bool> {
    fused: &'a Fused,
    rows: [[u32; MOST]; POOLS],
    counts: [usize; POOLS],
}

impl<const FMA: bool> Visitor for Rows<'_, FMA> {
    #[inline(always)]
    fn key(&mut self, pool: usize, key: u64, _: usize, _: usize) {
        let row = self.fused.dictionary.find::<FMA>(ngram::hash(key));
        if let Some(values) = self.fused.table.get(row as usize) {
            kernel::prefetch(values);
        }
        let (Some(rows), Some(count), Some(&most)) =
            (self.rows.get_mut(pool), self.counts.get_mut(pool), MAX_ROWS.get(pool))
        else {
            return;
        };
        // Written even if the key is not known, and then written over: cheaper than a guess.
        if let Some(slot) = rows.get_mut(*count) {
            *slot = row;
        }
        *count += usize::from(row != 0 && *count < most);
    }
}
