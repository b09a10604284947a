//! The breaker: a bad model must not take a site down.
//!
//! Over a window of time it watches which share of the model's decisions are blocks, one vote a registered domain and
//! client, so that neither a list nor one bot trips it. Above the limit it opens until a whole window has stayed below
//! it: blocks by the model then keep their decision and lose their action.
//!
//! Votes are bits in two tables of [`BITS`] (linear counting, Whang et al. 1990); a vote already cast costs one read, so
//! that threads share the tables without writing to them in steady state. With more than about a hundred thousand voters
//! in a window some share a bit, which thins both counts alike.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const BITS: u64 = 1 << 17;
const WORDS: usize = (BITS / 64) as usize;

/// Watches the share of blocks. Any thread may use it.
pub struct Breaker {
    max_ratio: f64,
    window_ms: u64,
    min_votes: u64,
    window_end: AtomicU64,
    decided: Votes,
    blocked: Votes,
    open: AtomicBool,
}

struct Votes {
    count: AtomicU64,
    bits: Box<[AtomicU64]>,
}

impl Votes {
    fn new(words: usize) -> Votes {
        Votes { count: AtomicU64::new(0), bits: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Casts a vote; true if it is new.
    fn cast(&self, vote: u64) -> bool {
        let bit = 1_u64 << (vote % 64);
        let Some(word) = self.bits.get((vote % BITS / 64) as usize) else { return false };
        if word.load(Relaxed) & bit != 0 || word.fetch_or(bit, Relaxed) & bit != 0 {
            return false;
        }
        self.count.fetch_add(1, Relaxed);
        true
    }

    fn clear(&self) {
        for word in &self.bits {
            word.store(0, Relaxed);
        }
        self.count.store(0, Relaxed);
    }
}

impl Breaker {
    /// A closed breaker; `max_ratio` of 1 switches it off.
    pub fn new(max_ratio: f64, window_s: u64, min_votes: u64) -> Breaker {
        let words = if max_ratio < 1.0 { WORDS } else { 0 };
        Breaker {
            max_ratio,
            window_ms: window_s.saturating_mul(1000),
            min_votes,
            window_end: AtomicU64::new(0),
            decided: Votes::new(words),
            blocked: Votes::new(words),
            open: AtomicBool::new(false),
        }
    }

    /// Whether it is switched on.
    pub fn is_on(&self) -> bool {
        self.max_ratio < 1.0
    }

    /// Whether the model's blocks are to pass.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Takes a vote; `voter` is a hash of registered domain and client. True if this vote opened the breaker.
    pub fn vote(&self, voter: u64, block: bool) -> bool {
        self.decided.cast(voter);
        if !block || !self.blocked.cast(voter) {
            return false;
        }
        self.is_over() && !self.open.swap(true, Relaxed)
    }

    /// Ends the window if its time is over. `now_ms` is a monotonic clock's. Call it now and then. True if the breaker
    /// closed.
    pub fn tick(&self, now_ms: u64) -> bool {
        let end = self.window_end.load(Relaxed);
        let next = now_ms.saturating_add(self.window_ms);
        if now_ms < end
            || self.window_end.compare_exchange(end, next, Relaxed, Relaxed).is_err()
            || end == 0
        {
            return false;
        }
        let closes = !self.is_over() && self.open.swap(false, Relaxed);
        self.decided.clear();
        self.blocked.clear();
        closes
    }

    fn is_over(&self) -> bool {
        let (decided, blocked) =
            (self.decided.count.load(Relaxed), self.blocked.count.load(Relaxed));
        decided >= self.min_votes && blocked as f64 > self.max_ratio * decided as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_above_the_ratio_and_closes_after_a_calm_window() {
        let breaker = Breaker::new(0.1, 60, 100);
        breaker.tick(1);
        let mut opened = 0;
        for voter in 0..200_u64 {
            opened +=
                u32::from(breaker.vote(voter.wrapping_mul(0x9E37_79B9_7F4A_7C15), voter % 2 == 0));
        }
        assert_eq!(opened, 1);
        assert!(breaker.is_open());
        assert!(!breaker.tick(30_000));
        assert!(!breaker.tick(70_000), "the window that opened it ends");
        assert!(breaker.is_open());
        assert!(breaker.tick(140_000), "a calm window ends");
        assert!(!breaker.is_open());
    }

    #[test]
    fn one_voter_and_few_voters_never_open_it() {
        let breaker = Breaker::new(0.1, 60, 100);
        for _ in 0..10_000 {
            assert!(!breaker.vote(7, true));
        }
        for voter in 0..90 {
            assert!(!breaker.vote(voter, true));
        }
    }

    #[test]
    fn a_ratio_of_one_switches_it_off() {
        let breaker = Breaker::new(1.0, 60, 1);
        assert!(!breaker.is_on());
        assert!((0..10_000).all(|voter| !breaker.vote(voter, true)));
    }
}
