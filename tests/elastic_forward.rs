//! The forwarder against a strict server: each row of the failure table, with the ledger checked after it.

mod support;

use mlbridge::elastic::http::Limits;
use mlbridge::elastic::setup::{self, Mode, Outcome};
use mlbridge::elastic::{Control, Cursor, Ruling, Settings, SummaryRecord, ToVet, VetState};
use mlbridge::policy::overrides::Class;
use serde_json::json;
use std::time::Duration;
use support::outbox::Memory;
use support::server::{Act, Server, opensearch};
use support::tls::{Authority, file};
use support::{Running, settings, until};

const SHORT: Duration = Duration::from_millis(300);

/// Limits short enough for tests of what never comes.
fn short() -> Limits {
    Limits { receive_head: SHORT, receive_body: SHORT, whole: SHORT * 4, ..Limits::default() }
}

/// Everything arrived, each document once, and nobody did anything odd.
fn all_arrived(server: &Server, outbox: &Memory, documents: usize) {
    assert_eq!(outbox.ledger(), (documents, 0, 0));
    assert_eq!(server.ids().len(), documents);
    let state = server.state();
    let doubled = state.stored.values().flat_map(|ids| ids.values()).filter(|entry| entry.1 > 1);
    assert_eq!(doubled.count(), 0);
    drop(state);
    server.check();
}

#[test]
fn documents_arrive_in_batches_compressed_and_once() {
    let server = Server::start();
    let outbox = Memory::default().with(1234);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    assert_eq!(running.error(), "");
    let counters = running.control.status().counters;
    running.end();
    all_arrived(&server, &outbox, 1234);
    assert_eq!((counters.requests, counters.created, counters.sent), (3, 1234, 1234));
    assert!(counters.bytes_sent * 5 < counters.bytes, "{counters:?}");
    let state = server.state();
    assert_eq!(state.connections, 1, "one connection serves all requests");
    assert!(
        state.requests.iter().all(|request| !request.body.is_empty() || request.method == "GET")
    );
}

/// What becomes of ten documents when the server first does this: delivered, dead, pending, and whether they arrive.
fn after(act: Act, error: &str) {
    let name = format!("{act:?}");
    let server = Server::start().script([act]);
    let outbox = Memory::default().with(10);
    let running = Running::with_limits(settings(&[&server.url()]), &outbox, short());
    outbox.until_empty();
    let counters = running.control.status().counters;
    running.end();
    assert_eq!(outbox.ledger(), (10, 0, 0), "{name}");
    assert_eq!(server.ids().len(), 10, "{name}");
    assert!(counters.failed_requests > 0 || error.is_empty(), "{name}: {counters:?}");
    server.check();
}

#[test]
fn what_passes_by_itself_is_waited_for() {
    std::thread::scope(|scope| {
        for act in [
            Act::Answer(429, ""),
            Act::AnswerWith(429, "Retry-After: 1", ""),
            Act::AnswerWith(503, "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT", "<html>"),
            Act::Answer(408, ""),
            Act::Answer(425, ""),
            Act::Answer(500, "{}"),
            Act::Answer(502, "<html>bad gateway</html>"),
            Act::Answer(503, "OpenSearch Security not initialized."),
            Act::Answer(504, ""),
            Act::Answer(413, ""),
            Act::Answer(200, "<html>please log in</html>"),
            Act::Answer(200, ""),
            Act::Answer(200, "{\"errors\":false,\"items\":[]}"),
            Act::TooFewItems,
            Act::StoreAndCut,
            Act::CutUnread,
            Act::HalfAnAnswer,
            Act::Silence,
            Act::Drip,
            Act::Raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            Act::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"),
        ] {
            scope.spawn(move || after(act, "told"));
        }
    });
}

#[test]
fn what_arrived_before_counts_as_arrived() {
    let server = Server::start().script([Act::StoreAndCut, Act::HalfAnAnswer]);
    let outbox = Memory::default().with(10);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    let counters = running.control.status().counters;
    running.end();
    all_arrived(&server, &outbox, 10);
    assert_eq!((counters.created, counters.duplicates), (0, 10));
}

#[test]
fn items_are_settled_one_by_one() {
    let poison = "failed to parse field [source.ip], value '192.0.2.77'";
    let first = vec![
        (201, "", ""),
        (429, "es_rejected_execution_exception", "queue"),
        (400, "document_parsing_exception", poison),
        (503, "unavailable_shards_exception", "shard"),
        (409, "version_conflict_engine_exception", "there"),
    ];
    let server = Server::start().script([Act::Items(first)]);
    let outbox = Memory::default().with(5);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    running.end();
    assert_eq!(outbox.ledger(), (4, 1, 0));
    let dead = outbox.state().dead.clone();
    assert_eq!(dead[0].0, 2);
    let reason =
        "400 document_parsing_exception: failed to parse field [source.ip], value '[address]'";
    assert_eq!(dead[0].1, reason);
    server.check();
}

#[test]
fn what_a_full_request_leaves_behind_comes_first() {
    // The next documents are read while the first ones travel; here these have to wait.
    let busy = vec![(429, "es_rejected_execution_exception", "queue")];
    let server = Server::start().script([Act::Items(busy)]);
    let outbox = Memory::default().with(1600);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 1600);
    let order = outbox.state().delivered.clone();
    let place = |row: i64| order.iter().position(|other| *other == row).unwrap();
    assert!(place(0) > place(499) && place(0) < place(500), "row 0 came at {}", place(0));
}

/// What only an operator can mend: nothing is lost, the error says what to do, and after the repair (a forwarder made
/// anew, as a reload does) everything arrives.
fn kept_until_mended(act: Act, error: &str) {
    let server = Server::start().script([act]);
    let outbox = Memory::default().with(10);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    running.until_error(error);
    assert_eq!(outbox.ledger(), (0, 0, 10), "{error}");
    let told = running.error();
    assert!(told.starts_with(&format!("elasticsearch.urls: {}: ", server.url())), "{told}");
    running.end();
    let mended = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    assert_eq!(mended.error(), "");
    mended.end();
    all_arrived(&server, &outbox, 10);
}

#[test]
fn what_only_an_operator_can_mend_is_kept() {
    const BLOCKED: &[(u16, &str, &str)] =
        &[(403, "cluster_block_exception", "index write (api)"); 10];
    const FLOOD: &[(u16, &str, &str)] =
        &[(429, "cluster_block_exception", "disk usage exceeded flood-stage watermark"); 10];
    const CLOSED: &[(u16, &str, &str)] = &[(400, "index_closed_exception", "closed"); 10];
    const ROLE: &[(u16, &str, &str)] = &[(403, "security_exception", "no permissions for [x]"); 10];
    std::thread::scope(|scope| {
        for (act, error) in [
            (Act::AnswerWith(301, "Location: http://127.0.0.1:1/", ""), "redirects (301)"),
            (Act::AnswerWith(307, "Location: http://127.0.0.1:1/", ""), "redirects (307)"),
            (Act::Answer(400, "{\"error\":\"no handler found for uri [/x]\"}"), "check the path"),
            (Act::Answer(401, "Unauthorized"), "check elasticsearch.api_key_file"),
            (Act::Answer(403, "{}"), "give the user the role"),
            (Act::Answer(404, "<html>"), "check the path"),
            (Act::Answer(405, ""), "check the path"),
            (Act::Answer(406, ""), "is it Elasticsearch"),
            (Act::Items(BLOCKED.to_vec()), "writes are blocked"),
            (Act::Items(FLOOD.to_vec()), "free space on the nodes"),
            (Act::Items(CLOSED.to_vec()), "the index is closed"),
            (Act::Items(ROLE.to_vec()), "give the user the role"),
        ] {
            scope.spawn(move || kept_until_mended(act, error));
        }
    });
}

#[test]
fn redirects_are_never_followed_with_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let trap = Server::start();
    let location: &'static str = format!("Location: {}/", trap.url()).leak();
    let server = Server::start().script([Act::AnswerWith(307, location, "")]);
    server.state().authorization = Some("ApiKey aWQ6a2V5".to_owned());
    let outbox = Memory::default().with(1);
    let with_key = Settings {
        api_key_file: Some(file(folder.path(), "key", "id:key\n")),
        ..settings(&[&server.url()])
    };
    let running = Running::start(with_key, &outbox);
    running.until_error("redirects");
    running.end();
    assert_eq!(trap.state().connections, 0);
    server.check();
}

#[test]
fn a_server_that_takes_no_gzip_gets_plain_bodies() {
    let server = Server::start();
    server.state().refuses_gzip = true;
    let outbox = Memory::default().with(20);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 20);
}

#[test]
fn a_body_limit_is_learnt() {
    let server = Server::start();
    server.state().largest_body = Some(64 << 10);
    let outbox = Memory::default().with(1000);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 1000);
    let state = server.state();
    let refused = state.requests.iter().filter(|r| r.body.len() > 64 << 10).count();
    assert!((1..=6).contains(&refused), "{refused} bodies were too large");
}

#[test]
fn a_lone_document_too_large_becomes_a_dead_letter() {
    let server = Server::start();
    server.state().largest_body = Some(64 << 10);
    let outbox = Memory::default().with(3);
    outbox.add(|id, _| {
        let filler = "x".repeat(100 << 10);
        format!("{{\"@timestamp\":\"2026-11-24T10:00:00Z\",\"event\":{{\"id\":\"{id}\"}},\"f\":\"{filler}\"}}").into_bytes()
    });
    let outbox = outbox.with(300);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    running.end();
    assert_eq!(outbox.ledger(), (303, 1, 0));
    assert_eq!(outbox.state().dead, [(3, "too large (413)".to_owned())]);
    server.check();
}

#[test]
fn another_node_takes_over_at_once() {
    let dead = Server::start();
    let (dead_url, alive) = (dead.url(), Server::start());
    drop(dead);
    until("the port is closed", || {
        std::net::TcpStream::connect(dead_url.trim_start_matches("http://")).is_err()
    });
    let outbox = Memory::default().with(700);
    let running = Running::start(settings(&[&dead_url, &alive.url()]), &outbox);
    outbox.until_empty();
    assert_eq!(running.error(), "");
    running.end();
    all_arrived(&alive, &outbox, 700);
}

#[test]
fn a_failing_node_is_left_and_its_documents_arrive_elsewhere_once() {
    let first = Server::start().script([Act::CutUnread, Act::Answer(503, ""), Act::CutUnread]);
    let second = Server::start().script([Act::Answer(503, "")]);
    let outbox = Memory::default().with(100);
    let running = Running::start(settings(&[&first.url(), &second.url()]), &outbox);
    outbox.until_empty();
    running.end();
    assert_eq!(outbox.ledger(), (100, 0, 0));
    let mut ids = first.ids();
    ids.extend(second.ids());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100);
    first.check();
    second.check();
}

#[test]
fn a_node_that_comes_back_is_found_again() {
    let server = Server::start();
    let address = server.address();
    let url = server.url();
    drop(server);
    let outbox = Memory::default().with(5);
    let running = Running::start(settings(&[&url]), &outbox);
    running.until_error("connection refused");
    assert_eq!(outbox.ledger(), (0, 0, 5));
    let server = Server::start_at(address);
    running.control.hurry();
    until("all arrive", || {
        running.control.hurry();
        outbox.state().pending.is_empty()
    });
    running.end();
    all_arrived(&server, &outbox, 5);
}

#[test]
fn a_name_without_an_address_is_told() {
    let outbox = Memory::default().with(1);
    let running = Running::start(settings(&["http://no-such-host.invalid:9200"]), &outbox);
    running.until_error("elasticsearch.urls: http://no-such-host.invalid:9200: the ");
    running.end();
    assert_eq!(outbox.ledger(), (0, 0, 1));
}

#[test]
fn it_ends_while_a_node_hangs() {
    let server = Server::start().script([Act::Silence]);
    let outbox = Memory::default().with(1);
    // The limits are those of production: a minute until an answer begins.
    let running = Running::start(settings(&[&server.url()]), &outbox);
    server.until_script_is_over();
    running.end();
    assert_eq!(outbox.ledger(), (0, 0, 1));
}

#[test]
fn it_ends_while_it_waits() {
    let server = Server::start().script([Act::Answer(401, "")]);
    let outbox = Memory::default().with(1);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    running.until_error("credentials refused");
    running.end();
}

#[test]
fn what_can_still_be_delivered_at_the_end_is() {
    let server = Server::start();
    let outbox = Memory::default();
    let running = Running::start(settings(&[&server.url()]), &outbox);
    until("it is set up", || server.state().templates.len() >= 3);
    let outbox = outbox.with(1500);
    running.control.close(support::PATIENCE);
    assert!(running.control.wait_ended(support::PATIENCE));
    all_arrived(&server, &outbox, 1500);
}

#[test]
fn a_panic_in_one_turn_does_not_end_it() {
    let server = Server::start();
    let outbox = Memory::default();
    outbox.state().panics = 1;
    let running = Running::start(settings(&[&server.url()]), &outbox);
    running.until_error("internal error");
    running.end();
}

// ------------------------------------------------------------------ secrets and TLS

#[test]
fn a_key_that_was_replaced_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    server.state().authorization = Some("ApiKey bmV3OmtleQ==".to_owned());
    let key = file(folder.path(), "key", "old:key");
    let outbox = Memory::default().with(5);
    let with_key = Settings { api_key_file: Some(key), ..settings(&[&server.url()]) };
    let running = Running::start(with_key.clone(), &outbox);
    running.until_error("no permission");
    assert!(
        !running.error().contains("key") || !running.error().contains("old:"),
        "{}",
        running.error()
    );
    running.end();
    // It looks once a minute; a forwarder made anew looks at once.
    file(folder.path(), "key", "new:key");
    let running = Running::start(with_key, &outbox);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 5);
}

#[test]
fn a_password_replaced_between_two_requests_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    server.state().authorization = Some("Basic dTpvbGQ=".to_owned());
    let with_password = Settings {
        username: Some("u".to_owned()),
        password_file: Some(file(folder.path(), "password", "old\n")),
        ..settings(&[&server.url()])
    };
    let outbox = Memory::default().with(1);
    let running = Running::start(with_password, &outbox);
    outbox.until_empty();
    file(folder.path(), "password", "new\n");
    server.state().authorization = Some("Basic dTpuZXc=".to_owned());
    let outbox = outbox.with(5);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 6);
}

#[test]
fn files_are_checked_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (one, two) = (authority.issue("a", &["a"]), authority.issue("b", &["b"]));
    let good = settings(&["https://localhost"]);
    let put = |name: &str, text: &str| Some(file(folder.path(), name, text));
    let missing = Some(folder.path().join("missing"));
    let cert = |cert: &str, key: &str| Settings {
        client_cert: put("cert", cert),
        client_key: put("key", key),
        ..good.clone()
    };
    for (broken, words) in [
        (
            Settings { api_key_file: missing.clone(), ..good.clone() },
            "elasticsearch.api_key_file: ",
        ),
        (Settings { api_key_file: put("empty", " \n"), ..good.clone() }, "is empty"),
        (Settings { api_key_file: put("odd", "a\nb"), ..good.clone() }, "no part of an API key"),
        (Settings { ca_file: missing, ..good.clone() }, "elasticsearch.ca_file: "),
        (Settings { ca_file: put("no-pem", "hello"), ..good.clone() }, "no certificate"),
        (cert("hello", &one.key_pem), "elasticsearch.client_cert: "),
        (cert(&one.cert_pem, "hello"), "elasticsearch.client_key: "),
        (cert(&one.cert_pem, &two.key_pem), "does not fit elasticsearch.client_cert"),
    ] {
        let made = mlbridge::elastic::Forwarder::new(broken, support::identity());
        let error = made.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(
        mlbridge::elastic::Forwarder::new(cert(&one.cert_pem, &one.key_pem), support::identity())
            .is_ok()
    );
}

#[test]
fn tls_with_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server =
        Server::start_tls(authority.server(&authority.issue("node", &["localhost"]), false));
    let ca_file = Some(file(folder.path(), "ca.pem", authority.pem()));
    let outbox = Memory::default().with(1000);
    let running =
        Running::start(Settings { ca_file, ..settings(&[&server.url_by_name()]) }, &outbox);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 1000);
}

/// A node whose certificate is not good enough gets nothing, and the error says what to do.
fn refused(node: Settings, server: &Server, words: &str) {
    let outbox = Memory::default().with(3);
    let running = Running::start(node, &outbox);
    running.until_error(words);
    running.end();
    assert_eq!(outbox.ledger(), (0, 0, 3), "{words}");
    assert_eq!(server.state().requests.len(), 0, "{words}");
}

#[test]
fn tls_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let ca_file = Some(file(folder.path(), "ca.pem", ours.pem()));
    let with_ca = |url: String| Settings { ca_file: ca_file.clone(), ..settings(&[&url]) };

    let strange = Server::start_tls(theirs.server(&theirs.issue("node", &["localhost"]), false));
    refused(
        with_ca(strange.url_by_name()),
        &strange,
        "certificate not trusted; set elasticsearch.ca_file",
    );
    refused(
        settings(&[&strange.url_by_name()]),
        &strange,
        "certificate not trusted; set elasticsearch.ca_file",
    );

    let other_name = Server::start_tls(ours.server(&ours.issue("node", &["es1.example"]), false));
    refused(with_ca(other_name.url_by_name()), &other_name, "the certificate is for another name");

    let mutual = Server::start_tls(ours.server(&ours.issue("node", &["localhost"]), true));
    refused(with_ca(mutual.url_by_name()), &mutual, "check elasticsearch.client_cert");
    let stranger = theirs.issue("stranger", &["stranger"]);
    let with_strange_cert = Settings {
        client_cert: Some(file(folder.path(), "strange.pem", &stranger.cert_pem)),
        client_key: Some(file(folder.path(), "strange.key", &stranger.key_pem)),
        ..with_ca(mutual.url_by_name())
    };
    refused(with_strange_cert, &mutual, "check elasticsearch.client_cert");

    let plain = Server::start();
    let url = plain.url_by_name().replace("http://", "https://");
    refused(with_ca(url), &plain, "answers without TLS");
}

/// A node that wants TLS cuts plain connections without a word.
#[test]
fn a_cut_connection_hints_at_tls() {
    let server = Server::start().script([Act::CutUnread]);
    let outbox = Memory::default().with(1);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    running.until_error("cut before the answer was whole; is it an https address?");
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 1);
}

#[test]
fn mutual_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server =
        Server::start_tls(authority.server(&authority.issue("node", &["localhost"]), true));
    let client = authority.issue("ns1", &["ns1"]);
    let with_cert = Settings {
        ca_file: Some(file(folder.path(), "ca.pem", authority.pem())),
        client_cert: Some(file(folder.path(), "client.pem", &client.cert_pem)),
        client_key: Some(file(folder.path(), "client.key", &client.key_pem)),
        ..settings(&[&server.url_by_name()])
    };
    let outbox = Memory::default().with(10);
    let running = Running::start(with_cert, &outbox);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 10);
}

#[test]
fn the_environment_chooses_no_proxy() {
    // The variables are set for a process of its own: this test, run again.
    if std::env::var_os("MLB_TEST_PROXY").is_none() {
        let trap = Server::start();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        for name in
            ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        {
            child.env(name, trap.url());
        }
        child.args(["--exact", "the_environment_chooses_no_proxy"]).env("MLB_TEST_PROXY", "1");
        assert!(child.output().unwrap().status.success());
        assert_eq!(trap.state().connections, 0);
        return;
    }
    let server = Server::start();
    let outbox = Memory::default().with(1);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 1);
}

// ------------------------------------------------------------------ set-up

fn plan(server: &Server, mode: Mode) -> Vec<(String, String)> {
    let client =
        mlbridge::elastic::http::Client::new(&settings(&[&server.url()]), Limits::default())
            .unwrap();
    let mut steps = Vec::new();
    let mut exchange = |method, path: &str, body: Option<&str>| {
        let body = body.map(|text| (mlbridge::elastic::http::Content::Json, text.as_bytes()));
        client.send(0, method, path, body, None)
    };
    let settings = settings(&[&server.url()]);
    let mut note = |step: setup::Step| {
        let outcome = match step.outcome {
            Outcome::Present => "present".to_owned(),
            Outcome::Installed => "installed".to_owned(),
            Outcome::Planned(what) => what.lines().next().unwrap_or("").to_owned(),
            Outcome::Skipped(why) => format!("skipped: {why}"),
        };
        steps.push((step.what, outcome));
    };
    setup::prepare(&mut exchange, &settings, mode, &mut note).unwrap();
    steps
}

#[test]
fn set_up_is_planned_done_and_then_left_alone() {
    let server = Server::start();
    let names = |steps: &[(String, String)], outcome: &str| -> Vec<String> {
        steps.iter().filter(|step| step.1.starts_with(outcome)).map(|step| step.0.clone()).collect()
    };
    let all = [
        "lifecycle policy mlbridge",
        "index template mlbridge-verdict",
        "index template mlbridge-summary",
        "index mlbridge-vetting",
    ];
    assert_eq!(names(&plan(&server, Mode::Plan), "PUT /"), all);
    assert_eq!(server.state().templates.len(), 0, "a plan changes nothing");
    assert_eq!(names(&plan(&server, Mode::Install), "installed"), all);
    assert_eq!(names(&plan(&server, Mode::Install), "present"), all);

    let template = server.state().templates["/_index_template/mlbridge-verdict"].clone();
    assert_eq!(template["template"]["settings"]["index"]["lifecycle"]["name"], "mlbridge");
    // An older one is replaced, and the stream's present index learns the new fields.
    server.state().templates.get_mut("/_index_template/mlbridge-verdict").unwrap()["version"] =
        json!(0);
    let steps = plan(&server, Mode::Install);
    assert_eq!(names(&steps, "installed"), ["index template mlbridge-verdict"]);
    assert_eq!(names(&steps, "skipped"), ["mapping of logs-mlbridge.verdict-default"]);
    // A newer one, and policies of any content, are somebody's own.
    server.state().templates.get_mut("/_index_template/mlbridge-verdict").unwrap()["version"] =
        json!(99);
    assert_eq!(names(&plan(&server, Mode::Install), "present"), all);
}

#[test]
fn set_up_of_opensearch_makes_the_streams_and_names_no_ilm_policy() {
    let server = Server::start();
    server.state().root = Some(opensearch());
    plan(&server, Mode::Install);
    let state = server.state();
    let made: Vec<&str> = state.templates.keys().map(String::as_str).collect();
    assert_eq!(
        made,
        [
            "/_data_stream/logs-mlbridge.verdict-default",
            "/_data_stream/metrics-mlbridge.summary-default",
            "/_index_template/mlbridge-summary",
            "/_index_template/mlbridge-verdict",
            "/_plugins/_ism/policies/mlbridge",
            "/mlbridge-vetting",
        ]
    );
    let template = &state.templates["/_index_template/mlbridge-verdict"];
    assert_eq!(template["template"]["settings"]["index"].get("lifecycle"), None);
}

#[test]
fn the_command_sets_up_and_imports_the_dashboards() {
    let server = Server::start();
    let urls = format!("elasticsearch.urls={}", server.url());
    let run = |arguments: &[&str]| {
        let command = env!("CARGO_BIN_EXE_mlbridge");
        let output = std::process::Command::new(command).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.success(), text.concat())
    };
    let (done, text) = run(&["setup", "elasticsearch", "--dry-run", "--set", &urls]);
    assert!(done && text.contains("PUT /_index_template/mlbridge-verdict"), "{text}");
    assert_eq!(server.state().templates.len(), 0);
    let (done, text) = run(&["setup", "elasticsearch", "--kibana", &server.url(), "--set", &urls]);
    assert!(done && text.contains("index template mlbridge-verdict: installed"), "{text}");
    assert!(text.contains("dashboards: 14 objects imported"), "{text}");
    let (done, text) = run(&["setup", "elasticsearch", "--set", &urls]);
    assert!(done && text.contains("index template mlbridge-verdict: there already"), "{text}");
    let (done, text) = run(&["setup", "dashboards"]);
    assert!(done && text == setup::DASHBOARDS);
    let (done, text) =
        run(&["setup", "elasticsearch", "--set", "elasticsearch.urls=http://127.0.0.1:1"]);
    assert!(
        !done && text.contains("elasticsearch.urls: http://127.0.0.1:1: connection refused"),
        "{text}"
    );
    server.check();
}

#[test]
fn a_missing_index_is_set_up_again() {
    let server = Server::start().script([Act::Items(vec![
        (
            404,
            "index_not_found_exception",
            "no such index"
        );
        5
    ])]);
    let outbox = Memory::default().with(5);
    let running = Running::start(settings(&[&server.url()]), &outbox);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 5);
    let probes = server.state().requests.iter().filter(|request| request.path == "/").count();
    assert_eq!(probes, 2);
}

#[test]
fn without_set_up_nothing_is_put_and_a_bare_write_is_refused() {
    let server = Server::start();
    server.state().root = Some(opensearch());
    let outbox = Memory::default().with(5);
    let without = Settings { setup: false, ..settings(&[&server.url()]) };
    let running = Running::start(without.clone(), &outbox);
    running.until_error("run `mlbridge setup elasticsearch`");
    running.end();
    assert!(server.state().requests.iter().all(|request| request.method == "GET"));
    plan(&server, Mode::Install);
    let running = Running::start(without, &outbox);
    outbox.until_empty();
    running.end();
    all_arrived(&server, &outbox, 5);
}

// ------------------------------------------------------------------ summaries and vetting

#[test]
fn names_to_vet_and_decisions_made_here_go_to_the_index() {
    let server = Server::start();
    let outbox = Memory::default();
    let pending = |key: i64, name: &str| ToVet {
        key,
        name: name.to_owned(),
        state: VetState::Pending {
            example: format!("x.{name}"),
            score: 0.7,
            first_seen_ms: 0,
            count: 1,
        },
    };
    outbox.state().to_vet =
        vec![pending(1, "a.example"), pending(2, "b.example"), pending(3, "a.example")];
    let running = Running::start(settings(&[&server.url()]), &outbox);
    until("all are written", || outbox.state().to_vet.is_empty());
    let ruling = Ruling {
        class: Class::Malicious,
        author: "ann".to_owned(),
        note: String::new(),
        scope: String::new(),
        at_ms: 1,
        expires_ms: None,
    };
    outbox.state().to_vet =
        vec![ToVet { key: 4, name: "a.example".to_owned(), state: VetState::Decided(ruling) }];
    until("the decision is written", || outbox.state().vetting_written.len() == 4);
    assert_eq!(running.error(), "");
    running.end();
    let state = server.state();
    let index = &state.stored["mlbridge-vetting"];
    assert_eq!(index.len(), 2);
    let decided = &index[&mlbridge::elastic::vetting::id("a.example")].0;
    assert_eq!((&decided["state"], &decided["decided_by"]), (&json!("malicious"), &json!("ann")));
    drop(state);
    server.check();
}

#[test]
fn a_vetting_index_that_somebody_deleted_is_made_by_its_own_mappings() {
    let server = Server::start();
    let outbox = Memory::default();
    let running = Running::start(settings(&[&server.url()]), &outbox);
    until("it is set up", || server.state().stored.contains_key("mlbridge-vetting"));
    {
        let mut state = server.state();
        state.stored.remove("mlbridge-vetting");
        state.templates.remove("/mlbridge-vetting");
    }
    let state = VetState::Withdrawn { author: "ann".to_owned(), at_ms: 1 };
    outbox.state().to_vet = vec![ToVet { key: 1, name: "a.example".to_owned(), state }];
    until("it is made anew", || server.state().templates.contains_key("/mlbridge-vetting"));
    assert!(server.state().stored["mlbridge-vetting"].is_empty());
    assert!(outbox.state().vetting_written.is_empty());
    running.end();
    server.check();
}

#[test]
fn decisions_come_back_in_time_and_only_if_allowed() {
    let server = Server::start();
    let outbox = Memory::default();
    let decide = |name: &str, state: &str| {
        let id = mlbridge::elastic::vetting::id(name);
        server.state().decide(&id, json!({"name": name, "state": state, "decided_by": "ann"}));
    };
    decide("a.example", "malicious");
    decide("co.uk", "malicious");
    let base = settings(&[&server.url()]);
    let running = Running::start(base.clone(), &outbox);
    until("it is set up", || server.state().templates.len() >= 3);
    running.end();
    assert_eq!(outbox.state().decided, []);

    let allowed = Settings { overrides: true, poll: Duration::from_millis(50), ..base };
    let running = Running::start(allowed.clone(), &outbox);
    until("the decision is here", || outbox.state().decided.len() == 1);
    running.until_error("\"co.uk\" is a public suffix");
    decide("b.example", "benign");
    until("the next is here", || outbox.state().decided.len() == 2);
    decide("a.example", "pending");
    until("it is taken back", || outbox.state().decided.len() == 3);
    running.end();
    let decided = outbox.state().decided.clone();
    assert_eq!(decided[0].ruling.as_ref().unwrap().class, Class::Malicious);
    assert_eq!(decided[2].ruling, None);
    let cursor = outbox.state().cursor.clone();
    assert_eq!(cursor, Cursor { index: "u1".to_owned(), seq_no: 3 });
    server.check();
}

#[test]
fn summaries_hold_what_came_since_the_last_that_arrived() {
    let server = Server::start();
    let outbox = Memory::default();
    let at = |time_ms: i64, classified: u64| SummaryRecord {
        time_ms,
        classified,
        ..SummaryRecord::default()
    };
    outbox.state().summary = Some(at(1000, 5));
    let forwarder =
        mlbridge::elastic::Forwarder::new(settings(&[&server.url()]), support::identity());
    let forwarder = forwarder.unwrap().with_summary_every(Duration::from_millis(50));
    let running = Running::of(forwarder, &outbox);
    let stored = || {
        let state = server.state();
        let summaries =
            state.stored.get("metrics-mlbridge.summary-default").cloned().unwrap_or_default();
        summaries
            .into_values()
            .map(|(document, _)| document["mlbridge"]["classified"].clone())
            .collect::<Vec<_>>()
    };
    until("the first arrives", || stored() == [json!(5)]);
    outbox.state().summary = Some(at(2000, 12));
    until("the second arrives", || stored() == [json!(5), json!(7)]);
    assert_eq!(running.error(), "");
    let earlier = std::sync::Arc::clone(&running.control);
    running.end();
    // With other settings another forwarder takes over.
    outbox.state().summary = Some(at(3000, 15));
    let control = Control::following(&earlier);
    assert_eq!(control.status().counters, earlier.status().counters);
    let forwarder =
        mlbridge::elastic::Forwarder::new(settings(&[&server.url()]), support::identity());
    let forwarder = forwarder.unwrap().with_summary_every(Duration::from_millis(50));
    let running = Running::with(forwarder, &outbox, control);
    until("the third arrives", || stored() == [json!(5), json!(7), json!(3)]);
    running.end();
    server.check();
}
