//! The forwarder's way to the database: requests over a channel to the worker, the one thread that owns it.

use super::{Hub, Request as HubRequest};
use crate::elastic::{Cursor, Decided, Document, Outbox, Settled, SummaryRecord, Taken, ToVet};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// How long a call waits for a worker that is stuck in a write.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the forwarder wants of the worker.
pub(super) enum Request {
    /// Documents after a row, waiting for the first until the deadline.
    Take {
        after: i64,
        max_documents: usize,
        max_bytes: usize,
        until: Instant,
        reply: Sender<Taken>,
    },
    /// What became of documents.
    Settle(Settled, Sender<()>),
    /// The counters.
    Summary(Sender<Option<SummaryRecord>>),
    /// Names for the vetting index.
    ToVet(usize, Sender<Vec<ToVet>>),
    /// Names that the vetting index has.
    VettingWritten(Vec<i64>, Sender<()>),
    /// How far the vetting index was read.
    Cursor(Sender<Cursor>),
    /// Decisions from the vetting index.
    Decided(Vec<Decided>, Cursor, Sender<()>),
}

/// The forwarder's end.
pub(super) struct ChannelOutbox {
    hub: Arc<Hub>,
    /// Where the answer to a prefetch will come.
    ahead: Option<Receiver<Taken>>,
}

impl ChannelOutbox {
    pub(super) fn new(hub: Arc<Hub>) -> ChannelOutbox {
        ChannelOutbox { hub, ahead: None }
    }

    /// Asks the worker and waits for its answer; `None` if it has none.
    fn ask<T>(&self, wait: Duration, request: impl FnOnce(Sender<T>) -> Request) -> Option<T> {
        let (sender, receiver) = bounded(1);
        self.hub.request(HubRequest::Outbox(request(sender))).ok()?;
        receiver.recv_timeout(wait).ok()
    }
}

impl Outbox for ChannelOutbox {
    fn take(&mut self, max_documents: usize, max_bytes: usize, wait: Duration) -> Taken {
        let until = Instant::now() + wait;
        let take =
            |reply| Request::Take { after: i64::MIN, max_documents, max_bytes, until, reply };
        match self.ask(wait + PATIENCE, take) {
            Some(taken) => taken,
            None if self.hub.is_over.load(SeqCst) => Taken::Closing,
            None => Taken::Nothing,
        }
    }

    fn prefetch(&mut self, after: i64, max_documents: usize, max_bytes: usize) {
        let (reply, receiver) = bounded(1);
        let take = Request::Take { after, max_documents, max_bytes, until: Instant::now(), reply };
        let asked = self.hub.request(HubRequest::Outbox(take)).is_ok();
        self.ahead = asked.then_some(receiver);
    }

    fn prefetched(&mut self) -> Vec<Document> {
        let taken = self.ahead.take().and_then(|ahead| ahead.recv_timeout(PATIENCE).ok());
        match taken {
            Some(Taken::Documents(documents)) => documents,
            Some(Taken::Nothing | Taken::Closing) | None => Vec::new(),
        }
    }

    fn settle(&mut self, settled: Settled) {
        self.ask(PATIENCE, |reply| Request::Settle(settled, reply));
    }

    fn summary(&mut self) -> Option<SummaryRecord> {
        self.ask(PATIENCE, Request::Summary).flatten()
    }

    fn to_vet(&mut self, max: usize) -> Vec<ToVet> {
        self.ask(PATIENCE, |reply| Request::ToVet(max, reply)).unwrap_or_default()
    }

    fn vetting_written(&mut self, keys: Vec<i64>) {
        self.ask(PATIENCE, |reply| Request::VettingWritten(keys, reply));
    }

    fn cursor(&mut self) -> Cursor {
        self.ask(PATIENCE, Request::Cursor).unwrap_or_default()
    }

    fn decided(&mut self, decided: Vec<Decided>, cursor: Cursor) {
        self.ask(PATIENCE, |reply| Request::Decided(decided, cursor, reply));
    }
}
