//! Measures delivery; run by `make bench`:
//! `cargo test --release --test elastic_rates -- --ignored --nocapture`.
//!
//! One node, one run: a bare loop that posts prepared bodies (the node's own limit), the library from the query to the
//! acknowledgement, and seven calls a query as the suite of 2020 made them. CPU times come from /proc.

mod support;

use mlbridge::config::Config;
use mlbridge::elastic::http::{Client, Content, Limits, Method, compress};
use mlbridge::elastic::setup::{self, Mode};
use mlbridge::elastic::{Document, bulk};
use mlbridge::{Decision, Name, engine};
use serde_json::json;
use std::time::{Duration, Instant};
use support::node::Node;
use support::outbox::verdict_at;
use support::{settings, until};

const EVENTS: usize = 60_000;
const BATCH: usize = 500;
const TEN: i64 = 1_795_514_400_000;

/// User and system time in seconds of a task, from the kernel.
fn cpu(stat: &str) -> f64 {
    let text = std::fs::read_to_string(stat).unwrap();
    let after_name = text.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / f64::from(1 << 20)
}

fn documents(from: usize, count: usize) -> Vec<Document> {
    let document = |number: usize| {
        let id = format!("event-{number:08}");
        let name = format!("n{number}.example.com");
        let time = TEN + number as i64;
        let source = verdict_at(&id, number as u64, &name, "192.0.2.0", Decision::Block, time);
        Document { row: number as i64, id, source }
    };
    (from..from + count).map(document).collect()
}

/// Posts prepared bodies one after the other; documents a second, bytes a document raw and on the wire.
fn bare_loop(client: &Client, namespace: &str) -> (f64, f64, f64) {
    let path = bulk::path(&setup::verdict_stream(namespace), false);
    let bodies: Vec<Vec<u8>> =
        (0..EVENTS / BATCH).map(|n| bulk::body(&documents(n * BATCH, BATCH))).collect();
    let raw: usize = bodies.iter().map(Vec::len).sum();
    let packed: Vec<Vec<u8>> = bodies.iter().map(|body| compress(body)).collect();
    let wire: usize = packed.iter().map(Vec::len).sum();
    // The rate in the middle, as for the library: the first request makes the stream.
    let (first, last) = (packed.len() / 10, packed.len() * 9 / 10);
    let mut begun = Instant::now();
    let mut seconds = 0.0;
    for (number, body) in packed.iter().enumerate() {
        if number == first {
            begun = Instant::now();
        }
        if number == last {
            seconds = begun.elapsed().as_secs_f64();
        }
        let answer = client
            .send(0, Method::Post, &path, Some((Content::CompressedLines, body)), None)
            .unwrap();
        assert_eq!(answer.status, 200);
    }
    (
        ((last - first) * BATCH) as f64 / seconds,
        raw as f64 / EVENTS as f64,
        wire as f64 / EVENTS as f64,
    )
}

struct Through {
    rate: f64,
    cpu_us: f64,
    mib: f64,
}

/// From the queue to the acknowledgement. The names are on a block list, so that no time goes into scores.
fn through_the_library(url: &str, namespace: &str) -> Through {
    let (folder, lists) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let list = support::tls::file(lists.path(), "block", "*.example.com\n");
    let mut config = Config::default();
    for (key, value) in [
        ("elasticsearch.urls", url),
        ("elasticsearch.namespace", namespace),
        ("state_dir", folder.path().to_str().unwrap()),
        ("lists.block", list.to_str().unwrap()),
        ("record.coalesce_s", "0"),
        ("queue.events", "65536"),
    ] {
        config.set(key, value).unwrap();
    }
    let names: Vec<Name> =
        (0..EVENTS).map(|n| format!("n{n}.example.com").parse().unwrap()).collect();
    let engine = engine::open(&config).unwrap();
    // Starts the threads, so that this does not count.
    engine.classify(&names[0], None, 1);
    until("it is delivered", || engine.stats().delivered == 1);
    let (before, own_before) = (cpu("/proc/self/stat"), cpu("/proc/thread-self/stat"));
    let memory = resident_mib();
    let begun = Instant::now();
    for name in &names[1..] {
        engine.classify(name, Some([192, 0, 2, 7].into()), 1);
    }
    let end = begun + Duration::from_secs(300);
    // The rate in the middle: the first and the last events wait for a flush and for company, up to a second each.
    let (first, last) = (EVENTS as u64 / 10, EVENTS as u64 * 9 / 10);
    let mut marks = [None; 2];
    let mut mib = 0.0_f64;
    loop {
        let delivered = engine.stats().delivered;
        for (mark, reached) in marks.iter_mut().zip([first, last]) {
            if mark.is_none() && delivered >= reached {
                *mark = Some((Instant::now(), delivered));
            }
        }
        mib = mib.max(resident_mib() - memory);
        if delivered == EVENTS as u64 || Instant::now() > end {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let [Some((from, at_first)), Some((to, at_last))] = marks else { panic!("too slow") };
    let rate = (at_last - at_first) as f64 / (to - from).as_secs_f64();
    let stats = engine.stats();
    assert!(stats.adds_up() && stats.delivered == EVENTS as u64, "{stats:?}");
    // This thread's part is asking and looking, not delivery.
    let own = cpu("/proc/thread-self/stat") - own_before;
    let cpu_us = (cpu("/proc/self/stat") - before - own) * 1e6 / EVENTS as f64;
    engine::release(&engine);
    Through { rate, cpu_us, mib }
}

/// Seven calls a query, one after the other: is there an index of the domain, make it, three searches, two documents.
fn seven_calls(node: &Node) -> f64 {
    const QUERIES: usize = 100;
    let begun = Instant::now();
    for number in 0..QUERIES {
        let index = format!("logs-old-{number}");
        node.call("HEAD", &format!("/{index}"), None);
        node.call("PUT", &format!("/{index}"), None);
        for field in ["name", "client", "status"] {
            let search = json!({"query": {"match": {field: "x"}}});
            node.call("POST", &format!("/{index}/_search"), Some(search));
        }
        node.call("POST", &format!("/{index}/_doc"), Some(json!({"name": "x", "count": 1})));
        node.call("POST", "/logs-old-all/_doc", Some(json!({"name": "x", "client": "192.0.2.7"})));
    }
    QUERIES as f64 / begun.elapsed().as_secs_f64()
}

#[test]
#[ignore = "measures: make bench"]
fn rates() {
    println!(
        "| lane | bare loop /s | library /s | share | CPU us/event | MiB | bytes raw | on the wire | 7 calls a query, /s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for lane in std::env::var("LANES").unwrap_or_else(|_| "os2 es8".to_owned()).split(' ') {
        let node = Node::start(lane, &["cluster.max_shards_per_node=5000"]);
        let client = Client::new(&settings(&[&node.url]), Limits::default()).unwrap();
        let mut exchange = |method, path: &str, body: Option<&str>| {
            client.send(0, method, path, body.map(|text| (Content::Json, text.as_bytes())), None)
        };
        setup::prepare(&mut exchange, &settings(&[&node.url]), Mode::Install, &mut |_| {}).unwrap();
        // The node compiles its own code while it works: nothing before the third load counts.
        for warm in 0..3 {
            bare_loop(&client, &format!("warm{warm}"));
        }
        // Interleaved, the best of each: other work on the machine only ever slows down.
        let mut bare = (0.0, 0.0, 0.0);
        let mut library = Through { rate: 0.0, cpu_us: f64::MAX, mib: 0.0 };
        for round in 0..3 {
            let (rate, raw, wire) = bare_loop(&client, &format!("bare{round}"));
            bare = (rate.max(bare.0), raw, wire);
            let through = through_the_library(&node.url, &format!("library{round}"));
            library = Through {
                rate: library.rate.max(through.rate),
                cpu_us: library.cpu_us.min(through.cpu_us),
                mib: library.mib.max(through.mib),
            };
        }
        let old = seven_calls(&node);
        println!(
            "| {lane} | {:.0} | {:.0} | {:.0} % | {:.1} | {:.0} | {:.0} | {:.0} | {old:.1} |",
            bare.0,
            library.rate,
            library.rate / bare.0 * 100.0,
            library.cpu_us,
            library.mib,
            bare.1,
            bare.2,
        );
    }
}

/// What a cluster that is down costs the queries: the same calls with none configured, in turn, and the memory of both.
#[test]
#[ignore = "measures: make bench"]
fn a_cluster_that_is_down() {
    const NAMES: usize = 100_000;
    const PASSES: usize = 20;
    let lists = tempfile::tempdir().unwrap();
    let list = support::tls::file(lists.path(), "block", "*.example.com\n");
    let mut nanoseconds = [f64::MAX; 2];
    let mut mib = [0.0_f64; 2];
    for round in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.set("state_dir", folder.path().to_str().unwrap()).unwrap();
        config.set("lists.block", list.to_str().unwrap()).unwrap();
        if round % 2 == 1 {
            config.set("elasticsearch.urls", "http://127.0.0.1:1").unwrap();
        }
        let names: Vec<Name> =
            (0..NAMES).map(|n| format!("r{round}n{n}.example.com").parse().unwrap()).collect();
        let engine = engine::open(&config).unwrap();
        engine.classify(&names[0], None, 1);
        engine.flush(support::PATIENCE).unwrap();
        let memory = resident_mib();
        let own = cpu("/proc/thread-self/stat");
        for name in names.iter().cycle().take(NAMES * PASSES) {
            engine.classify(name, Some([192, 0, 2, 7].into()), 1);
        }
        let spent = (cpu("/proc/thread-self/stat") - own) * 1e9 / (NAMES * PASSES) as f64;
        engine.flush(support::PATIENCE).unwrap();
        nanoseconds[round % 2] = nanoseconds[round % 2].min(spent);
        mib[round % 2] = mib[round % 2].max(resident_mib() - memory);
        assert!(engine.stats().adds_up());
        engine::release(&engine);
    }
    println!(
        "a call that makes an event: {:.0} ns of its thread without a cluster, {:.0} ns with one that is down; memory {:.1} and {:.1} MiB",
        nanoseconds[0], nanoseconds[1], mib[0], mib[1]
    );
}

/// The history of one name over a million stored verdicts.
#[test]
#[ignore = "measures: make bench"]
fn history_of_one_name_over_a_million() {
    const MILLION: usize = 1_000_000;
    let node = Node::start("os2", &[]);
    let client = Client::new(&settings(&[&node.url]), Limits::default()).unwrap();
    let mut exchange = |method, path: &str, body: Option<&str>| {
        client.send(0, method, path, body.map(|text| (Content::Json, text.as_bytes())), None)
    };
    setup::prepare(&mut exchange, &settings(&[&node.url]), Mode::Install, &mut |_| {}).unwrap();
    let stream = setup::verdict_stream("default");
    let path = bulk::path(&stream, false);
    for batch in 0..MILLION / 1000 {
        // A hundred thousand names, ten verdicts each.
        let mut all = documents(batch * 1000, 1000);
        for document in &mut all {
            let number = document.row as usize;
            let (id, name) = (&document.id, format!("n{}.example.com", number % 100_000));
            let time = TEN + number as i64;
            document.source =
                verdict_at(id, number as u64, &name, "192.0.2.0", Decision::Block, time);
        }
        let body = compress(&bulk::body(&all));
        client.send(0, Method::Post, &path, Some((Content::CompressedLines, &body)), None).unwrap();
    }
    node.ok("POST", &format!("/{stream}/_refresh"), None);
    let mut times = Vec::new();
    for number in 0..200 {
        let search = json!({
            "query": {"term": {"dns.question.name": format!("n{}.example.com", number * 497)}},
            "sort": [{"@timestamp": "desc"}], "size": 100
        });
        let begun = Instant::now();
        let answer = node.ok("POST", &format!("/{stream}/_search"), Some(search));
        times.push(begun.elapsed());
        assert_eq!(answer["hits"]["hits"].as_array().unwrap().len(), 10);
    }
    times.sort();
    println!(
        "history of one name over a million verdicts: median {:?}, 99 % {:?}",
        times[100], times[198]
    );
}
