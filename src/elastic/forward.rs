//! The loop: takes documents from the outbox, sends them, settles, waits where waiting is due.
//!
//! Decisions are made in `retry.rs`, `nodes.rs`, `setup.rs` and `vetting.rs`; here are the clock, the dice and the order
//! of things. A panic in one turn (there should be none) costs that turn and a minute, not the thread.

use super::bulk::{self, BulkAnswer};
use super::control::{Control, Paused};
use super::document::{self, SummaryRecord};
use super::http::{self, Client, Content, Limits, Method};
use super::nodes::{Next, Nodes};
use super::retry::{self, Answer, Decision, Failure, Health, Remedy, Sender, Wait};
use super::setup::{self, Mode, Ready};
use super::vetting::{self, Reader};
use super::{Document, Identity, Outbox, Settings, Settled, Taken};
use crate::error::Result;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Least time between two requests that are not full.
const LINGER: Duration = Duration::from_secs(1);
/// Longest wait for documents in one go: other work becomes due, and the end must be noticed.
const TAKE: Duration = Duration::from_millis(500);
/// Time between two summaries.
const SUMMARY: Duration = Duration::from_secs(60);
/// Time between two looks at what is to be written to the vetting index.
const VETTING: Duration = Duration::from_secs(5);
/// Time for the question whether a node lives.
const PROBE: Duration = Duration::from_secs(10);
/// Time for one request of the side work.
const SIDE: Duration = Duration::from_secs(30);
/// Time until side work that failed is tried again.
const SIDE_RETRY: Duration = Duration::from_secs(60);

/// Sends what an outbox holds to the nodes of one cluster.
pub struct Forwarder {
    settings: Settings,
    identity: Identity,
    client: Client,
    summary_every: Duration,
}

impl Forwarder {
    /// Checks the settings and reads the files they name. Makes no connection and starts nothing.
    ///
    /// # Errors
    /// [`crate::Error::Config`] or [`crate::Error::Io`], naming the setting.
    pub fn new(settings: Settings, identity: Identity) -> Result<Forwarder> {
        settings.check()?;
        let client = Client::new(&settings, Limits::default())?;
        Ok(Forwarder { settings, identity, client, summary_every: SUMMARY })
    }

    /// The same with other limits of time: for tests.
    pub fn with_limits(mut self, limits: Limits) -> Forwarder {
        if let Ok(client) = Client::new(&self.settings, limits) {
            self.client = client;
        }
        self
    }

    /// The same with another time between two summaries: for tests.
    pub fn with_summary_every(self, summary_every: Duration) -> Forwarder {
        Forwarder { summary_every, ..self }
    }

    /// Runs until the outbox or the control says that it is time to end. To be called in a thread of its own, once.
    pub fn run(self, outbox: &mut dyn Outbox, control: &Control) {
        let _ended = Ended(control);
        let mut turns = Turns::new(self, control);
        loop {
            let turn = catch_unwind(AssertUnwindSafe(|| turns.turn(outbox)));
            match turn {
                Ok(Go::On) => {}
                Ok(Go::End) => return,
                Err(_) => {
                    control.set_error(
                        "elasticsearch: internal error in the forwarder; please report it",
                    );
                    if control.pause(SIDE_RETRY, false) == Paused::Closing {
                        return;
                    }
                }
            }
        }
    }
}

/// Tells those who wait that `run` has ended, however it did.
struct Ended<'c>(&'c Control);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.set_ended();
    }
}

/// Whether there is another turn.
#[derive(Debug, PartialEq, Eq)]
enum Go {
    On,
    End,
}

/// Whose trouble it is: that of the documents counts more than that of the side work.
#[derive(Debug, Clone, Copy)]
enum Part {
    Documents,
    Side,
}

struct Turns<'c> {
    settings: Settings,
    identity: Identity,
    client: Client,
    control: &'c Control,
    nodes: Nodes,
    sender: Sender,
    ready: Option<Ready>,
    /// What follows the documents that were delivered last, read while they were on their way.
    ahead: Vec<Document>,
    troubles: (String, String),
    summary: Summary,
    reader: Option<Reader>,
    next_vetting: Instant,
    next_poll: Instant,
}

/// The summary that is to be sent, and the counters of the last one that arrived.
struct Summary {
    every: Duration,
    next: Instant,
    before: SummaryRecord,
    waiting: Option<(Document, SummaryRecord)>,
}

impl<'c> Turns<'c> {
    fn new(forwarder: Forwarder, control: &'c Control) -> Turns<'c> {
        let Forwarder { settings, identity, client, summary_every } = forwarder;
        let now = Instant::now();
        control.on_interrupt(client.cutter());
        Turns {
            nodes: Nodes::new(settings.urls.len()),
            sender: Sender::new(setup::verdict_stream(&settings.namespace)),
            settings,
            identity,
            client,
            control,
            ready: None,
            ahead: Vec::new(),
            troubles: Default::default(),
            summary: Summary {
                every: summary_every,
                next: now + summary_every,
                before: control.summarized(),
                waiting: None,
            },
            reader: None,
            next_vetting: now,
            next_poll: now,
        }
    }

    fn turn(&mut self, outbox: &mut dyn Outbox) -> Go {
        let node = match self.choose_node() {
            Choice::Node(node) => node,
            Choice::Again => return Go::On,
            Choice::End => return Go::End,
        };
        let ready = match self.ready {
            Some(ready) => ready,
            None => match self.prepare(node) {
                Ok(ready) => *self.ready.insert(ready),
                Err(decision) => return self.follow(node, *decision),
            },
        };
        let closing = self.control.closing();
        let (documents, bytes) = self.sender.appetite();
        let wait = if closing || self.side_work_due() { Duration::ZERO } else { TAKE };
        let ahead = std::mem::take(&mut self.ahead);
        let taken = match ahead.is_empty() {
            true => outbox.take(documents, bytes, wait),
            false => Taken::Documents(ahead),
        };
        match taken {
            Taken::Closing => self.end(outbox, node),
            Taken::Nothing if closing => self.end(outbox, node),
            Taken::Nothing => {
                self.side_work(outbox, node);
                Go::On
            }
            Taken::Documents(taken) => {
                let begun = Instant::now();
                let go = self.deliver(outbox, node, ready, &taken);
                if go == Go::End || closing {
                    return go;
                }
                self.side_work(outbox, node);
                if !self.sender.is_full(&taken) && self.troubles.0.is_empty() {
                    self.control.pause(LINGER.saturating_sub(begun.elapsed()), true);
                }
                Go::On
            }
        }
    }

    /// The last act, when there is time for it: the summary of the minute that is not over.
    fn end(&mut self, outbox: &mut dyn Outbox, node: usize) -> Go {
        if self.control.time_left().is_none_or(|left| !left.is_zero()) {
            let sent = self.send_summary(outbox, node);
            self.tell(Part::Side, sent.err().map(|text| self.about(node, &text)));
        }
        Go::End
    }

    /// The node for this turn; waits where none may be used, and asks those that are out whether they live.
    fn choose_node(&mut self) -> Choice {
        match self.nodes.next(Instant::now()) {
            Next::Send(node) => Choice::Node(node),
            Next::Probe(_) if self.control.closing() => Choice::End,
            Next::Probe(node) => {
                let came = self.client.send(node, Method::Get, "/", None, Some(PROBE));
                let alive = came.as_ref().is_ok_and(|answer| answer.status < 500);
                self.nodes.note_probe(node, Instant::now(), alive);
                match came {
                    Ok(_) if alive => self.tell(Part::Documents, None),
                    Ok(answer) => {
                        let told = retry::told_answer(&answer);
                        self.tell(
                            Part::Documents,
                            Some(self.about(node, &format!("failing ({told})"))),
                        );
                    }
                    Err(failure) => {
                        let decision = retry::obstacle(&Err(failure), "GET /");
                        if decision.remedy == Some(Remedy::Credentials) {
                            let _ = self.reread();
                        }
                        self.tell(Part::Documents, decision.trouble);
                    }
                }
                Choice::Again
            }
            Next::Wait(until) => {
                let time = until.saturating_duration_since(Instant::now());
                match self.control.pause(time, true) {
                    Paused::Closing => return Choice::End,
                    Paused::Hurried => self.nodes.forgive(),
                    Paused::Over => {}
                }
                Choice::Again
            }
        }
    }

    fn prepare(&mut self, node: usize) -> std::result::Result<Ready, Box<Decision>> {
        let mode = if self.settings.setup { Mode::Install } else { Mode::Check };
        let (client, control) = (&self.client, self.control);
        let mut exchange = |method, path: &str, body: Option<&str>| {
            let body = body.map(|text| (Content::Json, text.as_bytes()));
            client.send(node, method, path, body, control.time_left())
        };
        setup::prepare(&mut exchange, &self.settings, mode, &mut |_| {})
    }

    /// Sends one request with as many of the documents as it may hold, and settles what came of it.
    fn deliver(
        &mut self,
        outbox: &mut dyn Outbox,
        node: usize,
        ready: Ready,
        taken: &[Document],
    ) -> Go {
        let picked = self.sender.pick(taken);
        let body = bulk::body(picked.iter().copied());
        let packed = self.sender.compresses().then(|| http::compress(&body));
        let content = match &packed {
            Some(packed) => (Content::CompressedLines, packed.as_slice()),
            None => (Content::Lines, body.as_slice()),
        };
        let path = bulk::path(self.sender.stream(), ready.server.knows_require_data_stream());
        let on_the_wire = content.1.len();
        let last = picked.last().map(|document| document.row);
        let ahead = last.filter(|_| self.sender.is_full(taken) && self.sender.is_at_ease());
        if let Some(row) = ahead {
            let (documents, bytes) = self.sender.appetite();
            outbox.prefetch(row, documents, bytes);
        }
        let time = self.control.time_left();
        let came = self.client.send(node, Method::Post, &path, Some(content), time);
        let decision = self.sender.judge(&picked, body.len(), node, &came, unix_seconds());
        self.control.count(|counters| {
            counters.requests += 1;
            counters.failed_requests += u64::from(decision.settled == Settled::default());
            counters.sent += picked.len() as u64;
            counters.created += decision.created;
            counters.duplicates += decision.duplicates;
            counters.misrouted += decision.misrouted;
            counters.dead += decision.settled.dead.len() as u64;
            counters.bytes += body.len() as u64;
            counters.bytes_sent += on_the_wire as u64;
        });
        if decision.settled != Settled::default() {
            outbox.settle(decision.settled.clone());
        }
        if ahead.is_some() {
            // Only if nothing of this request is left behind: what is, comes first.
            let next = outbox.prefetched();
            if decision.settled.delivered.len() == picked.len() {
                self.ahead = next;
            }
        }
        self.follow(node, decision)
    }

    /// Does what was decided about an attempt, waiting included.
    fn follow(&mut self, node: usize, decision: Decision) -> Go {
        let Decision { wait, health, remedy, trouble, .. } = decision;
        self.tell(Part::Documents, trouble.map(|text| self.about(node, &text)));
        let changed = match remedy {
            Some(Remedy::Setup) => {
                self.ready = None;
                false
            }
            Some(Remedy::Credentials) => self.reread(),
            None => false,
        };
        let asked = match wait {
            Wait::Exactly(time) => time,
            Wait::No | Wait::Backoff { .. } => Duration::ZERO,
        };
        let another = match health {
            Health::Good => {
                self.nodes.note_good(node);
                false
            }
            Health::Bad => self.nodes.note_bad(node, Instant::now(), asked),
        };
        if changed {
            self.nodes.forgive();
        }
        let time = match wait {
            _ if another || changed => Duration::ZERO,
            Wait::No => Duration::ZERO,
            Wait::Exactly(time) => time,
            Wait::Backoff { least } => self.sender.backoff(least, chance()),
        };
        if time.is_zero() {
            return Go::On;
        }
        // Somebody who waits for delivery may cut short the wait for a dead node, not one that a server asked for.
        let may_hurry = health == Health::Bad && asked.is_zero();
        match self.control.pause(time, may_hurry) {
            Paused::Closing => Go::End,
            Paused::Hurried => {
                self.nodes.forgive();
                Go::On
            }
            Paused::Over => Go::On,
        }
    }

    /// Reads the files with credentials again; whether they have changed.
    fn reread(&mut self) -> bool {
        match self.client.reread(&self.settings) {
            Ok(false) => false,
            Ok(true) => {
                self.control.on_interrupt(self.client.cutter());
                true
            }
            Err(error) => {
                self.tell(Part::Documents, Some(error.to_string()));
                false
            }
        }
    }

    /// A text about a node. Those of failed connections begin with its address already.
    fn about(&self, node: usize, text: &str) -> String {
        match self.client.urls().get(node) {
            Some(url) if !text.starts_with("elasticsearch.") => {
                format!("elasticsearch.urls: {url}: {text}")
            }
            _ => text.to_owned(),
        }
    }

    fn tell(&mut self, part: Part, trouble: Option<String>) {
        let text = trouble.unwrap_or_default();
        match part {
            Part::Documents => self.troubles.0 = text,
            Part::Side => self.troubles.1 = text,
        }
        let (documents, side) = &self.troubles;
        self.control.set_error(if documents.is_empty() { side } else { documents });
    }

    fn side_work_due(&self) -> bool {
        let now = Instant::now();
        let poll = self.settings.overrides && self.next_poll <= now;
        poll || self.summary.next <= now || self.next_vetting <= now
    }

    /// What goes beside the documents. A failure is told, and tried again later; it holds no document up.
    fn side_work(&mut self, outbox: &mut dyn Outbox, node: usize) {
        if self.control.closing() || !self.side_work_due() {
            return;
        }
        let now = Instant::now();
        let mut work: [Option<std::result::Result<(), String>>; 3] = [None, None, None];
        if self.summary.next <= now {
            self.summary.next = now + self.summary.every;
            work[0] = Some(self.send_summary(outbox, node));
        }
        if self.next_vetting <= now {
            let written = self.write_vetting(outbox, node);
            self.next_vetting = now + if written.is_ok() { VETTING } else { SIDE_RETRY };
            work[1] = Some(written);
        }
        if self.settings.overrides && self.next_poll <= now {
            let read = self.read_vetting(outbox, node);
            self.next_poll = Instant::now() + self.settings.poll;
            work[2] = Some(read);
        }
        let failed = work.iter().flatten().find_map(|result| result.as_ref().err());
        let told = failed.map(|text| self.about(node, text));
        self.tell(Part::Side, told);
    }

    fn send_summary(
        &mut self,
        outbox: &mut dyn Outbox,
        node: usize,
    ) -> std::result::Result<(), String> {
        if self.summary.waiting.is_some() {
            self.post_summary(node)?;
        }
        let Some(record) = outbox.summary() else { return Ok(()) };
        if self.control.closing() && record.classified == self.summary.before.classified {
            return Ok(());
        }
        let id = format!("{}-{:x}", self.identity.store, record.time_ms);
        let mut source = Vec::new();
        let namespace = &self.settings.namespace;
        document::summary(
            &mut source,
            &id,
            &record,
            &self.summary.before,
            &self.identity,
            namespace,
        );
        self.summary.waiting = Some((Document { row: 0, id, source }, record));
        self.post_summary(node)
    }

    fn post_summary(&mut self, node: usize) -> std::result::Result<(), String> {
        let Some((document, record)) = &self.summary.waiting else { return Ok(()) };
        let require = self.ready.is_some_and(|ready| ready.server.knows_require_data_stream());
        let path = bulk::path(&setup::summary_stream(&self.settings.namespace), require);
        let body = bulk::body([document]);
        let record = record.clone();
        let answer = self.post(node, &path, (Content::Lines, &body))?;
        let item = BulkAnswer::parse(&answer.body).and_then(|bulk| bulk.items.into_iter().next());
        let item = item.ok_or("the summary: no bulk answer")?;
        let arrived = matches!(item.status, 200..=299 | 409);
        if arrived || item.status == 400 {
            self.summary.waiting = None;
            self.control.set_summarized(record.clone());
            self.summary.before = record;
        }
        if !arrived {
            return Err(format!("the summary: {}", retry::told_item(&item)));
        }
        self.control.count(|counters| counters.summaries += 1);
        Ok(())
    }

    fn write_vetting(
        &mut self,
        outbox: &mut dyn Outbox,
        node: usize,
    ) -> std::result::Result<(), String> {
        let mut after = i64::MIN;
        loop {
            let entries = outbox.to_vet(vetting::PAGE);
            // Those of the page before come again if the store could not write that the index has them: later, then.
            let Some(last) = entries.last().map(|entry| entry.key).filter(|last| *last > after)
            else {
                return Ok(());
            };
            if after == i64::MIN {
                self.find_vetting_index(node)?;
            }
            after = last;
            let body = vetting::body(&entries, &self.identity);
            let answer = self.post(node, &vetting::bulk_path(), (Content::Lines, &body))?;
            let (done, trouble) = vetting::written(&entries, &answer.body)
                .ok_or("the vetting index: no bulk answer")?;
            let progress = !done.is_empty();
            self.control.count(|counters| counters.vetting_written += done.len() as u64);
            outbox.vetting_written(done);
            if let Some(trouble) = trouble {
                return Err(trouble);
            }
            if !progress || entries.len() < vetting::PAGE || self.control.closing() {
                return Ok(());
            }
        }
    }

    /// A bulk request would make an index that somebody deleted anew, with mappings that the server guesses.
    fn find_vetting_index(&mut self, node: usize) -> std::result::Result<(), String> {
        let came = self.client.send(node, Method::Get, &vetting::uuid_path(), None, Some(SIDE));
        if came.is_ok_and(|answer| answer.status == 404) {
            self.ready = None;
            return Err(
                "the vetting index is missing: mlbridge setup elasticsearch makes it".to_owned()
            );
        }
        Ok(())
    }

    fn read_vetting(
        &mut self,
        outbox: &mut dyn Outbox,
        node: usize,
    ) -> std::result::Result<(), String> {
        let came = self.client.send(node, Method::Get, &vetting::uuid_path(), None, Some(SIDE));
        let index = match came {
            Ok(answer) if answer.status == 404 => return Ok(()),
            other => vetting::uuid(&self.usable(node, other, "the vetting index")?.body)
                .ok_or("the vetting index: no uuid")?,
        };
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => Reader::new(outbox.cursor()),
        };
        reader.begin(&index);
        let mut reason = None;
        loop {
            let search = reader.search();
            let path = vetting::search_path();
            let answer = self.post(node, &path, (Content::Json, search.as_bytes()))?;
            let page = reader.read(&answer.body, unix_milliseconds());
            let page = page.ok_or("the vetting index: no whole search answer")?;
            self.control.count(|counters| {
                counters.decisions_read += page.decided.len() as u64;
                counters.decisions_refused += page.refused;
            });
            reason = page.reason.or(reason);
            if !page.decided.is_empty() {
                outbox.decided(page.decided, page.cursor);
            }
            if !page.more || self.control.closing() {
                break;
            }
        }
        self.reader = Some(reader);
        reason.map_or(Ok(()), Err)
    }

    fn post(
        &mut self,
        node: usize,
        path: &str,
        body: (Content, &[u8]),
    ) -> std::result::Result<Answer, String> {
        let time = self.control.time_left().map_or(SIDE, |left| left.min(SIDE));
        let came = self.client.send(node, Method::Post, path, Some(body), Some(time));
        let what = path.split(['?']).next().unwrap_or(path).to_owned();
        self.usable(node, came, &what)
    }

    /// The answer if it is a success; else what to tell.
    fn usable(
        &mut self,
        node: usize,
        came: std::result::Result<Answer, Failure>,
        what: &str,
    ) -> std::result::Result<Answer, String> {
        match came {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(answer),
            other => {
                if other.is_err() {
                    self.nodes.note_bad(node, Instant::now(), Duration::ZERO);
                }
                Err(retry::obstacle(&other, what).trouble.unwrap_or_default())
            }
        }
    }
}

/// What [`Turns::choose_node`] brings.
enum Choice {
    Node(usize),
    Again,
    End,
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn unix_seconds() -> i64 {
    i64::try_from(unix_time().as_secs()).unwrap_or(i64::MAX)
}

fn unix_milliseconds() -> i64 {
    i64::try_from(unix_time().as_millis()).unwrap_or(i64::MAX)
}

/// A random number, 0 to 1.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}
