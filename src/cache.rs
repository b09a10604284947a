//! The score cache: a flat table of 16-byte entries that threads share without a lock.
//!
//! An entry is two words, the value and the key combined with it by XOR. A reader that sees halves of two entries finds a
//! key that does not match, and misses (Hyatt and Mann, "A lockless transposition table implementation for parallel
//! search", ICGA Journal 25, 2002). Keys are hashes seeded at random for each process, so that nobody can prepare names
//! that collide.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A cached score, its false-positive rate, and where in the name its registered domain begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The model's score.
    pub score: f32,
    /// Position in the wire form of the registered domain; 0: the whole name.
    pub registered: u8,
    /// The score's false-positive rate, of which 24 bits are kept: see [`Entry::new`].
    pub fpr: f32,
}

/// The bits of a rate that an entry has room for: sign, exponent and 15 bits after the point.
const FPR_BITS: u32 = 0xffff_ff00;

impl Entry {
    /// An entry whose parts come back from the cache to the bit.
    pub fn new(score: f32, registered: u8, fpr: f32) -> Entry {
        Entry { score, registered, fpr: f32::from_bits(fpr.to_bits() & FPR_BITS) }
    }

    fn pack(self) -> u64 {
        let rest = (self.fpr.to_bits() & FPR_BITS) | u32::from(self.registered);
        (u64::from(self.score.to_bits()) << 32) | u64::from(rest)
    }

    fn unpack(value: u64) -> Entry {
        let rest = value as u32;
        Entry {
            score: f32::from_bits((value >> 32) as u32),
            registered: rest as u8,
            fpr: f32::from_bits(rest & FPR_BITS),
        }
    }
}

struct Slot {
    check: AtomicU64,
    value: AtomicU64,
}

/// Scores by the hash of the name.
pub struct Cache {
    slots: Box<[Slot]>,
}

impl Cache {
    /// A cache of at least `entries` entries, or none at all for 0.
    pub fn new(entries: usize) -> Cache {
        let count = if entries == 0 { 0 } else { entries.max(2).next_power_of_two() };
        let slot = || Slot { check: AtomicU64::new(0), value: AtomicU64::new(0) };
        Cache { slots: (0..count).map(|_| slot()).collect() }
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The entry of a key, if it is still there.
    pub fn get(&self, hash: u64) -> Option<Entry> {
        let key = hash | 1;
        self.pair(hash).find_map(|slot| {
            let value = slot.value.load(Relaxed);
            let hit = slot.check.load(Relaxed) ^ value == key;
            hit.then(|| Entry::unpack(value))
        })
    }

    /// Remembers an entry; another one may leave for it.
    pub fn put(&self, hash: u64, entry: Entry) {
        let key = hash | 1;
        let value = entry.pack();
        let is_free = |slot: &&Slot| slot.check.load(Relaxed) == 0;
        let chosen =
            self.pair(hash).find(is_free).or_else(|| self.pair(hash).nth((hash >> 63) as usize));
        if let Some(slot) = chosen {
            slot.value.store(value, Relaxed);
            slot.check.store(key ^ value, Relaxed);
        }
    }

    /// The two slots in which a key may stand: neighbours in one cache line.
    fn pair(&self, hash: u64) -> impl Iterator<Item = &Slot> {
        let first = (hash >> 8) as usize & self.slots.len().wrapping_sub(1) & !1;
        self.slots.get(first..first + 2).unwrap_or(&[]).iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31)
    }

    #[test]
    fn entries_come_back_to_the_bit() {
        let cache = Cache::new(1000);
        assert_eq!(cache.capacity(), 1024);
        for number in 0..100 {
            cache.put(
                hash(number),
                Entry::new(1.0 / number as f32, number as u8, 0.001 * number as f32),
            );
        }
        let hits = (0..100).filter(|&number| {
            cache.get(hash(number))
                == Some(Entry::new(1.0 / number as f32, number as u8, 0.001 * number as f32))
        });
        assert!(hits.count() > 90);
        assert!((1000..2000).all(|number| cache.get(hash(number)).is_none()));
    }

    #[test]
    fn no_entries_are_fine() {
        let cache = Cache::new(0);
        cache.put(7, Entry::new(0.5, 0, 0.0));
        assert_eq!(cache.get(7), None);
    }

    #[test]
    fn threads_never_see_another_name_s_score() {
        let cache = Cache::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let cache = &cache;
                scope.spawn(move || {
                    for round in 0..200_000_u64 {
                        let number = (round * 7 + thread) % 64;
                        let entry = Entry::new(number as f32, number as u8, number as f32);
                        cache.put(hash(number), entry);
                        if let Some(found) = cache.get(hash(number)) {
                            assert_eq!(found, entry);
                        }
                    }
                });
            }
        });
    }
}
