//! Settings: one table says each key, its default, its bounds and its help; parsing, error texts and the README's
//! reference come from it.
//!
//! Every host hands over strings, so every setting is a string key with a string value. A TOML file has the same keys in
//! tables. A list is separated by commas in a string and is an array in TOML; a later value replaces an earlier one.
//! The only file read here is the TOML file itself; those that settings name are read where they are used.

use crate::elastic;
use crate::error::{Error, Result};
use crate::model::EngineChoice;
use crate::name::Name;
use crate::verdict::Action;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest settings file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Whether decisions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Decisions become actions.
    #[default]
    Enforce,
    /// Decisions are recorded; every action is pass.
    Observe,
}

/// Which allowed names become events. Names to vet and blocked names always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordAllow {
    /// None of them.
    None,
    /// One in so many, at random.
    Sample(u32),
    /// Each of them.
    All,
}

/// What is kept of a client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordClient {
    /// The whole address.
    Full,
    /// The network: /24 for IPv4, /48 for IPv6.
    #[default]
    Truncate,
    /// A keyed hash (HMAC-SHA-256) of the address.
    Hmac,
    /// Nothing.
    None,
}

/// What a group of clients has of its own; what is unset comes from the settings outside the groups.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Group {
    /// Networks whose clients belong to the group; the longest prefix of all groups wins.
    pub cidr: Vec<IpNet>,
    /// See [`Config::mode`].
    pub mode: Option<Mode>,
    /// See [`Config::threshold_vet`].
    pub threshold_vet: Option<f32>,
    /// See [`Config::threshold_block`].
    pub threshold_block: Option<f32>,
    /// See [`Config::block_action`].
    pub block_action: Option<Action>,
    /// Allow lists asked before the global lists.
    pub lists_allow: Vec<PathBuf>,
    /// Block lists asked before the global lists.
    pub lists_block: Vec<PathBuf>,
}

/// All settings of an engine, parsed.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the table below documents each setting once")]
pub struct Config {
    pub instance: Option<String>,
    pub mode: Mode,
    pub state_dir: Option<PathBuf>,
    pub store_max_mib: u64,
    pub store_max_days: u64,
    pub store_flush_ms: u64,
    pub metrics_file: Option<PathBuf>,
    pub model_path: Option<PathBuf>,
    pub model_engine: EngineChoice,
    pub threshold_vet: Option<f32>,
    pub threshold_block: Option<f32>,
    pub block_action: Action,
    pub block_ttl: u32,
    pub sinkhole_ipv4: Option<Ipv4Addr>,
    pub sinkhole_ipv6: Option<Ipv6Addr>,
    pub honeypot_ipv4: Option<Ipv4Addr>,
    pub honeypot_ipv6: Option<Ipv6Addr>,
    pub vet_action: Action,
    pub lists_allow: Vec<PathBuf>,
    pub lists_block: Vec<PathBuf>,
    pub lists_popular: Vec<PathBuf>,
    pub zones_own: Vec<Name>,
    pub groups: BTreeMap<String, Group>,
    pub breaker_max_block_ratio: f32,
    pub breaker_window_s: u64,
    pub breaker_min_queries: u64,
    pub cache_entries: usize,
    pub record_allow: RecordAllow,
    pub record_coalesce_s: u64,
    pub record_client: RecordClient,
    pub record_hmac_key_file: Option<PathBuf>,
    pub elasticsearch: elastic::Settings,
    pub close_timeout_ms: u64,
    pub queue_events: usize,
    /// `batch.threads`
    pub batch_threads: usize,
    pub test_panic: Option<TestPanic>,
}

/// Where the test-only setting `test.panic` makes the library panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestPanic {
    /// In every call that scores.
    Score,
    /// In every turn of the worker thread.
    Worker,
}

/// One row of the table of settings.
pub struct Setting {
    /// The key; `NAME` stands for a name chosen by the user.
    pub key: &'static str,
    /// The default, as a user would write it; empty for unset.
    pub default: &'static str,
    /// What it does, its unit and its bounds.
    pub help: &'static str,
    set: Setter,
}

enum Setter {
    One(fn(&mut Config, &str, &Base<'_>) -> Parsed),
    Many(fn(&mut Config, &[String], &Base<'_>) -> Parsed),
    InGroup(fn(&mut Group, &[String], &Base<'_>) -> Parsed),
    NotYet,
}

type Parsed = std::result::Result<(), String>;

/// Where relative paths begin: the folder of the settings file, or the process's working directory.
struct Base<'a>(Option<&'a Path>);

impl Base<'_> {
    fn path(&self, value: &str) -> std::result::Result<PathBuf, String> {
        if value.is_empty() {
            return Err("is not a path".to_owned());
        }
        // Made absolute now: a host may change its working directory before the path is used.
        let path = self.0.map_or_else(|| PathBuf::from(value), |folder| folder.join(value));
        std::path::absolute(path).map_err(|error| format!("is not a path: {error}"))
    }

    fn paths(&self, values: &[String]) -> std::result::Result<Vec<PathBuf>, String> {
        values.iter().map(|value| self.path(value)).collect()
    }
}

macro_rules! one {
    ($config:ident, $value:ident, $base:ident => $body:expr) => {
        Setter::One(|$config, $value, $base| {
            let _ = $base;
            $body;
            Ok(())
        })
    };
}

macro_rules! many {
    ($config:ident, $values:ident, $base:ident => $body:expr) => {
        Setter::Many(|$config, $values, $base| {
            let _ = $base;
            $body;
            Ok(())
        })
    };
}

macro_rules! group {
    ($group:ident, $values:ident, $base:ident => $body:expr) => {
        Setter::InGroup(|$group, $values, $base| {
            let _ = $base;
            $body;
            Ok(())
        })
    };
}

/// Every setting there is.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting { key: "instance", default: "", help: "name under which engines of one process are shared: equal settings give the same engine", set: one!(c, v, _b => c.instance = Some(word(v)?)) },
    Setting { key: "mode", default: "enforce", help: "`enforce`, or `observe`: decide and record, but always pass", set: one!(c, v, _b => c.mode = mode(v)?) },
    Setting { key: "state_dir", default: "", help: "directory of the embedded store, mode 0700; unset: nothing on disk", set: one!(c, v, b => c.state_dir = Some(b.path(v)?)) },
    Setting { key: "store.max_mib", default: "1024", help: "largest size of the store in MiB, 8 to 1048576; the oldest rows leave first", set: one!(c, v, _b => c.store_max_mib = number(v, 8, 1 << 20)?) },
    Setting { key: "store.max_days", default: "30", help: "days that a row is kept, 1 to 3650", set: one!(c, v, _b => c.store_max_days = number(v, 1, 3650)?) },
    Setting { key: "store.flush_ms", default: "1000", help: "longest time in milliseconds between an event and its commit, 10 to 60000", set: one!(c, v, _b => c.store_flush_ms = number(v, 10, 60_000)?) },
    Setting { key: "metrics.file", default: "", help: "file that gets the metrics as Prometheus text every 15 seconds (for node_exporter's textfile collector)", set: one!(c, v, b => c.metrics_file = Some(b.path(v)?)) },
    Setting { key: "model.path", default: "", help: "directory with `model.onnx` and `manifest.json`; unset: the model inside the library", set: one!(c, v, b => c.model_path = Some(b.path(v)?)) },
    Setting { key: "model.engine", default: "auto", help: "`fused` (fast kernels), `tract`, or `auto`: fused where the model's shape is known", set: one!(c, v, _b => c.model_engine = EngineChoice::parse(v).ok_or("is not auto, fused or tract")?) },
    Setting { key: "model.shadow", default: "", help: "directory of a second model that scores beside the first", set: Setter::NotYet },
    Setting { key: "threshold.vet", default: "", help: "score from which a name is to be vetted, 0 to 1; unset: the manifest's", set: one!(c, v, _b => c.threshold_vet = Some(share(v)?)) },
    Setting { key: "threshold.block", default: "", help: "score from which a name is blocked, 0 to 1; unset: the manifest's", set: one!(c, v, _b => c.threshold_block = Some(share(v)?)) },
    Setting { key: "block.action", default: "nxdomain", help: "answer to a blocked name: `nxdomain`, `nodata`, `refused`, `sinkhole`, `drop` or `pass`", set: one!(c, v, _b => c.block_action = action(v)?) },
    Setting { key: "block.ttl", default: "60", help: "time to live, in seconds, of answers made up for blocked names, 0 to 604800", set: one!(c, v, _b => c.block_ttl = number(v, 0, 604_800)?) },
    Setting { key: "sinkhole.ipv4", default: "", help: "address for A questions when the action is `sinkhole`", set: one!(c, v, _b => c.sinkhole_ipv4 = Some(ipv4(v)?)) },
    Setting { key: "sinkhole.ipv6", default: "", help: "address for AAAA questions when the action is `sinkhole`", set: one!(c, v, _b => c.sinkhole_ipv6 = Some(ipv6(v)?)) },
    Setting { key: "honeypot.ipv4", default: "", help: "address for A questions to names with a `honeypot` override", set: one!(c, v, _b => c.honeypot_ipv4 = Some(ipv4(v)?)) },
    Setting { key: "honeypot.ipv6", default: "", help: "address for AAAA questions to names with a `honeypot` override", set: one!(c, v, _b => c.honeypot_ipv6 = Some(ipv6(v)?)) },
    Setting { key: "vet.action", default: "pass", help: "answer to a name that is to be vetted; as `block.action`", set: one!(c, v, _b => c.vet_action = action(v)?) },
    Setting { key: "lists.allow", default: "", help: "files of names to allow; reread when they change", set: many!(c, v, b => c.lists_allow = b.paths(v)?) },
    Setting { key: "lists.block", default: "", help: "files of names to block; reread when they change", set: many!(c, v, b => c.lists_block = b.paths(v)?) },
    Setting { key: "lists.popular", default: "", help: "files of popular registered domains, such as Tranco's CSV, that the model may not block", set: many!(c, v, b => c.lists_popular = b.paths(v)?) },
    Setting { key: "zones.own", default: "", help: "zones whose names are never scored", set: many!(c, v, _b => c.zones_own = names(v)?) },
    Setting { key: "groups.NAME.cidr", default: "", help: "networks of the clients in group NAME; the longest prefix wins", set: group!(g, v, _b => g.cidr = networks(v)?) },
    Setting { key: "groups.NAME.mode", default: "", help: "`mode` for the group", set: group!(g, v, _b => g.mode = Some(mode(single(v)?)?)) },
    Setting { key: "groups.NAME.threshold.vet", default: "", help: "`threshold.vet` for the group", set: group!(g, v, _b => g.threshold_vet = Some(share(single(v)?)?)) },
    Setting { key: "groups.NAME.threshold.block", default: "", help: "`threshold.block` for the group", set: group!(g, v, _b => g.threshold_block = Some(share(single(v)?)?)) },
    Setting { key: "groups.NAME.block.action", default: "", help: "`block.action` for the group", set: group!(g, v, _b => g.block_action = Some(action(single(v)?)?)) },
    Setting { key: "groups.NAME.lists.allow", default: "", help: "allow lists of the group, asked before the global ones", set: group!(g, v, b => g.lists_allow = b.paths(v)?) },
    Setting { key: "groups.NAME.lists.block", default: "", help: "block lists of the group, asked before the global ones", set: group!(g, v, b => g.lists_block = b.paths(v)?) },
    Setting { key: "breaker.max_block_ratio", default: "0.05", help: "share of the model's decisions, 0 to 1, above which its blocks turn into passes; 1 switches the breaker off", set: one!(c, v, _b => c.breaker_max_block_ratio = share(v)?) },
    Setting { key: "breaker.window_s", default: "60", help: "seconds over which that share is taken, 1 to 86400", set: one!(c, v, _b => c.breaker_window_s = number(v, 1, 86_400)?) },
    Setting { key: "breaker.min_queries", default: "1000", help: "decisions in the window, one a registered domain and client, below which the breaker stays closed, 1 to 100000", set: one!(c, v, _b => c.breaker_min_queries = number(v, 1, 100_000)?) },
    Setting { key: "cache.entries", default: "65536", help: "scores kept, 16 bytes each, rounded up to a power of two; 0 switches the cache off; at most 16777216", set: one!(c, v, _b => c.cache_entries = number(v, 0, 1 << 24)?) },
    Setting { key: "record.allow", default: "sample:100", help: "which allowed names are recorded: `none`, `sample:N` (one in N), `all`", set: one!(c, v, _b => c.record_allow = record_allow(v)?) },
    Setting { key: "record.coalesce_s", default: "10", help: "seconds in which equal verdicts on one name for one client become one row with a count, 0 to 3600", set: one!(c, v, _b => c.record_coalesce_s = number(v, 0, 3600)?) },
    Setting { key: "record.client", default: "truncate", help: "what is kept of a client: `full`, `truncate` (/24 and /48), `hmac` or `none`", set: one!(c, v, _b => c.record_client = record_client(v)?) },
    Setting { key: "record.hmac_key_file", default: "", help: "file with the key for `record.client = hmac`, at least 16 bytes", set: one!(c, v, b => c.record_hmac_key_file = Some(b.path(v)?)) },
    Setting { key: "elasticsearch.urls", default: "", help: "nodes of the cluster (http or https); unset: nothing is forwarded", set: many!(c, v, _b => c.elasticsearch.urls = urls(v)?) },
    Setting { key: "elasticsearch.api_key_file", default: "", help: "file with the API key, `id:key` or its base64 form", set: one!(c, v, b => c.elasticsearch.api_key_file = Some(b.path(v)?)) },
    Setting { key: "elasticsearch.username", default: "", help: "user for basic authentication", set: one!(c, v, _b => c.elasticsearch.username = Some(v.to_owned())) },
    Setting { key: "elasticsearch.password_file", default: "", help: "file with that user's password", set: one!(c, v, b => c.elasticsearch.password_file = Some(b.path(v)?)) },
    Setting { key: "elasticsearch.ca_file", default: "", help: "PEM file of the certificate authority to trust", set: one!(c, v, b => c.elasticsearch.ca_file = Some(b.path(v)?)) },
    Setting { key: "elasticsearch.client_cert", default: "", help: "PEM file of the client's certificate chain", set: one!(c, v, b => c.elasticsearch.client_cert = Some(b.path(v)?)) },
    Setting { key: "elasticsearch.client_key", default: "", help: "PEM file of the client's key", set: one!(c, v, b => c.elasticsearch.client_key = Some(b.path(v)?)) },
    Setting { key: "elasticsearch.namespace", default: "default", help: "last part of the data streams' names", set: one!(c, v, _b => c.elasticsearch.namespace = namespace(v)?) },
    Setting { key: "elasticsearch.setup", default: "true", help: "install templates and policies that are absent or older", set: one!(c, v, _b => c.elasticsearch.setup = boolean(v)?) },
    Setting { key: "elasticsearch.overrides", default: "false", help: "take over decisions made in the index `mlbridge-vetting`", set: one!(c, v, _b => c.elasticsearch.overrides = boolean(v)?) },
    Setting { key: "elasticsearch.poll_s", default: "10", help: "seconds between two looks at that index, 1 to 3600", set: one!(c, v, _b => c.elasticsearch.poll = Duration::from_secs(number(v, 1, 3600)?)) },
    Setting { key: "alert.webhook_url", default: "", help: "URL that gets alerts", set: Setter::NotYet },
    Setting { key: "alert.min_interval_s", default: "", help: "seconds between two alerts", set: Setter::NotYet },
    Setting { key: "close_timeout_ms", default: "2000", help: "longest time in milliseconds that freeing an engine may wait, 0 to 60000", set: one!(c, v, _b => c.close_timeout_ms = number(v, 0, 60_000)?) },
    Setting { key: "queue.events", default: "8192", help: "events that may wait for the worker thread, 16 to 1048576; made at the first event", set: one!(c, v, _b => c.queue_events = number(v, 16, 1 << 20)?) },
    Setting { key: "batch.threads", default: "1", help: "threads that score one batch (`mlb_score_batch`), 1 to 256; 0: one a processor", set: one!(c, v, _b => c.batch_threads = number(v, 0, 256)?) },
    Setting { key: "test.panic", default: "", help: "for tests only: panic in `score` or in the `worker`", set: one!(c, v, _b => c.test_panic = Some(test_panic(v)?)) },
];

impl Default for Config {
    fn default() -> Config {
        Config {
            instance: None,
            mode: Mode::Enforce,
            state_dir: None,
            store_max_mib: 1024,
            store_max_days: 30,
            store_flush_ms: 1000,
            metrics_file: None,
            model_path: None,
            model_engine: EngineChoice::Auto,
            threshold_vet: None,
            threshold_block: None,
            block_action: Action::Nxdomain,
            block_ttl: 60,
            sinkhole_ipv4: None,
            sinkhole_ipv6: None,
            honeypot_ipv4: None,
            honeypot_ipv6: None,
            vet_action: Action::Pass,
            lists_allow: Vec::new(),
            lists_block: Vec::new(),
            lists_popular: Vec::new(),
            zones_own: Vec::new(),
            groups: BTreeMap::new(),
            breaker_max_block_ratio: 0.05,
            breaker_window_s: 60,
            breaker_min_queries: 1000,
            cache_entries: 65_536,
            record_allow: RecordAllow::Sample(100),
            record_coalesce_s: 10,
            record_client: RecordClient::Truncate,
            record_hmac_key_file: None,
            elasticsearch: elastic::Settings::default(),
            close_timeout_ms: 2000,
            queue_events: 8192,
            batch_threads: 1,
            test_panic: None,
        }
    }
}

impl Config {
    /// Sets one setting from a string; relative paths begin at the working directory.
    ///
    /// # Errors
    /// [`Error::Config`] that names the key and the value; the settings are then unchanged.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        self.apply(key, Value::Text(value.to_owned()), &Base(None))
    }

    /// Reads settings from a TOML file; relative paths begin at its folder. All or nothing.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read or others may write to it, [`Error::Config`] for what it says.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let text = crate::sys::read_trusted_file(path, MAX_FILE)?;
        let text = String::from_utf8(text).map_err(|_| Error::file(path, "not UTF-8 text"))?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| {
            Error::Config(format!(
                "{}: {}",
                path.display(),
                error.to_string().trim().replace('\n', " ")
            ))
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let base = Base(Some(folder.unwrap_or(Path::new("."))));
        let mut loaded = self.clone();
        for (key, value) in flatten(table)? {
            loaded
                .apply(&key, value, &base)
                .map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
        }
        *self = loaded;
        Ok(())
    }

    /// What no single setting can tell: settings that contradict each other.
    ///
    /// # Errors
    /// [`Error::Config`] that names the settings.
    pub fn check(&self) -> Result<()> {
        if self.sinkhole_ipv4.is_none()
            && self.sinkhole_ipv6.is_none()
            && let Some(key) = self.asks_for_sinkhole()
        {
            return Err(Error::Config(format!(
                "{key}: \"sinkhole\" needs sinkhole.ipv4 or sinkhole.ipv6"
            )));
        }
        for (name, group) in &self.groups {
            if group.cidr.is_empty() {
                return Err(Error::Config(format!("groups.{name}.cidr: the group has no network")));
            }
        }
        if self.record_client == RecordClient::Hmac && self.record_hmac_key_file.is_none() {
            return Err(Error::Config(
                "record.client: \"hmac\" needs record.hmac_key_file".to_owned(),
            ));
        }
        self.elasticsearch.check()
    }

    /// A key whose action is a sinkhole.
    fn asks_for_sinkhole(&self) -> Option<String> {
        if self.block_action == Action::Sinkhole {
            return Some("block.action".to_owned());
        }
        if self.vet_action == Action::Sinkhole {
            return Some("vet.action".to_owned());
        }
        let mut groups = self.groups.iter();
        groups
            .find(|(_, group)| group.block_action == Some(Action::Sinkhole))
            .map(|(name, _)| format!("groups.{name}.block.action"))
    }

    fn apply(&mut self, key: &str, value: Value, base: &Base<'_>) -> Result<()> {
        let (setting, group) = find(key)?;
        let outcome = match &setting.set {
            Setter::NotYet => Err("is not yet supported".to_owned()),
            Setter::One(set) => match &value {
                Value::Text(text) => set(self, text.trim(), base),
                Value::List(_) => Err("takes one value, not a list".to_owned()),
            },
            Setter::Many(set) => set(self, &value.items(), base),
            Setter::InGroup(set) => {
                let mut changed = self.groups.get(group).cloned().unwrap_or_default();
                set(&mut changed, &value.items(), base).map(|()| {
                    self.groups.insert(group.to_owned(), changed);
                })
            }
        };
        outcome.map_err(|reason| {
            // Texts about the cluster come complete with their key: a URL may carry a password, which they leave out.
            if key == "elasticsearch.urls" || key == "elasticsearch.namespace" {
                return Error::Config(reason);
            }
            Error::setting(key, &value.shown(), reason)
        })
    }
}

/// A value as C or TOML gives it.
enum Value {
    Text(String),
    List(Vec<String>),
}

impl Value {
    fn items(&self) -> Vec<String> {
        match self {
            Value::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect(),
            Value::List(items) => items.clone(),
        }
    }

    /// The value for an error text, cut to a readable length.
    fn shown(&self) -> String {
        let whole = match self {
            Value::Text(text) => text.trim().to_owned(),
            Value::List(items) => items.join(","),
        };
        if whole.chars().count() <= 200 {
            whole
        } else {
            whole.chars().take(200).chain("...".chars()).collect()
        }
    }
}

/// The table's row for a key, and the group's name if it is a group's.
fn find(key: &str) -> Result<(&'static Setting, &str)> {
    let mut parts = key.splitn(3, '.');
    let (group, wanted) = match (parts.next(), parts.next(), parts.next()) {
        (Some("groups"), Some(name), Some(rest)) => {
            word(name).map_err(|reason| Error::setting("groups", name, reason))?;
            (name, format!("groups.NAME.{rest}"))
        }
        _ => ("", key.to_owned()),
    };
    match SETTINGS.iter().find(|setting| setting.key == wanted) {
        Some(setting) => Ok((setting, group)),
        None => Err(unknown(key)),
    }
}

fn unknown(key: &str) -> Error {
    let short: String = key.chars().take(100).collect();
    let last = short.rsplit('.').next().unwrap_or("");
    let near = SETTINGS
        .iter()
        .find(|setting| !last.is_empty() && setting.key.rsplit('.').next() == Some(last));
    match near {
        Some(setting) => {
            Error::Config(format!("{short}: unknown setting; did you mean {}?", setting.key))
        }
        None => Error::Config(format!("{short}: unknown setting")),
    }
}

/// The leaves of a TOML file as dotted keys, in the order of the file's tables.
fn flatten(table: toml::Table) -> Result<Vec<(String, Value)>> {
    let mut leaves = Vec::new();
    let mut tables = vec![(String::new(), table)];
    while let Some((prefix, table)) = tables.pop() {
        for (key, value) in table {
            let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(inner) => tables.push((path, inner)),
                toml::Value::Array(items) => {
                    let items: Result<Vec<String>> =
                        items.into_iter().map(|item| scalar(&path, item)).collect();
                    leaves.push((path, Value::List(items?)));
                }
                other => {
                    let text = scalar(&path, other)?;
                    leaves.push((path, Value::Text(text)));
                }
            }
        }
    }
    Ok(leaves)
}

fn scalar(key: &str, value: toml::Value) -> Result<String> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(truth) => Ok(truth.to_string()),
        other => {
            Err(Error::Config(format!("{key}: a {} is no value of a setting", other.type_str())))
        }
    }
}

type Read<T> = std::result::Result<T, String>;

fn number<T: TryFrom<u64>>(value: &str, low: u64, high: u64) -> Read<T> {
    let parsed: Option<u64> = value.parse().ok().filter(|number| (low..=high).contains(number));
    parsed
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("is not a whole number from {low} to {high}"))
}

fn share(value: &str) -> Read<f32> {
    let parsed: Option<f32> = value.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    parsed.ok_or_else(|| "is not a number from 0 to 1".to_owned())
}

fn boolean(value: &str) -> Read<bool> {
    match value {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("is not true or false".to_owned()),
    }
}

fn word(value: &str) -> Read<String> {
    let fits = (1..=64).contains(&value.len())
        && value.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/')
        });
    if fits {
        Ok(value.to_owned())
    } else {
        Err("is not a name of 1 to 64 letters, digits, - _ . : /".to_owned())
    }
}

fn single(values: &[String]) -> Read<&str> {
    match values {
        [value] => Ok(value),
        _ => Err("takes one value".to_owned()),
    }
}

fn mode(value: &str) -> Read<Mode> {
    match value {
        "enforce" => Ok(Mode::Enforce),
        "observe" => Ok(Mode::Observe),
        _ => Err("is not enforce or observe".to_owned()),
    }
}

fn action(value: &str) -> Read<Action> {
    Action::parse(value)
        .ok_or_else(|| "is not pass, nxdomain, nodata, refused, sinkhole or drop".to_owned())
}

fn ipv4(value: &str) -> Read<Ipv4Addr> {
    value.parse().map_err(|_| "is not an IPv4 address".to_owned())
}

fn ipv6(value: &str) -> Read<Ipv6Addr> {
    value.parse().map_err(|_| "is not an IPv6 address".to_owned())
}

fn networks(values: &[String]) -> Read<Vec<IpNet>> {
    let parse = |text: &String| {
        let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or(address).map(|net| net.trunc())
    };
    values
        .iter()
        .map(|text| parse(text).map_err(|_| format!("has no network in \"{text}\"")))
        .collect()
}

fn names(values: &[String]) -> Read<Vec<Name>> {
    values
        .iter()
        .map(|text| text.parse::<Name>().map_err(|error| format!("\"{text}\" is {error}")))
        .collect()
}

fn urls(values: &[String]) -> Read<Vec<elastic::settings::Url>> {
    values
        .iter()
        .map(|text| elastic::settings::Url::parse(text).map_err(|error| error.to_string()))
        .collect()
}

fn namespace(value: &str) -> Read<String> {
    elastic::settings::check_namespace(value).map_err(|error| error.to_string())?;
    Ok(value.to_owned())
}

fn record_allow(value: &str) -> Read<RecordAllow> {
    match value {
        "none" => Ok(RecordAllow::None),
        "all" => Ok(RecordAllow::All),
        _ => match value.strip_prefix("sample:").map(|count| number(count, 1, u64::from(u32::MAX)))
        {
            Some(Ok(count)) => Ok(RecordAllow::Sample(count)),
            _ => Err("is not none, sample:N or all".to_owned()),
        },
    }
}

fn record_client(value: &str) -> Read<RecordClient> {
    match value {
        "full" => Ok(RecordClient::Full),
        "truncate" => Ok(RecordClient::Truncate),
        "hmac" => Ok(RecordClient::Hmac),
        "none" => Ok(RecordClient::None),
        _ => Err("is not full, truncate, hmac or none".to_owned()),
    }
}

fn test_panic(value: &str) -> Read<TestPanic> {
    match value {
        "score" => Ok(TestPanic::Score),
        "worker" => Ok(TestPanic::Worker),
        _ => Err("is not score or worker".to_owned()),
    }
}

/// The reference of all settings as a Markdown table: what the README shows.
pub fn reference() -> String {
    let mut text = String::from("| setting | default | meaning |\n|---|---|---|\n");
    for setting in SETTINGS {
        let (default, help) = match setting.set {
            Setter::NotYet => (String::new(), format!("(not yet supported) {}", setting.help)),
            _ if setting.default.is_empty() => (String::new(), setting.help.to_owned()),
            _ => (format!("`{}`", setting.default), setting.help.to_owned()),
        };
        text.push_str(&format!("| `{}` | {default} | {help} |\n", setting.key));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_table_are_the_defaults() {
        let mut config = Config::default();
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            config.set(setting.key, setting.default).unwrap();
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn errors_name_the_key_and_the_value() {
        let mut config = Config::default();
        for (key, value, text) in [
            ("block.ttl", "never", "block.ttl: \"never\" is not a whole number from 0 to 604800"),
            ("sinkhole.ipv4", "1.2.3", "sinkhole.ipv4: \"1.2.3\" is not an IPv4 address"),
            ("block.tll", "1", "block.tll: unknown setting"),
            ("ttl", "1", "ttl: unknown setting; did you mean block.ttl?"),
            ("alert.webhook_url", "x", "alert.webhook_url: \"x\" is not yet supported"),
            (
                "groups.guests.cidr",
                "10.0.0.0/33",
                "groups.guests.cidr: \"10.0.0.0/33\" has no network in \"10.0.0.0/33\"",
            ),
            ("threshold.vet", "nan", "threshold.vet: \"nan\" is not a number from 0 to 1"),
        ] {
            assert_eq!(config.set(key, value).unwrap_err().to_string(), text);
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_file_is_taken_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mlbridge.toml");
        std::fs::write(
            &path,
            "mode = 'observe'\nblock.ttl = 5\n[lists]\nblock = ['a.txt', '/b.txt']\n[groups.guests]\ncidr = ['10.0.0.0/8']\nthreshold.vet = 0.5\n",
        )
        .unwrap();
        let mut config = Config::default();
        config.load(&path).unwrap();
        assert_eq!(config.mode, Mode::Observe);
        assert_eq!(config.lists_block, [folder.path().join("a.txt"), PathBuf::from("/b.txt")]);
        assert_eq!(config.groups["guests"].threshold_vet, Some(0.5));

        std::fs::write(&path, "block.ttl = 7\nblock.action = 'explode'\n").unwrap();
        let error = config.load(&path).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "block.action: \"explode\" is not pass, nxdomain, nodata, refused, sinkhole or drop"
            ),
            "{error}"
        );
        assert_eq!(config.block_ttl, 5);
    }

    #[test]
    fn contradictions_are_found() {
        let mut config = Config::default();
        config.set("block.action", "sinkhole").unwrap();
        assert!(config.check().is_err());
        config.set("sinkhole.ipv6", "2001:db8::1").unwrap();
        config.check().unwrap();
        config.set("groups.empty.mode", "observe").unwrap();
        assert!(config.check().is_err());
    }

    #[test]
    fn an_action_without_its_address_is_named_by_its_key() {
        for (key, also) in [
            ("block.action", None),
            ("vet.action", None),
            ("groups.guests.block.action", Some(("groups.guests.cidr", "10.0.0.0/8"))),
        ] {
            let mut config = Config::default();
            for (key, value) in also.into_iter().chain([(key, "sinkhole")]) {
                config.set(key, value).unwrap();
            }
            let error = config.check().unwrap_err().to_string();
            assert_eq!(error, format!("{key}: \"sinkhole\" needs sinkhole.ipv4 or sinkhole.ipv6"));
        }
    }
}
