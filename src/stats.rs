//! Counters: what was decided, what became of each event, how long calls took.
//!
//! The ledger holds at every moment, events still queued included (calls that are under way may be in it by half):
//!
//! ```text
//! classified        = skipped + not_recorded + sampled_out + coalesced
//!                     + dropped_queue + dropped_store + dropped_forked + queued + stored
//! stored + recovered = delivered + dead_lettered + pending + evicted
//! ```
//!
//! A call costs one addition to a counter that is its thread's own, or shared with few others (one counter shared by all
//! made a call go from 65 to 300 ns with two threads). Sums are made when somebody asks. The numbers are those of this process;
//! `recovered` is what the store already held undelivered when it was opened.

use crate::verdict::{Decision, Source};
use std::cell::Cell;
use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

/// What became of a verdict's event at the moment of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Fate {
    /// Not an event, by setting: allowed names with `record.allow = none`, no store and no cluster, skipped names.
    NotRecorded = 0,
    /// Left out by `record.allow = sample:N`.
    SampledOut = 1,
    /// Handed to the worker thread.
    Queued = 2,
    /// Lost because the queue was full.
    DroppedQueue = 3,
    /// Lost because this process is a fork of the one that records.
    DroppedForked = 4,
}

const FATES: usize = 5;
const SOURCES: usize = 6;
const DECISIONS: usize = 3;
/// Shards that one thread each writes to, the first that come; later threads share the others.
const OWN_SHARDS: u32 = 64;
const COMMON_SHARDS: u32 = 16;
const CELLS: usize = SOURCES * DECISIONS * 2 * FATES;

/// Upper bounds of the latency histogram, in nanoseconds; one bucket more counts what is above.
pub const LATENCY_BOUNDS_NS: [u64; 16] = [
    64,
    128,
    256,
    512,
    1_000,
    2_000,
    4_000,
    8_000,
    16_000,
    32_000,
    64_000,
    128_000,
    256_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

/// Buckets of the latency histogram.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_NS.len() + 1;

/// The latency at a share of the calls of a histogram (0.5 = median), in nanoseconds: the upper bound of its bucket, the
/// greatest bound for whatever is above. `None` if the histogram is empty.
pub fn latency_quantile_ns(counts: &[u64; LATENCY_BUCKETS], share: f64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let wanted = (total as f64 * share).ceil() as u64;
    let mut seen = 0_u64;
    let bucket = counts.iter().position(|count| {
        seen += count;
        total > 0 && seen >= wanted
    })?;
    LATENCY_BOUNDS_NS.get(bucket).or(LATENCY_BOUNDS_NS.last()).copied()
}

/// How many buckets of equal width the histogram of scores has.
pub const SCORE_BUCKETS: usize = crate::elastic::document::SCORE_CLASSES;

#[repr(align(128))]
struct Shard {
    cells: [AtomicU64; CELLS],
}

/// A thread's shard, and its count of calls.
#[derive(Clone, Copy)]
pub struct Ticket {
    shard: usize,
    /// How many calls the thread made before this one.
    pub turn: u32,
}

thread_local! {
    // No destructor, so that nothing of ours runs at thread exit.
    static TICKET: Cell<(u32, u32)> = const { Cell::new((u32::MAX, 0)) };
}

/// The calling thread's ticket for one call.
pub fn ticket() -> Ticket {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    TICKET.with(|cell| {
        let (shard, turn) = cell.get();
        let shard = if shard == u32::MAX { shard_of(NEXT.fetch_add(1, Relaxed)) } else { shard };
        cell.set((shard, turn.wrapping_add(1)));
        Ticket { shard: shard as usize, turn }
    })
}

/// The shard of the thread that came after `number` others.
fn shard_of(number: u64) -> u32 {
    match u32::try_from(number) {
        Ok(own) if own < OWN_SHARDS => own,
        _ => OWN_SHARDS + (number % u64::from(COMMON_SHARDS)) as u32,
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counters that are not on the path of every call, or that one thread alone changes.
        #[derive(Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64),+ }
    };
}

counters! {
    /// Calls that gave an error instead of a verdict.
    errors,
    /// Panics caught, in calls and in the worker.
    panics,
    /// Verdicts that let a name through because something inside failed.
    fail_open,
    /// Blocks turned into passes by observe mode.
    observed,
    /// Blocks turned into passes by the breaker.
    breaker,
    /// Events that became part of a row already stored.
    coalesced,
    /// Events lost because the store did not take them.
    dropped_store,
    /// Rows written to the store.
    stored,
    /// Undelivered rows found in the store when it was opened.
    recovered,
    /// Rows acknowledged by the cluster.
    delivered,
    /// Of those: rows the cluster had already.
    duplicates,
    /// Rows the cluster will never take, set aside with its reason.
    dead_lettered,
    /// Undelivered rows removed to keep the store within its bounds.
    evicted,
    /// Starts after which the store was found not cleanly closed.
    unclean_ends,
    /// Times the store was corrupt, set aside and begun anew.
    store_resets,
    /// Turns of the worker in which the store failed.
    store_errors,
    /// Requests to the cluster that failed.
    sink_errors,
    /// Engines swapped by a reload.
    reloads,
}

/// All counters of one store and of the engines that share it. Any thread may use it.
pub struct Stats {
    shards: Box<[Shard]>,
    latency: [AtomicU64; LATENCY_BUCKETS],
    latency_sum_ns: AtomicU64,
    scores: [AtomicU64; SCORE_BUCKETS],
    /// The rest.
    pub counters: Counters,
}

fn cell(source: Source, decision: Decision, cached: bool, fate: Fate) -> usize {
    ((source as usize * DECISIONS + decision as usize) * 2 + usize::from(cached)) * FATES
        + fate as usize
}

/// The outbox's counters, of one moment.
struct OutboxCounts {
    stored: u64,
    recovered: u64,
    delivered: u64,
    dead_lettered: u64,
    evicted: u64,
}

impl OutboxCounts {
    /// The difference: a counter of its own would be changed a moment before or after the others.
    fn pending(&self) -> u64 {
        let left = self.delivered + self.dead_lettered + self.evicted;
        (self.stored + self.recovered).saturating_sub(left)
    }
}

impl Default for Stats {
    fn default() -> Stats {
        let shard = || Shard { cells: [const { AtomicU64::new(0) }; CELLS] };
        Stats {
            shards: (0..OWN_SHARDS + COMMON_SHARDS).map(|_| shard()).collect(),
            latency: Default::default(),
            latency_sum_ns: AtomicU64::new(0),
            scores: Default::default(),
            counters: Counters::default(),
        }
    }
}

impl Stats {
    /// Counts one verdict.
    pub fn count(
        &self,
        ticket: Ticket,
        source: Source,
        decision: Decision,
        cached: bool,
        fate: Fate,
    ) {
        let shard = self.shards.get(ticket.shard);
        if let Some(cell) =
            shard.and_then(|shard| shard.cells.get(cell(source, decision, cached, fate)))
        {
            if ticket.shard < OWN_SHARDS as usize {
                // Nobody else writes here, so the two steps need not be one.
                cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
            } else {
                cell.fetch_add(1, Relaxed);
            }
        }
    }

    /// Counts one call's time. Only some calls are timed: two looks at the clock would cost half a cache hit.
    pub fn time(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_NS.partition_point(|&bound| bound < nanos);
        if let Some(cell) = self.latency.get(bucket) {
            cell.fetch_add(1, Relaxed);
        }
        self.latency_sum_ns.fetch_add(nanos, Relaxed);
    }

    /// Counts a score that the model computed (not one from the cache).
    pub fn scored(&self, score: f32) {
        let bucket = ((score * SCORE_BUCKETS as f32) as usize).min(SCORE_BUCKETS - 1);
        if let Some(cell) = self.scores.get(bucket) {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// Rows in the store that no cluster has acknowledged.
    pub fn pending(&self) -> u64 {
        self.outbox().pending()
    }

    /// What came into the outbox and what left it. What left it is read first, so that no row left before it came.
    fn outbox(&self) -> OutboxCounts {
        let count = &self.counters;
        let [delivered, dead_lettered, evicted] =
            [&count.delivered, &count.dead_lettered, &count.evicted]
                .map(|counter| counter.load(Acquire));
        let (stored, recovered) = (count.stored.load(Relaxed), count.recovered.load(Relaxed));
        OutboxCounts { stored, recovered, delivered, dead_lettered, evicted }
    }

    /// The sums of this moment. `queue_capacity` is the caller's.
    pub fn snapshot(&self, queue_capacity: u64) -> Snapshot {
        let count = &self.counters;
        let outbox = self.outbox();
        // What leaves the queue is read before what entered it, so that the difference is never negative.
        let (coalesced, dropped_store, stored) =
            (count.coalesced.load(Relaxed), count.dropped_store.load(Relaxed), outbox.stored);
        let mut sums = [0_u64; CELLS];
        for shard in &self.shards {
            for (sum, cell) in sums.iter_mut().zip(&shard.cells) {
                *sum = sum.wrapping_add(cell.load(Relaxed));
            }
        }
        let sum = |wanted: &dyn Fn(Source, Decision, bool, Fate) -> bool| -> u64 {
            let mut total = 0_u64;
            for &source in Source::ALL {
                for &decision in Decision::ALL {
                    for cached in [false, true] {
                        for fate in [
                            Fate::NotRecorded,
                            Fate::SampledOut,
                            Fate::Queued,
                            Fate::DroppedQueue,
                            Fate::DroppedForked,
                        ] {
                            if wanted(source, decision, cached, fate) {
                                let value = sums.get(cell(source, decision, cached, fate));
                                total = total.wrapping_add(value.copied().unwrap_or(0));
                            }
                        }
                    }
                }
            }
            total
        };
        let by_source = |wanted: Source| sum(&|source, _, _, _| source == wanted);
        let by_decision = |wanted: Decision| sum(&|_, decision, _, _| decision == wanted);
        let by_fate =
            |wanted: Fate| sum(&|source, _, _, fate| fate == wanted && source != Source::Skipped);
        let queued_ever = by_fate(Fate::Queued);
        Snapshot {
            classified: sum(&|_, _, _, _| true),
            errors: count.errors.load(Relaxed),
            allowed: by_decision(Decision::Allow),
            vetted: by_decision(Decision::Vet),
            blocked: by_decision(Decision::Block),
            by_model: by_source(Source::Model),
            by_override: by_source(Source::Override),
            by_blocklist: by_source(Source::Blocklist),
            by_allowlist: by_source(Source::Allowlist),
            by_popular: by_source(Source::Popular),
            skipped: by_source(Source::Skipped),
            cached: sum(&|_, _, cached, _| cached),
            observed: count.observed.load(Relaxed),
            breaker: count.breaker.load(Relaxed),
            fail_open: count.fail_open.load(Relaxed),
            panics: count.panics.load(Relaxed),
            not_recorded: by_fate(Fate::NotRecorded),
            sampled_out: by_fate(Fate::SampledOut),
            coalesced,
            dropped_queue: by_fate(Fate::DroppedQueue),
            dropped_store,
            dropped_forked: by_fate(Fate::DroppedForked),
            queued: queued_ever.saturating_sub(coalesced + dropped_store + stored),
            stored,
            recovered: outbox.recovered,
            delivered: outbox.delivered,
            dead_lettered: outbox.dead_lettered,
            pending: outbox.pending(),
            evicted: outbox.evicted,
            duplicates: count.duplicates.load(Relaxed),
            unclean_ends: count.unclean_ends.load(Relaxed),
            store_resets: count.store_resets.load(Relaxed),
            store_errors: count.store_errors.load(Relaxed),
            sink_errors: count.sink_errors.load(Relaxed),
            reloads: count.reloads.load(Relaxed),
            queue_capacity,
        }
    }

    /// Timed calls by [`LATENCY_BOUNDS_NS`]; the last bucket counts what took longer.
    pub fn latency_histogram(&self) -> [u64; LATENCY_BUCKETS] {
        std::array::from_fn(|at| self.latency.get(at).map_or(0, |cell| cell.load(Relaxed)))
    }

    /// Scores that the model computed, in buckets of equal width from 0 to 1.
    pub fn score_histogram(&self) -> [u64; SCORE_BUCKETS] {
        std::array::from_fn(|at| self.scores.get(at).map_or(0, |cell| cell.load(Relaxed)))
    }

    /// All numbers as Prometheus text (exposition format 0.0.4).
    pub fn prometheus(&self, queue_capacity: u64, model: &str, engine: &str) -> String {
        let snapshot = self.snapshot(queue_capacity);
        let mut text = String::with_capacity(8192);
        for (name, kind, help, value) in snapshot.rows() {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let _ = write!(
                text,
                "# HELP mlbridge_{name}{suffix} {help}\n# TYPE mlbridge_{name}{suffix} {kind}\nmlbridge_{name}{suffix} {value}\n"
            );
        }
        text.push_str("# HELP mlbridge_classify_seconds Time of calls, one in 64 timed\n# TYPE mlbridge_classify_seconds histogram\n");
        let mut seen = 0_u64;
        for (at, cell) in self.latency.iter().enumerate() {
            seen += cell.load(Relaxed);
            let _ = match LATENCY_BOUNDS_NS.get(at) {
                Some(&bound) => writeln!(
                    text,
                    "mlbridge_classify_seconds_bucket{{le=\"{}\"}} {seen}",
                    bound as f64 / 1e9
                ),
                None => writeln!(text, "mlbridge_classify_seconds_bucket{{le=\"+Inf\"}} {seen}"),
            };
        }
        let seconds = self.latency_sum_ns.load(Relaxed) as f64 / 1e9;
        let _ = writeln!(
            text,
            "mlbridge_classify_seconds_sum {seconds}\nmlbridge_classify_seconds_count {seen}"
        );
        text.push_str("# HELP mlbridge_scores Scores computed by the model\n# TYPE mlbridge_scores histogram\n");
        let mut below = 0_u64;
        let buckets = self.score_histogram();
        for (at, count) in buckets.iter().enumerate() {
            below += count;
            let bound = (at + 1) as f64 / SCORE_BUCKETS as f64;
            if at + 1 < SCORE_BUCKETS {
                let _ = writeln!(text, "mlbridge_scores_bucket{{le=\"{bound}\"}} {below}");
            }
        }
        let _ = writeln!(text, "mlbridge_scores_bucket{{le=\"+Inf\"}} {below}");
        let middle: f64 = buckets
            .iter()
            .enumerate()
            .map(|(at, &n)| n as f64 * (at as f64 + 0.5) / SCORE_BUCKETS as f64)
            .sum();
        let _ = writeln!(text, "mlbridge_scores_sum {middle}\nmlbridge_scores_count {below}");
        let label =
            |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
        let _ = write!(
            text,
            "# HELP mlbridge_info The library and its model\n# TYPE mlbridge_info gauge\nmlbridge_info{{version=\"{}\",model=\"{}\",engine=\"{}\"}} 1\n",
            env!("CARGO_PKG_VERSION"),
            label(model),
            label(engine),
        );
        text
    }
}

macro_rules! snapshot {
    ($($(#[doc = $doc:literal])* $name:ident $kind:literal),+ $(,)?) => {
        /// The sums of one moment. The C ABI's `mlb_stats` has the same fields in the same order; it grows at its end.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        #[repr(C)]
        pub struct Snapshot { $($(#[doc = $doc])* pub $name: u64),+ }

        impl Snapshot {
            /// Name, Prometheus kind, help and value of each number, in the order of the fields.
            pub fn rows(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
                vec![$((stringify!($name), $kind, concat!($($doc),*).trim_ascii(), self.$name)),+]
            }
        }
    };
}

snapshot! {
    /// Names that got a verdict
    classified "counter",
    /// Calls that gave an error instead of a verdict
    errors "counter",
    /// Verdicts with the decision allow
    allowed "counter",
    /// Verdicts with the decision vet
    vetted "counter",
    /// Verdicts with the decision block
    blocked "counter",
    /// Verdicts by the model
    by_model "counter",
    /// Verdicts by an override
    by_override "counter",
    /// Verdicts by a block list
    by_blocklist "counter",
    /// Verdicts by an allow list
    by_allowlist "counter",
    /// Verdicts by the list of popular names
    by_popular "counter",
    /// Names of a kind that is never scored
    skipped "counter",
    /// Scores that came from the cache
    cached "counter",
    /// Actions turned into pass by observe mode
    observed "counter",
    /// Actions turned into pass by the breaker
    breaker "counter",
    /// Names let through because something inside failed
    fail_open "counter",
    /// Panics caught
    panics "counter",
    /// Verdicts that are no events, by setting
    not_recorded "counter",
    /// Allowed names left out by sampling
    sampled_out "counter",
    /// Events that became part of a row already stored
    coalesced "counter",
    /// Events lost because the queue was full
    dropped_queue "counter",
    /// Events lost because the store did not take them
    dropped_store "counter",
    /// Events lost because the process is a fork
    dropped_forked "counter",
    /// Events waiting for the worker thread
    queued "gauge",
    /// Rows written to the store
    stored "counter",
    /// Undelivered rows found in the store when it was opened
    recovered "counter",
    /// Rows acknowledged by the cluster
    delivered "counter",
    /// Rows the cluster refused for good
    dead_lettered "counter",
    /// Rows in the store that no cluster has acknowledged
    pending "gauge",
    /// Undelivered rows removed to keep the store within its bounds
    evicted "counter",
    /// Delivered rows that the cluster had already
    duplicates "counter",
    /// Starts after an unclean end
    unclean_ends "counter",
    /// Times the store was corrupt and begun anew
    store_resets "counter",
    /// Turns of the worker in which the store failed
    store_errors "counter",
    /// Failed requests to the cluster
    sink_errors "counter",
    /// Reloads
    reloads "counter",
    /// Events that the queue can hold
    queue_capacity "gauge",
}

impl Snapshot {
    /// Whether both identities of the ledger hold.
    pub fn adds_up(&self) -> bool {
        self.classified
            == self.skipped
                + self.not_recorded
                + self.sampled_out
                + self.coalesced
                + self.dropped_queue
                + self.dropped_store
                + self.dropped_forked
                + self.queued
                + self.stored
            && self.stored + self.recovered
                == self.delivered + self.dead_lettered + self.pending + self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_is_counted_once_and_the_ledger_adds_up() {
        let stats = Stats::default();
        let mut total = 0;
        for &source in Source::ALL {
            for &decision in Decision::ALL {
                for fate in [
                    Fate::NotRecorded,
                    Fate::SampledOut,
                    Fate::Queued,
                    Fate::DroppedQueue,
                    Fate::DroppedForked,
                ] {
                    stats.count(
                        ticket(),
                        source,
                        decision,
                        false,
                        if source == Source::Skipped { Fate::NotRecorded } else { fate },
                    );
                    total += 1;
                }
            }
        }
        stats.counters.stored.fetch_add(3, Relaxed);
        let snapshot = stats.snapshot(0);
        assert_eq!(snapshot.classified, total);
        assert_eq!((snapshot.queued, snapshot.pending), (15 - 3, 3));
        assert!(snapshot.adds_up(), "{snapshot:?}");
    }

    #[test]
    fn quantiles_come_from_the_histogram() {
        let stats = Stats::default();
        let quantile = |share| latency_quantile_ns(&stats.latency_histogram(), share);
        assert_eq!(quantile(0.5), None);
        for nanos in [50, 60, 900, 3_000_000] {
            stats.time(Duration::from_nanos(nanos));
        }
        let found = [0.5, 0.75, 0.99].map(quantile);
        assert_eq!(found, [Some(64), Some(1_000), Some(10_000_000)]);
        stats.time(Duration::from_secs(3));
        assert_eq!(quantile(1.0), Some(100_000_000));
    }
}
