//! The one thread that owns the database: it empties the queue, commits each batch, serves the forwarder, watches for
//! changed overrides, and keeps the store within its bounds.
//!
//! It sleeps until something is due; a query wakes it only when the queue is half full. A panic costs one turn: it is
//! counted, the database is opened anew, and the thread goes on.

use super::outbox::{ChannelOutbox, Request as OutboxRequest};
use super::sqlite::{Database, Failure, database_path};
use super::{Hub, HubSettings, Level, Request};
use crate::config::TestPanic;
use crate::elastic::{self, Control, Identity, SummaryRecord, Taken};
use crate::error::{Error, Result};
use crate::store::event::{Event, now_ms};
use crate::sys::{self, DirectoryLock, lock};
use crossbeam_channel::Sender;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

/// Most events in one transaction.
const BATCH: usize = 4096;
/// Longest sleep: how late a changed override may be seen.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);
/// Time between two attempts at a store that cannot be opened or written.
const RETRY: Duration = Duration::from_secs(1);
/// Time between two looks at the store's bounds.
const BOUNDS: Duration = Duration::from_secs(10);
/// Rows after which the bounds are looked at sooner.
const BOUNDS_ROWS: u64 = 100_000;
/// Time between two writes of `metrics.file`.
const METRICS: Duration = Duration::from_secs(15);
/// Time after a panic in which nothing is tried.
const AFTER_PANIC: Duration = Duration::from_millis(100);

const DAY_MS: i64 = 24 * 3600 * 1000;

/// What the thread does next.
enum Next {
    Sleep(Duration),
    Again,
    End,
}

/// The thread's body.
pub(super) fn run(hub: &Arc<Hub>) {
    let mut worker = Worker::new(hub);
    loop {
        hub.woken.store(false, Relaxed);
        match catch_unwind(AssertUnwindSafe(|| worker.turn())) {
            Ok(Next::Sleep(time)) => std::thread::park_timeout(time),
            Ok(Next::Again) => {}
            Ok(Next::End) => break,
            Err(_) => {
                hub.stats.counters.panics.fetch_add(1, Relaxed);
                hub.say(
                    Level::Error,
                    "a panic in the worker thread was caught; it goes on".to_owned(),
                );
                // The database goes first: its lock has to be free before it is taken again.
                worker.store = None;
                if worker.is_past_deadline() {
                    break;
                }
                std::thread::sleep(AFTER_PANIC);
            }
        }
    }
    worker.end();
    hub.is_over.store(true, SeqCst);
    // Whoever waits for an answer sees its channel closed.
    while hub.requests.1.try_recv().is_ok() {}
    let _ = hub.ended.0.try_send(());
}

/// The open database and the lock of its directory. Fields drop in this order: the database is closed under the lock.
struct Store {
    database: Database,
    lock: Option<DirectoryLock>,
    /// What stood at the paths of lock and database after they were opened.
    files: [Option<(u64, u64)>; 2],
}

fn files_of(state_dir: Option<&Path>) -> [Option<(u64, u64)>; 2] {
    state_dir.map_or_else(Default::default, |directory| {
        sys::files_at([&directory.join("lock"), &database_path(directory)])
    })
}

struct Flush {
    reply: Sender<Result<()>>,
    until: Instant,
}

struct Take {
    after: i64,
    max_documents: usize,
    max_bytes: usize,
    until: Instant,
    reply: Sender<Taken>,
}

struct Forwarder {
    control: Arc<Control>,
    settings: elastic::Settings,
}

struct Worker<'a> {
    hub: &'a Arc<Hub>,
    store: Option<Store>,
    opened_before: bool,
    batch: Vec<Event>,
    batch_began: Instant,
    next_attempt: Instant,
    next_tick: Instant,
    next_bounds: Instant,
    next_metrics: Instant,
    rows_since_bounds: u64,
    lost_before: u64,
    flushes: Vec<Flush>,
    takes: VecDeque<Take>,
    forwarder: Option<Forwarder>,
    /// Of the last forwarder that ended: the next one goes on with its numbers.
    ended: Option<Arc<Control>>,
    started_ms: i64,
    /// The highest key of a row: a store opened anew goes on after it, because the forwarder may have rows on the way.
    last_row: i64,
}

impl<'a> Worker<'a> {
    fn new(hub: &'a Arc<Hub>) -> Worker<'a> {
        let now = Instant::now();
        Worker {
            hub,
            store: None,
            opened_before: false,
            batch: Vec::new(),
            batch_began: now,
            next_attempt: now,
            next_tick: now,
            next_bounds: now + BOUNDS,
            next_metrics: now,
            rows_since_bounds: 0,
            lost_before: 0,
            flushes: Vec::new(),
            takes: VecDeque::new(),
            forwarder: None,
            ended: None,
            started_ms: now_ms(),
            last_row: 0,
        }
    }

    fn turn(&mut self) -> Next {
        let settings = self.hub.settings();
        if settings.config.test_panic == Some(TestPanic::Worker) {
            std::panic::resume_unwind(Box::new("test.panic = worker"));
        }
        let closing = lock(&self.hub.closing).and_then(|closing| *closing);
        self.open_if_due(&settings);
        self.read_requests();
        let full = self.fill_batch();
        let flush_after = Duration::from_millis(settings.config.store_flush_ms);
        let due = full
            || closing.is_some()
            || !self.flushes.is_empty()
            || self.batch_began.elapsed() >= flush_after;
        if due && !self.batch.is_empty() {
            self.write_batch(&settings);
        }
        self.answer_flushes(&settings);
        self.keep_forwarder(&settings, closing);
        self.answer_takes(closing.is_some());
        self.do_chores(&settings);
        if let Some(deadline) = closing {
            return self.close(deadline);
        }
        if full && self.store.is_some() && self.batch.is_empty() {
            return Next::Again;
        }
        let until_flush = if self.batch.is_empty() {
            LONGEST_SLEEP
        } else {
            flush_after.saturating_sub(self.batch_began.elapsed())
        };
        let until_take = self
            .takes
            .iter()
            .map(|take| take.until.saturating_duration_since(Instant::now()))
            .min();
        let sleep = until_flush.min(LONGEST_SLEEP).min(until_take.unwrap_or(LONGEST_SLEEP));
        Next::Sleep(sleep.max(Duration::from_millis(1)))
    }

    fn is_past_deadline(&self) -> bool {
        let closing = lock(&self.hub.closing).and_then(|closing| *closing);
        closing.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether anything is to be stored at all.
    fn wants_store(settings: &HubSettings) -> bool {
        settings.config.state_dir.is_some() || !settings.config.elasticsearch.urls.is_empty()
    }

    fn open_if_due(&mut self, settings: &HubSettings) {
        if self.store.is_some()
            || !Worker::wants_store(settings)
            || Instant::now() < self.next_attempt
        {
            return;
        }
        match self.open() {
            Ok(store) => {
                self.hub.set_store_error(None);
                self.greet(store);
            }
            Err(failure) => self.store_failed(failure),
        }
    }

    fn open(&self) -> std::result::Result<Store, Failure> {
        match &self.hub.state_dir {
            Some(directory) => {
                let lock = DirectoryLock::take(directory)?;
                let database = Database::open(directory)?;
                Ok(Store { database, lock: Some(lock), files: files_of(Some(directory)) })
            }
            None => {
                let database = Database::in_memory()?;
                Ok(Store { database, lock: None, files: files_of(None) })
            }
        }
    }

    /// Takes over what a newly opened store holds.
    fn greet(&mut self, mut store: Store) {
        store.database.begin_after(self.last_row);
        let count = &self.hub.stats.counters;
        let found = store.database.recovered;
        if self.opened_before {
            // Opened again after a failure: only what others changed meanwhile is new.
            self.adjust_pending(found);
        } else {
            count.recovered.fetch_add(found, Relaxed);
            if store.database.was_unclean {
                count.unclean_ends.fetch_add(1, Relaxed);
                let text = "store: the last process that held it did not end in order; what it had not yet stored is lost";
                self.hub.say(Level::Warning, text.to_owned());
            }
        }
        self.opened_before = true;
        if self.hub.state_dir.is_some()
            && let Ok(overrides) = store.database.overrides()
        {
            self.hub.publish_overrides(overrides);
        }
        self.store = Some(store);
    }

    /// Brings the ledger in line with the number of pending rows that another process changed.
    fn adjust_pending(&self, found: u64) {
        let count = &self.hub.stats.counters;
        let known = self.hub.stats.pending();
        if found >= known {
            count.recovered.fetch_add(found - known, Relaxed);
        } else {
            count.evicted.fetch_add(known - found, Release);
        }
    }

    fn store_failed(&mut self, failure: Failure) {
        let failure = failure.at(self.hub.state_dir.as_deref());
        self.next_attempt = Instant::now() + RETRY;
        let busy = matches!(failure.error, Error::Busy(_));
        if !busy {
            self.hub.stats.counters.store_errors.fetch_add(1, Relaxed);
        }
        self.hub.set_store_error(Some(failure.error));
        let Some(directory) = self.hub.state_dir.clone().filter(|_| failure.corrupt) else {
            return;
        };
        self.reset(&directory);
    }

    /// Sets a damaged store aside; the next attempt begins a new one.
    fn reset(&mut self, directory: &std::path::Path) {
        let held = self.store.take().and_then(|store| store.lock);
        let lock = held.map_or_else(|| DirectoryLock::take(directory), Ok);
        match lock.and_then(|_lock| Database::set_aside(directory)) {
            Ok(aside) => {
                let count = &self.hub.stats.counters;
                count.store_resets.fetch_add(1, Relaxed);
                count.evicted.fetch_add(self.hub.stats.pending(), Release);
                self.opened_before = true;
                self.next_attempt = Instant::now();
                let text = format!(
                    "store: the file was damaged; it is now {} and a new one begins",
                    aside.display()
                );
                self.hub.say(Level::Error, text);
            }
            Err(error) => self.hub.set_store_error(Some(error)),
        }
    }

    /// Gives up a store whose files were removed or replaced: what is written there, nobody would find again. A directory
    /// that is out of sight is none: the host may have gone into a chroot.
    fn look_for_files(&mut self) {
        let Some(directory) = self.hub.state_dir.clone() else { return };
        let is_gone = |store: &Store| {
            let Some(lock) = &store.lock else { return false };
            let replaced = || lock.is_of(&directory) && store.files != files_of(Some(&directory));
            lock.is_removed() || replaced()
        };
        if !self.store.as_ref().is_some_and(is_gone) {
            return;
        }
        self.store = None;
        let text = "the store was removed or replaced while in use; what it held is lost here, and the one that is there now, or a new one, is taken";
        self.store_failed(Error::file(&directory, text).into());
    }

    fn read_requests(&mut self) {
        // Bounded by the channel: a request that comes during this loop waits for the next turn.
        for _ in 0..super::MAX_REQUESTS {
            match self.hub.requests.1.try_recv() {
                Ok(Request::Flush(reply, until)) => self.flushes.push(Flush { reply, until }),
                Ok(Request::Outbox(request)) => self.serve(request),
                Err(_) => break,
            }
        }
    }

    /// Moves events from the queue into the batch; true if the batch is full.
    fn fill_batch(&mut self) -> bool {
        // While the store takes nothing, events wait in the queue, which is bounded and counts what it loses.
        if self.store.is_none() || Instant::now() < self.next_attempt {
            return false;
        }
        let Some((_, receiver)) = self.hub.queue.get() else { return false };
        if self.batch.is_empty() {
            self.batch_began = Instant::now();
        }
        while self.batch.len() < BATCH {
            match receiver.try_recv() {
                Ok(event) => self.batch.push(event),
                Err(_) => return false,
            }
        }
        true
    }

    fn write_batch(&mut self, settings: &HubSettings) {
        if Instant::now() < self.next_attempt {
            return;
        }
        let Some(store) = &mut self.store else { return };
        let coalesce_ms =
            i64::try_from(settings.config.record_coalesce_s).unwrap_or(0).saturating_mul(1000);
        let models = lock(&self.hub.models).map(|models| models.clone()).unwrap_or_default();
        let lost = lost_events(&self.hub.stats);
        let dropped = lost.saturating_sub(self.lost_before);
        match store.database.write(&self.batch, coalesce_ms, dropped, &models) {
            Ok(written) => {
                let count = &self.hub.stats.counters;
                count.stored.fetch_add(written.stored, Relaxed);
                count.coalesced.fetch_add(written.coalesced, Relaxed);
                self.last_row = store.database.last_row();
                self.rows_since_bounds += written.stored;
                self.lost_before = lost;
                self.batch.clear();
                self.hub.set_store_error(None);
            }
            Err(failure) => self.store_failed(failure),
        }
    }

    fn answer_flushes(&mut self, settings: &HubSettings) {
        if self.flushes.is_empty() {
            return;
        }
        let queued = self.hub.queue.get().is_some_and(|(_, receiver)| !receiver.is_empty());
        let stored = self.batch.is_empty() && !queued;
        let in_memory = self.hub.state_dir.is_none();
        if in_memory
            && stored
            && let Some(store) = &mut self.store
        {
            let _ = store.database.close_windows(now_ms());
        }
        let delivered = !in_memory || self.hub.stats.pending() == 0;
        let done = stored && delivered || !Worker::wants_store(settings);
        let error = self.hub.store_error();
        let cannot_open = error.clone().filter(|_| self.store.is_none());
        self.flushes.retain(|flush| {
            let answer = if done {
                Ok(())
            } else if let Some(error) = &cannot_open {
                Err(error.clone())
            } else if Instant::now() >= flush.until {
                Err(error.clone().unwrap_or_else(|| Error::Timeout("the store is slow".to_owned())))
            } else {
                return true;
            };
            let _ = flush.reply.send(answer);
            false
        });
    }

    fn serve(&mut self, request: OutboxRequest) {
        match request {
            OutboxRequest::Take { after, max_documents, max_bytes, until, reply } => {
                self.takes.push_back(Take { after, max_documents, max_bytes, until, reply });
            }
            OutboxRequest::Settle(settled, reply) => {
                // Among them may be dead letters that another process put back.
                self.count_replayed();
                if let Some(Ok((delivered, dead))) =
                    self.with_database(|database| database.settle(&settled, now_ms()))
                {
                    let count = &self.hub.stats.counters;
                    count.delivered.fetch_add(delivered, Release);
                    count.dead_lettered.fetch_add(dead, Release);
                }
                let _ = reply.send(());
            }
            OutboxRequest::Summary(reply) => {
                let _ = reply.send(self.summary());
            }
            OutboxRequest::ToVet(max, reply) => {
                let found = self.with_database(|database| database.to_vet(max));
                let _ = reply.send(found.and_then(std::result::Result::ok).unwrap_or_default());
            }
            OutboxRequest::VettingWritten(keys, reply) => {
                self.with_database(|database| database.vetting_written(&keys));
                let _ = reply.send(());
            }
            OutboxRequest::Cursor(reply) => {
                let cursor = self.with_database(|database| database.cursor());
                let _ = reply.send(cursor.and_then(std::result::Result::ok).unwrap_or_default());
            }
            OutboxRequest::Decided(decided, cursor, reply) => {
                if let Some(Ok(Some(all))) =
                    self.with_database(|database| database.put_decided(&decided, &cursor))
                {
                    self.hub.publish_overrides(all);
                }
                let _ = reply.send(());
            }
        }
    }

    /// Calls the database, if it is open, and takes note of its failure.
    fn with_database<T>(
        &mut self,
        call: impl FnOnce(&mut Database) -> std::result::Result<T, Failure>,
    ) -> Option<std::result::Result<T, ()>> {
        let outcome = call(&mut self.store.as_mut()?.database);
        Some(outcome.map_err(|failure| self.store_failed(failure)))
    }

    fn answer_takes(&mut self, closing: bool) {
        while let Some(take) = self.takes.pop_front() {
            let settings = self.hub.settings();
            let namespace = &settings.config.elasticsearch.namespace;
            let found = self.with_database(|database| {
                if closing {
                    database.close_windows(now_ms())?;
                }
                database.pending(
                    take.after,
                    take.max_documents,
                    take.max_bytes,
                    now_ms(),
                    host_name(),
                    namespace,
                )
            });
            let documents = found.and_then(std::result::Result::ok).unwrap_or_default();
            let taken = if !documents.is_empty() {
                Taken::Documents(documents)
            } else if closing {
                Taken::Closing
            } else if Instant::now() >= take.until {
                Taken::Nothing
            } else {
                self.takes.push_front(take);
                return;
            };
            let _ = take.reply.send(taken);
        }
    }

    fn summary(&mut self) -> Option<SummaryRecord> {
        let (dead_letters, to_vet, oldest_to_vet_ms) =
            self.with_database(|database| database.waiting())?.ok()?;
        let stats = &self.hub.stats;
        let now = stats.snapshot(self.hub.capacity());
        let settings = self.hub.settings();
        Some(SummaryRecord {
            time_ms: now_ms(),
            started_ms: self.started_ms,
            classified: now.classified,
            decisions: [now.allowed, now.vetted, now.blocked],
            sources: [
                now.by_model,
                now.by_override,
                now.by_blocklist,
                now.by_allowlist,
                now.by_popular,
                now.skipped,
            ],
            cache_hits: now.cached,
            failed_open: now.fail_open,
            losses: vec![
                ("queue", now.dropped_queue),
                ("store", now.dropped_store),
                ("forked", now.dropped_forked),
                ("evicted", now.evicted),
                ("sampled_out", now.sampled_out),
                ("not_recorded", now.not_recorded),
            ],
            scores: stats.score_histogram(),
            latency: stats.latency_histogram(),
            queued: now.queued,
            pending: now.pending,
            dead_letters,
            to_vet,
            oldest_to_vet_ms,
            model: Some(settings.model.clone()),
            shadow: None,
        })
    }

    /// Starts, replaces or ends the forwarder, as the settings want it.
    fn keep_forwarder(&mut self, settings: &HubSettings, closing: Option<Instant>) {
        let wanted = &settings.config.elasticsearch;
        if let Some(forwarder) = &self.forwarder {
            let status = forwarder.control.status();
            self.hub.stats.counters.duplicates.store(status.counters.duplicates, Relaxed);
            self.hub.stats.counters.sink_errors.store(status.counters.failed_requests, Relaxed);
            if closing.is_none() && forwarder.settings != *wanted {
                forwarder.control.close(Duration::ZERO);
            }
            if forwarder.control.wait_ended(Duration::ZERO) {
                self.ended = self.forwarder.take().map(|forwarder| forwarder.control);
                self.show_forwarder(None);
            }
        }
        if self.forwarder.is_some() || wanted.urls.is_empty() || closing.is_some() {
            return;
        }
        let Some(store) = &self.store else { return };
        let store_id = store.database.instance().unwrap_or_default();
        let identity = Identity { host: host_name().to_owned(), store: store_id };
        let earlier = self.ended.as_deref();
        let control = Arc::new(earlier.map_or_else(Control::new, Control::following));
        let (outbox, shared, own) =
            (ChannelOutbox::new(Arc::clone(self.hub)), Arc::clone(&control), wanted.clone());
        let body = move || elastic::run(&own, &identity, outbox, &shared);
        match sys::spawn("mlbridge-send", body) {
            Ok(_) => {
                self.show_forwarder(Some(Arc::clone(&control)));
                self.forwarder = Some(Forwarder { control, settings: wanted.clone() });
            }
            Err(error) => self.hub.set_store_error(Some(error)),
        }
    }

    fn show_forwarder(&self, control: Option<Arc<Control>>) {
        if let Some(mut shown) = lock(&self.hub.forwarder) {
            *shown = control;
        }
    }

    /// What is due from time to time.
    fn do_chores(&mut self, settings: &HubSettings) {
        let now = Instant::now();
        if self.hub.state_dir.is_some()
            && let Some(Ok(Some(overrides))) =
                self.with_database(|database| database.changed_overrides())
        {
            self.hub.publish_overrides(overrides);
        }
        if now >= self.next_tick {
            self.next_tick = now + Duration::from_secs(1);
            self.look_for_files();
            self.hub.each_subscriber(|subscriber| subscriber.tick());
        }
        if now >= self.next_bounds || self.rows_since_bounds >= BOUNDS_ROWS {
            self.next_bounds = now + BOUNDS;
            self.rows_since_bounds = 0;
            self.keep_bounds(settings);
        }
        if now >= self.next_metrics
            && let Some(path) = &settings.config.metrics_file
        {
            self.next_metrics = now + METRICS;
            let (name, version) = &settings.model;
            let text = self.hub.stats.prometheus(
                self.hub.capacity(),
                &format!("{name} {version}"),
                settings.engine,
            );
            if let Err(error) = sys::replace_file(path, text.as_bytes()) {
                self.hub.say(Level::Warning, format!("metrics.file: {error}"));
            }
        }
    }

    /// Dead letters that the command line put back are pending again.
    fn count_replayed(&mut self) {
        if let Some(Ok(Some(found))) = self.with_database(Database::changed_pending) {
            self.adjust_pending(found);
        }
    }

    fn keep_bounds(&mut self, settings: &HubSettings) {
        self.count_replayed();
        let max_bytes = settings.config.store_max_mib << 20;
        let days = i64::try_from(settings.config.store_max_days).unwrap_or(i64::MAX);
        let oldest = now_ms().saturating_sub(days.saturating_mul(DAY_MS));
        if let Some(Ok(evicted)) =
            self.with_database(|database| database.keep_within(max_bytes, oldest))
        {
            self.hub.stats.counters.evicted.fetch_add(evicted, Release);
        }
    }

    /// One turn of closing: what is queued is stored and the forwarder is given its time.
    fn close(&mut self, deadline: Instant) -> Next {
        let queued = self.hub.queue.get().is_some_and(|(_, receiver)| !receiver.is_empty());
        let unwritten = queued || !self.batch.is_empty();
        let late = Instant::now() >= deadline;
        if late {
            if let Some(forwarder) = &self.forwarder {
                forwarder.control.interrupt();
            }
            return Next::End;
        }
        if unwritten && self.store.is_some() {
            return if self.batch.is_empty() {
                Next::Again
            } else {
                Next::Sleep(Duration::from_millis(20))
            };
        }
        if self.forwarder.is_some() {
            return Next::Sleep(Duration::from_millis(5));
        }
        Next::End
    }

    /// The thread's last act: what could not be stored is counted, the store is closed in order.
    fn end(&mut self) {
        let mut lost = self.batch.len() as u64;
        if let Some((_, receiver)) = self.hub.queue.get() {
            lost += receiver.try_iter().take(self.hub.capacity).count() as u64;
        }
        self.hub.stats.counters.dropped_store.fetch_add(lost, Relaxed);
        if let Some(mut store) = self.store.take() {
            let _ = store.database.mark_clean();
        }
        for flush in self.flushes.drain(..) {
            let _ = flush.reply.send(Err(Error::Timeout("the engine was freed".to_owned())));
        }
        for take in self.takes.drain(..) {
            let _ = take.reply.send(Taken::Closing);
        }
    }
}

/// Events lost until now, for whatever reason.
fn lost_events(stats: &crate::stats::Stats) -> u64 {
    let now = stats.snapshot(0);
    now.dropped_queue + now.dropped_store + now.evicted
}

/// The machine's name, as the cluster's documents have it.
fn host_name() -> &'static str {
    static NAME: once_cell::sync::OnceCell<String> = once_cell::sync::OnceCell::new();
    NAME.get_or_init(sys::host_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_undelivered_is_lost_too() {
        let stats = crate::stats::Stats::default();
        stats.counters.evicted.fetch_add(3, Relaxed);
        stats.counters.dropped_store.fetch_add(2, Relaxed);
        assert_eq!(lost_events(&stats), 5);
    }
}
