//! What came back -> what to do. Pure: no I/O, no clock, no randomness of its own.
//!
//! [`Sender`] remembers between two attempts only what makes the next one smaller or slower: the largest body that
//! passed, how many documents a request may hold, how often in a row it failed, and which documents failed alone. Which
//! documents are to be sent is the outbox's knowledge; whatever is not settled is simply taken again.
//!
//! A document is given up (becomes a dead letter) only on proof: the server refused it in an answer that took another
//! one, or refused it alone twice, with another one taken by the same node in between. A server that refuses everything
//! is wrongly configured, and keeps everything waiting.

use super::bulk::{self, BulkAnswer, Item, ServerError};
use super::redact::redact;
use super::{Document, Settled};
use std::collections::HashMap;
use std::time::Duration;

/// What a node answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The header `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// Why there is no answer. The texts are for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was sent: no address, no connection, no TLS session.
    Unreachable(String),
    /// The node's certificate, or ours, is not accepted.
    Certificate(String),
    /// The request may have arrived: time over, or the connection cut.
    Unanswered(String),
    /// A file that a setting names cannot be used.
    Setting(String),
}

/// When to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// At once.
    No,
    /// After a random part of a time that doubles with each failure in a row, but at least this long.
    Backoff {
        /// The least time.
        least: Duration,
    },
    /// After this time: the server asked for it, or only a person can help.
    Exactly(Duration),
}

/// What the attempt says about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Good,
    /// It does not answer, or cannot: another one may.
    Bad,
}

/// What may help before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Look at the server again and install what is missing.
    Setup,
    /// Read the files with credentials and certificates again.
    Credentials,
}

/// What to do about one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Rows that are done with.
    pub settled: Settled,
    /// How many of the delivered were new.
    pub created: u64,
    /// How many of the delivered had arrived with an earlier attempt.
    pub duplicates: u64,
    /// How many of the new ones the server put aside in its failure store.
    pub misrouted: u64,
    /// When to send next.
    pub wait: Wait,
    /// About the node.
    pub health: Health,
    /// What may help.
    pub remedy: Option<Remedy>,
    /// What hinders delivery, for operators; `None` if nothing does.
    pub trouble: Option<String>,
}

impl Decision {
    fn new(wait: Wait, trouble: impl Into<String>) -> Decision {
        Decision {
            settled: Settled::default(),
            created: 0,
            duplicates: 0,
            misrouted: 0,
            wait,
            health: Health::Good,
            remedy: None,
            trouble: Some(trouble.into()),
        }
    }
}

/// Most documents in one request.
pub const MAX_DOCUMENTS: usize = 500;
/// Most bytes in one request, before compression.
pub const MAX_BYTES: usize = 1 << 20;
/// First time between two attempts; it doubles.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest time between two attempts.
const BACKOFF_LONGEST: Duration = Duration::from_secs(60);
/// Longest time that a server may ask for.
const RETRY_AFTER_LONGEST: Duration = Duration::from_secs(300);
/// Time until something is tried again that only a person can mend.
const SLOW: Wait = Wait::Exactly(Duration::from_secs(60));
/// Least time until a full disk is tried again.
const DISK_FULL: Wait = Wait::Backoff { least: Duration::from_secs(30) };
const BACKOFF: Wait = Wait::Backoff { least: Duration::ZERO };
/// Attempts after which an answer that is none is no accident any more.
const ODD_ANSWERS: u32 = 3;
/// Attempts with a missing index after which installing the template did not help.
const SETUP_ROUNDS: u32 = 3;
/// Attempts of one document that the server answers with its own failure (500) while it takes others.
const SERVER_FAILURES: u32 = 20;
/// Documents refused alone, one after the other, after which it is not the documents.
const LONE_REFUSALS: u32 = 8;
/// Refusals that prove a document at fault, if it was too busy for (429) or otherwise.
const TOO_BUSY_FOR: u32 = 5;
const REFUSED_ALONE: u32 = 2;
/// Least documents in a request after single ones were refused as too much: others of the same request were taken.
const LEAST_IF_BUSY: usize = 64;
/// Answers without trouble after which a busy server is asked for more again.
const CLEAN_ANSWERS: u32 = 32;

/// Decides what to send and what the answers mean.
#[derive(Debug)]
pub struct Sender {
    /// Name of the data stream; answers must come from one of its backing indices.
    stream: String,
    compresses: bool,
    max_documents: usize,
    max_bytes: usize,
    /// How many documents were too many for a busy server; beyond half of it, growth is slow.
    overloaded_at: usize,
    /// Answers in a row without any trouble.
    clean: u32,
    failures: u32,
    unanswered: u32,
    odd_answers: u32,
    setup_rounds: u32,
    lone_refusals: u32,
    suspects: HashMap<i64, Suspect>,
    server_failures: HashMap<i64, u32>,
}

/// A document that a node refused when it was sent alone.
#[derive(Debug)]
struct Suspect {
    node: usize,
    refusals: u32,
    /// Whether the node took another document since.
    cleared_node: bool,
    bytes: usize,
}

impl Sender {
    /// A sender into this data stream.
    pub fn new(stream: String) -> Sender {
        Sender {
            stream,
            compresses: true,
            max_documents: MAX_DOCUMENTS,
            max_bytes: MAX_BYTES,
            overloaded_at: usize::MAX,
            clean: 0,
            failures: 0,
            unanswered: 0,
            odd_answers: 0,
            setup_rounds: 0,
            lone_refusals: 0,
            suspects: HashMap::new(),
            server_failures: HashMap::new(),
        }
    }

    /// The data stream's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Whether bodies are to be compressed.
    pub fn compresses(&self) -> bool {
        self.compresses
    }

    /// How many documents, and bytes of them, to take from the outbox.
    pub fn appetite(&self) -> (usize, usize) {
        let suspicious: usize = self.suspects.values().map(|suspect| suspect.bytes).sum();
        let documents = self.max_documents + self.suspects.len();
        (documents, self.max_bytes.saturating_add(suspicious))
    }

    /// Whether these documents are about as many as a request may hold.
    pub fn is_full(&self, taken: &[Document]) -> bool {
        let bytes: usize = taken.iter().map(|d| d.source.len() + bulk::overhead(d)).sum();
        taken.len() >= self.max_documents || bytes >= self.max_bytes - self.max_bytes / 8
    }

    /// Whether the last answers give no reason to expect anything but success.
    pub fn is_at_ease(&self) -> bool {
        self.failures == 0 && self.suspects.is_empty()
    }

    /// Which of the documents taken to send in one request: at least one of them, if there are any.
    pub fn pick<'d>(&mut self, taken: &'d [Document]) -> Vec<&'d Document> {
        self.suspects.retain(|row, _| taken.iter().any(|document| document.row == *row));
        self.server_failures.retain(|row, _| taken.iter().any(|document| document.row == *row));
        let proven = |d: &&Document| self.suspects.get(&d.row).is_some_and(|s| s.cleared_node);
        if let Some(document) = taken.iter().find(proven) {
            return vec![document];
        }
        let mut bytes = 0;
        let mut picked = Vec::new();
        for document in taken.iter().filter(|d| !self.suspects.contains_key(&d.row)) {
            bytes += document.source.len() + bulk::overhead(document);
            if picked.len() >= self.max_documents || (bytes > self.max_bytes && !picked.is_empty())
            {
                break;
            }
            picked.push(document);
        }
        if picked.is_empty() { taken.iter().take(1).collect() } else { picked }
    }

    /// The time of a [`Wait::Backoff`]; `chance` is random, 0 to 1.
    pub fn backoff(&self, least: Duration, chance: f64) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let longest = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_LONGEST);
        longest.mul_f64(chance.clamp(0.0, 1.0)).max(least)
    }

    /// What to do, after these documents went to a node in a body of so many bytes. `now` is in seconds since 1970, for
    /// a `Retry-After` that is a date.
    pub fn judge(
        &mut self,
        sent: &[&Document],
        bytes: usize,
        node: usize,
        came: &Result<Answer, Failure>,
        now: i64,
    ) -> Decision {
        let answer = match came {
            Ok(answer) => answer,
            Err(failure) => return self.judge_failure(failure),
        };
        self.unanswered = 0;
        let decision = match answer.status {
            200..=299 => match BulkAnswer::parse(&answer.body) {
                Some(bulk) if fits(sent, &bulk) => self.judge_items(sent, node, &bulk),
                _ => self.judge_odd_answer(),
            },
            status => self.judge_refusal(sent, bytes, node, status, &answer.body),
        };
        match (decision.wait, retry_after(answer, now)) {
            // No time, or a date that is over, asks for nothing: it must not make a busy server busier.
            (Wait::Backoff { .. }, Some(asked)) if !asked.is_zero() => {
                Decision { wait: Wait::Exactly(asked), ..decision }
            }
            _ => decision,
        }
    }

    fn judge_failure(&mut self, failure: &Failure) -> Decision {
        self.failures = self.failures.saturating_add(1);
        if matches!(failure, Failure::Unanswered(_)) {
            self.unanswered = self.unanswered.saturating_add(1);
            if self.unanswered > 1 {
                // Some servers cut the connection instead of answering 413, slow ones need less at a time.
                self.halve();
            }
        }
        without_answer(failure)
    }

    /// A success that is none: a login page, a body cut short, items of other documents.
    fn judge_odd_answer(&mut self) -> Decision {
        self.failures = self.failures.saturating_add(1);
        self.odd_answers = self.odd_answers.saturating_add(1);
        let wait = if self.odd_answers > ODD_ANSWERS { SLOW } else { BACKOFF };
        Decision {
            health: Health::Bad,
            ..Decision::new(
                wait,
                "answers 200 with something that is no whole bulk answer; is there a proxy in between?",
            )
        }
    }

    /// An answer that is about the whole request.
    fn judge_refusal(
        &mut self,
        sent: &[&Document],
        bytes: usize,
        node: usize,
        status: u16,
        body: &[u8],
    ) -> Decision {
        self.failures = self.failures.saturating_add(1);
        let error = ServerError::of_request(body);
        let told = told(status, &error);
        match status {
            300..=399 => Decision::new(
                SLOW,
                format!(
                    "redirects ({status}); set elasticsearch.urls to the address it redirects to"
                ),
            ),
            400 if error.kind == "index_not_found_exception" => self.judge_missing(&told),
            400 if is_about_one_document(&error) => self.narrow(sent, node, REFUSED_ALONE, told),
            401 => credentials(format!(
                "credentials refused ({told}); check elasticsearch.api_key_file or .username and .password_file"
            )),
            403 if error.kind == "cluster_block_exception" => {
                Decision::new(SLOW, format!("writes are blocked ({told})"))
            }
            403 => {
                credentials(format!("no permission ({told}); give the user the role for mlbridge"))
            }
            404 if error.kind == "index_not_found_exception" => self.judge_missing(&told),
            400 | 404 | 405 => Decision::new(
                SLOW,
                format!(
                    "refuses bulk requests ({told}); check the path in elasticsearch.urls and any proxy"
                ),
            ),
            415 if self.compresses => {
                self.compresses = false;
                self.failures = 0;
                Decision::new(Wait::No, format!("takes no compressed body ({told}); sending plain"))
            }
            406 | 415 => Decision::new(
                SLOW,
                format!(
                    "refuses newline-delimited JSON ({told}); is it Elasticsearch or OpenSearch?"
                ),
            ),
            408 | 425 => Decision::new(BACKOFF, format!("busy ({told})")),
            413 => {
                if sent.len() > 1 {
                    self.max_bytes = (bytes / 2).max(1);
                    self.failures = 0;
                }
                let largest = self.max_bytes;
                match sent {
                    [_] => self.narrow(sent, node, REFUSED_ALONE, format!("too large ({told})")),
                    _ => Decision::new(
                        Wait::No,
                        format!("takes no body of {bytes} bytes ({told}); trying {largest}"),
                    ),
                }
            }
            429 => self.judge_overload(sent, node, format!("overloaded ({told})")),
            500..=599 => Decision {
                health: Health::Bad,
                ..Decision::new(BACKOFF, format!("failing ({told})"))
            },
            _ => Decision::new(
                SLOW,
                format!("refuses bulk requests ({told}); check elasticsearch.urls and any proxy"),
            ),
        }
    }

    fn judge_missing(&mut self, told: &str) -> Decision {
        self.setup_rounds = self.setup_rounds.saturating_add(1);
        let wait = if self.setup_rounds > SETUP_ROUNDS { SLOW } else { BACKOFF };
        let text = format!(
            "the data stream {} is missing ({told}); run `mlbridge setup elasticsearch`",
            self.stream
        );
        Decision { remedy: Some(Remedy::Setup), ..Decision::new(wait, text) }
    }

    /// Too much at a time, or always too much: where waiting never helps, the request has to become smaller.
    fn judge_overload(&mut self, sent: &[&Document], node: usize, told: String) -> Decision {
        let failures = self.failures;
        let decision = self.narrow(sent, node, TOO_BUSY_FOR, told);
        self.failures = failures;
        // Refused alone, it may be the document: others are to be tried in large numbers again.
        self.overloaded_at = if sent.len() > 1 { sent.len() } else { usize::MAX };
        self.max_documents = self.max_documents.min(sent.len());
        Decision { wait: BACKOFF, ..decision }
    }

    /// Something in the request is at fault: the next one holds half as many documents, until one stands alone.
    fn narrow(&mut self, sent: &[&Document], node: usize, proof: u32, told: String) -> Decision {
        let [document] = sent else {
            self.halve();
            self.failures = 0;
            return Decision::new(Wait::No, told);
        };
        self.max_documents = 1;
        self.lone_refusals = self.lone_refusals.saturating_add(1);
        let bytes = document.source.len();
        let fresh = Suspect { node, refusals: 0, cleared_node: false, bytes };
        let suspect = self.suspects.entry(document.row).or_insert(fresh);
        suspect.refusals = suspect.refusals.saturating_add(1);
        if suspect.cleared_node && suspect.node == node && suspect.refusals >= proof {
            self.suspects.remove(&document.row);
            let settled =
                Settled { dead: vec![(document.row, told.clone())], ..Settled::default() };
            let trouble = format!("one document was given up: {told}");
            return Decision { settled, ..Decision::new(Wait::No, trouble) };
        }
        suspect.node = node;
        suspect.cleared_node = false;
        if self.lone_refusals < LONE_REFUSALS {
            return Decision::new(BACKOFF, told);
        }
        // It is not the documents: all over again, slowly.
        self.lone_refusals = 0;
        self.suspects.clear();
        self.max_documents = MAX_DOCUMENTS;
        Decision::new(SLOW, format!("refuses every document: {told}"))
    }

    fn halve(&mut self) {
        self.max_documents = (self.max_documents / 2).max(1);
    }

    /// A whole bulk answer.
    fn judge_items(&mut self, sent: &[&Document], node: usize, bulk: &BulkAnswer) -> Decision {
        self.odd_answers = 0;
        let classes: Vec<Class> = bulk.items.iter().map(Class::of).collect();
        let taken = |class: &Class| matches!(class, Class::Created { .. } | Class::Duplicate);
        let passed = classes.iter().filter(|class| taken(class)).count();
        if passed > 0 {
            self.note_passed(
                node,
                sent.iter().zip(&classes).filter(|(_, c)| taken(c)).map(|(d, _)| d.row),
            );
        }
        let all_poison = classes.iter().all(|class| matches!(class, Class::Poison));
        if passed == 0 && all_poison {
            let told = bulk.items.first().map(told_item).unwrap_or_default();
            if sent.len() > 1 {
                // One by one, to learn whether it is the documents or the server.
                self.max_documents = 1;
                return Decision::new(Wait::No, told);
            }
            self.failures = self.failures.saturating_add(1);
            return self.narrow(sent, node, REFUSED_ALONE, told);
        }
        if let ([_], [Class::Overloaded], [item]) =
            (sent, classes.as_slice(), bulk.items.as_slice())
        {
            self.failures = self.failures.saturating_add(1);
            return self.judge_overload(sent, node, format!("overloaded ({})", told_item(item)));
        }
        let mut decision = Decision { trouble: None, ..Decision::new(Wait::No, "") };
        let mut overloaded = false;
        for ((document, item), class) in sent.iter().zip(&bulk.items).zip(&classes) {
            let row = document.row;
            match class {
                Class::Created { misrouted } => {
                    decision.settled.delivered.push(row);
                    decision.created += 1;
                    decision.misrouted += u64::from(*misrouted);
                    self.note_place(&mut decision, item, *misrouted);
                }
                Class::Duplicate => {
                    decision.settled.delivered.push(row);
                    decision.duplicates += 1;
                }
                Class::Poison if passed > 0 => {
                    decision.settled.dead.push((row, told_item(item)));
                    decision.complain(Wait::No, || {
                        format!("documents were given up: {}", told_item(item))
                    });
                }
                Class::Poison => decision.complain(BACKOFF, || told_item(item)),
                Class::ServerFailure => {
                    let tries = self.server_failures.entry(row).or_insert(0);
                    *tries = tries.saturating_add(1);
                    if *tries >= SERVER_FAILURES && passed > 0 {
                        self.server_failures.remove(&row);
                        decision.settled.dead.push((row, told_item(item)));
                    }
                    decision.complain(BACKOFF, || format!("failing ({})", told_item(item)));
                }
                Class::Overloaded => {
                    overloaded = true;
                    decision.complain(BACKOFF, || format!("overloaded ({})", told_item(item)));
                }
                Class::Unavailable => {
                    overloaded = true;
                    decision.complain(BACKOFF, || format!("not available ({})", told_item(item)));
                }
                Class::DiskFull => decision.complain(DISK_FULL, || {
                    format!("the disk is full; free space on the nodes ({})", told_item(item))
                }),
                Class::Operator(hint) => {
                    decision.complain(SLOW, || format!("{hint} ({})", told_item(item)));
                }
                // One round, however many documents miss it.
                Class::Missing if decision.remedy.is_some() => {}
                Class::Missing => {
                    let missing = self.judge_missing(&told_item(item));
                    decision.remedy = missing.remedy;
                    decision.complain(missing.wait, || missing.trouble.unwrap_or_default());
                }
            }
        }
        if overloaded {
            self.overloaded_at = sent.len();
            self.max_documents = (sent.len() / 2).max(LEAST_IF_BUSY);
        }
        self.note_progress(&decision, passed);
        decision
    }

    /// Other documents pass on this node: a suspect refused by it once more is at fault itself.
    fn note_passed(&mut self, node: usize, rows: impl Iterator<Item = i64>) {
        self.lone_refusals = 0;
        self.setup_rounds = 0;
        if self.suspects.is_empty() && self.server_failures.is_empty() {
            return;
        }
        for row in rows {
            self.suspects.remove(&row);
            self.server_failures.remove(&row);
        }
        for suspect in self.suspects.values_mut().filter(|suspect| suspect.node == node) {
            suspect.cleared_node = true;
        }
    }

    fn note_progress(&mut self, decision: &Decision, passed: usize) {
        if decision.wait == Wait::No {
            self.failures = 0;
            self.grow();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.clean = 0;
        if passed > 0 {
            // Some arrive: waiting long would only hold those back.
            self.failures = self.failures.min(2);
        }
    }

    /// More documents at a time again: quickly up to what was too much, and then only now and then.
    fn grow(&mut self) {
        self.clean = self.clean.saturating_add(1);
        let doubled = self.max_documents.saturating_mul(2).min(MAX_DOCUMENTS);
        if doubled < self.overloaded_at || self.clean >= CLEAN_ANSWERS {
            self.max_documents = doubled;
            self.clean = 0;
        }
    }

    /// A document that is taken, but not by the data stream, is an operator's matter, and no reason to send it again.
    fn note_place(&self, decision: &mut Decision, item: &Item, misrouted: bool) {
        if misrouted {
            return decision.complain(Wait::No, || {
                "documents go to the failure store: does an ingest pipeline or a template of yours reject them?".to_owned()
            });
        }
        let Some(index) = item.index.as_deref() else { return };
        if index == self.stream {
            decision.complain(Wait::No, || {
                format!("{index} is a plain index, not a data stream: delete it, then run `mlbridge setup elasticsearch`")
            });
        } else if !index.contains(&self.stream) {
            let stream = &self.stream;
            decision.complain(Wait::No, || {
                format!(
                    "documents for {stream} go to {}: check the path and any proxy",
                    redact(index)
                )
            });
        }
    }
}

impl Decision {
    /// Adds a trouble; the longest wait and its text count.
    fn complain(&mut self, wait: Wait, text: impl FnOnce() -> String) {
        if self.trouble.is_none() || length(wait) > length(self.wait) {
            self.trouble = Some(text());
        }
        if length(wait) > length(self.wait) {
            self.wait = wait;
        }
    }
}

/// Orders waits by how long they hold things up.
fn length(wait: Wait) -> (u8, Duration) {
    match wait {
        Wait::No => (0, Duration::ZERO),
        Wait::Backoff { least } => (1, least),
        Wait::Exactly(time) => (2, time),
    }
}

fn credentials(text: String) -> Decision {
    Decision { remedy: Some(Remedy::Credentials), ..Decision::new(SLOW, text) }
}

/// Whether the answer is about these documents: as many, in this order.
fn fits(sent: &[&Document], bulk: &BulkAnswer) -> bool {
    let same_id = |(document, item): (&&Document, &Item)| {
        item.id.as_ref().is_none_or(|id| *id == document.id)
    };
    sent.len() == bulk.items.len() && sent.iter().zip(&bulk.items).all(same_id)
}

/// Whether a refusal of the whole request may come from a single document in it.
fn is_about_one_document(error: &ServerError) -> bool {
    matches!(
        error.kind.as_str(),
        "action_request_validation_exception"
            | "json_e_o_f_exception"
            | "json_parse_exception"
            | "unexpected_end_of_input_exception"
            | "stream_read_exception"
            | "x_content_e_o_f_exception"
            | "x_content_parse_exception"
            | "parse_exception"
    ) || error.reason.starts_with("Malformed action")
}

/// What a document's status and error mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Created {
        misrouted: bool,
    },
    Duplicate,
    /// The document itself is refused.
    Poison,
    /// The node's own failure; may be the document's fault (a pipeline's processor).
    ServerFailure,
    Overloaded,
    Unavailable,
    DiskFull,
    /// Only a person can help.
    Operator(&'static str),
    Missing,
}

impl Class {
    fn of(item: &Item) -> Class {
        let none = ServerError::default();
        let error = item.error.as_ref().unwrap_or(&none);
        let disk_full = error.reason.contains("flood-stage");
        match (item.status, error.kind.as_str()) {
            (200..=299, _) => {
                Class::Created { misrouted: item.failure_store.as_deref() == Some("used") }
            }
            (409, _) => Class::Duplicate,
            (403 | 429, "cluster_block_exception") if disk_full || item.status == 429 => {
                Class::DiskFull
            }
            (429, _) => Class::Overloaded,
            (403, "cluster_block_exception") => Class::Operator("writes are blocked"),
            (401 | 403, _) => Class::Operator("no permission; give the user the role for mlbridge"),
            (404, _) => Class::Missing,
            (400, "index_closed_exception") => Class::Operator("the index is closed; open it"),
            (400, _) if error.reason.contains("only write ops with an op_type of create") => {
                Class::Operator("a data stream is written to in a wrong way; report this as a bug")
            }
            (400, _) => Class::Poison,
            (500, _) => Class::ServerFailure,
            _ => Class::Unavailable,
        }
    }
}

/// Status, word and reason of an item, fit to be shown.
pub(super) fn told_item(item: &Item) -> String {
    told(item.status, item.error.as_ref().unwrap_or(&ServerError::default()))
}

fn told(status: u16, error: &ServerError) -> String {
    let parts = [error.kind.as_str(), error.reason.as_str()];
    let text: Vec<String> = parts.iter().filter(|p| !p.is_empty()).map(|p| redact(p)).collect();
    if text.is_empty() { status.to_string() } else { format!("{status} {}", text.join(": ")) }
}

/// The time that the server asked for: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(answer: &Answer, now: i64) -> Option<Duration> {
    let text = answer.retry_after.as_deref()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let format = &time::format_description::well_known::Rfc2822;
            let date = time::OffsetDateTime::parse(text, format).ok()?;
            u64::try_from(date.unix_timestamp().saturating_sub(now)).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_LONGEST))
}

/// Something stands in the way that only a person can remove.
pub(super) fn waiting(text: &str, remedy: Option<Remedy>) -> Decision {
    Decision { remedy, ..Decision::new(SLOW, text) }
}

/// An answer that no Elasticsearch or OpenSearch would give.
pub(super) fn strange(text: &str) -> Decision {
    Decision {
        health: Health::Bad,
        ..Decision::new(SLOW, format!("{text}; is there a proxy in between?"))
    }
}

/// What to do about a request other than a bulk request that did not succeed. `doing` is the request, for the text.
pub(super) fn obstacle(came: &Result<Answer, Failure>, doing: &str) -> Decision {
    let answer = match came {
        Ok(answer) => answer,
        Err(failure) => return without_answer(failure),
    };
    let told = format!("{doing}: {}", told_answer(answer));
    match answer.status {
        401 | 403 => {
            credentials(format!("no permission ({told}); check the credentials and the role"))
        }
        408 | 425 | 429 => Decision::new(BACKOFF, format!("busy ({told})")),
        500..=599 => {
            Decision { health: Health::Bad, ..Decision::new(BACKOFF, format!("failing ({told})")) }
        }
        _ => Decision::new(
            SLOW,
            format!("unexpected answer ({told}); check elasticsearch.urls and any proxy"),
        ),
    }
}

fn without_answer(failure: &Failure) -> Decision {
    let decision = match failure {
        Failure::Unreachable(text) | Failure::Unanswered(text) => Decision::new(BACKOFF, text),
        Failure::Certificate(text) | Failure::Setting(text) => {
            Decision { remedy: Some(Remedy::Credentials), ..Decision::new(SLOW, text) }
        }
    };
    Decision { health: Health::Bad, ..decision }
}

/// Status and error of an answer, fit to be shown.
pub(super) fn told_answer(answer: &Answer) -> String {
    told(answer.status, &ServerError::of_request(&answer.body))
}

/// Whether the server has no such API at all.
pub(super) fn is_no_handler(answer: &Answer) -> bool {
    ServerError::of_request(&answer.body).reason.contains("no handler found")
}
