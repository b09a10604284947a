//! The types of the C ABI. Their comments are the header's: they speak to C programmers.

use crate::error::Error;
use crate::stats::Snapshot;
use crate::verdict::{Action, Verdict};

/// Version of the ABI that this header describes; compare it with mlb_abi_version() and refuse on a mismatch.
pub const MLB_ABI_VERSION: u32 = 1;

/// Settings being put together. One thread at a time. Made by mlb_config_new(), freed by mlb_config_free().
pub struct mlb_config {
    _private: [u8; 0],
}

/// A loaded model, a policy and a store. A `const mlb_engine *` may be used by any number of threads at once. Made by
/// mlb_init() or mlb_attach(), freed by mlb_free().
pub struct mlb_engine {
    _private: [u8; 0],
}

/// Outcome of a call.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum mlb_status {
    /// Done.
    MLB_OK = 0,
    /// A NULL or impossible argument.
    MLB_E_INVALID = 1,
    /// Not a domain name: an empty label, a label over 63 bytes, a name over 255 bytes in wire form, a bad escape.
    MLB_E_NAME = 2,
    /// A setting is unknown, malformed, out of bounds, or contradicts another one.
    MLB_E_CONFIG = 3,
    /// A file, a directory or the store could not be used.
    MLB_E_IO = 4,
    /// The model could not be loaded, or failed.
    MLB_E_MODEL = 5,
    /// Not done within the time given.
    MLB_E_TIMEOUT = 6,
    /// The caller's buffer is too small; *need says how large it has to be.
    MLB_E_RANGE = 7,
    /// This process is a fork of the one whose engine it is; it records nothing.
    MLB_E_FORKED = 8,
    /// Another process holds what is needed.
    MLB_E_BUSY = 9,
    /// A panic inside the library was caught.
    MLB_E_PANIC = 10,
}

/// Values of mlb_verdict.label: what the model holds the name for.
#[repr(C)]
pub enum mlb_label {
    /// The score is below 0.5, or the model did not run.
    MLB_BENIGN = 0,
    /// The score is 0.5 or above.
    MLB_MALICIOUS = 1,
}

/// Values of mlb_verdict.decision.
#[repr(C)]
pub enum mlb_decision {
    /// Answer as always.
    MLB_ALLOW = 0,
    /// Let an administrator look at the name.
    MLB_VET = 1,
    /// Block the name.
    MLB_BLOCK = 2,
}

/// Values of mlb_verdict.action: what the server should answer.
#[repr(C)]
pub enum mlb_action {
    /// As if the library were not there.
    MLB_PASS = 0,
    /// The name does not exist.
    MLB_NXDOMAIN = 1,
    /// The name exists, and has nothing of the type asked for.
    MLB_NODATA = 2,
    /// The query is refused.
    MLB_REFUSED = 3,
    /// sinkhole4 for A, sinkhole6 for AAAA, no data for other types and for an address that is all zero.
    MLB_SINKHOLE = 4,
    /// No answer at all.
    MLB_DROP = 5,
}

/// Values of mlb_verdict.source: what decided.
#[repr(C)]
pub enum mlb_source {
    /// The model's score against the thresholds.
    MLB_SOURCE_MODEL = 0,
    /// An administrator's override.
    MLB_SOURCE_OVERRIDE = 1,
    /// A block list.
    MLB_SOURCE_BLOCKLIST = 2,
    /// An allow list.
    MLB_SOURCE_ALLOWLIST = 3,
    /// The list of popular registered domains.
    MLB_SOURCE_POPULAR = 4,
    /// The name is of a kind that is never scored.
    MLB_SOURCE_SKIPPED = 5,
}

/// Bits of mlb_verdict.flags.
#[repr(C)]
pub enum mlb_flag {
    /// The score came from the cache.
    MLB_FLAG_CACHED = 1,
    /// Observe mode kept the action at pass.
    MLB_FLAG_OBSERVED = 2,
    /// Something inside failed, and the name was let through.
    MLB_FLAG_FAIL_OPEN = 4,
    /// The breaker kept the action at pass: the model blocks too much.
    MLB_FLAG_BREAKER = 8,
    /// The event of this verdict was lost; the loss is counted.
    MLB_FLAG_DROPPED = 16,
    /// mlb_message() has a text for the host's log.
    MLB_FLAG_MESSAGE = 32,
}

/// A verdict: 64 bytes, filled by the library. All zero means benign, allow, pass: a host that forgets to look at the
/// status lets the query through.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mlb_verdict {
    /// The model's number, 0 (benign) to 1 (malicious); 0 when the model did not run.
    pub score: f32,
    /// An mlb_label.
    pub label: u8,
    /// An mlb_decision.
    pub decision: u8,
    /// An mlb_action.
    pub action: u8,
    /// An mlb_source.
    pub source: u8,
    /// mlb_flag bits.
    pub flags: u32,
    /// Time to live, in seconds, of an answer that the host makes up.
    pub ttl: u32,
    /// Address for A questions, in network order, when the action is MLB_SINKHOLE; all zero: none.
    pub sinkhole4: [u8; 4],
    /// Address for AAAA questions, in network order, when the action is MLB_SINKHOLE; all zero: none.
    pub sinkhole6: [u8; 16],
    /// Share of benign names, 0 to 1, expected at or above this score; 0 if unknown or not scored.
    pub fpr: f32,
    /// The first eight bytes of the model's SHA-256, big endian.
    pub model: u64,
    /// Zero.
    pub reserved: [u8; 16],
}

const _: () = assert!(size_of::<mlb_verdict>() == 64 && align_of::<mlb_verdict>() == 8);
const _: () = assert!(std::mem::offset_of!(mlb_verdict, model) == 40);

impl mlb_verdict {
    /// The careless host's default.
    pub(super) const ZERO: mlb_verdict = mlb_verdict {
        score: 0.0,
        label: 0,
        decision: 0,
        action: 0,
        source: 0,
        flags: 0,
        ttl: 0,
        sinkhole4: [0; 4],
        sinkhole6: [0; 16],
        fpr: 0.0,
        model: 0,
        reserved: [0; 16],
    };
}

impl From<Verdict> for mlb_verdict {
    fn from(verdict: Verdict) -> mlb_verdict {
        let Verdict {
            score,
            label,
            decision,
            action,
            source,
            flags,
            ttl,
            sinkhole4,
            sinkhole6,
            fpr,
            model,
        } = verdict;
        // Only with this action are there any; to look at them costs a cached call four nanoseconds.
        let (sinkhole4, sinkhole6) =
            if action == Action::Sinkhole { (sinkhole4, sinkhole6) } else { (None, None) };
        mlb_verdict {
            score,
            label: label as u8,
            decision: decision as u8,
            action: action as u8,
            source: source as u8,
            flags,
            ttl,
            sinkhole4: sinkhole4.map_or([0; 4], |address| address.octets()),
            sinkhole6: sinkhole6.map_or([0; 16], |address| address.octets()),
            fpr,
            model,
            reserved: [0; 16],
        }
    }
}

/// Counters of an engine and of those that share its store, since the store was first used by this process. It grows at
/// its end: pass your sizeof. The ledger holds at every moment:
///
/// - `classified = skipped + not_recorded + sampled_out + coalesced + dropped_queue + dropped_store + dropped_forked`
///   `+ queued + stored`
/// - `stored + recovered = delivered + dead_lettered + pending + evicted`
///
/// While calls are under way it may be off by their number.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mlb_stats {
    /// Names that got a verdict.
    pub classified: u64,
    /// Calls that gave an error instead of a verdict.
    pub errors: u64,
    /// Verdicts with the decision allow.
    pub allowed: u64,
    /// Verdicts with the decision vet.
    pub vetted: u64,
    /// Verdicts with the decision block.
    pub blocked: u64,
    /// Verdicts by the model.
    pub by_model: u64,
    /// Verdicts by an override.
    pub by_override: u64,
    /// Verdicts by a block list.
    pub by_blocklist: u64,
    /// Verdicts by an allow list.
    pub by_allowlist: u64,
    /// Verdicts by the list of popular names.
    pub by_popular: u64,
    /// Names of a kind that is never scored.
    pub skipped: u64,
    /// Scores that came from the cache.
    pub cached: u64,
    /// Actions turned into pass by observe mode.
    pub observed: u64,
    /// Actions turned into pass by the breaker.
    pub breaker: u64,
    /// Names let through because something inside failed.
    pub fail_open: u64,
    /// Panics caught.
    pub panics: u64,
    /// Verdicts that are no events, by setting.
    pub not_recorded: u64,
    /// Allowed names left out by sampling.
    pub sampled_out: u64,
    /// Events that became part of a row already stored.
    pub coalesced: u64,
    /// Events lost because the queue was full.
    pub dropped_queue: u64,
    /// Events lost because the store did not take them.
    pub dropped_store: u64,
    /// Events lost because the process is a fork.
    pub dropped_forked: u64,
    /// Events waiting for the worker thread; a gauge.
    pub queued: u64,
    /// Rows written to the store.
    pub stored: u64,
    /// Undelivered rows found in the store when it was opened.
    pub recovered: u64,
    /// Rows acknowledged by the cluster.
    pub delivered: u64,
    /// Rows that the cluster refused for good.
    pub dead_lettered: u64,
    /// Rows in the store that no cluster has acknowledged; a gauge.
    pub pending: u64,
    /// Undelivered rows removed to keep the store within its bounds.
    pub evicted: u64,
    /// Delivered rows that the cluster had already.
    pub duplicates: u64,
    /// Starts after which the store was found not closed in order.
    pub unclean_ends: u64,
    /// Times the store was damaged, set aside and begun anew.
    pub store_resets: u64,
    /// Turns of the worker thread in which the store failed.
    pub store_errors: u64,
    /// Failed requests to the cluster.
    pub sink_errors: u64,
    /// Reloads.
    pub reloads: u64,
    /// Events that the queue can hold; a gauge.
    pub queue_capacity: u64,
}

// The C struct and the snapshot are one layout, so that the copy below is field by field without naming each.
const _: () = assert!(size_of::<mlb_stats>() == size_of::<Snapshot>());
const _: () =
    assert!(std::mem::offset_of!(mlb_stats, queued) == std::mem::offset_of!(Snapshot, queued));
const _: () = assert!(
    std::mem::offset_of!(mlb_stats, queue_capacity)
        == std::mem::offset_of!(Snapshot, queue_capacity)
);

impl From<&Error> for mlb_status {
    fn from(error: &Error) -> mlb_status {
        match error {
            Error::Invalid(_) => mlb_status::MLB_E_INVALID,
            Error::Name(_) => mlb_status::MLB_E_NAME,
            Error::Config(_) => mlb_status::MLB_E_CONFIG,
            Error::Io(_) => mlb_status::MLB_E_IO,
            Error::Model(_) => mlb_status::MLB_E_MODEL,
            Error::Timeout(_) => mlb_status::MLB_E_TIMEOUT,
            Error::Forked => mlb_status::MLB_E_FORKED,
            Error::Busy(_) => mlb_status::MLB_E_BUSY,
        }
    }
}
