//! The exact dictionary: from a key's hash to its row.
//!
//! File form (`dictionary.bin`, little-endian):
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `MLBNGRAM` |
//! | 4 | form, 1 |
//! | 4 | bucket bits `b`, 1 to 20 |
//! | 4 | rows `R`, at most 2^20 |
//! | 4 | zero |
//! | 4 x (2^b + 1) | `first`: bucket `i` has the tags `first[i] .. first[i + 1]` |
//! | 4 x R | tags, sorted within their bucket |
//!
//! The bucket of a hash is its top `b` bits, its tag the 32 bits below them. The tag at position `p` (from 0) belongs to
//! row `p + 1` of the model's table; row 0 is the zero row. With b = 15 a key is known by 47 bits of its hash. The
//! trainer counts how many other keys of its names fall on those of a row; the default model has none, so on all it
//! was trained on the dictionary is exact.

use crate::error::{Error, Result};
use crate::model::kernel;

const MAGIC: [u8; 8] = *b"MLBNGRAM";
const FORM: u32 = 1;
const HEADER: usize = 24;
/// Bucket bits of the dictionaries that [`Builder`] makes.
const BUCKET_BITS: u32 = 15;
const MAX_ROWS: usize = 1 << 20;
/// Tags are compared eight at a time; so many stand beyond the last.
const LANES: usize = 8;

/// A set of keys with a row number each. Immutable; any thread may look up at any time.
#[derive(Debug, Clone)]
pub struct Dictionary {
    bits: u32,
    rows: usize,
    first: Vec<u32>,
    /// The tags, and [`LANES`] zeros.
    tags: Vec<u32>,
}

impl Dictionary {
    /// Reads a dictionary file.
    ///
    /// # Errors
    /// [`Error::Model`] for bytes that are not one: wrong header or length, buckets out of order or beyond the tags.
    pub fn parse(bytes: &[u8]) -> Result<Dictionary> {
        let bad =
            |what: &str| Error::Model(format!("dictionary.bin: {what}; train the model again"));
        let (header, body) = bytes.split_at_checked(HEADER).ok_or_else(|| bad("too short"))?;
        if !header.starts_with(&MAGIC) {
            return Err(bad("no n-gram dictionary"));
        }
        let fields: Vec<u32> = numbers(header.get(MAGIC.len()..).unwrap_or(&[])).collect();
        let &[form, bits, rows, 0] = fields.as_slice() else { return Err(bad("bad header")) };
        if form != FORM {
            return Err(bad(&format!("form {form} is not known")));
        }
        let rows = rows as usize;
        if !(1..=20).contains(&bits) || rows > MAX_ROWS {
            return Err(bad("bad header"));
        }
        let buckets = 1_usize << bits;
        if body.len() != 4 * (buckets + 1 + rows) {
            return Err(bad("wrong length"));
        }
        let mut all = numbers(body);
        let first: Vec<u32> = all.by_ref().take(buckets + 1).collect();
        let sorted = first.is_sorted() && first.first() == Some(&0);
        if !sorted || first.last().copied() != u32::try_from(rows).ok() {
            return Err(bad("buckets out of order"));
        }
        let tags = all.chain([0; LANES]).collect();
        Ok(Dictionary { bits, rows, first, tags })
    }

    /// The file form of this dictionary.
    pub fn to_bytes(&self) -> Vec<u8> {
        let rows = u32::try_from(self.rows).unwrap_or(u32::MAX);
        let header = [FORM, self.bits, rows, 0];
        let tags = self.tags.iter().take(self.rows);
        let numbers = header.iter().chain(&self.first).chain(tags);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(numbers.flat_map(|number| number.to_le_bytes()));
        bytes
    }

    /// How many keys there are; rows are numbered from 1 to this.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The row of a key's hash ([`super::hash`]); 0, the zero row, if the key is not known.
    pub fn row(&self, hash: u64) -> u32 {
        self.find::<false>(hash)
    }

    /// As [`Dictionary::row`]; `FMA` as in [`kernel`].
    #[inline(always)]
    pub(crate) fn find<const FMA: bool>(&self, hash: u64) -> u32 {
        let (bucket, tag) = split(hash, self.bits);
        let &[from, to] =
            self.first.get(bucket..).and_then(|rest| rest.first_chunk()).unwrap_or(&[0, 0]);
        if to > from + LANES as u32 {
            return self.find_long(from, to, tag);
        }
        // No guess whether the key is known: that is the next to random. Lane 8 stands for "in no lane".
        let place = from + (self.found::<FMA>(from, tag) | 1 << LANES).trailing_zeros();
        (place + 1) * u32::from(place < to)
    }

    /// As [`Dictionary::find`], in a bucket of more than eight tags: one in five hundred.
    #[cold]
    #[inline(never)]
    fn find_long(&self, from: u32, to: u32, tag: u32) -> u32 {
        let tags = self.tags.get(from as usize..to as usize).unwrap_or(&[]);
        tags.iter().position(|&other| other == tag).map_or(0, |place| from + place as u32 + 1)
    }

    /// A bit for each of the eight tags at a place that equals `tag`.
    #[inline(always)]
    fn found<const FMA: bool>(&self, at: u32, tag: u32) -> u32 {
        match self.tags.get(at as usize..).and_then(|rest| rest.first_chunk::<LANES>()) {
            Some(lanes) => kernel::equal::<FMA>(lanes, tag),
            None => 0,
        }
    }
}

/// The bucket and the tag of a hash.
#[inline(always)]
fn split(hash: u64, bits: u32) -> (usize, u32) {
    ((hash >> (64 - bits)) as usize, (hash >> (32 - bits)) as u32)
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|&four| u32::from_le_bytes(four))
}

/// Makes a dictionary of given keys.
#[derive(Debug, Default)]
pub struct Builder {
    hashes: Vec<(u64, u64)>,
}

impl Builder {
    /// Adds a key. A key that shares all bits that count with one added before is left out.
    pub fn add(&mut self, key: u64) {
        self.hashes.push((super::hash(key), key));
    }

    /// The dictionary, and for each row from 1 on the key it belongs to.
    ///
    /// # Errors
    /// [`Error::Model`] for more than 2^20 keys.
    pub fn build(mut self) -> Result<(Dictionary, Vec<u64>)> {
        let known = |hash: u64| hash >> (32 - BUCKET_BITS);
        self.hashes.sort_unstable();
        self.hashes.dedup_by_key(|&mut (hash, _)| known(hash));
        let rows = self.hashes.len();
        if rows > MAX_ROWS {
            return Err(Error::Model(format!("{rows} n-grams are too many; raise --min-count")));
        }
        let mut first = vec![0_u32; (1 << BUCKET_BITS) + 1];
        let mut tags = Vec::with_capacity(rows + LANES);
        for &(hash, _) in &self.hashes {
            let (bucket, tag) = split(hash, BUCKET_BITS);
            if let Some(count) = first.get_mut(bucket + 1) {
                *count += 1;
            }
            tags.push(tag);
        }
        let mut sum = 0;
        for count in &mut first {
            sum += *count;
            *count = sum;
        }
        tags.extend([0; LANES]);
        let keys = self.hashes.into_iter().map(|(_, key)| key).collect();
        Ok((Dictionary { bits: BUCKET_BITS, rows, first, tags }, keys))
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash;
    use super::*;
    use proptest::prelude::*;

    fn dictionary(keys: impl IntoIterator<Item = u64>) -> (Dictionary, Vec<u64>) {
        let mut builder = Builder::default();
        keys.into_iter().for_each(|key| builder.add(key));
        builder.build().unwrap()
    }

    #[test]
    fn finds_its_keys_and_no_others() {
        let (built, keys) = dictionary((0..90_000).map(|i| i * 7));
        let read = Dictionary::parse(&built.to_bytes()).unwrap();
        assert_eq!(read.len(), 90_000);
        for (place, &key) in keys.iter().enumerate() {
            assert_eq!(read.row(hash(key)) as usize, place + 1);
        }
        let strangers = (0..1_000_000_u64).filter(|i| i % 7 != 0);
        assert_eq!(strangers.filter(|&key| read.row(hash(key)) != 0).count(), 0);
    }

    #[test]
    fn crowded_buckets_and_empty_dictionaries_work() {
        // Keys whose hashes share their top bits: found by trying.
        let crowd: Vec<u64> = (0..3_000_000).filter(|&key| hash(key) >> 49 == 5).collect();
        assert!(crowd.len() > 20);
        let (built, keys) = dictionary(crowd);
        for (place, &key) in keys.iter().enumerate() {
            assert_eq!(built.row(hash(key)) as usize, place + 1);
        }
        assert_eq!(dictionary([]).0.row(hash(1)), 0);
    }

    proptest! {
        #[test]
        fn corrupt_bytes_are_refused_or_harmless(change in any::<u8>(), at in 0_usize..140_000, cut in 0_usize..140_000, key in any::<u64>()) {
            let mut bytes = dictionary(0..2_000).0.to_bytes();
            if let Some(byte) = bytes.get_mut(at) { *byte ^= change; }
            bytes.truncate(cut.max(1_000));
            if let Ok(read) = Dictionary::parse(&bytes) {
                prop_assert!(read.row(hash(key)) as usize <= read.len());
            }
        }
    }
}
