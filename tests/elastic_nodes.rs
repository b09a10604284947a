//! Delivery to real nodes: OpenSearch 2.19 and Elasticsearch 8.19, started from jars of Maven Central. After each part the
//! distinct event ids in the index are those that the ledger calls delivered: nothing missing, nothing twice, but for the
//! documented rollover.
//!
//! A missing JDK or Maven fails these tests; `tests/elastic/node` says what to install.

mod support;

use mlbridge::Decision;
use mlbridge::elastic::{Forwarder, Settings, SummaryRecord, ToVet, VetState, setup, vetting};
use mlbridge::policy::overrides::Class;
use serde_json::{Value, json};
use std::time::Duration;
use support::node::Node;
use support::outbox::{Memory, verdict_at};
use support::tls::{Authority, file};
use support::{Running, identity, settings, until};

/// 2026-11-24T10:00:00Z.
const TEN: i64 = 1_795_514_400_000;

/// A part of a shared node: a namespace of its own.
struct Part<'n> {
    node: &'n Node,
    namespace: &'static str,
}

impl Part<'_> {
    fn stream(&self) -> String {
        setup::verdict_stream(self.namespace)
    }

    fn settings(&self) -> Settings {
        Settings { namespace: self.namespace.to_owned(), ..settings(&[&self.node.url]) }
    }

    /// Delivers everything in the outbox.
    fn deliver(&self, outbox: &Memory) -> mlbridge::elastic::Counters {
        let running = Running::start(self.settings(), outbox);
        running.until_empty(outbox);
        let counters = running.control.status().counters;
        running.end();
        counters
    }

    /// The index holds what the ledger calls delivered, each once.
    fn agrees(&self, outbox: &Memory) {
        let (delivered, _, pending) = outbox.ledger();
        assert_eq!(pending, 0);
        let (documents, distinct) = self.node.counts(&self.stream());
        assert_eq!(
            (documents, distinct),
            (delivered as u64, delivered as u64),
            "{}",
            self.namespace
        );
    }
}

fn shared_parts(node: &Node) {
    let part = |namespace| Part { node, namespace };
    std::thread::scope(|scope| {
        let first = part("queries");
        queries(&first);
        scope.spawn(move || resend(&part("resend")));
        scope.spawn(move || rollover(&part("rollover")));
        scope.spawn(move || poison(&part("poison")));
        scope.spawn(move || blocks(&part("blocks")));
        scope.spawn(move || summaries(&part("summaries")));
        scope.spawn(move || vetting_and_back(&part("vetting")));
        scope.spawn(move || hang(&part("hang")));
    });
}

#[test]
fn opensearch_2() {
    let node = Node::start("os2", &[]);
    plain_index(&Part { node: &node, namespace: "plain" });
    shared_parts(&node);
    deleted_stream(&Part { node: &node, namespace: "deleted" });
}

#[test]
fn elasticsearch_8() {
    let node = Node::start("es8", &[]);
    missing_template(&Part { node: &node, namespace: "missing" });
    shared_parts(&node);
}

/// Documents arrive and can be queried by name, client, time range and decision; the mapping is the template's.
fn queries(part: &Part<'_>) {
    let outbox = Memory::default();
    for number in 0..600_u64 {
        let decision = [Decision::Allow, Decision::Vet, Decision::Block][number as usize % 3];
        let client = if number < 10 { "198.51.100.0" } else { "192.0.2.0" };
        let time = TEN + number as i64 * 1000;
        outbox.add(|id, _| {
            verdict_at(id, number, &format!("n{number}.example.com"), client, decision, time)
        });
    }
    part.deliver(&outbox);
    part.agrees(&outbox);
    let stream = part.stream();
    for (query, expected) in [
        (json!({"term": {"dns.question.name": "n42.example.com"}}), 1),
        (json!({"term": {"dns.question.registered_domain": "example.com"}}), 600),
        (json!({"term": {"source.ip": "198.51.100.0/24"}}), 10),
        (json!({"range": {"@timestamp": {"gte": TEN, "lt": TEN + 60_000}}}), 60),
        (json!({"term": {"mlbridge.decision": "block"}}), 200),
        (json!({"range": {"ml_is_dga.malicious_probability": {"gt": 0.98}}}), 600),
    ] {
        assert_eq!(part.node.matches(&stream, query.clone()), expected, "{query}");
    }
    let mapping = part.node.ok("GET", &format!("/{stream}/_mapping"), None);
    let (index, mapping) = mapping.as_object().unwrap().iter().next().unwrap();
    assert!(index.starts_with(&format!(".ds-{stream}-")), "{index}");
    let server =
        setup::Server { product: setup::Product::Unknown, version: (0, 0), serverless: false };
    let template = setup::template(setup::Kind::Verdict, &server, false);
    assert_eq!(fields(&mapping["mappings"]), fields(&template["template"]["mappings"]));
    dashboards(part);
}

/// The fields of a mapping with their types.
fn fields(mapping: &Value) -> Vec<(String, String)> {
    fn walk(properties: &Value, prefix: &str, out: &mut Vec<(String, String)>) {
        for (name, field) in properties.as_object().unwrap() {
            let path = format!("{prefix}{name}");
            match field.get("properties") {
                Some(inner) => walk(inner, &format!("{path}."), out),
                None => out.push((path, field["type"].as_str().unwrap_or("object").to_owned())),
            }
        }
    }
    let mut out = Vec::new();
    walk(&mapping["properties"], "", &mut out);
    out.sort();
    out
}

/// Each field that a panel names can be aggregated on, on this node.
fn dashboards(part: &Part<'_>) {
    let answer = part.node.ok("GET", &format!("/{}/_field_caps?fields=*", part.stream()), None);
    for (field, numeric) in support::dashboards::fields("logs-mlbridge.verdict-*") {
        let capabilities = answer["fields"][&field].as_object();
        let capabilities = capabilities.unwrap_or_else(|| panic!("no field {field}"));
        let (kind, capability) = capabilities.iter().next().unwrap();
        assert_eq!(capability["aggregatable"], true, "{field}");
        assert!(!numeric || ["long", "float", "date"].contains(&kind.as_str()), "{field}: {kind}");
    }
}

/// The same documents again are there already.
fn resend(part: &Part<'_>) {
    let outbox = Memory::default().with(50);
    part.deliver(&outbox);
    let again = Memory::default().with(50);
    let counters = part.deliver(&again);
    assert_eq!((counters.created, counters.duplicates), (0, 50));
    part.agrees(&again);
}

/// After a rollover a resend is a second copy: the one known hole. Distinct ids still tell the truth.
fn rollover(part: &Part<'_>) {
    let outbox = Memory::default().with(5);
    part.deliver(&outbox);
    part.node.ok("POST", &format!("/{}/_rollover", part.stream()), None);
    let again = Memory::default().with(5);
    part.deliver(&again);
    assert_eq!(part.node.counts(&part.stream()), (10, 5));
}

/// Documents that the mapping refuses become dead letters, their neighbours arrive.
fn poison(part: &Part<'_>) {
    let outbox = Memory::default().with(20);
    for source in [
        "{\"@timestamp\":\"2026-11-24T10:00:00Z\",\"event\":{\"sequence\":\"192.0.2.9\"}}",
        "{\"event\":{\"id\":\"no time\"}}",
        "{not json",
    ] {
        outbox.add(|_, _| source.as_bytes().to_vec());
    }
    let outbox = outbox.with(20);
    part.deliver(&outbox);
    assert_eq!(outbox.ledger(), (40, 3, 0));
    part.agrees(&outbox);
    for (_, reason) in &outbox.state().dead {
        assert!(reason.starts_with("400 ") && !reason.contains("192.0.2.9"), "{reason}");
    }
}

/// A write block (403) and a full disk (429) keep everything and say so.
fn blocks(part: &Part<'_>) {
    let outbox = Memory::default().with(10);
    part.deliver(&outbox);
    for (setting, words) in [
        ("index.blocks.write", "writes are blocked"),
        ("index.blocks.read_only_allow_delete", "the disk is full"),
    ] {
        let path = format!("/{}/_settings", part.stream());
        part.node.ok("PUT", &path, Some(json!({setting: true})));
        outbox.clone().with(10);
        let running = Running::start(part.settings(), &outbox);
        running.until_error(words);
        running.end();
        assert_eq!(outbox.ledger().2, 10);
        part.node.ok("PUT", &path, Some(json!({setting: null})));
        part.deliver(&outbox);
        part.agrees(&outbox);
    }
}

fn summaries(part: &Part<'_>) {
    let outbox = Memory::default();
    let at = |time_ms: i64, classified: u64| SummaryRecord {
        time_ms,
        classified,
        losses: vec![("queue", classified / 10)],
        latency: std::array::from_fn(|bucket| u64::from(bucket == 4)),
        ..SummaryRecord::default()
    };
    outbox.state().summary = Some(at(TEN, 100));
    let forwarder = Forwarder::new(part.settings(), identity()).unwrap();
    let running = Running::of(forwarder.with_summary_every(Duration::from_millis(50)), &outbox);
    until("the first arrives", || running.control.status().counters.summaries >= 1);
    outbox.state().summary = Some(at(TEN + 60_000, 250));
    let stream = setup::summary_stream(part.namespace);
    let sum = |field: &str| {
        part.node.call("POST", &format!("/{stream}/_refresh"), None);
        let search = json!({"size": 0, "aggs": {"sum": {"sum": {"field": field}}}});
        part.node.call("POST", &format!("/{stream}/_search"), Some(search)).1["aggregations"]["sum"]
            ["value"]
            .clone()
    };
    until("the second arrives", || sum("mlbridge.classified") == json!(250.0));
    assert_eq!(sum("mlbridge.losses.queue"), json!(25.0));
    assert_eq!(running.error(), "");
    running.end();
}

/// A name to vet goes to the index, the decision made there comes back; another, made on a stale view, is refused there.
fn vetting_and_back(part: &Part<'_>) {
    let outbox = Memory::default();
    let name = format!("{}.example", part.namespace);
    outbox.state().to_vet = vec![ToVet {
        key: 7,
        name: name.clone(),
        state: VetState::Pending {
            example: format!("x.{name}"),
            score: 0.6,
            first_seen_ms: TEN,
            count: 3,
        },
    }];
    let settings =
        Settings { overrides: true, poll: Duration::from_millis(200), ..part.settings() };
    let running = Running::start(settings, &outbox);
    until("the name is there", || outbox.state().vetting_written == [7]);
    let path = format!("/{}/_doc/{}", setup::VETTING_INDEX, vetting::id(&name));
    let there = part.node.ok("GET", &path, None);
    assert_eq!(there["_source"]["state"], "pending");
    let mut document = there["_source"].clone();
    document["state"] = json!("malicious");
    document["decided_by"] = json!("ann");
    document["expires_at"] = json!("2099-01-01");
    let view =
        format!("{path}?if_seq_no={}&if_primary_term={}", there["_seq_no"], there["_primary_term"]);
    part.node.ok("PUT", &view, Some(document.clone()));
    assert_eq!(part.node.call("PUT", &view, Some(document)).0, 409);
    until("the decision is back", || {
        outbox.state().decided.iter().any(|decided| {
            decided.name == name
                && decided.ruling.as_ref().is_some_and(|ruling| {
                    (ruling.class, ruling.author.as_str()) == (Class::Malicious, "ann")
                        && ruling.expires_ms == Some(4_070_908_800_000)
                })
        })
    });
    assert!(outbox.state().cursor.seq_no >= 1);
    running.end();
}

/// The node stops in the middle of a load and goes on later: what had arrived is not doubled.
fn hang(part: &Part<'_>) {
    let outbox = Memory::default().with(200);
    let limits = mlbridge::elastic::http::Limits {
        receive_head: Duration::from_millis(20),
        ..mlbridge::elastic::http::Limits::default()
    };
    // An answer within 20 ms is luck: some requests time out after they arrived.
    let running = Running::with_limits(part.settings(), &outbox, limits);
    std::thread::sleep(Duration::from_millis(500));
    running.end();
    part.deliver(&outbox);
    part.agrees(&outbox);
}

/// Somebody deletes the stream: it is made again, with the template.
fn deleted_stream(part: &Part<'_>) {
    let outbox = Memory::default().with(10);
    part.deliver(&outbox);
    let auto_create = |value: Value| {
        let body = json!({"transient": {"action.auto_create_index": value}});
        part.node.ok("PUT", "/_cluster/settings", Some(body));
    };
    auto_create(json!("false"));
    let running = Running::start(part.settings(), &outbox);
    outbox.clone().with(10);
    outbox.until_empty();
    part.node.ok("DELETE", &format!("/_data_stream/{}", part.stream()), None);
    let again = outbox.clone().with(10);
    again.until_empty();
    running.end();
    assert_eq!(outbox.ledger(), (30, 0, 0));
    assert_eq!(part.node.counts(&part.stream()), (10, 10));
    auto_create(Value::Null);
}

/// A plain index in the stream's place is told, and nothing is written into it.
fn plain_index(part: &Part<'_>) {
    let stream = part.stream();
    // There is no template yet, so the stream's name makes a plain index.
    part.node.ok("PUT", &format!("/{stream}"), None);
    let outbox = Memory::default().with(5);
    let running = Running::start(part.settings(), &outbox);
    running.until_error("if a plain index sits there, delete it");
    running.end();
    assert_eq!(outbox.ledger(), (0, 0, 5));
    assert_eq!(part.node.matches(&stream, json!({"match_all": {}})), 0);
    part.node.ok("DELETE", &format!("/{stream}"), None);
    part.deliver(&outbox);
    part.agrees(&outbox);
}

/// Without the right to install, and without the template: nothing is written anywhere, and nothing is lost.
fn missing_template(part: &Part<'_>) {
    let outbox = Memory::default().with(10);
    let without = Settings { setup: false, ..part.settings() };
    let running = Running::start(without.clone(), &outbox);
    running.until_error("is missing");
    running.end();
    assert_eq!(outbox.ledger(), (0, 0, 10));
    assert_eq!(part.node.call("GET", &format!("/{}", part.stream()), None).0, 404);
    part.deliver(&outbox);
    let running = Running::start(without, &outbox.clone().with(10));
    outbox.until_empty();
    running.end();
    part.agrees(&outbox);
}

// ------------------------------------------------------------------ nodes with limits of their own

/// Bodies over 64 KiB are refused (413), more than 48 KiB in flight too (429): smaller requests pass, and nothing is lost.
fn small_limits(lane: &str) {
    let node =
        Node::start(lane, &["http.max_content_length=64kb", "indexing_pressure.memory.limit=48kb"]);
    let part = Part { node: &node, namespace: "small" };
    let outbox = Memory::default().with(400);
    let counters = part.deliver(&outbox);
    assert!(counters.failed_requests >= 2, "{counters:?}");
    part.agrees(&outbox);
}

#[test]
fn small_limits_of_opensearch_2() {
    small_limits("os2");
}

#[test]
fn small_limits_of_elasticsearch_8() {
    small_limits("es8");
}

/// One writer with a queue of one and eight shards: most items of a large request are refused (429), and sent again.
#[test]
fn a_full_queue() {
    let node = Node::start("os2", &["thread_pool.write.size=1", "thread_pool.write.queue_size=1"]);
    let part = Part { node: &node, namespace: "queue" };
    let properties = json!({"@timestamp": {"type": "date"}, "event": {"properties": {"id": {"type": "keyword"}}}});
    let template = json!({
        "index_patterns": [part.stream()], "data_stream": {}, "priority": 900,
        "template": {"settings": {"number_of_shards": 8}, "mappings": {"dynamic": false, "properties": properties}}
    });
    node.ok("PUT", "/_index_template/eight-shards", Some(template));
    let outbox = Memory::default().with(400);
    let counters = part.deliver(&outbox);
    assert!(counters.sent > counters.created, "no item was refused: {counters:?}");
    part.agrees(&outbox);
}

/// SIGKILL in mid-load, a restart on the same data: everything arrives, once.
fn killed_in_mid_load(lane: &str) {
    let mut node = Node::start(lane, &[]);
    let outbox = Memory::default().with(12_000);
    let settings = Settings { namespace: "killed".to_owned(), ..settings(&[&node.url]) };
    let running = Running::start(settings, &outbox);
    until("some are delivered", || outbox.state().delivered.len() > 2000);
    node.kill();
    let before = outbox.state().delivered.len();
    running.until_error("connection");
    node.restart();
    running.control.hurry();
    outbox.until_empty();
    assert!(before < 12_000);
    let counters = running.control.status().counters;
    running.end();
    assert_eq!(outbox.ledger(), (12_000, 0, 0));
    assert_eq!(node.counts("logs-mlbridge.verdict-killed"), (12_000, 12_000), "{counters:?}");
}

#[test]
fn opensearch_2_killed_in_mid_load() {
    killed_in_mid_load("os2");
}

#[test]
fn elasticsearch_8_killed_in_mid_load() {
    killed_in_mid_load("es8");
}

/// Two nodes of one cluster; the first is lost in mid-load, the second goes on with everything acknowledged.
#[test]
fn two_nodes_and_one_is_lost() {
    let (first_port, second_port) = (free_port(), free_port());
    let seeds = format!("discovery.seed_hosts=127.0.0.1:{first_port},127.0.0.1:{second_port}");
    let member = |name: &str, port: u16, roles: &str| {
        Node::start(
            "os2",
            &[
                "discovery.type=zen",
                &format!("node.name={name}"),
                &format!("transport.port={port}"),
                "cluster.initial_cluster_manager_nodes=manager",
                &format!("node.roles={roles}"),
                &seeds,
            ],
        )
    };
    let manager = member("manager", first_port, "cluster_manager,data");
    let other = member("other", second_port, "data");
    let health = format!("{}/_cluster/health?wait_for_nodes=2&timeout=60s", "");
    manager.ok("GET", &health, None);
    let outbox = Memory::default().with(1000);
    // The node without the manager's role is the one that is lost: the cluster must go on.
    let urls = [other.url.as_str(), manager.url.as_str()];
    let settings = Settings { namespace: "two".to_owned(), ..settings(&urls) };
    let running = Running::start(settings, &outbox);
    outbox.until_empty();
    manager.ok("GET", "/_cluster/health?wait_for_status=green&timeout=60s", None);
    outbox.clone().with(20_000);
    until("some are delivered", || outbox.state().delivered.len() > 4000);
    other.kill();
    until("the rest is delivered", || outbox.state().pending.is_empty());
    running.end();
    assert_eq!(outbox.ledger(), (21_000, 0, 0));
    assert_eq!(manager.counts("logs-mlbridge.verdict-two"), (21_000, 21_000));
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

// ------------------------------------------------------------------ security

/// TLS, a user with the least role, a wrong password, a role without the right to write.
#[test]
fn security_plugin_with_the_least_role() {
    let home = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/elastic/node");
    let unpacked =
        std::process::Command::new(script).arg("security").arg(home.path()).output().unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let authority = Authority::new();
    let certificate = authority.issue("node", &["localhost", "127.0.0.1"]);
    let config = home.path().join("config");
    let ca_file = file(&config, "ca.pem", authority.pem());
    file(&config, "node.pem", &certificate.cert_pem);
    file(&config, "node.key", &certificate.key_pem);
    let mut node_settings = vec![
        "plugins.security.ssl.http.enabled=true".to_owned(),
        "plugins.security.allow_default_init_securityindex=true".to_owned(),
        "plugins.security.authcz.admin_dn=CN=admin".to_owned(),
        "plugins.security.nodes_dn=CN=node".to_owned(),
        "plugins.security.restapi.roles_enabled=all_access".to_owned(),
    ];
    for layer in ["transport", "http"] {
        for (name, path) in
            [("pemcert", "node.pem"), ("pemkey", "node.key"), ("pemtrustedcas", "ca.pem")]
        {
            node_settings.push(format!("plugins.security.ssl.{layer}.{name}_filepath={path}"));
        }
    }
    let node_settings: Vec<&str> = node_settings.iter().map(String::as_str).collect();
    let mut node = Node::start_in(home, "os2", &node_settings);
    // Two seconds of 503 "OpenSearch Security not initialized." are part of every start.
    node.authorize("Basic YWRtaW46YWRtaW4=");
    until("security is initialised", || node.call("GET", "/", None).0 == 200);

    let by_admin = |password: &str, user: &str| Settings {
        namespace: "secured".to_owned(),
        ca_file: Some(ca_file.clone()),
        username: Some(user.to_owned()),
        password_file: Some(file(node.home(), &format!("{user}.password"), password)),
        ..settings(&[&node.url.replace("127.0.0.1", "localhost")])
    };
    let outbox = Memory::default().with(10);
    let running = Running::start(by_admin("wrong", "admin"), &outbox);
    running.until_error("no permission");
    assert!(!running.error().contains("wrong"));
    running.end();
    assert_eq!(outbox.ledger(), (0, 0, 10));

    let running = Running::start(by_admin("admin", "admin"), &outbox);
    outbox.until_empty();
    running.end();

    // The role that README.md documents, and nothing more.
    let role = json!({
        "cluster_permissions": ["cluster:monitor/main", "indices:data/write/bulk"],
        "index_permissions": [{
            "index_patterns": ["logs-mlbridge.verdict-*", "metrics-mlbridge.summary-*", "mlbridge-vetting"],
            "allowed_actions": ["indices:data/write/index", "indices:data/write/bulk*", "indices:admin/mapping/put"]
        }]
    });
    let api = "/_plugins/_security/api";
    let password = "rather-Long-93-password-for-tests";
    let user = json!({"password": password, "opendistro_security_roles": ["writer"]});
    node.ok("PUT", &format!("{api}/roles/writer"), Some(role));
    node.ok("PUT", &format!("{api}/internalusers/writer"), Some(user));
    let reader = json!({"password": password, "opendistro_security_roles": ["readall"]});
    node.ok("PUT", &format!("{api}/internalusers/reader"), Some(reader));

    let least = outbox.clone().with(10);
    let running = Running::start(by_admin(password, "reader"), &least);
    running.until_error("no permission");
    running.end();
    assert_eq!(least.ledger(), (10, 0, 10));
    let running = Running::start(by_admin(password, "writer"), &least);
    least.until_empty();
    assert_eq!(running.error(), "");
    running.end();
    assert_eq!(node.counts("logs-mlbridge.verdict-secured"), (20, 20));
}
