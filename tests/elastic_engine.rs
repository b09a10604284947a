//! From the query to a real node: the engine with its store, its worker and the forwarder, against OpenSearch 2.19.

mod support;

use mlbridge::config::Config;
use mlbridge::engine::{self, Engine};
use mlbridge::store::sqlite::Reader;
use mlbridge::{Action, Decision, Name, Source};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use support::node::Node;
use support::server::{Act, Server};
use support::until;

const CLIENT: [u8; 4] = [192, 0, 2, 7];

/// Settings of an engine that records everything, one event a question.
fn config(url: &str, state_dir: Option<&Path>, more: &[(&str, &str)]) -> Config {
    let mut config = Config::default();
    let state_dir = state_dir.map(|path| path.to_str().unwrap().to_owned());
    let mut settings = vec![
        ("elasticsearch.urls", url),
        ("record.allow", "all"),
        ("record.coalesce_s", "0"),
        ("store.flush_ms", "50"),
    ];
    settings.extend(state_dir.as_deref().map(|path| ("state_dir", path)));
    settings.extend(more);
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    config
}

fn ask(engine: &Engine, name: &str) -> mlbridge::Verdict {
    let name: Name = name.parse().unwrap();
    engine.classify(&name, Some(CLIENT.into()), 1)
}

/// Waits until everything stored is delivered, and sees that the ledger adds up and agrees with the node.
fn all_delivered(engine: &Engine, node: &Node, namespace: &str) -> u64 {
    until("everything is delivered", || {
        let stats = engine.stats();
        stats.queued == 0 && stats.pending == 0 && stats.stored > 0
    });
    let stats = engine.stats();
    assert!(stats.adds_up(), "{stats:?}");
    let (documents, distinct) = node.counts(&format!("logs-mlbridge.verdict-{namespace}"));
    assert_eq!(documents, distinct);
    documents
}

#[test]
fn from_the_query_to_the_node() {
    let node = Node::start("os2", &[]);
    std::thread::scope(|scope| {
        scope.spawn(|| verdicts_arrive(&node));
        scope.spawn(|| without_a_directory_flush_means_delivered(&node));
        scope.spawn(|| decisions_in_the_index_reach_the_engine(&node));
        scope.spawn(|| killed_and_restarted(&node));
    });
}

fn verdicts_arrive(node: &Node) {
    let (lists, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let list = support::tls::file(lists.path(), "block", "bad.example\n");
    let more = [("elasticsearch.namespace", "arrive"), ("lists.block", list.to_str().unwrap())];
    let engine = engine::open(&config(&node.url, Some(state.path()), &more)).unwrap();
    for number in 0..1000 {
        ask(&engine, &format!("n{number}.example.com"));
    }
    assert_eq!(ask(&engine, "bad.example").action, Action::Nxdomain);
    assert_eq!(all_delivered(&engine, node, "arrive"), 1001);
    assert_eq!(engine.stats().delivered, 1001);
    let stream = "logs-mlbridge.verdict-arrive";
    for (query, expected) in [
        (json!({"term": {"dns.question.name": "bad.example"}}), 1),
        (json!({"term": {"mlbridge.decision": "block"}}), 1),
        (json!({"term": {"event.action": "dns-block"}}), 1),
        // Truncated before it was queued.
        (json!({"term": {"source.ip": "192.0.2.0"}}), 1001),
        (json!({"term": {"source.ip": "192.0.2.7"}}), 0),
        (json!({"exists": {"field": "ml_is_dga.malicious_probability"}}), 1000),
    ] {
        assert_eq!(node.matches(stream, query.clone()), expected, "{query}");
    }
    engine::release(&engine);
}

fn without_a_directory_flush_means_delivered(node: &Node) {
    let engine =
        engine::open(&config(&node.url, None, &[("elasticsearch.namespace", "memory")])).unwrap();
    for number in 0..100 {
        ask(&engine, &format!("n{number}.example.com"));
    }
    engine.flush(support::PATIENCE).unwrap();
    assert_eq!(node.counts("logs-mlbridge.verdict-memory"), (100, 100));
    engine::release(&engine);
}

fn decisions_in_the_index_reach_the_engine(node: &Node) {
    let folder = tempfile::tempdir().unwrap();
    let more = [
        ("elasticsearch.namespace", "decisions"),
        ("elasticsearch.overrides", "true"),
        ("elasticsearch.poll_s", "1"),
        ("threshold.vet", "0"),
        ("threshold.block", "1"),
    ];
    let engine = engine::open(&config(&node.url, Some(folder.path()), &more)).unwrap();
    assert_eq!(ask(&engine, "www.to-vet.example").decision, Decision::Vet);
    let id = mlbridge::elastic::vetting::id("to-vet.example");
    let path = format!("/mlbridge-vetting/_doc/{id}");
    until("the registered domain waits in the index", || node.call("GET", &path, None).0 == 200);
    let found = node.ok("GET", &path, None);
    assert_eq!(found["_source"]["state"], "pending", "{found}");
    assert_eq!(found["_source"]["example"], "www.to-vet.example");
    let decision = json!({"doc": {"state": "malicious", "decided_by": "ann"}});
    node.ok("POST", &format!("/mlbridge-vetting/_update/{id}"), Some(decision));
    until("the decision is in force", || {
        let verdict = ask(&engine, "other.to-vet.example");
        (verdict.source, verdict.action) == (Source::Override, Action::Nxdomain)
    });
    engine::release(&engine);
}

// ------------------------------------------------------------------ SIGKILL of the host

/// The child's part: asks about ever new names, and says after each flush how many are durable.
#[test]
fn child_that_asks_until_it_is_killed() {
    let Ok(url) = std::env::var("MLB_TEST_URL") else { return };
    let state = std::env::var("MLB_TEST_STATE").unwrap();
    let engine = engine::open(&killed_config(&url, Path::new(&state))).unwrap();
    for round in 0_u64.. {
        for number in 0..500 {
            ask(&engine, &format!("n{}.example.com", round * 500 + number));
        }
        engine.flush(support::PATIENCE).unwrap();
        let mut out = std::io::stderr().lock();
        writeln!(out, "durable {}", (round + 1) * 500).unwrap();
    }
}

fn killed_config(url: &str, state: &Path) -> Config {
    config(url, Some(state), &[("elasticsearch.namespace", "killed")])
}

/// The host is killed in mid-load. Whatever was durable arrives after the restart, each name once.
fn killed_and_restarted(node: &Node) {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_asks_until_it_is_killed", "--nocapture"])
        .env("MLB_TEST_URL", &node.url)
        .env("MLB_TEST_STATE", folder.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut durable = 0_u64;
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(count) = line.strip_prefix("durable ") else { continue };
        durable = count.parse().unwrap();
        if durable >= 5000 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(durable >= 5000, "the child ended at {durable}");
    let engine: Arc<Engine> = engine::open(&killed_config(&node.url, folder.path())).unwrap();
    // The first event starts the worker, which finds what is left.
    ask(&engine, "after-the-restart.example.com");
    let documents = all_delivered(&engine, node, "killed");
    assert_eq!(engine.stats().unclean_ends, 1);
    let stream = "logs-mlbridge.verdict-killed";
    let distinct = node.distinct(stream, "dns.question.name");
    assert_eq!(distinct, documents, "a name arrived twice");
    assert!(documents > durable, "{documents} arrived, {durable} were durable");
    let last = json!({"term": {"dns.question.name": format!("n{}.example.com", durable - 1)}});
    assert_eq!(node.matches(stream, last), 1);
    engine::release(&engine);
}

// ------------------------------------------------------------------ nobody there

/// A cluster that is down, or accepts and stays silent, costs the queries nothing but the events' place in the store.
#[test]
fn a_cluster_that_is_down_or_silent() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [silent.local_addr().unwrap().port(), closed.local_addr().unwrap().port()];
    drop(closed);
    for port in ports {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let engine = engine::open(&config(&url, Some(folder.path()), &[])).unwrap();
        for number in 0..5000 {
            ask(&engine, &format!("n{number}.example.com"));
        }
        engine.flush(support::PATIENCE).unwrap();
        let stats = engine.stats();
        assert!(stats.adds_up(), "{stats:?}");
        assert_eq!(stats.delivered, 0);
        assert_eq!(stats.pending + stats.dropped_queue, 5000);
        engine::release(&engine);
    }
}

/// Dead letters that another process puts back are delivered at once, before anybody has counted them: no number of the
/// ledger goes below zero.
#[test]
fn replayed_dead_letters_are_counted_before_they_are_delivered() {
    let poison = vec![(201, "", ""), (400, "document_parsing_exception", "no")];
    let server = Server::start().script([Act::Items(poison)]);
    let folder = tempfile::tempdir().unwrap();
    let engine = engine::open(&config(&server.url(), Some(folder.path()), &[])).unwrap();
    ask(&engine, "a.example.com");
    ask(&engine, "b.example.com");
    until("one is a dead letter", || engine.stats().dead_lettered == 1);
    assert_eq!(Reader::open(folder.path()).unwrap().replay().unwrap(), 1);
    until("it is delivered", || engine.stats().delivered == 2);
    let stats = engine.stats();
    assert!(stats.adds_up(), "{stats:?}");
    assert_eq!((stats.pending, stats.recovered, stats.evicted), (0, 1, 0), "{stats:?}");
    engine::release(&engine);
}

/// Files that delivery needs are read when the engine is made.
#[test]
fn a_missing_file_is_told_at_once() {
    let config =
        config("https://localhost:9200", None, &[("elasticsearch.ca_file", "/no/such/ca.pem")]);
    let error = engine::open(&config).err().unwrap().to_string();
    assert!(error.starts_with("elasticsearch.ca_file: /no/such/ca.pem: "), "{error}");
}
