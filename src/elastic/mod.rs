//! Delivery of stored events to Elasticsearch or OpenSearch.
//!
//! The store is the outbox: [`Forwarder::run`] takes what no node has acknowledged yet, oldest first, sends it, and tells the store
//! what became of it. Nothing else remembers what is to be sent, so a crash loses nothing that the store holds, and every
//! resend carries the id of the first attempt. The forwarder runs in a thread of its own, because a node may hang for
//! many seconds and the store must be flushed each second all the same.
//!
//! It guarantees: at least once into the data stream, and once per `event.id` unless the stream rolled over between two
//! attempts; documents a server refuses for good become dead letters with the reason; what only an operator can mend
//! (credentials, certificates, a wrong path) keeps everything and says so in [`Status::error`]; `run` returns within
//! about the close time that [`Control::close`] was given, whatever the node does. It never panics, logs nothing, reads
//! no environment variable, and follows no redirect.
//!
//! It leaves out: sniffing of cluster members (breaks behind proxies), ingest pipelines, more than one request in flight.
//!
//! | file | holds |
//! |---|---|
//! | `settings.rs` | the settings, checked |
//! | `document.rs` | verdicts, summaries and names to vet as JSON |
//! | `bulk.rs` | bulk bodies out, bulk answers in |
//! | `redact.rs` | servers' texts made fit to be shown |
//! | `retry.rs` | what came back -> what to do; waiting times; no I/O, no clock |
//! | `http.rs` | requests over ureq, the only file that names it |
//! | `nodes.rs` | which node gets the next request |
//! | `setup.rs` | what kind of server it is; templates, lifecycle policies, data streams |
//! | `vetting.rs` | the index in which administrators decide |
//! | `forward.rs` | the loop |
//! | `control.rs` | what other threads may ask and see |

pub mod bulk;
pub mod control;
pub mod document;
pub mod forward;
pub mod http;
pub mod nodes;
pub mod redact;
pub mod retry;
pub mod settings;
pub mod setup;
pub mod vetting;

pub use control::{Control, Counters, Status};
pub use document::{SummaryRecord, VerdictRecord};
pub use forward::Forwarder;
pub use settings::Settings;

use crate::policy::overrides::Class;
use std::time::Duration;

/// One event on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The store's key of the row.
    pub row: i64,
    /// The event's id: the document's `_id`, the same at every attempt. ASCII, at most 512 bytes.
    pub id: String,
    /// The document, one line of JSON ([`document::verdict`] writes it).
    pub source: Vec<u8>,
}

/// What [`Outbox::take`] brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// At least one document, oldest first.
    Documents(Vec<Document>),
    /// Nothing to send before the wait was over.
    Nothing,
    /// The store is going away; [`Forwarder::run`] returns.
    Closing,
}

/// What became of documents that were taken. Rows named in neither list stay in the outbox and are taken again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Rows that a node holds: newly created or there before.
    pub delivered: Vec<i64>,
    /// Rows that the server refuses for good, with its reason, cut and without client addresses.
    pub dead: Vec<(i64, String)>,
}

/// A name whose document in the vetting index is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct ToVet {
    /// The store's key, handed back to [`Outbox::vetting_written`].
    pub key: i64,
    /// The registered domain, or the name where an override is about one name below it.
    pub name: String,
    /// What the document says of the name.
    pub state: VetState,
}

/// The state of a name in the vetting index.
#[derive(Debug, Clone, PartialEq)]
pub enum VetState {
    /// Waits for a decision; written only if the index has no document of the name yet.
    Pending {
        /// An example: the full name that was asked for.
        example: String,
        /// The model's score of the example.
        score: f32,
        /// When it was first seen, in milliseconds since 1970.
        first_seen_ms: i64,
        /// How often it was asked for until now.
        count: u64,
    },
    /// An administrator decided on this machine; replaces what the index says.
    Decided(Ruling),
    /// A decision made on this machine was taken back on this machine.
    Withdrawn {
        /// Who took it back.
        author: String,
        /// When, in milliseconds since 1970.
        at_ms: i64,
    },
}

/// An administrator's decision, without the name that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// What was decided.
    pub class: Class,
    /// Who decided.
    pub author: String,
    /// A remark, may be empty.
    pub note: String,
    /// Whose queries the decision is for: `group:NAME`, a network, or `all` (also empty).
    pub scope: String,
    /// When it was decided, in milliseconds since 1970.
    pub at_ms: i64,
    /// When it ends, in milliseconds since 1970; `None` for never.
    pub expires_ms: Option<i64>,
}

/// A decision found in the vetting index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The name, canonical dotted form; never a public suffix or a shared host.
    pub name: String,
    /// The decision; `None` when the document is pending (again): a decision that came from the index is over.
    pub ruling: Option<Ruling>,
}

/// How far the vetting index has been read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The index's uuid; another one means that the index was made anew and is read from its beginning.
    pub index: String,
    /// The highest sequence number read.
    pub seq_no: i64,
}

/// What the forwarder needs of the store, called from the forwarder's thread only. Calls may wait for the thread that
/// owns the database, but not longer than that thread needs for a flush; where it is gone, [`Taken::Closing`] and empty
/// answers are right.
pub trait Outbox: Send {
    /// The oldest documents that are neither delivered nor dead, at most `max_documents`, and as many as fit into
    /// `max_bytes` of [`Document::source`] (but at least one). Waits up to `wait` for the first. A row taken before and
    /// not settled since is taken again: the forwarder keeps nothing.
    fn take(&mut self, max_documents: usize, max_bytes: usize, wait: Duration) -> Taken;

    /// Begins to read what follows a row, while the caller waits for the network. [`Outbox::prefetched`] brings it; a
    /// second call replaces the first.
    fn prefetch(&mut self, after: i64, max_documents: usize, max_bytes: usize);

    /// What the last [`Outbox::prefetch`] found, as [`Outbox::take`] would; nothing without one.
    fn prefetched(&mut self) -> Vec<Document>;

    /// Writes down what became of documents. Rows that were evicted meanwhile are ignored.
    fn settle(&mut self, settled: Settled);

    /// The counters of the process since its start, for the summary document sent once a minute.
    fn summary(&mut self) -> Option<SummaryRecord>;

    /// Names whose vetting document is to be written, oldest first: domains newly to vet, and decisions made or taken
    /// back on this machine that the index does not have yet.
    fn to_vet(&mut self, max: usize) -> Vec<ToVet>;

    /// These vetting documents are written (or, pending ones, were there already), or can never be.
    fn vetting_written(&mut self, keys: Vec<i64>);

    /// How far the vetting index was read; `Cursor::default()` at first.
    fn cursor(&mut self) -> Cursor;

    /// Decisions from the vetting index, oldest first, and the cursor to remember with them, in one transaction. They
    /// never beat decisions made on this machine; of two from the index the later one counts. May repeat.
    fn decided(&mut self, decided: Vec<Decided>, cursor: Cursor);
}

/// Who sends: what every document says about its observer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The machine's host name.
    pub host: String,
    /// The store's own id, kept with it: tells this machine's vetting documents from those of others.
    pub store: String,
}

/// Runs a forwarder until the control or the outbox tells it to end, in a thread of its own. Files that cannot be read
/// are tried again each minute.
pub fn run(settings: &Settings, identity: &Identity, mut outbox: impl Outbox, control: &Control) {
    loop {
        match Forwarder::new(settings.clone(), identity.clone()) {
            Ok(forwarder) => return forwarder.run(&mut outbox, control),
            Err(error) => control.set_error(&error.to_string()),
        }
        if control.pause(Duration::from_secs(60), false) == control::Paused::Closing {
            return control.set_ended();
        }
    }
}
