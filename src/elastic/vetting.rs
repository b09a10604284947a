//! The vetting index: what is written to it, and what is read from it. No I/O.
//!
//! One document a name, its id the SHA-256 of the name, so that all instances mean the same document. A pending one is
//! created once; an administrator's tool (Kibana, a script, the console page) changes `state` and sets `decided_by`,
//! `decided_at`, and if wanted `note`, `scope` and `expires_at`. Documents are read in the order of their sequence
//! numbers, which every change moves up; sorting by `_id` is forbidden on Elasticsearch 8 and later.

use super::document;
use super::setup::VETTING_INDEX;
use super::{Cursor, Decided, Identity, Ruling, ToVet, VetState};
use crate::name::Name;
use crate::policy::overrides::Class;
use crate::suffix::registered_domain;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// Most documents read or written at a time.
pub const PAGE: usize = 500;
/// Sequence numbers read again each time: a change with a lower number may become visible after one with a higher.
const OVERLAP: i64 = 64;
/// Longest author and note taken from the index, in characters.
const AUTHOR: usize = 256;
const NOTE: usize = 1024;

/// The document's id for a name.
pub fn id(name: &str) -> String {
    Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The path of the bulk request that [`body`] is for.
pub fn bulk_path() -> String {
    let filter = "errors,items.*.status,items.*.error.type,items.*.error.reason";
    format!("/{VETTING_INDEX}/_bulk?timeout=20s&filter_path={filter}")
}

/// A bulk body: pending documents are created only where there is none, decisions replace what is there.
pub fn body(entries: &[ToVet], identity: &Identity) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let action = match entry.state {
            VetState::Pending { .. } => "create",
            VetState::Decided(_) | VetState::Withdrawn { .. } => "index",
        };
        let id = id(&entry.name);
        out.extend_from_slice(format!("{{\"{action}\":{{\"_id\":\"{id}\"}}}}\n").as_bytes());
        document::vetting(&mut out, entry, identity);
        out.push(b'\n');
    }
    out
}

/// What became of the entries: keys that are done with, and the first error of another kind.
pub fn written(entries: &[ToVet], answer: &[u8]) -> Option<(Vec<i64>, Option<String>)> {
    #[derive(Deserialize)]
    struct Raw {
        items: Vec<RawItem>,
    }
    #[derive(Deserialize)]
    struct RawItem {
        #[serde(alias = "create", alias = "index")]
        item: super::bulk::Item,
    }
    let raw: Raw = serde_json::from_slice(answer).ok()?;
    if raw.items.len() != entries.len() {
        return None;
    }
    let mut done = Vec::new();
    let mut trouble = None;
    for (entry, RawItem { item }) in entries.iter().zip(&raw.items) {
        let refused = item.status == 400;
        if matches!(item.status, 200..=299 | 409) || refused {
            done.push(entry.key);
        }
        if !matches!(item.status, 200..=299 | 409) && trouble.is_none() {
            trouble = Some(format!("{VETTING_INDEX}: {}", super::retry::told_item(item)));
        }
    }
    Some((done, trouble))
}

/// The path that tells the index's uuid.
pub fn uuid_path() -> String {
    format!("/{VETTING_INDEX}/_settings?filter_path=*.settings.index.uuid")
}

/// The index's uuid from the answer.
pub fn uuid(answer: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let index = answer.as_object()?.values().next()?;
    Some(index.pointer("/settings/index/uuid")?.as_str()?.to_owned())
}

/// The path of a search for changes.
pub fn search_path() -> String {
    format!("/{VETTING_INDEX}/_search?filter_path=hits.hits._seq_no,hits.hits._source,timed_out")
}

/// Reads changes page by page and remembers which ones of the overlap were seen.
#[derive(Debug, Default)]
pub struct Reader {
    cursor: Cursor,
    seen: HashSet<i64>,
    /// The next page begins after this sequence number; `None` between two rounds.
    page_from: Option<i64>,
}

/// One page of changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Decisions that are fit to be used.
    pub decided: Vec<Decided>,
    /// How many were not.
    pub refused: u64,
    /// Why the last of these was not.
    pub reason: Option<String>,
    /// Where to go on.
    pub cursor: Cursor,
    /// Whether there is more to read at once.
    pub more: bool,
}

impl Reader {
    /// Goes on from a cursor.
    pub fn new(cursor: Cursor) -> Reader {
        Reader { cursor, ..Reader::default() }
    }

    /// Takes note of the index's uuid: another index is read from its beginning.
    pub fn begin(&mut self, index: &str) {
        if self.cursor.index != index {
            self.cursor = Cursor { index: index.to_owned(), seq_no: -1 };
            self.seen.clear();
        }
        self.page_from = Some(self.cursor.seq_no.saturating_sub(OVERLAP).max(-1));
    }

    /// The body of the search for the next page.
    pub fn search(&self) -> String {
        let after = self.page_from.unwrap_or(-1);
        format!(
            "{{\"size\":{PAGE},\"seq_no_primary_term\":true,\"track_total_hits\":false,\
             \"query\":{{\"range\":{{\"_seq_no\":{{\"gt\":{after}}}}}}},\"sort\":[{{\"_seq_no\":\"asc\"}}]}}"
        )
    }

    /// Reads a page; `None` if it is no whole answer. `now_ms` stands in for a missing time. What this machine
    /// wrote itself comes back too; the store knows it already.
    pub fn read(&mut self, answer: &[u8], now_ms: i64) -> Option<Page> {
        let raw: RawPage = serde_json::from_slice(answer).ok()?;
        if raw.timed_out {
            return None;
        }
        let hits = raw.hits.unwrap_or_default().hits;
        let mut page = Page {
            decided: Vec::new(),
            refused: 0,
            reason: None,
            cursor: self.cursor.clone(),
            more: hits.len() >= PAGE,
        };
        let from = self.page_from;
        for hit in hits {
            let seq_no = hit.seq_no?;
            page.cursor.seq_no = page.cursor.seq_no.max(seq_no);
            self.page_from = Some(seq_no);
            if !self.seen.insert(seq_no) {
                continue;
            }
            match understand(&hit.source, now_ms) {
                Ok(decided) => page.decided.push(decided),
                Err(reason) => {
                    page.refused += 1;
                    page.reason = Some(format!("{VETTING_INDEX}: {reason}"));
                }
            }
        }
        // An answer that leads nowhere (a cache in between) must not hold up the documents for ever.
        page.more &= self.page_from > from;
        self.cursor = page.cursor.clone();
        let oldest = self.cursor.seq_no.saturating_sub(OVERLAP);
        self.seen.retain(|seq_no| *seq_no > oldest);
        Some(page)
    }
}

#[derive(Deserialize)]
struct RawPage {
    #[serde(default)]
    timed_out: bool,
    hits: Option<RawHits>,
}

#[derive(Deserialize, Default)]
struct RawHits {
    #[serde(default)]
    hits: Vec<RawHit>,
}

#[derive(Deserialize)]
struct RawHit {
    #[serde(rename = "_seq_no")]
    seq_no: Option<i64>,
    #[serde(rename = "_source", default)]
    source: serde_json::Value,
}

/// The decision in a document; an error says why it cannot be used.
fn understand(source: &serde_json::Value, now_ms: i64) -> Result<Decided, String> {
    let text = |field: &str| source.get(field).and_then(serde_json::Value::as_str);
    let name = text("name").ok_or("a document without a name")?;
    let shown = super::redact::redact(name);
    let canonical = Name::from_text(name.as_bytes())
        .map_err(|error| format!("\"{shown}\": {error}"))?
        .to_string();
    if registered_domain(canonical.as_bytes()).is_none() {
        return Err(format!("\"{shown}\" is a public suffix or a shared host"));
    }
    let state = text("state").ok_or_else(|| format!("\"{shown}\" has no state"))?;
    if state == "pending" {
        return Ok(Decided { name: canonical, ruling: None });
    }
    let class = Class::parse(state).map_err(|_| {
        format!(
            "\"{shown}\": state \"{}\" is none of pending, benign, malicious, honeypot",
            super::redact::redact(state)
        )
    })?;
    let author = text("decided_by").map(str::trim).filter(|author| !author.is_empty());
    let author =
        author.ok_or_else(|| format!("\"{shown}\" was decided by nobody: set decided_by"))?;
    let at_ms = match source.get("decided_at") {
        None | Some(serde_json::Value::Null) => now_ms,
        Some(value) => {
            moment(value).ok_or_else(|| format!("\"{shown}\": decided_at is no time"))?
        }
    };
    let expires_ms = match source.get("expires_at") {
        None | Some(serde_json::Value::Null) => None,
        Some(value) => {
            Some(moment(value).ok_or_else(|| format!("\"{shown}\": expires_at is no time"))?)
        }
    };
    let scope = text("scope").unwrap_or("").trim();
    if !is_scope(scope) {
        return Err(format!("\"{shown}\": scope is none of all, group:NAME or a network"));
    }
    let ruling = Ruling {
        class,
        author: author.chars().take(AUTHOR).collect(),
        note: text("note").unwrap_or("").chars().take(NOTE).collect(),
        scope: scope.to_owned(),
        at_ms,
        expires_ms,
    };
    Ok(Decided { name: canonical, ruling: Some(ruling) })
}

/// Whether a text says for whose queries a decision is: everybody's, those of a group, those of a network.
fn is_scope(text: &str) -> bool {
    let group = text.strip_prefix("group:").is_some_and(|name| (1..=AUTHOR).contains(&name.len()));
    let network = text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok();
    text.is_empty() || text == "all" || group || network
}

/// A date as Elasticsearch takes it by default: milliseconds since 1970, RFC 3339, or a day; without a zone in UTC.
fn moment(value: &serde_json::Value) -> Option<i64> {
    use time::format_description::well_known::Rfc3339;
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let text = value.as_str()?.trim();
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ if text.get(10..).is_some_and(|clock| !clock.contains(['Z', 'z', '+', '-'])) => {
            format!("{text}Z")
        }
        _ => text.to_owned(),
    };
    if let Ok(number) = text.parse::<i64>() {
        return Some(number);
    }
    let parsed = time::OffsetDateTime::parse(&whole, &Rfc3339).ok()?;
    i64::try_from(parsed.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn page(documents: &[(i64, Value)]) -> Vec<u8> {
        let hits: Vec<Value> = documents
            .iter()
            .map(|(seq_no, source)| json!({"_seq_no": seq_no, "_source": source}))
            .collect();
        json!({"timed_out": false, "hits": {"hits": hits}}).to_string().into_bytes()
    }

    fn decision(name: &str, state: &str) -> Value {
        json!({"name": name, "state": state, "decided_by": "ann", "decided_at": "2026-11-24T10:00:00Z"})
    }

    #[test]
    fn ids_are_the_hash_of_the_name() {
        assert_eq!(
            id("example.com"),
            "a379a6f6eeafb9a55e378c118034e2751e682fab9f2d30ab13d2125586ce1947"
        );
    }

    #[test]
    fn decisions_come_with_author_scope_and_end() {
        let mut reader = Reader::default();
        reader.begin("uuid");
        let full = json!({
            "name": "Example.COM.", "state": "honeypot", "decided_by": "ann", "note": "seen twice",
            "scope": "group:guests", "decided_at": "2026-11-24T10:00:00Z", "expires_at": 1_795_600_000_000_i64
        });
        let read = reader.read(&page(&[(3, full)]), 7).unwrap();
        assert_eq!(
            read.decided,
            vec![Decided {
                name: "example.com".to_owned(),
                ruling: Some(Ruling {
                    class: Class::Honeypot,
                    author: "ann".to_owned(),
                    note: "seen twice".to_owned(),
                    scope: "group:guests".to_owned(),
                    at_ms: 1_795_514_400_000,
                    expires_ms: Some(1_795_600_000_000),
                })
            }]
        );
        assert_eq!((read.refused, read.more, read.cursor.seq_no), (0, false, 3));
    }

    #[test]
    fn what_must_not_come_back_does_not() {
        for (document, reason) in [
            (decision("co.uk", "malicious"), "public suffix"),
            (decision("vercel.app", "malicious"), "shared host"),
            (decision("com", "benign"), "public suffix"),
            (decision("a..b", "benign"), "not a domain name"),
            (decision("example.com", "evil"), "none of pending"),
            (json!({"name": "example.com", "state": "benign"}), "decided by nobody"),
            (json!({"name": "example.com"}), "no state"),
            (json!({"state": "benign", "decided_by": "x"}), "without a name"),
            (json!(null), "without a name"),
            (
                json!({"name": "e.com", "state": "benign", "decided_by": "x", "expires_at": "soon"}),
                "expires_at",
            ),
            (
                json!({"name": "e.com", "state": "benign", "decided_by": "x", "scope": "guests"}),
                "scope is none of",
            ),
        ] {
            let mut reader = Reader::default();
            reader.begin("uuid");
            let read = reader.read(&page(&[(1, document.clone())]), 0).unwrap();
            assert_eq!((read.decided.len(), read.refused), (0, 1), "{document}");
            let told = read.reason.unwrap();
            assert!(told.contains(reason), "{told}");
        }
    }

    #[test]
    fn pending_takes_a_decision_back() {
        let mut reader = Reader::default();
        reader.begin("uuid");
        let read = reader.read(&page(&[(1, decision("e.com", "pending"))]), 0).unwrap();
        assert_eq!(read.decided, vec![Decided { name: "e.com".to_owned(), ruling: None }]);
    }

    #[test]
    fn the_overlap_is_read_again_but_told_once() {
        let mut reader = Reader::new(Cursor { index: "uuid".to_owned(), seq_no: 100 });
        reader.begin("uuid");
        assert!(reader.search().contains("\"gt\":36"));
        let both = [(100, decision("a.com", "benign")), (101, decision("b.com", "benign"))];
        assert_eq!(reader.read(&page(&both), 0).unwrap().decided.len(), 2);
        reader.begin("uuid");
        assert!(reader.search().contains("\"gt\":37"));
        // A late one with a number between them.
        let late = [(99, decision("c.com", "benign")), both[0].clone(), both[1].clone()];
        let again = reader.read(&page(&late), 0).unwrap();
        assert_eq!(again.decided.len(), 1);
        assert_eq!(again.cursor.seq_no, 101);
    }

    #[test]
    fn a_page_that_leads_nowhere_is_the_last() {
        let mut reader = Reader::default();
        reader.begin("uuid");
        let same = page(&vec![(5, decision("a.com", "benign")); PAGE]);
        assert!(reader.read(&same, 0).unwrap().more);
        assert!(!reader.read(&same, 0).unwrap().more);
    }

    #[test]
    fn another_index_is_read_from_its_beginning() {
        let mut reader = Reader::new(Cursor { index: "old".to_owned(), seq_no: 5000 });
        reader.begin("new");
        assert!(reader.search().contains("\"gt\":-1"));
    }

    #[test]
    fn a_full_page_is_followed_by_the_next() {
        let documents: Vec<(i64, Value)> = (0..PAGE as i64)
            .map(|seq_no| (seq_no, decision(&format!("d{seq_no}.com"), "malicious")))
            .collect();
        let mut reader = Reader::default();
        reader.begin("uuid");
        let read = reader.read(&page(&documents), 0).unwrap();
        assert!(read.more);
        assert!(reader.search().contains("\"gt\":499"));
        assert_eq!(reader.read(b"{\"hits\":{}}", 0).map(|page| page.more), Some(false));
        assert_eq!(reader.read(b"{\"timed_out\":true}", 0), None);
        assert_eq!(reader.read(b"<html>", 0), None);
    }

    #[test]
    fn times_as_people_write_them() {
        for (value, milliseconds) in [
            (json!(1_795_514_400_123_i64), Some(1_795_514_400_123)),
            (json!("1795514400123"), Some(1_795_514_400_123)),
            (json!("2026-11-24"), Some(1_795_478_400_000)),
            (json!("2026-11-24T10:00:00.123Z"), Some(1_795_514_400_123)),
            (json!("2026-11-24T10:00:00"), Some(1_795_514_400_000)),
            (json!("2026-11-24T12:00:00+02:00"), Some(1_795_514_400_000)),
            (json!("tomorrow"), None),
            (json!(true), None),
        ] {
            assert_eq!(moment(&value), milliseconds, "{value}");
        }
    }

    #[test]
    fn entries_are_written_by_what_they_are() {
        let identity = Identity { host: "ns1".to_owned(), store: "s".to_owned() };
        let pending = ToVet {
            key: 1,
            name: "example.com".to_owned(),
            state: VetState::Pending {
                example: "x.example.com".to_owned(),
                score: 0.75,
                first_seen_ms: 0,
                count: 2,
            },
        };
        let withdrawn = ToVet {
            key: 2,
            name: "example.org".to_owned(),
            state: VetState::Withdrawn { author: "bob".to_owned(), at_ms: 0 },
        };
        let text =
            String::from_utf8(body(&[pending.clone(), withdrawn.clone()], &identity)).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["create"]["_id"], id("example.com"));
        assert_eq!(lines[1]["example"], "x.example.com");
        assert_eq!(lines[2]["index"]["_id"], id("example.org"));
        assert_eq!(lines[3]["state"], "pending");

        let entries = [pending, withdrawn];
        let answer = br#"{"errors":true,"items":[{"create":{"status":409}},{"index":{"status":429,"error":{"type":"t","reason":"r"}}}]}"#;
        let (done, trouble) = written(&entries, answer).unwrap();
        assert_eq!(done, vec![1]);
        assert_eq!(trouble.unwrap(), "mlbridge-vetting: 429 t: r");
        assert_eq!(written(&entries, b"{\"items\":[]}"), None);
    }
}
