//! An outbox in memory that keeps the ledger.

use mlbridge::elastic::document::{self, Client, ModelRecord, VerdictRecord};
use mlbridge::elastic::{Cursor, Decided, Document, Outbox, Settled, SummaryRecord, Taken, ToVet};
use mlbridge::{Action, Decision, Label, Source};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Clone, Default)]
pub struct Memory(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
pub struct State {
    next: i64,
    pub pending: BTreeMap<i64, Document>,
    pub delivered: Vec<i64>,
    pub dead: Vec<(i64, String)>,
    pub summary: Option<SummaryRecord>,
    pub to_vet: Vec<ToVet>,
    pub vetting_written: Vec<i64>,
    pub cursor: Cursor,
    pub decided: Vec<Decided>,
    pub panics: u32,
    ahead: Vec<Document>,
}

/// The document of one blocked name, as the library writes it.
pub fn verdict_source(
    id: &str,
    sequence: u64,
    name: &str,
    client: &str,
    decision: Decision,
) -> Vec<u8> {
    verdict_at(id, sequence, name, client, decision, 1_795_514_400_000 + sequence as i64)
}

pub fn verdict_at(
    id: &str,
    sequence: u64,
    name: &str,
    client: &str,
    decision: Decision,
    time_ms: i64,
) -> Vec<u8> {
    let mut source = Vec::new();
    let record = VerdictRecord {
        id,
        sequence,
        time_ms,
        name,
        registered_domain: Some("example.com"),
        suffix: Some("com"),
        client: Client::Address(client.parse().unwrap()),
        client_mode: "truncate",
        qtype: 1,
        score: Some(0.9973),
        label: Label::Malicious,
        decision,
        source: Source::Model,
        action: if decision == Decision::Block { Action::Nxdomain } else { Action::Pass },
        sinkhole4: None,
        sinkhole6: None,
        model: Some(ModelRecord { name: "fields", version: "1", sha: 1 }),
        thresholds: (Some(0.5), Some(0.99)),
        count: 1,
        flags: 0,
        group: None,
        dropped_before: 0,
    };
    document::verdict(&mut source, &record, "ns1.test", "default");
    source
}

impl State {
    fn after(&self, row: i64, max_documents: usize, max_bytes: usize) -> Vec<Document> {
        let mut bytes = 0;
        let mut documents = Vec::new();
        for document in self.pending.values().filter(|document| document.row > row) {
            bytes += document.source.len();
            if documents.len() == max_documents || (bytes > max_bytes && !documents.is_empty()) {
                break;
            }
            documents.push(document.clone());
        }
        documents
    }
}

impl Memory {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// Adds so many verdicts.
    pub fn with(self, documents: usize) -> Memory {
        for _ in 0..documents {
            self.add(|id, row| {
                verdict_source(
                    id,
                    row as u64,
                    &format!("n{row}.example.com"),
                    "192.0.2.0",
                    Decision::Block,
                )
            });
        }
        self
    }

    /// Adds one document; `source` makes it from its id and row.
    pub fn add(&self, source: impl FnOnce(&str, i64) -> Vec<u8>) -> i64 {
        let mut state = self.state();
        let row = state.next;
        state.next += 1;
        let id = format!("event-{row:08}");
        let source = source(&id, row);
        state.pending.insert(row, Document { row, id, source });
        self.0.1.notify_all();
        row
    }

    /// Every document is in exactly one place; how many are delivered, dead, pending.
    pub fn ledger(&self) -> (usize, usize, usize) {
        let state = self.state();
        let mut rows: Vec<i64> = state.delivered.clone();
        rows.extend(state.dead.iter().map(|dead| dead.0));
        rows.extend(state.pending.keys());
        let all = rows.len();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), all, "a document is in two places");
        assert_eq!(rows.len() as i64, state.next, "a document is lost");
        (state.delivered.len(), state.dead.len(), state.pending.len())
    }

    pub fn until_empty(&self) {
        super::until("the outbox is empty", || self.state().pending.is_empty());
    }
}

impl Outbox for Memory {
    fn take(&mut self, max_documents: usize, max_bytes: usize, wait: Duration) -> Taken {
        let (lock, changed) = &*self.0;
        let state = lock.lock().unwrap();
        let (mut state, _) =
            changed.wait_timeout_while(state, wait, |state| state.pending.is_empty()).unwrap();
        if state.panics > 0 {
            state.panics -= 1;
            drop(state);
            panic!("the outbox panics, as the test wants it");
        }
        let documents = state.after(i64::MIN, max_documents, max_bytes);
        if documents.is_empty() { Taken::Nothing } else { Taken::Documents(documents) }
    }

    fn prefetch(&mut self, after: i64, max_documents: usize, max_bytes: usize) {
        let mut state = self.state();
        state.ahead = state.after(after, max_documents, max_bytes);
    }

    fn prefetched(&mut self) -> Vec<Document> {
        std::mem::take(&mut self.state().ahead)
    }

    fn settle(&mut self, settled: Settled) {
        let mut state = self.state();
        for row in settled.delivered {
            assert!(state.pending.remove(&row).is_some(), "{row} is settled twice");
            state.delivered.push(row);
        }
        for (row, reason) in settled.dead {
            assert!(state.pending.remove(&row).is_some(), "{row} is settled twice");
            assert!(reason.len() < 1300 && !reason.contains("192.0.2."), "{reason}");
            state.dead.push((row, reason));
        }
    }

    fn summary(&mut self) -> Option<SummaryRecord> {
        self.state().summary.clone()
    }

    fn to_vet(&mut self, max: usize) -> Vec<ToVet> {
        self.state().to_vet.iter().take(max).cloned().collect()
    }

    fn vetting_written(&mut self, keys: Vec<i64>) {
        let mut state = self.state();
        state.to_vet.retain(|entry| !keys.contains(&entry.key));
        state.vetting_written.extend(keys);
    }

    fn cursor(&mut self) -> Cursor {
        self.state().cursor.clone()
    }

    fn decided(&mut self, decided: Vec<Decided>, cursor: Cursor) {
        let mut state = self.state();
        state.decided.extend(decided);
        state.cursor = cursor;
    }
}
