//! The engine: a loaded model, a policy and a store, behind one call.
//!
//! [`Engine::classify`] takes no lock that another thread may hold, does no I/O and allocates nothing in steady state.
//! Everything it reads hangs on one pointer that reloads swap; what a swap retires is freed by the worker thread, never
//! by a query. Engines are found, shared and kept at rest by the registry at the end of this file (rule 6 of the C
//! header).

use crate::cache::{Cache, Entry};
use crate::config::{Config, RecordAllow, TestPanic};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::name::{MAX_WIRE, Name};
use crate::policy::breaker::Breaker;
use crate::policy::lists::Fingerprint;
use crate::policy::overrides::{Override, Overrides};
use crate::policy::{self, Policy, ReadLists, Rules};
use crate::stats::{self, Fate, Snapshot};
use crate::store::event::{Event, Privacy, now_ms};
use crate::store::{Hub, HubSettings, Level, Subscriber, sqlite};
use crate::suffix;
use crate::sys::{self, lock};
use crate::verdict::{
    Decision, FLAG_BREAKER, FLAG_CACHED, FLAG_DROPPED, FLAG_FAIL_OPEN, FLAG_MESSAGE, FLAG_OBSERVED,
    Source, Verdict,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use once_cell::sync::Lazy;
use serde_json::json;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// One in so many calls is timed: two looks at the clock cost half a cache hit.
const TIMED: u32 = 64;

/// Hash keys of this process, for the cache and the breaker.
static HASHER: Lazy<ahash::RandomState> = Lazy::new(ahash::RandomState::new);

/// Everything a call reads. Immutable; swapped whole.
struct State {
    config: Arc<Config>,
    model: Arc<Model>,
    model_id: u64,
    cache: Arc<Cache>,
    policy: Policy,
    overrides: Arc<Overrides>,
    lists: ReadLists,
    fingerprint: Fingerprint,
    breaker: Arc<Breaker>,
    privacy: Arc<Privacy>,
    hub: Arc<Hub>,
    /// Whether verdicts become events at all.
    records: bool,
    /// Whether the worker has something to watch or to write.
    needs_worker: bool,
    /// Whether the next call panics: `test.panic = score`.
    panics: bool,
}

/// A loaded model, a policy and a store. Any thread may use it.
pub struct Engine {
    state: ArcSwap<State>,
    /// States that a swap replaced; a call may still read them.
    retired: Mutex<Vec<Arc<State>>>,
    /// Serialises swaps.
    changing: Mutex<()>,
    started: Instant,
    /// How many handles there are; changed under the registry's lock.
    holders: AtomicUsize,
}

impl Engine {
    fn new(state: State, holders: usize) -> Engine {
        Engine {
            state: ArcSwap::from_pointee(state),
            retired: Mutex::default(),
            changing: Mutex::default(),
            started: Instant::now(),
            holders: AtomicUsize::new(holders),
        }
    }

    /// What is decided about a name, for a client if known. The question type is recorded; it decides nothing.
    /// A failure inside is allow and pass, flagged and counted.
    #[inline(always)]
    pub fn classify(&self, name: &Name, client: Option<IpAddr>, qtype: u16) -> Verdict {
        let ticket = stats::ticket();
        let is_timed = ticket.turn.is_multiple_of(TIMED);
        let began = is_timed.then(Instant::now);
        let state = self.state.load();
        if state.needs_worker {
            state.hub.start();
        }
        let client = client.map(canonical_address);
        let rules = state.policy.rules(client);
        let decided = state.policy.before_model(rules, name, client, now_ms);
        let scored = decided.is_none();
        let mut verdict = decided.unwrap_or_else(|| state.judge(rules, name, client));
        verdict.model = state.model_id;
        let fate = state.record(ticket, rules, name, client, qtype, scored, &verdict);
        if matches!(fate, Fate::DroppedQueue | Fate::DroppedForked) {
            verdict.flags |= FLAG_DROPPED;
        }
        if verdict.flags & (FLAG_OBSERVED | FLAG_BREAKER | FLAG_FAIL_OPEN) != 0 {
            state.count_rare(&verdict);
        }
        state.hub.stats.count(
            ticket,
            verdict.source,
            verdict.decision,
            verdict.flags & FLAG_CACHED != 0,
            fate,
        );
        if state.hub.has_message() {
            verdict.flags |= FLAG_MESSAGE;
        }
        if let Some(began) = began {
            state.hub.stats.time(began.elapsed());
            self.turn_breaker(&state);
        }
        verdict
    }

    fn turn_breaker(&self, state: &State) {
        if !state.breaker.is_on() {
            return;
        }
        // From one on: the breaker takes zero for "no window yet".
        let now =
            u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        if state.breaker.tick(now) {
            state.hub.say(
                Level::Notice,
                "the breaker has closed: the model's blocks are carried out again".to_owned(),
            );
        }
    }

    /// The model's score of a name, cached or not: no policy, no event, not counted.
    ///
    /// # Errors
    /// [`Error::Model`] if the model fails on this name.
    pub fn score(&self, name: &Name) -> Result<f32> {
        let state = self.state.load();
        Ok(state.scored(name)?.entry.score)
    }

    /// The verdict on a name with its reasons, as a JSON object. Records and counts nothing.
    ///
    /// # Errors
    /// [`Error::Model`] if the model fails on this name.
    pub fn explain(&self, name: &Name) -> Result<String> {
        let state = self.state.load();
        let rules = state.policy.rules(None);
        let decided = state.policy.before_model(rules, name, None, now_ms);
        let (verdict, explanation) = match decided {
            Some(verdict) => (verdict, None),
            None => {
                let explanation = state.model.explain(name)?;
                let verdict = state.policy.after_model(
                    rules,
                    name,
                    explanation.score,
                    state.breaker.is_open(),
                );
                (verdict, Some(explanation))
            }
        };
        let mut buffer = [0; MAX_WIRE];
        let dotted = name.dotted(&mut buffer);
        let registered = suffix::registered_domain(dotted).map(String::from_utf8_lossy);
        let flags =
            [(FLAG_OBSERVED, "observed"), (FLAG_BREAKER, "breaker"), (FLAG_FAIL_OPEN, "fail_open")];
        let flags: Vec<&str> = flags
            .iter()
            .filter(|(bit, _)| verdict.flags & bit != 0)
            .map(|(_, word)| *word)
            .collect();
        let answer = json!({
            "name": name.to_text(),
            "registered_domain": registered,
            "score": explanation.as_ref().map(|explanation| explanation.score),
            "label": verdict.label,
            "decision": verdict.decision,
            "source": verdict.source,
            "action": verdict.action,
            "flags": flags,
            "fpr": explanation.as_ref().map(|explanation| state.model.fpr(explanation.score)).filter(|&rate| rate > 0.0),
            "thresholds": { "vet": policy::set(rules.vet), "block": policy::set(rules.block) },
            "model": {
                "name": state.model.name(),
                "version": state.model.version(),
                "id": format!("{:016x}", state.model_id),
                "engine": state.model.engine(),
            },
            "explanation": explanation,
        });
        Ok(answer.to_string())
    }

    /// Puts other settings in force in one step; on an error the old ones stay.
    ///
    /// # Errors
    /// As [`open`]; also [`Error::Config`] if `instance` or `state_dir` would change.
    pub fn reload(self: &Arc<Engine>, config: &Config) -> Result<()> {
        config.check()?;
        config.elasticsearch.check_files()?;
        let model = load_model(config)?;
        let changing = lock(&self.changing).ok_or(Error::Forked)?;
        let old = self.state.load_full();
        if config.instance != old.config.instance {
            return Err(Error::Config(
                "instance: a reload cannot change it; make a new engine".to_owned(),
            ));
        }
        if config.state_dir != old.config.state_dir {
            return Err(Error::Config(
                "state_dir: a reload cannot change it; make a new engine".to_owned(),
            ));
        }
        let new = State::new(
            config.clone(),
            model,
            Arc::clone(&old.overrides),
            Arc::clone(&old.hub),
            Some(&old),
        )?;
        old.hub.stats.counters.reloads.fetch_add(1, Relaxed);
        drop(old);
        self.swap(new);
        drop(changing);
        if let Some(mut registry) = lock(&registry()) {
            registry.make_newest(self);
        }
        self.join_hub();
        Ok(())
    }

    fn swap(&self, new: State) {
        let old = self.state.swap(Arc::new(new));
        if let Some(mut retired) = lock(&self.retired) {
            retired.push(old);
        }
        self.free_retired();
    }

    /// Frees replaced states that no call reads any more.
    fn free_retired(&self) {
        if let Some(mut retired) = lock(&self.retired) {
            retired.retain(|state| Arc::strong_count(state) > 1);
        }
    }

    fn join_hub(self: &Arc<Engine>) {
        let state = self.state.load();
        let subscriber: Weak<dyn Subscriber> = Arc::downgrade(self) as Weak<dyn Subscriber>;
        state.hub.join(state.hub_settings(), state.model_id, subscriber);
        let overrides = state.hub.overrides();
        drop(state);
        // A store that is open already tells newcomers nothing by itself.
        if let Some(overrides) = overrides {
            self.overrides_changed(&overrides);
        }
    }

    /// Puts new overrides or lists in force.
    fn renew(
        &self,
        overrides: Option<Arc<Overrides>>,
        lists: Option<(ReadLists, Fingerprint)>,
    ) -> Result<()> {
        let _changing = lock(&self.changing).ok_or(Error::Forked)?;
        let old = self.state.load_full();
        let overrides = overrides.unwrap_or_else(|| Arc::clone(&old.overrides));
        let new = State::with_lists(
            (*old.config).clone(),
            Arc::clone(&old.model),
            overrides,
            Arc::clone(&old.hub),
            Some(&old),
            lists.unwrap_or_else(|| (old.lists.clone(), old.fingerprint.clone())),
        )?;
        drop(old);
        self.swap(new);
        Ok(())
    }

    /// Waits until what was recorded is durable; see [`Hub::flush`].
    ///
    /// # Errors
    /// See [`Hub::flush`].
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        self.hub().flush(timeout)
    }

    /// The counters of this engine and those that share its store.
    pub fn stats(&self) -> Snapshot {
        let hub = self.hub();
        hub.stats.snapshot(hub.capacity())
    }

    /// The counters as Prometheus text.
    pub fn metrics(&self) -> String {
        let state = self.state.load();
        let model = format!("{} {}", state.model.name(), state.model.version());
        state.hub.stats.prometheus(state.hub.capacity(), &model, state.model.engine())
    }

    /// What engines of one store share.
    pub fn hub(&self) -> Arc<Hub> {
        Arc::clone(&self.state.load().hub)
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.state.load().config)
    }

    /// The model in use.
    pub fn model(&self) -> Arc<Model> {
        Arc::clone(&self.state.load().model)
    }
}

impl Subscriber for Engine {
    fn overrides_changed(&self, all: &[Override]) {
        let renewed = self.renew(Some(Arc::new(Overrides::new(all.to_vec()))), None);
        if let Err(error) = renewed {
            self.hub().say(Level::Error, error.to_string());
        }
    }

    fn tick(&self) {
        self.free_retired();
        let (config, known) = {
            let state = self.state.load();
            (Arc::clone(&state.config), state.fingerprint.clone())
        };
        let now = Fingerprint::of(ReadLists::files(&config));
        if now == known {
            return;
        }
        let hub = self.hub();
        let (lists, text) = match ReadLists::read(&config) {
            Ok(lists) => (lists, (Level::Notice, "lists: changed files are in force".to_owned())),
            // The old lists stay; the fingerprint moves on, so that the message comes once.
            Err(error) => (
                self.state.load().lists.clone(),
                (Level::Error, format!("{error}; the old ones stay in force")),
            ),
        };
        match self.renew(None, Some((lists, now))) {
            Ok(()) => hub.say(text.0, text.1),
            Err(error) => hub.say(Level::Error, error.to_string()),
        }
    }
}

impl State {
    fn new(
        config: Config,
        model: Arc<Model>,
        overrides: Arc<Overrides>,
        hub: Arc<Hub>,
        old: Option<&State>,
    ) -> Result<State> {
        let fingerprint = Fingerprint::of(ReadLists::files(&config));
        let lists = ReadLists::read(&config)?;
        if lists.ignored() > 0 {
            hub.say(
                Level::Notice,
                format!(
                    "lists: {} lines said nothing about a name and were passed over",
                    lists.ignored()
                ),
            );
        }
        State::with_lists(config, model, overrides, hub, old, (lists, fingerprint))
    }

    fn with_lists(
        config: Config,
        model: Arc<Model>,
        overrides: Arc<Overrides>,
        hub: Arc<Hub>,
        old: Option<&State>,
        (lists, fingerprint): (ReadLists, Fingerprint),
    ) -> Result<State> {
        let thresholds = (model.vet_threshold(), model.block_threshold());
        let policy = Policy::new(&config, thresholds, &lists, Arc::clone(&overrides))?;
        let same_model = |old: &&State| {
            old.model.sha256() == model.sha256() && old.model.engine() == model.engine()
        };
        let cache = match old.filter(same_model) {
            Some(old) if old.config.cache_entries == config.cache_entries => Arc::clone(&old.cache),
            _ => Arc::new(Cache::new(config.cache_entries)),
        };
        let breaker_of = |config: &Config| {
            (
                config.breaker_max_block_ratio.to_bits(),
                config.breaker_window_s,
                config.breaker_min_queries,
            )
        };
        let breaker = match old {
            Some(old) if breaker_of(&old.config) == breaker_of(&config) => Arc::clone(&old.breaker),
            _ => Arc::new(Breaker::new(
                f64::from(config.breaker_max_block_ratio),
                config.breaker_window_s,
                config.breaker_min_queries,
            )),
        };
        let records = config.state_dir.is_some() || !config.elasticsearch.urls.is_empty();
        let watches = config.metrics_file.is_some() || ReadLists::files(&config).next().is_some();
        Ok(State {
            privacy: Arc::new(Privacy::new(&config)?),
            model_id: model.id(),
            panics: config.test_panic == Some(TestPanic::Score),
            config: Arc::new(config),
            model,
            cache,
            policy,
            overrides,
            lists,
            fingerprint,
            breaker,
            hub,
            records,
            needs_worker: records || watches,
        })
    }

    fn hub_settings(&self) -> HubSettings {
        HubSettings {
            config: Arc::clone(&self.config),
            model: (self.model.name().to_owned(), self.model.version().to_owned()),
            engine: self.model.engine(),
        }
    }

    /// The name's score from the cache or the model.
    #[inline]
    fn scored(&self, name: &Name) -> Result<Scored> {
        if self.panics {
            // Unwinds as a panic does, and like one it reaches the guard of the C ABI.
            std::panic::resume_unwind(Box::new("test.panic = score"));
        }
        let hash = hash_of(name.wire());
        if let Some(entry) = self.cache.get(hash) {
            return Ok(Scored { entry, hash, cached: true });
        }
        self.score_anew(name, hash)
    }

    fn score_anew(&self, name: &Name, hash: u64) -> Result<Scored> {
        let mut buffer = [0; MAX_WIRE];
        let dotted = name.dotted(&mut buffer);
        let suffix = suffix::suffix_start(dotted);
        let score = self.model.score_with_suffix(name, suffix)?;
        // A label that begins at byte n of the dotted form has its length byte at byte n of the wire form.
        let registered = suffix::registered_start(dotted, suffix);
        let registered = registered.and_then(|start| u8::try_from(start).ok()).unwrap_or(0);
        let entry = Entry::new(score, registered, self.model.fpr(score));
        self.cache.put(hash, entry);
        self.hub.stats.scored(score);
        Ok(Scored { entry, hash, cached: false })
    }

    /// What the model and the thresholds say.
    #[inline(always)]
    fn judge(&self, rules: &Rules, name: &Name, client: Option<IpAddr>) -> Verdict {
        let Ok(Scored { entry, hash, cached }) = self.scored(name) else {
            return Verdict { flags: FLAG_FAIL_OPEN, ..Verdict::default() };
        };
        let mut verdict = self.policy.after_model(rules, name, entry.score, self.breaker.is_open());
        verdict.fpr = entry.fpr;
        if cached {
            verdict.flags |= FLAG_CACHED;
        }
        if verdict.source == Source::Model && rules.block <= 1.0 && self.breaker.is_on() {
            let domain = match entry.registered {
                0 => hash,
                start => hash_of(name.wire().get(usize::from(start)..).unwrap_or(&[])),
            };
            let voter = client.map_or(domain, |client| domain ^ HASHER.hash_one(client));
            if self.breaker.vote(voter, verdict.decision == Decision::Block) {
                self.say_breaker_opened();
            }
        }
        verdict
    }

    #[cold]
    fn say_breaker_opened(&self) {
        let limit = self.config.breaker_max_block_ratio;
        let text = format!(
            "the breaker has opened: the model blocks more than breaker.max_block_ratio = {limit} of its decisions; its blocks pass until that ends"
        );
        self.hub.say(Level::Error, text);
    }

    /// Makes the verdict an event, if it is one.
    #[allow(clippy::too_many_arguments, reason = "the parts of one event, on their way into it")]
    fn record(
        self: &Arc<State>,
        ticket: stats::Ticket,
        rules: &Rules,
        name: &Name,
        client: Option<IpAddr>,
        qtype: u16,
        scored: bool,
        verdict: &Verdict,
    ) -> Fate {
        if !self.records || verdict.source == Source::Skipped {
            return Fate::NotRecorded;
        }
        if verdict.decision == Decision::Allow {
            match self.config.record_allow {
                RecordAllow::All => {}
                RecordAllow::None => return Fate::NotRecorded,
                RecordAllow::Sample(count) => {
                    let drawn = HASHER.hash_one((ticket.turn, name.wire().len()));
                    if !drawn.is_multiple_of(u64::from(count)) {
                        return Fate::SampledOut;
                    }
                }
            }
        }
        self.hub.push(Event {
            time: now_ms(),
            name: *name,
            client: self.privacy.keep(client),
            client_mode: self.privacy.mode(),
            qtype,
            verdict: *verdict,
            scored,
            thresholds: (rules.vet, rules.block),
            group: rules.group.clone(),
        })
    }

    fn count_rare(&self, verdict: &Verdict) {
        let count = &self.hub.stats.counters;
        for (flag, counter) in [
            (FLAG_OBSERVED, &count.observed),
            (FLAG_BREAKER, &count.breaker),
            (FLAG_FAIL_OPEN, &count.fail_open),
        ] {
            if verdict.flags & flag != 0 {
                counter.fetch_add(1, Relaxed);
            }
        }
    }
}

/// A name's score, the hash of the name, and whether the score was cached.
struct Scored {
    entry: Entry,
    hash: u64,
    cached: bool,
}

/// A hash of a name's wire form, whose length is in itself.
#[inline]
fn hash_of(wire: &[u8]) -> u64 {
    let mut hasher = HASHER.build_hasher();
    hasher.write(wire);
    hasher.finish()
}

/// IPv4 clients that come in IPv6's clothes (`::ffff:192.0.2.1`) are IPv4 clients.
fn canonical_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn load_model(config: &Config) -> Result<Arc<Model>> {
    let model = match &config.model_path {
        Some(path) => {
            Model::load(path, config.model_engine).map_err(|error| error.under("model.path: "))?
        }
        None => Model::embedded(config.model_engine)?,
    };
    Ok(Arc::new(model))
}

// The registry: engines by instance, hubs by state directory. Touched by init, attach and free only.

/// What makes engines share a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HubKey {
    Directory(PathBuf),
    Instance(String),
}

struct SharedHub {
    key: Option<HubKey>,
    hub: Arc<Hub>,
    users: usize,
}

#[derive(Default)]
struct Registry {
    hubs: Vec<SharedHub>,
    /// The engines of each instance: those in use and the newest, which stands last and may be at rest.
    instances: HashMap<String, Vec<Arc<Engine>>>,
}

/// The registry of this process. A forked child goes on with its parent's, unless another thread held that at the fork:
/// then it begins with an empty one.
static REGISTRY: ArcSwapOption<Mutex<Registry>> = ArcSwapOption::const_empty();

fn registry() -> Arc<Mutex<Registry>> {
    loop {
        if let Some(registry) = REGISTRY.load_full() {
            return registry;
        }
        REGISTRY.compare_and_swap(&None::<Arc<Mutex<Registry>>>, Some(Arc::default()));
    }
}

/// Runs in a forked child before anything else.
fn forget_held_registry() {
    let is_held = REGISTRY.load().as_ref().is_some_and(|registry| registry.try_lock().is_err());
    if is_held {
        // Its holder does not exist here; what it was changing is left as it is.
        std::mem::forget(REGISTRY.swap(None));
    }
}

/// Makes an engine, or gives the instance's engine if its settings are the same. Reads files, leaves nothing behind,
/// connects to nothing.
///
/// # Errors
/// [`Error::Config`], [`Error::Io`] or [`Error::Model`], naming the setting or the file.
pub fn open(config: &Config) -> Result<Arc<Engine>> {
    config.check()?;
    config.elasticsearch.check_files()?;
    sys::watch_forks(forget_held_registry);
    let model = load_model(config)?;
    let registry = registry();
    let mut registry = lock(&registry).ok_or(Error::Forked)?;
    if let Some(same) = registry.equal(config, &model) {
        registry.hold(&same)?;
        registry.make_newest(&same);
        same.join_hub();
        return Ok(same);
    }
    let overrides = match &config.state_dir {
        Some(directory) => Arc::new(Overrides::new(read_overrides(directory)?)),
        None => Arc::default(),
    };
    let settings = HubSettings {
        config: Arc::new(config.clone()),
        model: (model.name().to_owned(), model.version().to_owned()),
        engine: model.engine(),
    };
    let hub = registry.hub(config, settings);
    // The overrides of a store that is open here are better than those on disk.
    let state = State::new(config.clone(), model, overrides, hub, None)?;
    let engine = Arc::new(Engine::new(state, 1));
    registry.use_hub(&engine.hub(), hub_key(config));
    engine.join_hub();
    registry.make_newest(&engine);
    Ok(engine)
}

/// An engine that looks at a store's overrides and records nothing: the command line's. Other processes may hold the
/// store meanwhile. It is not in the registry; dropping it is enough.
///
/// # Errors
/// As [`open`].
pub fn open_unrecorded(config: &Config) -> Result<Engine> {
    config.check()?;
    let overrides = match &config.state_dir {
        Some(directory) => {
            sqlite::overrides_at_rest(directory, sys::DirectoryLock::holder(directory).is_some())?
        }
        None => Vec::new(),
    };
    let mut config = config.clone();
    (config.instance, config.state_dir, config.metrics_file) = (None, None, None);
    config.elasticsearch.urls.clear();
    // A file of names is no traffic: what one of them is answered does not depend on how many others are blocked.
    config.breaker_max_block_ratio = 1.0;
    let model = load_model(&config)?;
    let hub = Hub::new(HubSettings {
        config: Arc::new(config.clone()),
        model: (model.name().to_owned(), model.version().to_owned()),
        engine: model.engine(),
    });
    Ok(Engine::new(State::new(config, model, Arc::new(Overrides::new(overrides)), hub, None)?, 0))
}

/// Another handle to the newest engine of an instance, in use or at rest.
///
/// # Errors
/// [`Error::Invalid`] if the instance never had an engine.
pub fn attach(instance: &str) -> Result<Arc<Engine>> {
    let registry = registry();
    let mut registry = lock(&registry).ok_or(Error::Forked)?;
    let newest =
        registry.instances.get(instance).and_then(|engines| engines.last()).map(Arc::clone);
    let engine = newest
        .ok_or_else(|| Error::Invalid(format!("instance: \"{instance}\" has no engine yet")))?;
    registry.hold(&engine)?;
    engine.join_hub();
    Ok(engine)
}

/// Gives a handle back. With the last one the engine comes to rest: what is queued is stored, the worker ends, the store
/// is closed, all within `close_timeout_ms`.
pub fn release(engine: &Arc<Engine>) {
    let registry = registry();
    let Some(mut registry) = lock(&registry) else { return };
    if engine.holders.load(Relaxed) == 0 || engine.holders.fetch_sub(1, Relaxed) > 1 {
        return;
    }
    registry.forget_superseded(engine);
    let hub = engine.hub();
    let Some(at) = registry.hubs.iter().position(|shared| Arc::ptr_eq(&shared.hub, &hub)) else {
        return;
    };
    let Some(shared) = registry.hubs.get_mut(at) else { return };
    shared.users -= 1;
    if shared.users == 0 {
        registry.hubs.swap_remove(at);
        // Under the registry's lock: an init of the same directory has to find it free.
        hub.close(Duration::from_millis(engine.config().close_timeout_ms));
    }
    engine.free_retired();
}

impl Registry {
    /// The instance's engine that has these settings and this model, if there is one.
    fn equal(&self, config: &Config, model: &Model) -> Option<Arc<Engine>> {
        let engines = self.instances.get(config.instance.as_ref()?)?;
        let same = |engine: &&Arc<Engine>| {
            *engine.config() == *config && engine.model().sha256() == model.sha256()
        };
        engines.iter().rev().find(same).map(Arc::clone)
    }

    /// Makes an engine its instance's newest; one at rest that it replaces is let go.
    fn make_newest(&mut self, engine: &Arc<Engine>) {
        let Some(name) = engine.config().instance.clone() else { return };
        let engines = self.instances.entry(name).or_default();
        engines.retain(|known| !Arc::ptr_eq(known, engine) && known.holders.load(Relaxed) > 0);
        engines.push(Arc::clone(engine));
    }

    /// Lets go of an engine without holders, unless it is its instance's newest.
    fn forget_superseded(&mut self, engine: &Arc<Engine>) {
        let name = engine.config().instance.clone();
        let Some(engines) = name.and_then(|name| self.instances.get_mut(&name)) else { return };
        if engines.last().is_some_and(|newest| !Arc::ptr_eq(newest, engine)) {
            engines.retain(|known| !Arc::ptr_eq(known, engine));
        }
    }

    /// One more handle to an engine; one at rest gets a new hub.
    fn hold(&mut self, engine: &Arc<Engine>) -> Result<()> {
        if engine.holders.load(Relaxed) == 0 {
            let _changing = lock(&engine.changing).ok_or(Error::Forked)?;
            let old = engine.state.load_full();
            let hub = self.hub(&old.config, old.hub_settings());
            let lists = (old.lists.clone(), old.fingerprint.clone());
            let state = State::with_lists(
                (*old.config).clone(),
                Arc::clone(&old.model),
                Arc::clone(&old.overrides),
                Arc::clone(&hub),
                Some(&old),
                lists,
            )?;
            self.use_hub(&hub, hub_key(&old.config));
            engine.swap(state);
        }
        engine.holders.fetch_add(1, Relaxed);
        Ok(())
    }

    /// The hub that an engine of these settings uses: a shared one, or a new one.
    fn hub(&self, config: &Config, settings: HubSettings) -> Arc<Hub> {
        let key = hub_key(config);
        let shared = self.hubs.iter().find(|shared| key.is_some() && shared.key == key);
        shared.map_or_else(|| Hub::new(settings), |shared| Arc::clone(&shared.hub))
    }

    fn use_hub(&mut self, hub: &Arc<Hub>, key: Option<HubKey>) {
        match self.hubs.iter_mut().find(|shared| Arc::ptr_eq(&shared.hub, hub)) {
            Some(shared) => shared.users += 1,
            None => self.hubs.push(SharedHub { key, hub: Arc::clone(hub), users: 1 }),
        }
    }
}

fn hub_key(config: &Config) -> Option<HubKey> {
    match (&config.state_dir, &config.instance) {
        (Some(directory), _) => {
            // The directory may not be there yet; its parent is.
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = std::fs::canonicalize(parent.unwrap_or_else(|| std::path::Path::new(".")));
            let name = directory.file_name();
            Some(HubKey::Directory(match (parent, name) {
                (Ok(parent), Some(name)) => parent.join(name),
                _ => directory.clone(),
            }))
        }
        (None, Some(instance)) => Some(HubKey::Instance(instance.clone())),
        (None, None) => None,
    }
}

/// Looks at the state directory without leaving a trace, and reads its overrides.
fn read_overrides(directory: &std::path::Path) -> Result<Vec<Override>> {
    let exists = sys::check_directory(directory)?.is_some();
    if !sys::can_write(directory) {
        let reason = if exists {
            "this user may not write to it"
        } else {
            "it is not there and this user may not make it"
        };
        return Err(Error::Io(format!("state_dir: {}: {reason}", directory.display())));
    }
    let holder = sys::DirectoryLock::holder(directory);
    if holder == Some(std::process::id()) {
        // Our own worker has the database open, and tells every engine that joins it.
        return Ok(Vec::new());
    }
    // A file that is no store is the worker's to set aside; it is no reason not to start.
    Ok(sqlite::overrides_at_rest(directory, holder.is_some()).unwrap_or_default())
}
