//! What the forwarder makes of what six releases really answered: Elasticsearch 7.17, 8.19, 9.5 and OpenSearch 1.3, 2.19,
//! 3.8. The answers in `tests/elastic/answers` were recorded by `tests/elastic/record`.

use mlbridge::elastic::retry::{Answer, Decision, Failure, Health, Remedy, Sender, Wait};
use mlbridge::elastic::setup::{Product, Server};
use mlbridge::elastic::{Document, bulk};
use serde_json::Value;
use std::time::Duration;

const LANES: [&str; 6] = ["es7", "es8", "es9", "os1", "os2", "os3"];
const STREAM: &str = "logs-mlbridge.verdict-default";
const NODE: usize = 0;

fn answers(lane: &str) -> Value {
    let path = format!("{}/tests/elastic/answers/{lane}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

fn document(row: i64, id: &str) -> Document {
    Document { row, id: id.to_owned(), source: b"{}".to_vec() }
}

/// The documents a row was recorded with, numbered from 0, and its answer.
fn recorded(row: &Value) -> (Vec<Document>, Answer) {
    let ids = row["ids"].as_array().unwrap();
    let documents =
        ids.iter().enumerate().map(|(row, id)| document(row as i64, id.as_str().unwrap()));
    let body = row["body"].as_str().unwrap().replace("{\"index\":{", "{\"create\":{");
    let status = u16::try_from(row["status"].as_u64().unwrap()).unwrap();
    (documents.collect(), Answer { status, retry_after: None, body: body.into_bytes() })
}

fn judge(sender: &mut Sender, documents: &[Document], answer: &Answer) -> Decision {
    let sent: Vec<&Document> = documents.iter().collect();
    sender.judge(&sent, 1000, NODE, &Ok(answer.clone()), 0)
}

/// One line that says what was decided.
fn line(decision: &Decision) -> String {
    let wait = match decision.wait {
        Wait::No => "at once".to_owned(),
        Wait::Backoff { least } if least.is_zero() => "backoff".to_owned(),
        Wait::Backoff { least } => format!("backoff of {} s", least.as_secs()),
        Wait::Exactly(time) => format!("{} s", time.as_secs()),
    };
    let dead: Vec<i64> = decision.settled.dead.iter().map(|dead| dead.0).collect();
    let remedy = match decision.remedy {
        None => "",
        Some(Remedy::Setup) => ", set up",
        Some(Remedy::Credentials) => ", credentials",
    };
    let health = if decision.health == Health::Bad { ", other node" } else { "" };
    let Decision { created, duplicates, .. } = decision;
    format!("{created} new, {duplicates} there, dead {dead:?}, {wait}{remedy}{health}")
}

#[test]
fn every_row_of_every_release() {
    let table = [
        ("created", "2 new, 0 there, dead [], at once"),
        ("duplicate", "1 new, 1 there, dead [], at once"),
        ("same_id_twice", "1 new, 1 there, dead [], at once"),
        ("mapping", "1 new, 0 there, dead [1, 2], at once"),
        ("all_mapping", "0 new, 0 there, dead [], at once"),
        ("broken_document", "1 new, 0 there, dead [1], at once"),
        ("term_too_long", "0 new, 0 there, dead [], backoff"),
        ("strict", "0 new, 0 there, dead [], backoff"),
        ("field_limit", "0 new, 0 there, dead [], backoff"),
        ("wrong_op", "0 new, 0 there, dead [], 60 s"),
        ("no_index", "0 new, 0 there, dead [], backoff, set up"),
        ("write_block", "0 new, 0 there, dead [], 60 s"),
        ("cluster_block", "0 new, 0 there, dead [], 60 s"),
        ("flood_stage", "0 new, 0 there, dead [], backoff of 30 s"),
        ("closed", "0 new, 0 there, dead [], 60 s"),
        ("unavailable", "0 new, 0 there, dead [], backoff"),
        ("pressure", "0 new, 0 there, dead [], backoff"),
        ("too_big", "0 new, 0 there, dead [], backoff"),
        ("unknown_parameter", "0 new, 0 there, dead [], 60 s"),
        ("broken_action", "0 new, 0 there, dead [], backoff"),
        ("malformed_action", "0 new, 0 there, dead [], backoff"),
        ("no_line_end", "0 new, 0 there, dead [], 60 s"),
        ("long_id", "0 new, 0 there, dead [], backoff"),
        ("text_plain", "0 new, 0 there, dead [], 60 s"),
        ("method", "0 new, 0 there, dead [], 60 s"),
    ];
    for lane in LANES {
        let rows = answers(lane);
        for (name, expected) in table {
            let Some(row) = rows.get(name) else {
                // Those two have no data streams, and so no wrong way to write into one.
                assert!(name == "wrong_op" && matches!(lane, "es7" | "os1"), "{lane}: {name}");
                continue;
            };
            let (documents, answer) = recorded(row);
            let mut sender = Sender::new(STREAM.to_owned());
            let documents = if documents.is_empty() { vec![document(0, "x")] } else { documents };
            let decision = judge(&mut sender, &documents, &answer);
            assert_eq!(line(&decision), expected, "{lane}: {name}: {:?}", decision.trouble);
            let told = decision.trouble.unwrap_or_default();
            assert!(!told.contains("192.0.2.7"), "{lane}: {name}: {told}");
            assert!(told.len() < 1200, "{lane}: {name}: {told}");
        }
    }
}

#[test]
fn a_full_queue_resends_only_what_was_refused() {
    for lane in LANES {
        let rows = answers(lane);
        let (documents, answer) = recorded(&rows["queue_full"]);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let taken = |item: &&Value| item["create"]["status"] == 201;
        let expected: Vec<i64> = (0..)
            .zip(body["items"].as_array().unwrap())
            .filter(|(_, item)| taken(item))
            .map(|(row, _)| row)
            .collect();
        assert!(!expected.is_empty() && expected.len() < documents.len());
        let mut sender = Sender::new("rows-queue".to_owned());
        let decision = judge(&mut sender, &documents, &answer);
        assert_eq!(decision.settled.delivered, expected, "{lane}");
        assert_eq!(decision.settled.dead, vec![]);
        assert_eq!(decision.wait, Wait::Backoff { least: Duration::ZERO });
        let half = (documents.len() / 2).max(64);
        assert_eq!(
            sender.appetite().0,
            half,
            "{lane}: the next request is half as large, but no smaller than 64"
        );
    }
}

#[test]
fn a_plain_index_in_the_streams_place_is_noticed() {
    for lane in ["es7", "os1"] {
        let (documents, answer) = recorded(&answers(lane)["created"]);
        let decision = judge(&mut Sender::new(STREAM.to_owned()), &documents, &answer);
        assert!(decision.trouble.unwrap().contains("is a plain index"));
    }
    for lane in ["es8", "es9", "os2", "os3"] {
        let (documents, answer) = recorded(&answers(lane)["created"]);
        let decision = judge(&mut Sender::new(STREAM.to_owned()), &documents, &answer);
        assert_eq!(decision.trouble, None);
        let decision = judge(&mut Sender::new("another".to_owned()), &documents, &answer);
        assert!(decision.trouble.unwrap().contains("check the path"));
    }
}

#[test]
fn servers_are_told_apart() {
    for (lane, product, version) in [
        ("es7", Product::Elasticsearch, (7, 17)),
        ("os1", Product::OpenSearch, (1, 3)),
        ("os2", Product::OpenSearch, (2, 19)),
        ("os3", Product::OpenSearch, (3, 8)),
    ] {
        let (_, answer) = recorded(&answers(lane)["root"]);
        let server = Server::parse(&answer.body).unwrap();
        assert_eq!((server.product, server.version), (product, version), "{lane}");
        assert!(!server.knows_require_data_stream());
    }
    let disguised = br#"{"version":{"number":"7.10.2","build_flavor":"oss"},"tagline":"The OpenSearch Project: https://opensearch.org/"}"#;
    assert_eq!(Server::parse(disguised).unwrap().product, Product::OpenSearch);
    let serverless = br#"{"version":{"number":"8.11.0","build_flavor":"serverless"},"tagline":"You Know, for Search"}"#;
    let server = Server::parse(serverless).unwrap();
    assert!(server.serverless && server.knows_require_data_stream());
    for number in ["8.13.0", "9.0.1"] {
        let text = format!(
            "{{\"version\":{{\"number\":\"{number}\"}},\"tagline\":\"You Know, for Search\"}}"
        );
        assert!(Server::parse(text.as_bytes()).unwrap().knows_require_data_stream(), "{number}");
    }
    assert_eq!(Server::parse(b"<html>login</html>"), None);
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, retry_after: None, body: body.as_bytes().to_vec() }
}

/// A bulk answer with these items: id, status, error type.
fn items(items: &[(&str, u16, &str)]) -> Answer {
    let items: Vec<Value> = items
        .iter()
        .map(|(id, status, kind)| {
            let error =
                (!kind.is_empty()).then(|| serde_json::json!({"type": kind, "reason": "r"}));
            serde_json::json!({"create": {
                "_id": id, "_index": format!(".ds-{STREAM}-1"), "status": status, "error": error
            }})
        })
        .collect();
    let body = serde_json::json!({"errors": true, "items": items});
    answer(200, &body.to_string())
}

#[test]
fn whole_requests() {
    let table = [
        (302, "", "60 s"),
        (400, "{\"error\":\"no handler found for uri [/x]\"}", "60 s"),
        (401, "Unauthorized", "60 s, credentials"),
        (
            403,
            "{\"error\":{\"type\":\"security_exception\",\"reason\":\"r\"}}",
            "60 s, credentials",
        ),
        (404, "<html>not found</html>", "60 s"),
        (405, "", "60 s"),
        (406, "", "60 s"),
        (408, "", "backoff"),
        (410, "", "60 s"),
        (425, "", "backoff"),
        (429, "", "backoff"),
        (500, "", "backoff, other node"),
        (502, "<html>bad gateway</html>", "backoff, other node"),
        (503, "OpenSearch Security not initialized.", "backoff, other node"),
        (504, "", "backoff, other node"),
        (200, "<html>please log in</html>", "backoff, other node"),
        (200, "", "backoff, other node"),
        (204, "", "backoff, other node"),
        (200, "{\"errors\":false,\"items\":[]}", "backoff, other node"),
    ];
    let documents = [document(1, "a"), document(2, "b")];
    for (status, body, expected) in table {
        let mut sender = Sender::new(STREAM.to_owned());
        let decision = judge(&mut sender, &documents, &answer(status, body));
        let expected = format!("0 new, 0 there, dead [], {expected}");
        assert_eq!(line(&decision), expected, "{status} {body}: {:?}", decision.trouble);
        assert!(decision.trouble.is_some());
    }
}

#[test]
fn an_answer_about_other_documents_settles_nothing() {
    let documents = [document(1, "a"), document(2, "b")];
    for ids in [&["b", "a"][..], &["a"], &["a", "b", "c"], &["a", "a"]] {
        let all: Vec<(&str, u16, &str)> = ids.iter().map(|id| (*id, 201, "")).collect();
        let decision = judge(&mut Sender::new(STREAM.to_owned()), &documents, &items(&all));
        assert_eq!(decision.settled.delivered, Vec::<i64>::new(), "{ids:?}");
    }
}

#[test]
fn answers_that_are_none_become_slow_after_the_third() {
    let mut sender = Sender::new(STREAM.to_owned());
    let documents = [document(1, "a")];
    let odd = answer(200, "<html>");
    let waits: Vec<Wait> = (0..5).map(|_| judge(&mut sender, &documents, &odd).wait).collect();
    let backoff = Wait::Backoff { least: Duration::ZERO };
    let slow = Wait::Exactly(Duration::from_secs(60));
    assert_eq!(waits, [backoff, backoff, backoff, slow, slow]);
}

#[test]
fn retry_after_is_honoured_up_to_five_minutes() {
    let documents = [document(1, "a"), document(2, "b")];
    let sent: Vec<&Document> = documents.iter().collect();
    // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    let date = 784_111_777;
    for (status, header, now, seconds) in [
        (429, "7", 0, Some(7)),
        (503, " 120 ", 0, Some(120)),
        (503, "86400", 0, Some(300)),
        // No time at all is no answer to overload: else a busy server is asked again and again at once.
        (408, "0", 0, None),
        (429, "Sun, 06 Nov 1994 08:49:37 GMT", date - 30, Some(30)),
        (429, "Sun, 06 Nov 1994 08:49:37 GMT", date + 30, None),
        (429, "Sun, 06 Nov 1994 08:49:37 GMT", 0, Some(300)),
        (429, "soon", 0, None),
        (429, "-5", 0, None),
        (401, "5", 0, Some(60)),
    ] {
        let mut sender = Sender::new(STREAM.to_owned());
        let retry_after = Some(header.to_owned());
        let came = Ok(Answer { status, retry_after, body: Vec::new() });
        let wait = sender.judge(&sent, 10, NODE, &came, now).wait;
        let expected = seconds.map(|seconds| Wait::Exactly(Duration::from_secs(seconds)));
        let expected = expected.unwrap_or(Wait::Backoff { least: Duration::ZERO });
        assert_eq!(wait, expected, "{status} {header}");
    }
}

#[test]
fn backoff_doubles_to_a_minute_with_full_jitter() {
    let mut sender = Sender::new(STREAM.to_owned());
    let documents = [document(1, "a")];
    let mut longest = Vec::new();
    for _ in 0..9 {
        judge(&mut sender, &documents, &answer(503, ""));
        assert_eq!(sender.backoff(Duration::ZERO, 0.0), Duration::ZERO);
        longest.push(sender.backoff(Duration::ZERO, 1.0).as_millis());
    }
    assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    assert_eq!(sender.backoff(Duration::from_secs(30), 0.0), Duration::from_secs(30));
    judge(&mut sender, &documents, &items(&[("a", 201, "")]));
    judge(&mut sender, &documents, &answer(503, ""));
    assert_eq!(sender.backoff(Duration::ZERO, 1.0), Duration::from_millis(500));
}

#[test]
fn too_large_halves_the_bytes_for_good() {
    let mut sender = Sender::new(STREAM.to_owned());
    let documents = [document(1, "a"), document(2, "b")];
    let sent: Vec<&Document> = documents.iter().collect();
    assert_eq!(sender.appetite(), (500, 1 << 20));
    let too_large = Ok(answer(413, ""));
    let decision = sender.judge(&sent, 1_000_000, NODE, &too_large, 0);
    assert_eq!((decision.wait, sender.appetite().1), (Wait::No, 500_000));
    sender.judge(&sent, 400_000, NODE, &too_large, 0);
    assert_eq!(sender.appetite().1, 200_000);
    for _ in 0..100 {
        judge(&mut sender, &documents, &items(&[("a", 201, ""), ("b", 201, "")]));
    }
    assert_eq!(sender.appetite(), (500, 200_000));
}

#[test]
fn picking_stays_within_the_limits() {
    let mut sender = Sender::new(STREAM.to_owned());
    let large = |row| Document { row, id: row.to_string(), source: vec![b' '; 600 << 10] };
    let taken = [large(1), large(2), large(3)];
    assert_eq!(sender.pick(&taken).len(), 1);
    let huge = [Document { row: 1, id: "1".to_owned(), source: vec![b' '; 3 << 20] }];
    assert_eq!(sender.pick(&huge).len(), 1);
    let many: Vec<Document> = (0..600).map(|row| document(row, &row.to_string())).collect();
    assert_eq!(sender.pick(&many).len(), 500);
    assert_eq!(sender.pick(&[]).len(), 0);
}

/// A server that refuses some documents, driven like the real thing: the outbox gives the oldest rows first.
struct Play {
    sender: Sender,
    outbox: Vec<Document>,
    delivered: Vec<i64>,
    dead: Vec<i64>,
    requests: usize,
}

impl Play {
    fn new(documents: i64) -> Play {
        Play {
            sender: Sender::new(STREAM.to_owned()),
            outbox: (0..documents).map(|row| document(row, &row.to_string())).collect(),
            delivered: Vec::new(),
            dead: Vec::new(),
            requests: 0,
        }
    }

    /// One request; the server's answer comes from `serve`.
    fn step(&mut self, serve: impl Fn(&[&Document]) -> Answer) -> Decision {
        let (count, _) = self.sender.appetite();
        let taken: Vec<Document> = self.outbox.iter().take(count).cloned().collect();
        let picked = self.sender.pick(&taken);
        let bytes = bulk::body(picked.iter().copied()).len();
        let decision = self.sender.judge(&picked, bytes, NODE, &Ok(serve(&picked)), 0);
        self.requests += 1;
        let dead: Vec<i64> = decision.settled.dead.iter().map(|dead| dead.0).collect();
        self.outbox
            .retain(|d| !decision.settled.delivered.contains(&d.row) && !dead.contains(&d.row));
        self.delivered.extend(&decision.settled.delivered);
        self.dead.extend(dead);
        decision
    }
}

fn all_taken(sent: &[&Document]) -> Answer {
    items(&sent.iter().map(|d| (d.id.as_str(), 201, "")).collect::<Vec<_>>())
}

#[test]
fn a_document_that_spoils_whole_requests_is_found_and_given_up() {
    let malformed =
        r#"{"error":{"type":"action_request_validation_exception","reason":"id too long"}}"#;
    for poison in [0, 137, 499, 800] {
        let mut play = Play::new(1000);
        while !play.outbox.is_empty() && play.requests < 200 {
            play.step(|sent| match sent.iter().any(|d| d.row == poison) {
                true => answer(400, malformed),
                false => all_taken(sent),
            });
        }
        assert_eq!(play.dead, [poison]);
        assert_eq!(play.delivered.len(), 999, "{poison}");
        assert!(play.requests < 40, "{poison}: {} requests", play.requests);
    }
}

#[test]
fn a_document_too_large_is_given_up_once_others_pass() {
    let mut play = Play::new(600);
    play.outbox[3].source = vec![b' '; 200 << 10];
    while !play.outbox.is_empty() && play.requests < 300 {
        play.step(|sent| match bulk::body(sent.iter().copied()).len() {
            0..100_000 => all_taken(sent),
            _ => answer(413, ""),
        });
    }
    assert_eq!((play.dead.as_slice(), play.delivered.len()), (&[3][..], 599));
    assert!(play.requests < 30, "{} requests", play.requests);
}

#[test]
fn a_document_too_much_for_the_server_is_given_up_once_others_pass() {
    let mut play = Play::new(600);
    while !play.outbox.is_empty() && play.requests < 300 {
        play.step(|sent| match sent.iter().any(|d| d.row == 3) {
            true => answer(429, ""),
            false => all_taken(sent),
        });
    }
    assert_eq!((play.dead.as_slice(), play.delivered.len()), (&[3][..], 599));
    assert!(play.requests < 80, "{} requests", play.requests);
}

#[test]
fn a_server_that_refuses_everything_loses_nothing() {
    let refusals: [fn(&[&Document]) -> Answer; 5] = [
        |_| answer(413, ""),
        |_| answer(429, ""),
        |_| answer(400, r#"{"error":{"type":"json_parse_exception","reason":"r"}}"#),
        |_| answer(400, r#"{"error":{"type":"illegal_argument_exception","reason":"r"}}"#),
        |sent| {
            let all: Vec<_> =
                sent.iter().map(|d| (d.id.as_str(), 400, "mapper_parsing_exception")).collect();
            items(&all)
        },
    ];
    for (number, refuse) in refusals.into_iter().enumerate() {
        let mut play = Play::new(700);
        for _ in 0..200 {
            let decision = play.step(refuse);
            assert!(decision.trouble.is_some());
        }
        assert_eq!((play.dead.len(), play.delivered.len()), (0, 0), "{number}");
        while !play.outbox.is_empty() && play.requests < 900 {
            play.step(all_taken);
        }
        assert_eq!(play.delivered.len(), 700, "{number}: all arrive once it is mended");
    }
}

#[test]
fn a_lone_poison_waits_until_another_passes() {
    let serve = |sent: &[&Document]| {
        let item = |d: &&Document| match d.row {
            0 => ("0".to_owned(), 400, "document_parsing_exception"),
            row => (row.to_string(), 201, ""),
        };
        let all: Vec<(String, u16, &str)> = sent.iter().map(item).collect();
        items(
            &all.iter().map(|(id, status, kind)| (id.as_str(), *status, *kind)).collect::<Vec<_>>(),
        )
    };
    let mut play = Play::new(1);
    for _ in 0..20 {
        play.step(serve);
    }
    assert_eq!(play.dead, Vec::<i64>::new());
    play.outbox.push(document(1, "1"));
    for _ in 0..4 {
        play.step(serve);
    }
    assert_eq!((play.dead.as_slice(), play.delivered.as_slice()), (&[0][..], &[1][..]));
}

#[test]
fn a_failure_of_the_server_over_one_document_is_tried_many_times() {
    let mut play = Play::new(1);
    let serve = |sent: &[&Document]| {
        let status = |d: &&Document| if d.row == 0 { 500 } else { 201 };
        let all: Vec<_> =
            sent.iter().map(|d| (d.id.as_str(), status(d), "fail_processor_exception")).collect();
        items(&all)
    };
    for row in 1..=19 {
        play.outbox.push(document(row, &row.to_string()));
        play.step(serve);
        assert_eq!(play.dead, Vec::<i64>::new(), "{row}");
    }
    play.step(serve);
    assert_eq!(play.dead, Vec::<i64>::new(), "alone it is no proof");
    play.outbox.push(document(20, "20"));
    play.step(serve);
    assert_eq!(play.dead, [0]);
    assert_eq!(play.delivered.len(), 20);
}

#[test]
fn a_busy_server_gets_less_and_then_slowly_more() {
    let mut play = Play::new(10_000);
    // It takes 100 documents at a time, never more.
    let serve = |sent: &[&Document]| {
        if sent.len() > 100 { answer(429, "") } else { all_taken(sent) }
    };
    let mut refused = 0;
    while !play.outbox.is_empty() && play.requests < 3000 {
        refused += usize::from(play.step(serve).trouble.is_some());
    }
    assert_eq!((play.delivered.len(), play.dead.len()), (10_000, 0));
    assert!(refused * 20 < play.requests, "{refused} of {} were refused", play.requests);
}

#[test]
fn a_server_that_takes_a_part_of_each_request_is_served_steadily() {
    let mut play = Play::new(1500);
    // Every fourth item passes, whatever the size.
    let serve = |sent: &[&Document]| {
        let item = |(n, d): (usize, &&Document)| match n % 4 {
            0 => (d.id.clone(), 201, ""),
            _ => (d.id.clone(), 429, "es_rejected_execution_exception"),
        };
        let all: Vec<(String, u16, &str)> = sent.iter().enumerate().map(item).collect();
        items(
            &all.iter().map(|(id, status, kind)| (id.as_str(), *status, *kind)).collect::<Vec<_>>(),
        )
    };
    while !play.outbox.is_empty() && play.requests < 500 {
        play.step(serve);
        assert!(play.sender.backoff(Duration::ZERO, 1.0) <= Duration::from_secs(1));
    }
    assert_eq!((play.delivered.len(), play.dead.len()), (1500, 0));
}

#[test]
fn no_answer_twice_in_a_row_makes_the_next_request_smaller() {
    let mut sender = Sender::new(STREAM.to_owned());
    let documents = [document(1, "a")];
    let sent: Vec<&Document> = documents.iter().collect();
    let cut = Err(Failure::Unanswered("cut".to_owned()));
    let limits: Vec<usize> = (0..3)
        .map(|_| {
            sender.judge(&sent, 10, NODE, &cut, 0);
            sender.appetite().0
        })
        .collect();
    assert_eq!(limits, [500, 250, 125]);
    judge(&mut sender, &documents, &items(&[("a", 409, "version_conflict_engine_exception")]));
    assert_eq!(sender.appetite().0, 250);
}

proptest::proptest! {
    /// An answer with bytes changed, or cut: no panic, and what is settled was in the answer.
    #[test]
    fn spoilt_answers_do_no_harm(
        lane in 0..LANES.len(),
        name in 0..6_usize,
        status in proptest::sample::select(vec![200_u16, 201, 299, 302, 400, 401, 403, 404, 413, 429, 500, 503, 999]),
        cut in 0..2000_usize,
        changes in proptest::collection::vec((0..2000_usize, proptest::num::u8::ANY), 0..4),
    ) {
        let rows = answers(LANES[lane]);
        let name = ["created", "duplicate", "mapping", "broken_document", "queue_full", "pressure"][name];
        let (documents, mut answer) = recorded(&rows[name]);
        let whole = answer.body.clone();
        answer.status = status;
        for (at, byte) in changes {
            if let Some(place) = answer.body.get_mut(at) {
                *place = byte;
            }
        }
        answer.body.truncate(answer.body.len().saturating_sub(cut.saturating_sub(1000)));
        let mut sender = Sender::new(STREAM.to_owned());
        let decision = judge(&mut sender, &documents, &answer);
        let settled = decision.settled.delivered.len() + decision.settled.dead.len();
        proptest::prop_assert!(settled <= documents.len());
        if answer.body.len() < whole.len() || !(200..300).contains(&status) {
            proptest::prop_assert_eq!(settled, 0);
        }
    }
}

#[test]
fn a_missing_index_is_set_up_three_times_and_then_waited_for() {
    let mut sender = Sender::new(STREAM.to_owned());
    let documents = [document(1, "a")];
    let missing = items(&[("a", 404, "index_not_found_exception")]);
    for round in 1..=5 {
        let decision = judge(&mut sender, &documents, &missing);
        assert_eq!(decision.remedy, Some(Remedy::Setup));
        assert_eq!(matches!(decision.wait, Wait::Exactly(_)), round > 3, "{round}");
    }
}

#[test]
fn a_refused_compression_is_given_up() {
    let mut sender = Sender::new(STREAM.to_owned());
    let documents = [document(1, "a")];
    assert!(sender.compresses());
    assert_eq!(judge(&mut sender, &documents, &answer(415, "")).wait, Wait::No);
    assert!(!sender.compresses());
    let slow = Wait::Exactly(Duration::from_secs(60));
    assert_eq!(judge(&mut sender, &documents, &answer(415, "")).wait, slow);
}

#[test]
fn the_failure_store_is_told() {
    let body = r#"{"errors":false,"items":[{"create":{"_id":"a","_index":".fs-x","status":201,"failure_store":"used"}}]}"#;
    let decision =
        judge(&mut Sender::new(STREAM.to_owned()), &[document(1, "a")], &answer(200, body));
    assert_eq!((decision.misrouted, decision.settled.delivered.as_slice()), (1, &[1][..]));
    assert!(decision.trouble.unwrap().contains("failure store"));
}

#[test]
fn failures_without_an_answer() {
    let documents = [document(1, "a")];
    let sent: Vec<&Document> = documents.iter().collect();
    for (failure, expected) in [
        (Failure::Unreachable("u".to_owned()), "backoff, other node"),
        (Failure::Unanswered("u".to_owned()), "backoff, other node"),
        (Failure::Certificate("c".to_owned()), "60 s, credentials, other node"),
        (Failure::Setting("s".to_owned()), "60 s, credentials, other node"),
    ] {
        let mut sender = Sender::new(STREAM.to_owned());
        let decision = sender.judge(&sent, 10, NODE, &Err(failure), 0);
        assert_eq!(line(&decision), format!("0 new, 0 there, dead [], {expected}"));
    }
}
