//! From a verdict to the disk: the queue, the worker thread that empties it, the database.
//!
//! A [`Hub`] is what engines of one process share when they share a state directory: queue, worker, database, forwarder,
//! counters. It guarantees that [`Hub::push`] never waits and never allocates once the queue is there, that the worker
//! starts at the first need and ends within the time it is given, and that every event is counted whatever becomes of it.
//! A hub lives once: after [`Hub::close`] it records nothing more.

pub mod event;
mod outbox;
pub mod sqlite;
mod worker;

use crate::config::Config;
use crate::elastic;
use crate::error::{Error, Result};
use crate::policy::overrides::Override;
use crate::stats::{Fate, Stats};
use crate::sys::{self, lock};
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use event::Event;
use once_cell::race::OnceBox;
use once_cell::sync::OnceCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Messages kept for the host's log; the oldest leave first.
const MAX_MESSAGES: usize = 64;
/// Requests to the worker that may wait.
const MAX_REQUESTS: usize = 64;

/// Severity of a message, as syslog numbers them (RFC 5424, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something does not work; somebody should act.
    Error = 3,
    /// Something may go wrong.
    Warning = 4,
    /// Something important changed, in order.
    Notice = 5,
}

/// What the worker does beside its own work, for the engines that share it.
pub trait Subscriber: Send + Sync {
    /// Overrides changed.
    fn overrides_changed(&self, all: &[Override]);
    /// Called about once a second.
    fn tick(&self);
}

/// The settings that count for all engines of a hub: the newest engine's.
#[derive(Debug, Clone)]
pub struct HubSettings {
    pub(crate) config: Arc<Config>,
    /// Name and version of the model.
    pub model: (String, String),
    /// What computes the scores.
    pub engine: &'static str,
}

/// What somebody wants of the worker.
enum Request {
    /// Make what is queued durable.
    Flush(Sender<Result<()>>, Instant),
    /// The forwarder's.
    Outbox(outbox::Request),
}

/// What engines of one state directory share. Any thread may use it.
pub struct Hub {
    /// All counters.
    pub stats: Stats,
    state_dir: Option<PathBuf>,
    capacity: usize,
    settings: ArcSwap<HubSettings>,
    queue: OnceBox<(Sender<Event>, Receiver<Event>)>,
    requests: (Sender<Request>, Receiver<Request>),
    /// The fork generation in which the worker was started; 0: not yet.
    started: AtomicU32,
    worker: OnceCell<Thread>,
    ended: (Sender<()>, Receiver<()>),
    woken: AtomicBool,
    /// Nobody answers requests any more.
    is_over: AtomicBool,
    /// When the worker has to be gone.
    closing: Mutex<Option<Instant>>,
    subscribers: Mutex<Vec<Weak<dyn Subscriber>>>,
    /// The overrides last read from the open store.
    overrides: Mutex<Option<Arc<[Override]>>>,
    models: Mutex<sqlite::Models>,
    messages: Mutex<VecDeque<(Level, String)>>,
    has_message: AtomicBool,
    store_error: Mutex<Option<Error>>,
    forwarder: Mutex<Option<Arc<elastic::Control>>>,
}

impl Hub {
    /// A hub at rest; nothing is opened or started before it is needed.
    pub fn new(settings: HubSettings) -> Arc<Hub> {
        Arc::new(Hub {
            stats: Stats::default(),
            state_dir: settings.config.state_dir.clone(),
            capacity: settings.config.queue_events,
            settings: ArcSwap::from_pointee(settings),
            queue: OnceBox::new(),
            requests: crossbeam_channel::bounded(MAX_REQUESTS),
            started: AtomicU32::new(0),
            worker: OnceCell::new(),
            ended: crossbeam_channel::bounded(1),
            woken: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            closing: Mutex::new(None),
            subscribers: Mutex::new(Vec::new()),
            overrides: Mutex::new(None),
            models: Mutex::new(sqlite::Models::new()),
            messages: Mutex::new(VecDeque::new()),
            has_message: AtomicBool::new(false),
            store_error: Mutex::new(None),
            forwarder: Mutex::new(None),
        })
    }

    /// Makes an engine's settings those that count, and has the engine told of changes.
    pub fn join(&self, settings: HubSettings, model: u64, subscriber: Weak<dyn Subscriber>) {
        if let Some(mut models) = lock(&self.models) {
            models.insert(model, Arc::new(settings.model.clone()));
        }
        self.settings.store(Arc::new(settings));
        if let Some(mut subscribers) = lock(&self.subscribers) {
            subscribers.retain(|known| known.strong_count() > 0 && !known.ptr_eq(&subscriber));
            subscribers.push(subscriber);
        }
    }

    /// The overrides of the open store; `None` while it is not open.
    pub fn overrides(&self) -> Option<Arc<[Override]>> {
        lock(&self.overrides)?.clone()
    }

    fn publish_overrides(&self, all: Vec<Override>) {
        let all: Arc<[Override]> = all.into();
        if let Some(mut current) = lock(&self.overrides) {
            *current = Some(Arc::clone(&all));
        }
        self.each_subscriber(|subscriber| subscriber.overrides_changed(&all));
    }

    /// Starts the worker if it does not run yet. Costs a load when it does. Never waits: a thread that comes second
    /// while another starts it goes on at once.
    pub fn start(self: &Arc<Hub>) {
        if self.started.load(Relaxed) != 0 {
            return;
        }
        let generation = sys::fork_generation();
        if self.started.compare_exchange(0, generation, SeqCst, Relaxed).is_err() {
            return;
        }
        let hub = Arc::clone(self);
        let spawned = self.worker.get_or_try_init(|| {
            sys::spawn("mlbridge", move || worker::run(&hub)).map(|handle| handle.thread().clone())
        });
        if let Err(error) = spawned {
            self.say(Level::Error, error.to_string());
            self.started.store(0, SeqCst);
        }
    }

    /// Hands an event to the worker.
    pub fn push(self: &Arc<Hub>, event: Event) -> Fate {
        let (sender, receiver) =
            self.queue.get_or_init(|| Box::new(crossbeam_channel::bounded(self.capacity)));
        self.start();
        if self.is_forked() {
            return Fate::DroppedForked;
        }
        match sender.try_send(event) {
            Ok(()) => {
                if receiver.len() * 2 >= self.capacity && !self.woken.swap(true, Relaxed) {
                    self.wake();
                }
                Fate::Queued
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Fate::DroppedQueue,
        }
    }

    /// Whether this process is a fork of the one in which the worker runs.
    pub fn is_forked(&self) -> bool {
        !matches!(self.started.load(Relaxed), 0)
            && self.started.load(Relaxed) != sys::fork_generation()
    }

    fn wake(&self) {
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
    }

    fn request(&self, request: Request) -> Result<()> {
        if self.is_over.load(SeqCst) {
            return Err(Error::Busy("the worker thread has ended".to_owned()));
        }
        let sent = self.requests.0.try_send(request);
        self.wake();
        sent.map_err(|_| Error::Busy("the worker thread has too much to do".to_owned()))
    }

    /// Waits until what was recorded before is durable in the store; without a state directory, until the cluster
    /// acknowledged it.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Forked`], [`Error::Busy`] if another process holds the store, or the store's error.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        if self.started.load(Relaxed) == 0 {
            return Ok(());
        }
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let deadline = Instant::now() + timeout;
        self.request(Request::Flush(sender, deadline))?;
        if let Some(forwarder) = self.forwarder() {
            forwarder.hurry();
        }
        match receiver.recv_deadline(deadline) {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(Error::Timeout("not everything recorded could be stored in time".to_owned()))
            }
        }
    }

    /// Ends the worker: what is queued is stored, what can be delivered in time is. Waits no longer than `timeout`, and
    /// not at all in a fork; a worker that takes longer goes on by itself.
    pub fn close(&self, timeout: Duration) {
        if self.started.load(Relaxed) == 0 || self.is_forked() {
            return;
        }
        if let Some(mut closing) = lock(&self.closing) {
            *closing = Some(Instant::now() + timeout);
        }
        if let Some(forwarder) = self.forwarder() {
            forwarder.close(timeout);
        }
        self.wake();
        // The worker says when it has ended; its thread needs no joining: the code stays mapped (-z nodelete).
        let _ = self.ended.1.recv_timeout(timeout);
    }

    /// Capacity of the queue.
    pub fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// The settings that count.
    pub fn settings(&self) -> Arc<HubSettings> {
        self.settings.load_full()
    }

    /// Leaves a message for the host's log.
    pub fn say(&self, level: Level, text: String) {
        let Some(mut messages) = lock(&self.messages) else { return };
        if messages.len() >= MAX_MESSAGES {
            messages.pop_front();
        }
        messages.push_back((level, text));
        self.has_message.store(true, Relaxed);
    }

    /// Whether a message waits; costs a load.
    pub fn has_message(&self) -> bool {
        self.has_message.load(Relaxed)
    }

    /// The oldest message that nobody has read; `None` also if another thread is reading one.
    pub fn message(&self) -> Option<(Level, String)> {
        let mut messages = self.messages.try_lock().ok()?;
        let first = messages.pop_front();
        self.has_message.store(!messages.is_empty(), Relaxed);
        first
    }

    /// What keeps events from the store or the cluster, in words to act on; empty if nothing does.
    pub fn sink_error(&self) -> String {
        if self.is_forked() {
            return Error::Forked.to_string();
        }
        if let Some(error) = self.store_error() {
            return error.to_string();
        }
        self.forwarder().map(|control| control.status().error).unwrap_or_default()
    }

    fn forwarder(&self) -> Option<Arc<elastic::Control>> {
        lock(&self.forwarder)?.clone()
    }

    fn store_error(&self) -> Option<Error> {
        lock(&self.store_error)?.clone()
    }

    fn set_store_error(&self, error: Option<Error>) {
        let Some(mut current) = lock(&self.store_error) else { return };
        match (&*current, &error) {
            (known, new) if known == new => return,
            (_, Some(new)) => self.say(Level::Error, new.to_string()),
            (Some(_), None) => self.say(Level::Notice, "store: works again".to_owned()),
            (None, None) => {}
        }
        *current = error;
    }

    fn each_subscriber(&self, call: impl Fn(&dyn Subscriber)) {
        // Called outside the lock: a subscriber may take its time.
        let Some(subscribers) = lock(&self.subscribers) else { return };
        let alive: Vec<_> = subscribers.iter().filter_map(Weak::upgrade).collect();
        drop(subscribers);
        for subscriber in alive {
            call(&*subscriber);
        }
    }
}
