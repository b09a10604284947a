//! The documents: a verdict as ECS 9.4, the minute's summary, a name in the vetting index.
//!
//! Nothing is invented: a field whose value the library does not know (the query's id, the client's port, the transport,
//! the answer's code, an attack technique) is left out. Each function appends one line of JSON, without a line end, to
//! the buffer it is given. The templates in `assets/` map every field written here; a test compares them.

use super::{Identity, Ruling, ToVet, VetState};
use crate::stats;
use crate::verdict::{
    Action, Decision, FLAG_BREAKER, FLAG_CACHED, FLAG_FAIL_OPEN, FLAG_OBSERVED, Label, Source,
};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The version of the Elastic Common Schema that the documents follow.
pub const ECS_VERSION: &str = "9.4.0";
/// The data set of verdicts: the middle part of their data stream's name.
pub const VERDICT_DATASET: &str = "mlbridge.verdict";
/// The data set of summaries.
pub const SUMMARY_DATASET: &str = "mlbridge.summary";

/// One stored event, as the store's row has it.
#[derive(Debug, Clone, Copy)]
pub struct VerdictRecord<'a> {
    /// The event's id, also the document's `_id`.
    pub id: &'a str,
    /// The event's number within one opening of the store.
    pub sequence: u64,
    /// When the name was asked for (the first time, of coalesced questions), in milliseconds since 1970.
    pub time_ms: i64,
    /// The name in dotted form, lower case, without final dot, unprintable bytes as `\DDD`.
    pub name: &'a str,
    /// Its registered domain, if it has one.
    pub registered_domain: Option<&'a str>,
    /// Its public suffix, if known.
    pub suffix: Option<&'a str>,
    /// Who asked.
    pub client: Client<'a>,
    /// The word of the setting `record.client`: full, truncate, hmac or none.
    pub client_mode: &'a str,
    /// Question type, the number of the DNS.
    pub qtype: u16,
    /// The model's number; `None` if the model did not run.
    pub score: Option<f32>,
    /// What the model holds the name for.
    pub label: Label,
    /// What was decided.
    pub decision: Decision,
    /// What decided.
    pub source: Source,
    /// What the server was told to answer.
    pub action: Action,
    /// Address for A questions, with the action sinkhole.
    pub sinkhole4: Option<Ipv4Addr>,
    /// Address for AAAA questions, with the action sinkhole.
    pub sinkhole6: Option<Ipv6Addr>,
    /// The model that ran.
    pub model: Option<ModelRecord<'a>>,
    /// The thresholds vet and block that counted for this client, as far as there are any.
    pub thresholds: (Option<f32>, Option<f32>),
    /// How many questions this event stands for.
    pub count: u64,
    /// `FLAG_*` bits of the verdict.
    pub flags: u32,
    /// The client's group, if it is in one.
    pub group: Option<&'a str>,
    /// How many events were lost since the last one stored before this one.
    pub dropped_before: u64,
}

/// Who asked, as far as `record.client` lets the store know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client<'a> {
    /// Unknown, or not to be kept.
    Unknown,
    /// An address, whole or truncated.
    Address(IpAddr),
    /// A keyed hash of the address, as hexadecimal text.
    Hashed(&'a str),
}

/// Which model it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelRecord<'a> {
    /// Name from the manifest.
    pub name: &'a str,
    /// Version from the manifest.
    pub version: &'a str,
    /// The first eight bytes of its SHA-256, as in the C ABI's verdict.
    pub sha: u64,
}

/// Appends the document of one verdict.
pub fn verdict(out: &mut Vec<u8>, record: &VerdictRecord<'_>, host: &str, namespace: &str) {
    let mut json = Json(out);
    json.raw("{\"@timestamp\":").time(record.time_ms);
    stream(&mut json, "logs", VERDICT_DATASET, namespace);
    event(&mut json, record);
    question(&mut json, record);
    client(&mut json, record);
    observer(&mut json, host);
    rule(&mut json, record);
    if let Some(score) = record.score {
        let prediction = u8::from(record.label == Label::Malicious);
        json.raw(",\"ml_is_dga\":{\"malicious_prediction\":").number(prediction);
        json.raw(",\"malicious_probability\":").float(score).raw("}");
    }
    own(&mut json, record);
    json.raw("}");
}

/// The version of ECS and the name of the data stream, which Elasticsearch wants inside the document too.
fn stream(json: &mut Json<'_>, kind: &str, dataset: &str, namespace: &str) {
    json.raw(",\"ecs\":{\"version\":").string(ECS_VERSION);
    json.raw("},\"data_stream\":{\"type\":").string(kind);
    json.raw(",\"dataset\":").string(dataset).raw(",\"namespace\":").string(namespace).raw("}");
}

fn event(json: &mut Json<'_>, record: &VerdictRecord<'_>) {
    let (kind, category, severity) = match record.decision {
        Decision::Block => ("alert", "[\"network\",\"intrusion_detection\"]", 73),
        Decision::Vet => ("alert", "[\"network\",\"intrusion_detection\"]", 47),
        Decision::Allow => ("event", "[\"network\"]", 0),
    };
    let outcome = match (record.action, record.decision) {
        (Action::Pass, Decision::Vet) => "info",
        (Action::Pass, _) => "allowed",
        _ => "denied",
    };
    json.raw(",\"event\":{\"kind\":").string(kind).raw(",\"category\":").raw(category);
    json.raw(",\"type\":[\"protocol\",").string(outcome).raw("],\"action\":\"dns-");
    json.raw(record.decision.as_str()).raw("\",\"outcome\":\"success\",\"module\":\"mlbridge\"");
    json.raw(",\"dataset\":").string(VERDICT_DATASET).raw(",\"provider\":\"mlbridge\",\"id\":");
    json.string(record.id).raw(",\"sequence\":").number(record.sequence);
    json.raw(",\"severity\":").number(severity);
    if let Some(score) = record.score {
        let risk = (f64::from(score) * 10_000.0).round() / 100.0;
        json.raw(",\"risk_score\":").float(risk).raw(",\"risk_score_norm\":").float(risk);
    }
    json.raw(",\"reason\":");
    reason(json, record);
    json.raw("}");
}

/// Why the decision is what it is, in one line for people.
fn reason(json: &mut Json<'_>, record: &VerdictRecord<'_>) {
    let text = match record.source {
        Source::Model => return reason_of_model(json, record),
        Source::Override => "decided by an administrator",
        Source::Blocklist => "on a block list",
        Source::Allowlist => "on an allow list",
        Source::Popular => "popular registered domain",
        Source::Skipped => "of a kind that is never scored",
    };
    json.string(text);
}

fn reason_of_model(json: &mut Json<'_>, record: &VerdictRecord<'_>) {
    let Some(score) = record.score else {
        json.string("the model did not run");
        return;
    };
    json.raw("\"score ").float(score);
    let (vet, block) = record.thresholds;
    let (relation, threshold) = match record.decision {
        Decision::Block => (" >= block ", block),
        Decision::Vet => (" >= vet ", vet),
        Decision::Allow if vet.is_some() => (" < vet ", vet),
        Decision::Allow => (" < block ", block),
    };
    if let Some(threshold) = threshold {
        json.raw(relation).float(threshold);
    }
    if let Some(model) = record.model {
        json.raw(" (model ").inside(model.name).raw(" ").inside(model.version).raw(")");
    }
    json.raw("\"");
}

fn question(json: &mut Json<'_>, record: &VerdictRecord<'_>) {
    json.raw(",\"dns\":{\"type\":\"query\",\"question\":{\"name\":").string(record.name);
    json.raw(",\"type\":").string(&type_name(record.qtype)).raw(",\"class\":\"IN\"");
    if let Some(domain) = record.registered_domain {
        json.raw(",\"registered_domain\":").string(domain);
        let below = record.name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
        if let Some(subdomain) = below {
            json.raw(",\"subdomain\":").string(subdomain);
        }
    }
    if let Some(suffix) = record.suffix {
        json.raw(",\"top_level_domain\":").string(suffix);
    }
    json.raw("}");
    if record.action == Action::Sinkhole {
        let addresses = [record.sinkhole4.map(IpAddr::V4), record.sinkhole6.map(IpAddr::V6)];
        json.raw(",\"resolved_ip\":[");
        for (index, address) in addresses.into_iter().flatten().enumerate() {
            json.raw(if index > 0 { "," } else { "" }).address(address);
        }
        json.raw("]");
    }
    json.raw("},\"related\":{\"hosts\":[").string(record.name).raw("]");
    if let Client::Address(address) = record.client {
        json.raw(",\"ip\":[").address(address).raw("]");
    }
    json.raw("}");
}

fn client(json: &mut Json<'_>, record: &VerdictRecord<'_>) {
    json.raw(",\"network\":{\"protocol\":\"dns\"");
    match record.client {
        Client::Address(address) => {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            json.raw(",\"type\":").string(family).raw("},\"source\":{\"ip\":");
            json.address(address).raw("}");
        }
        Client::Hashed(hash) => {
            json.raw("},\"source\":{\"address\":").string(hash).raw("}");
        }
        Client::Unknown => {
            json.raw("}");
        }
    }
}

fn observer(json: &mut Json<'_>, host: &str) {
    json.raw(",\"observer\":{\"type\":\"dns\",\"vendor\":\"mlbridge\",\"product\":\"mlbridge\"");
    json.raw(",\"version\":").string(env!("CARGO_PKG_VERSION"));
    json.raw(",\"name\":").string(host).raw("}");
}

fn rule(json: &mut Json<'_>, record: &VerdictRecord<'_>) {
    json.raw(",\"rule\":{\"name\":").string(record.source.as_str());
    if let Some(model) = record.model.filter(|_| record.source == Source::Model) {
        json.raw(",\"id\":\"model:").hex(model.sha);
        json.raw("\",\"version\":").string(model.version);
    }
    if let Some(group) = record.group {
        json.raw(",\"ruleset\":").string(group);
    }
    json.raw("}");
}

fn own(json: &mut Json<'_>, record: &VerdictRecord<'_>) {
    json.raw(",\"mlbridge\":{\"decision\":").string(record.decision.as_str());
    if let Some(score) = record.score {
        json.raw(",\"score\":").float(score);
    }
    json.raw(",\"source\":").string(record.source.as_str());
    json.raw(",\"action\":").string(record.action.as_str());
    let (vet, block) = record.thresholds;
    let mut before = ",\"threshold\":{";
    for (key, threshold) in [("\"vet\":", vet), ("\"block\":", block)] {
        if let Some(threshold) = threshold {
            json.raw(before).raw(key).float(threshold);
            before = ",";
        }
    }
    if before == "," {
        json.raw("}");
    }
    if let Some(model) = record.model {
        json.raw(",\"model\":{\"name\":").string(model.name).raw(",\"version\":");
        json.string(model.version).raw(",\"sha256\":\"").hex(model.sha);
        json.raw("\"}");
    }
    if let Some(group) = record.group {
        json.raw(",\"policy\":{\"group\":").string(group).raw("}");
    }
    json.raw(",\"cache_hit\":").boolean(record.flags & FLAG_CACHED != 0);
    json.raw(",\"observed\":").boolean(record.flags & FLAG_OBSERVED != 0);
    json.raw(",\"fail_open\":").boolean(record.flags & FLAG_FAIL_OPEN != 0);
    json.raw(",\"breaker\":").boolean(record.flags & FLAG_BREAKER != 0);
    json.raw(",\"count\":").number(record.count);
    json.raw(",\"ip_mode\":").string(record.client_mode);
    json.raw(",\"dropped_before\":").number(record.dropped_before).raw("}");
}

/// The DNS name of a question type; `TYPE123` for those without one (RFC 3597, section 5).
fn type_name(number: u16) -> std::borrow::Cow<'static, str> {
    let known = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        43 => "DS",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        other => return format!("TYPE{other}").into(),
    };
    known.into()
}

/// Number of classes of equal width that [`SummaryRecord::scores`] has.
pub const SCORE_CLASSES: usize = 20;

/// The counters of one process since its start, at one moment. Summary documents hold differences of two of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SummaryRecord {
    /// The moment, in milliseconds since 1970.
    pub time_ms: i64,
    /// When the counters began at zero, in milliseconds since 1970.
    pub started_ms: i64,
    /// Names asked about.
    pub classified: u64,
    /// Verdicts by [`Decision`], in the order of its numbers.
    pub decisions: [u64; Decision::ALL.len()],
    /// Verdicts by [`Source`], in the order of its numbers.
    pub sources: [u64; Source::ALL.len()],
    /// Scores that came from the cache.
    pub cache_hits: u64,
    /// Names let through because something inside failed.
    pub failed_open: u64,
    /// Lost or never recorded events, a word for the reason and the number: `queue`, `store`, `evicted`, ...
    pub losses: Vec<(&'static str, u64)>,
    /// Names by score: the first class is 0 to 0.05.
    pub scores: [u64; SCORE_CLASSES],
    /// Timed calls by [`stats::LATENCY_BOUNDS_NS`].
    pub latency: [u64; stats::LATENCY_BUCKETS],
    /// Events between the callers and the store.
    pub queued: u64,
    /// Events in the outbox.
    pub pending: u64,
    /// Dead letters in the store.
    pub dead_letters: u64,
    /// Names that wait for an administrator.
    pub to_vet: u64,
    /// Since when the oldest of them waits, in milliseconds since 1970.
    pub oldest_to_vet_ms: Option<i64>,
    /// Name and version of the model.
    pub model: Option<(String, String)>,
    /// Names that a shadow model scored too, and those where it would have decided otherwise.
    pub shadow: Option<(u64, u64)>,
}

/// Appends the summary document of the time from `before` to `now`.
pub fn summary(
    out: &mut Vec<u8>,
    id: &str,
    now: &SummaryRecord,
    before: &SummaryRecord,
    identity: &Identity,
    namespace: &str,
) {
    let mut json = Json(out);
    json.raw("{\"@timestamp\":").time(now.time_ms);
    stream(&mut json, "metrics", SUMMARY_DATASET, namespace);
    json.raw(",\"event\":{\"kind\":\"metric\",\"module\":\"mlbridge\",\"dataset\":");
    json.string(SUMMARY_DATASET).raw(",\"provider\":\"mlbridge\",\"id\":").string(id);
    json.raw(",\"start\":").time(before.time_ms.max(now.started_ms));
    json.raw(",\"end\":").time(now.time_ms).raw("}");
    observer(&mut json, &identity.host);
    json.raw(",\"mlbridge\":{\"store\":").string(&identity.store);
    json.raw(",\"classified\":").number(now.classified.saturating_sub(before.classified));
    json.raw(",\"decisions\":");
    let words = Decision::ALL.iter().map(|d| d.as_str());
    json.differences(words.zip(now.decisions.into_iter().zip(before.decisions)));
    json.raw(",\"sources\":");
    let words = Source::ALL.iter().map(|s| s.as_str());
    json.differences(words.zip(now.sources.into_iter().zip(before.sources)));
    json.raw(",\"cache_hits\":").number(now.cache_hits.saturating_sub(before.cache_hits));
    json.raw(",\"failed_open\":").number(now.failed_open.saturating_sub(before.failed_open));
    json.raw(",\"losses\":");
    let earlier = |word: &str| before.losses.iter().find(|loss| loss.0 == word).map_or(0, |l| l.1);
    json.differences(now.losses.iter().map(|&(word, count)| (word, (count, earlier(word)))));
    json.raw(",\"scores\":");
    let classes: Vec<String> = (0..SCORE_CLASSES).map(score_class).collect();
    let words = classes.iter().map(String::as_str);
    json.differences(words.zip(now.scores.into_iter().zip(before.scores)));
    let mut latency = now.latency;
    latency
        .iter_mut()
        .zip(before.latency)
        .for_each(|(now, before)| *now = now.saturating_sub(before));
    let quantile = |share| stats::latency_quantile_ns(&latency, share);
    if let (Some(p50), Some(p99)) = (quantile(0.5), quantile(0.99)) {
        json.raw(",\"latency_ns\":{\"p50\":").number(p50).raw(",\"p99\":").number(p99).raw("}");
    }
    json.raw(",\"queued\":").number(now.queued).raw(",\"pending\":").number(now.pending);
    json.raw(",\"dead_letters\":").number(now.dead_letters);
    json.raw(",\"to_vet\":").number(now.to_vet);
    if let Some(since) = now.oldest_to_vet_ms {
        json.raw(",\"oldest_to_vet_s\":").number((now.time_ms - since).max(0) / 1000);
    }
    if let Some((name, version)) = &now.model {
        json.raw(",\"model\":{\"name\":")
            .string(name)
            .raw(",\"version\":")
            .string(version)
            .raw("}");
    }
    if let Some((compared, differed)) = now.shadow {
        let (compared_before, differed_before) = before.shadow.unwrap_or_default();
        json.raw(",\"shadow\":{\"compared\":").number(compared.saturating_sub(compared_before));
        json.raw(",\"differed\":").number(differed.saturating_sub(differed_before)).raw("}");
    }
    json.raw("}}");
}

/// The field of a class of scores: `from_95` holds 0.95 to 1.
pub fn score_class(index: usize) -> String {
    format!("from_{:02}", index * 100 / SCORE_CLASSES)
}

/// Appends the document of a name in the vetting index.
pub fn vetting(out: &mut Vec<u8>, entry: &ToVet, identity: &Identity) {
    let mut json = Json(out);
    json.raw("{\"name\":").string(&entry.name).raw(",\"state\":");
    match &entry.state {
        VetState::Pending { example, score, first_seen_ms, count } => {
            json.raw("\"pending\",\"example\":").string(example);
            json.raw(",\"score\":").float(*score).raw(",\"count\":").number(*count);
            json.raw(",\"first_seen\":").time(*first_seen_ms);
        }
        VetState::Decided(Ruling { class, author, note, scope, at_ms, expires_ms }) => {
            json.string(class.as_str()).raw(",\"decided_by\":").string(author);
            json.raw(",\"note\":").string(note).raw(",\"scope\":").string(scope);
            json.raw(",\"decided_at\":").time(*at_ms);
            if let Some(expires_ms) = expires_ms {
                json.raw(",\"expires_at\":").time(*expires_ms);
            }
        }
        VetState::Withdrawn { author, at_ms } => {
            json.raw("\"pending\",\"decided_by\":").string(author);
            json.raw(",\"decided_at\":").time(*at_ms);
        }
    }
    json.raw(",\"origin\":{\"host\":").string(&identity.host);
    json.raw(",\"store\":").string(&identity.store).raw("}}");
}

/// Writes JSON into a buffer; the caller sees to it that the parts fit together.
struct Json<'a>(&'a mut Vec<u8>);

impl Json<'_> {
    /// Text that is JSON already.
    fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn string(&mut self, text: &str) -> &mut Self {
        // A Vec takes everything, so neither this nor the next ones can fail.
        let _ = serde_json::to_writer(&mut *self.0, text);
        self
    }

    /// Text inside a string that is open already.
    fn inside(&mut self, text: &str) -> &mut Self {
        let start = self.0.len();
        self.string(text);
        // Without its quotation marks.
        self.0.pop();
        self.0.remove(start);
        self
    }

    fn number(&mut self, number: impl serde::Serialize) -> &mut Self {
        let _ = serde_json::to_writer(&mut *self.0, &number);
        self
    }

    fn hex(&mut self, number: u64) -> &mut Self {
        push_hex(self.0, number, 16);
        self
    }

    fn address(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(v4) => {
                for (byte, before) in v4.octets().into_iter().zip(["\"", ".", ".", "."]) {
                    self.raw(before).number(byte);
                }
                self.raw("\"")
            }
            IpAddr::V6(v6) => {
                let _ = write!(self.0, "\"{v6}\"");
                self
            }
        }
    }

    /// The shortest digits that give the same number again; `null` for what is none.
    fn float(&mut self, number: impl serde::Serialize) -> &mut Self {
        let _ = serde_json::to_writer(&mut *self.0, &number);
        self
    }

    fn boolean(&mut self, value: bool) -> &mut Self {
        self.raw(if value { "true" } else { "false" })
    }

    /// Milliseconds since 1970 as RFC 3339 text.
    fn time(&mut self, milliseconds: i64) -> &mut Self {
        self.raw("\"");
        write_time(self.0, milliseconds);
        self.raw("\"")
    }

    /// An object of counters that grew from the second number to the first.
    fn differences<'w>(
        &mut self,
        counts: impl Iterator<Item = (&'w str, (u64, u64))>,
    ) -> &mut Self {
        self.raw("{");
        for (index, (word, (now, before))) in counts.enumerate() {
            self.raw(if index > 0 { "," } else { "" }).string(word).raw(":");
            self.number(now.saturating_sub(before));
        }
        self.raw("}")
    }
}

/// Appends a number in at least so many hexadecimal digits. `write!` takes several times as long.
pub(crate) fn push_hex(out: &mut Vec<u8>, number: u64, least: u32) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(least);
    for place in (0..digits).rev() {
        out.push(match (number >> (4 * place) & 15) as u8 {
            digit @ 0..10 => b'0' + digit,
            letter => b'a' - 10 + letter,
        });
    }
}

/// Appends RFC 3339 text in UTC; times outside the years 0 to 9999 become the nearest of these.
pub(super) fn write_time(out: &mut Vec<u8>, milliseconds: i64) {
    const YEAR_0: i64 = -62_167_219_200_000;
    const YEAR_9999: i64 = 253_402_300_799_999;
    let within = milliseconds.clamp(YEAR_0, YEAR_9999);
    let seconds = within.div_euclid(1000);
    let Ok(moment) = time::OffsetDateTime::from_unix_timestamp(seconds) else { return };
    let (year, month, day) = moment.to_calendar_date();
    let (hour, minute, second) = moment.to_hms();
    let thousandths = u16::try_from(within.rem_euclid(1000)).unwrap_or(0);
    let mut push = |number: u16, width: u16, end: u8| {
        for place in (0..width).rev() {
            let digit = u8::try_from(number / 10_u16.pow(place.into()) % 10).unwrap_or(0);
            out.push(b'0' + digit);
        }
        out.push(end);
    };
    push(u16::try_from(year).unwrap_or(0), 4, b'-');
    push(u8::from(month).into(), 2, b'-');
    push(day.into(), 2, b'T');
    push(hour.into(), 2, b':');
    push(minute.into(), 2, b':');
    push(second.into(), 2, b'.');
    push(thousandths, 3, b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn blocked() -> VerdictRecord<'static> {
        VerdictRecord {
            id: "01KAV3Q9T2-7c1e-00000000002a",
            sequence: 42,
            time_ms: 1_795_514_400_123,
            name: "xkqjzzq.example.co.uk",
            registered_domain: Some("example.co.uk"),
            suffix: Some("co.uk"),
            client: Client::Address("192.0.2.7".parse().unwrap()),
            client_mode: "full",
            qtype: 1,
            score: Some(0.9973),
            label: Label::Malicious,
            decision: Decision::Block,
            source: Source::Model,
            action: Action::Nxdomain,
            sinkhole4: None,
            sinkhole6: None,
            model: Some(ModelRecord {
                name: "fields",
                version: "2026.11.1",
                sha: 0x3f9a_1c22_0000_0001,
            }),
            thresholds: (Some(0.5), Some(0.99)),
            count: 3,
            flags: FLAG_CACHED,
            group: None,
            dropped_before: 7,
        }
    }

    fn parsed(record: &VerdictRecord<'_>) -> Value {
        let mut out = Vec::new();
        verdict(&mut out, record, "ns1", "default");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_block_is_an_alert_with_everything_known() {
        assert_eq!(
            parsed(&blocked()),
            json!({
                "@timestamp": "2026-11-24T10:00:00.123Z",
                "ecs": {"version": "9.4.0"},
                "data_stream": {"type": "logs", "dataset": "mlbridge.verdict", "namespace": "default"},
                "event": {
                    "kind": "alert", "category": ["network", "intrusion_detection"],
                    "type": ["protocol", "denied"], "action": "dns-block", "outcome": "success",
                    "module": "mlbridge", "dataset": "mlbridge.verdict", "provider": "mlbridge",
                    "id": "01KAV3Q9T2-7c1e-00000000002a", "sequence": 42, "severity": 73,
                    "risk_score": 99.73, "risk_score_norm": 99.73,
                    "reason": "score 0.9973 >= block 0.99 (model fields 2026.11.1)"
                },
                "dns": {"type": "query", "question": {
                    "name": "xkqjzzq.example.co.uk", "type": "A", "class": "IN",
                    "registered_domain": "example.co.uk", "subdomain": "xkqjzzq",
                    "top_level_domain": "co.uk"
                }},
                "related": {"hosts": ["xkqjzzq.example.co.uk"], "ip": ["192.0.2.7"]},
                "network": {"protocol": "dns", "type": "ipv4"},
                "source": {"ip": "192.0.2.7"},
                "observer": {"type": "dns", "vendor": "mlbridge", "product": "mlbridge",
                    "version": env!("CARGO_PKG_VERSION"), "name": "ns1"},
                "rule": {"name": "model", "id": "model:3f9a1c2200000001", "version": "2026.11.1"},
                "ml_is_dga": {"malicious_prediction": 1, "malicious_probability": 0.9973},
                "mlbridge": {
                    "decision": "block", "score": 0.9973, "source": "model", "action": "nxdomain",
                    "threshold": {"vet": 0.5, "block": 0.99},
                    "model": {"name": "fields", "version": "2026.11.1", "sha256": "3f9a1c2200000001"},
                    "cache_hit": true, "observed": false, "fail_open": false, "breaker": false,
                    "count": 3, "ip_mode": "full", "dropped_before": 7
                }
            })
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let bare = VerdictRecord {
            name: "co.uk",
            registered_domain: None,
            suffix: None,
            client: Client::Unknown,
            client_mode: "none",
            qtype: 65_280,
            score: None,
            label: Label::Benign,
            decision: Decision::Allow,
            source: Source::Allowlist,
            action: Action::Pass,
            model: None,
            thresholds: (None, None),
            ..blocked()
        };
        let document = parsed(&bare);
        for field in [
            "/source",
            "/related/ip",
            "/network/type",
            "/ml_is_dga",
            "/mlbridge/score",
            "/rule/id",
            "/dns/question/registered_domain",
            "/dns/question/subdomain",
            "/dns/resolved_ip",
            "/dns/id",
            "/dns/response_code",
            "/event/risk_score",
            "/event/duration",
            "/threat",
        ] {
            assert_eq!(document.pointer(field), None, "{field}");
        }
        assert_eq!(document["dns"]["question"]["type"], "TYPE65280");
        assert_eq!(document["event"]["type"], json!(["protocol", "allowed"]));
        assert_eq!(document["event"]["kind"], "event");
    }

    #[test]
    fn a_threshold_that_is_not_set_is_left_out() {
        let of = |decision, thresholds| {
            let record = VerdictRecord { decision, thresholds, ..blocked() };
            let document = parsed(&record);
            let reason = document["event"]["reason"].as_str().unwrap_or_default().to_owned();
            (document["mlbridge"]["threshold"].clone(), reason)
        };
        let (threshold, reason) = of(Decision::Block, (None, Some(0.9)));
        assert_eq!(threshold, json!({"block": 0.9}));
        assert!(reason.contains(">= block 0.9"), "{reason}");
        let (threshold, reason) = of(Decision::Allow, (None, Some(0.9)));
        assert_eq!(threshold, json!({"block": 0.9}));
        assert!(reason.contains("< block 0.9"), "{reason}");
        let (threshold, reason) = of(Decision::Vet, (Some(0.5), None));
        assert_eq!(threshold, json!({"vet": 0.5}));
        assert!(reason.contains(">= vet 0.5"), "{reason}");
        let (threshold, reason) = of(Decision::Allow, (None, None));
        assert_eq!(threshold, Value::Null);
        assert!(!reason.contains('<'), "{reason}");
    }

    #[test]
    fn a_hashed_client_is_never_an_address() {
        let hashed =
            VerdictRecord { client: Client::Hashed("9f8e"), client_mode: "hmac", ..blocked() };
        let document = parsed(&hashed);
        assert_eq!(document["source"], json!({"address": "9f8e"}));
        assert_eq!(document.pointer("/related/ip"), None);
    }

    #[test]
    fn an_action_that_was_kept_back_is_no_denial() {
        let observed = VerdictRecord { action: Action::Pass, flags: FLAG_OBSERVED, ..blocked() };
        let document = parsed(&observed);
        assert_eq!(document["event"]["type"], json!(["protocol", "allowed"]));
        assert_eq!(document["event"]["action"], "dns-block");
        assert_eq!(document["mlbridge"]["observed"], true);
    }

    #[test]
    fn a_sinkhole_gives_its_addresses() {
        let sinkhole = VerdictRecord {
            action: Action::Sinkhole,
            sinkhole4: Some(Ipv4Addr::new(192, 0, 2, 1)),
            sinkhole6: Some("2001:db8::1".parse().unwrap()),
            ..blocked()
        };
        assert_eq!(parsed(&sinkhole)["dns"]["resolved_ip"], json!(["192.0.2.1", "2001:db8::1"]));
    }

    #[test]
    fn every_text_survives_as_json() {
        for name in ["a\\\"b.example", "tab\\009.example", "\u{e4}\u{1F600}\u{7}.example"] {
            let odd =
                VerdictRecord { name, registered_domain: None, group: Some(name), ..blocked() };
            let document = parsed(&odd);
            assert_eq!(document["dns"]["question"]["name"], name);
            assert_eq!(document["mlbridge"]["policy"]["group"], name);
        }
        let nan = VerdictRecord { score: Some(f32::NAN), ..blocked() };
        assert_eq!(parsed(&nan)["mlbridge"]["score"], Value::Null);
    }

    #[test]
    fn times_are_rfc_3339() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            write_time(&mut out, milliseconds);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn a_summary_holds_differences_and_levels() {
        let before = SummaryRecord {
            time_ms: 60_000,
            classified: 10,
            decisions: [8, 1, 1],
            losses: vec![("queue", 2)],
            latency: std::array::from_fn(|bucket| if bucket == 3 { 100 } else { 0 }),
            ..SummaryRecord::default()
        };
        let now = SummaryRecord {
            time_ms: 120_000,
            classified: 30,
            decisions: [26, 1, 3],
            losses: vec![("queue", 5), ("store", 1)],
            latency: std::array::from_fn(|bucket| [0, 3, 0, 101, 0][bucket.min(4)]),
            pending: 4,
            oldest_to_vet_ms: Some(100_000),
            ..before.clone()
        };
        let identity = Identity { host: "ns1".to_owned(), store: "s".to_owned() };
        let mut out = Vec::new();
        summary(&mut out, "id-1", &now, &before, &identity, "default");
        let document: Value = serde_json::from_slice(&out).unwrap();
        let own = &document["mlbridge"];
        assert_eq!(own["classified"], 20);
        assert_eq!(own["decisions"], json!({"allow": 18, "vet": 0, "block": 2}));
        assert_eq!(own["losses"], json!({"queue": 3, "store": 1}));
        assert_eq!(own["pending"], 4);
        assert_eq!(own["latency_ns"], json!({"p50": 128, "p99": 512}));
        assert_eq!(own["oldest_to_vet_s"], 20);
        assert_eq!(own["scores"].as_object().unwrap().len(), SCORE_CLASSES);
        assert_eq!(own.get("shadow"), None);
        assert_eq!(document["event"]["start"], "1970-01-01T00:01:00.000Z");
    }
}
