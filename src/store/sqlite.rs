//! The embedded store: one SQLite file that is history, vetting queue, overrides and outbox in one.
//!
//! One connection writes, the worker's; others (the command line) read, and write overrides. Every write is one
//! `BEGIN IMMEDIATE` transaction: all of it is in the file, or nothing. WAL with `synchronous = NORMAL` survives the
//! process's death at any instruction; the machine losing power may cost the last transactions.
//!
//! This is the only file that names rusqlite.

use crate::config::RecordClient;
use crate::elastic;
use crate::elastic::document::{self, ModelRecord, VerdictRecord, push_hex};
use crate::error::{Error, Result};
use crate::name::Name;
use crate::policy;
use crate::policy::overrides::{Class, Override, Scope};
use crate::store::event::{Client, Event};
use crate::verdict::{Action, Decision, Label, Source};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SCHEMA_VERSION: i64 = 2;
const FILE_NAME: &str = "mlbridge.db";
/// "mlbr", for `file(1)` and for people with a hex dump.
const APPLICATION_ID: i64 = 0x6d6c_6272;
/// How long a write waits for another process's transaction. Short: the worker has to stay awake.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Most names of which a history is kept, and most that wait for an administrator: floods of random names end here.
const MAX_DOMAINS: i64 = 500_000;
const MAX_TO_VET: i64 = 100_000;
/// Bytes that a name takes at most in most cases: a small store keeps as many names as a quarter of it holds.
const NAME_BYTES: u64 = 256;

/// The path of the database in a state directory.
pub fn database_path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

/// What was wrong, and whether the file itself is to blame.
#[derive(Debug)]
pub struct Failure {
    /// For operators.
    pub error: Error,
    /// The file is damaged or no database: set it aside.
    pub corrupt: bool,
}

impl From<rusqlite::Error> for Failure {
    /// The text lacks the place; whoever knows the directory adds it with [`Failure::at`].
    fn from(error: rusqlite::Error) -> Failure {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let corrupt = matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase));
        Failure { error: describe(&error), corrupt }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, corrupt: false }
    }
}

impl Failure {
    /// The failure with the store's place in its text, unless it is there already.
    pub fn at(self, state_dir: Option<&Path>) -> Failure {
        let (folder, place) = match state_dir {
            Some(path) => (path.display().to_string(), database_path(path).display().to_string()),
            None => ("store in memory".to_owned(), "store in memory".to_owned()),
        };
        let add =
            |text: String| if text.contains(&folder) { text } else { format!("{place}: {text}") };
        let error = match self.error {
            Error::Io(text) => Error::Io(add(text)),
            Error::Busy(text) => Error::Busy(add(text)),
            other => other,
        };
        Failure { error, corrupt: self.corrupt }
    }
}

type Outcome<T> = std::result::Result<T, Failure>;

/// An error of SQLite in words that tell what to do.
fn describe(error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly};
    match error.sqlite_error_code() {
        Some(DiskFull) => Error::Io("the disk is full; free some space".to_owned()),
        Some(ReadOnly) => Error::Io("the file is not writable".to_owned()),
        Some(DatabaseBusy | DatabaseLocked) => {
            Error::Busy("another process keeps the database locked".to_owned())
        }
        _ => Error::Io(error.to_string()),
    }
}

/// An error of SQLite with the file's name.
fn at(path: &Path, error: &rusqlite::Error) -> Error {
    match describe(error) {
        Error::Busy(text) => Error::Busy(format!("{}: {text}", path.display())),
        Error::Io(text) => Error::file(path, text),
        other => other,
    }
}

/// A name that was asked for, over all its events.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DomainRow {
    /// The name.
    pub name: String,
    /// Its registered domain, if it has one.
    pub registered: Option<String>,
    /// First and last event, in milliseconds since 1970.
    pub first_seen: i64,
    /// See [`DomainRow::first_seen`].
    pub last_seen: i64,
    /// Questions by decision.
    pub allowed: u64,
    /// See [`DomainRow::allowed`].
    pub vetted: u64,
    /// See [`DomainRow::allowed`].
    pub blocked: u64,
    /// The last score, if the model ran.
    pub score: Option<f32>,
    /// The last decision.
    pub decision: Decision,
}

/// A registered domain that waits for an administrator.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct WaitingRow {
    /// The registered domain.
    pub domain: String,
    /// The first name below it that was to be vetted.
    pub example: String,
    /// Its score.
    pub score: f32,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// How often names of the domain were asked for.
    pub count: u64,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Key in the store.
    pub row: i64,
    /// The event's id, also its id in the cluster.
    pub id: String,
    /// Number within one opening of the store.
    pub sequence: u64,
    /// In milliseconds since 1970.
    pub time: i64,
    /// The name.
    pub name: String,
    /// Who asked, as far as it was kept.
    pub client: Client,
    /// How much of the client was kept.
    pub client_mode: RecordClient,
    /// Question type.
    pub qtype: u16,
    /// The score, if the model ran.
    pub score: Option<f32>,
    /// The verdict's words.
    pub label: Label,
    /// See [`EventRow::label`].
    pub decision: Decision,
    /// See [`EventRow::label`].
    pub source: Source,
    /// See [`EventRow::label`].
    pub action: Action,
    /// The verdict's flags.
    pub flags: u32,
    /// Addresses of a sinkhole.
    pub sinkhole4: Option<Ipv4Addr>,
    /// See [`EventRow::sinkhole4`].
    pub sinkhole6: Option<Ipv6Addr>,
    /// First eight bytes of the model's SHA-256; its name and version, empty if unknown.
    pub model: (u64, Arc<(String, String)>),
    /// The thresholds vet and block that counted.
    pub thresholds: (f32, f32),
    /// The client's group.
    pub group: Option<String>,
    /// How many questions the row stands for.
    pub count: u64,
    /// Events lost since the row before.
    pub dropped_before: u64,
    /// pending, delivered, or dead.
    pub state: &'static str,
}

/// Counts of a store, for people.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Overview {
    /// Rows of events, and the questions they stand for.
    pub events: u64,
    /// See [`Overview::events`].
    pub questions: u64,
    /// Rows by decision: allow, vet, block.
    pub by_decision: [u64; 3],
    /// Rows by what the cluster said: pending, delivered, dead letters.
    pub by_state: [u64; 3],
    /// Names with a history.
    pub domains: u64,
    /// Overrides in force or expired.
    pub overrides: u64,
    /// Registered domains that wait for an administrator.
    pub to_vet: u64,
    /// First and last event, in milliseconds since 1970.
    pub first: Option<i64>,
    /// See [`Overview::first`].
    pub last: Option<i64>,
    /// Whether the last process that held the store closed it (or still holds it).
    pub clean: bool,
}

/// A row whose window is still open: equal verdicts add to its count.
struct OpenRow {
    row: i64,
    closes: i64,
    added: u64,
}

/// What one batch did.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub struct Written {
    /// New rows.
    pub stored: u64,
    /// Events that became part of a row.
    pub coalesced: u64,
}

/// Most rows whose windows are kept open at once; beyond it, each event is a row of its own.
const MAX_OPEN_ROWS: usize = 200_000;

/// The writer's connection.
pub struct Database {
    connection: Connection,
    path: Option<PathBuf>,
    opening: i64,
    sequence: i64,
    /// The highest key a row ever had here. SQLite would give those of removed rows anew, to rows that the forwarder
    /// would then take for what it has on the way.
    last_row: i64,
    open_rows: HashMap<u64, OpenRow, ahash::RandomState>,
    /// When the windows of `open_rows` close, in the order in which they opened.
    closing: VecDeque<(i64, u64)>,
    models: Models,
    /// Rows whose windows closed until then may have been handed out: they are not added to any more.
    handed_out: i64,
    /// What [`data_version`] was when overrides and pending rows were last read.
    data_version: i64,
    counted_version: i64,
    generation: String,
    /// Rows that no cluster has acknowledged, found at opening.
    pub recovered: u64,
    /// Whether the last process to hold the store did not close it.
    pub was_unclean: bool,
}

impl Database {
    /// Opens the store of a directory whose lock the caller holds; makes it if it is missing.
    ///
    /// # Errors
    /// A [`Failure`]; a file of a newer version is refused without being touched.
    pub fn open(state_dir: &Path) -> Outcome<Database> {
        // SQLite refuses symbolic links in any part of the path; those above the directory are the administrator's.
        let folder =
            std::fs::canonicalize(state_dir).map_err(|error| Error::file(state_dir, error))?;
        let path = database_path(&folder);
        create_private(&path)?;
        refuse_odd_files(&path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(&path, flags)?;
        Database::prepare(connection, Some(path))
    }

    /// A store in memory, for delivery without a state directory.
    ///
    /// # Errors
    /// A [`Failure`] if memory is short.
    pub fn in_memory() -> Outcome<Database> {
        Database::prepare(Connection::open_in_memory()?, None)
    }

    fn prepare(connection: Connection, path: Option<PathBuf>) -> Outcome<Database> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        refuse_newer(version, path.as_deref())?;
        if is_foreign(&connection)? {
            return Err(Error::file(path.as_deref().unwrap_or(Path::new("store")), FOREIGN).into());
        }
        configure(&connection)?;
        let mut connection = connection;
        if version == 1 {
            let transaction = begin(&mut connection)?;
            transaction.execute_batch(include_str!("schema-1-to-2.sql"))?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
        }
        if version == 0 {
            let transaction = begin(&mut connection)?;
            transaction.execute_batch(include_str!("schema.sql"))?;
            transaction.execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            ))?;
            transaction.commit()?;
        }
        let transaction = begin(&mut connection)?;
        let clean = meta(&transaction, "clean")?;
        set_meta(&transaction, "clean", "0")?;
        if meta(&transaction, "instance")?.is_none() {
            set_meta(&transaction, "instance", &format!("{:016x}", random()?))?;
        }
        let generation = meta(&transaction, "override_generation")?.unwrap_or_default();
        transaction.commit()?;
        let data_version = data_version(&connection)?;
        let last_row =
            connection
                .query_row("SELECT coalesce(max(row), 0) FROM event", [], |row| row.get(0))?;
        let models = models(&connection)?;
        let mut database = Database {
            connection,
            path,
            opening: random()?.cast_signed(),
            sequence: 0,
            last_row,
            open_rows: HashMap::default(),
            closing: VecDeque::new(),
            models,
            handed_out: i64::MIN,
            data_version,
            counted_version: data_version,
            generation,
            recovered: 0,
            was_unclean: clean.as_deref() == Some("0"),
        };
        database.recovered = database.count_pending()?;
        Ok(database)
    }

    /// The highest key that a row had here.
    pub fn last_row(&self) -> i64 {
        self.last_row
    }

    /// Gives new rows higher keys than this.
    pub fn begin_after(&mut self, row: i64) {
        self.last_row = self.last_row.max(row);
    }

    /// Sets the files of a damaged store aside and gives the new name of the database.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be renamed.
    pub fn set_aside(state_dir: &Path) -> Result<PathBuf> {
        let path = database_path(state_dir);
        let stamp = crate::store::event::now_ms();
        let aside = state_dir.join(format!("{FILE_NAME}.corrupt-{stamp}"));
        std::fs::rename(&path, &aside).map_err(|error| Error::file(&path, error))?;
        for suffix in ["-wal", "-shm"] {
            let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            // The log belongs to the damaged file; left behind, it would be taken for the new one's.
            let _ = std::fs::rename(name(&path), name(&aside));
        }
        Ok(aside)
    }

    /// Writes a batch of events in one transaction. `dropped` events were lost since the last batch.
    ///
    /// # Errors
    /// A [`Failure`]; nothing of the batch is then stored.
    pub fn write(
        &mut self,
        events: &[Event],
        coalesce_ms: i64,
        dropped: u64,
        models: &Models,
    ) -> Outcome<Written> {
        let outcome = self.write_all(events, coalesce_ms, dropped, models);
        if outcome.is_err() {
            // The counts added in memory are not in the file; their rows will not be added to again.
            self.forget_all_windows();
        }
        outcome
    }

    fn write_all(
        &mut self,
        events: &[Event],
        coalesce_ms: i64,
        dropped: u64,
        models: &Models,
    ) -> Outcome<Written> {
        let mut written = Written::default();
        let mut dropped = dropped;
        let before = self.last_row;
        let transaction = begin(&mut self.connection)?;
        let mut domains: HashMap<&[u8], Seen, ahash::RandomState> = HashMap::default();
        // The rows that this batch adds to.
        let mut added = Vec::new();
        {
            let mut insert = transaction.prepare_cached(INSERT_EVENT)?;
            for event in events {
                let seen = domains.entry(event.name.wire()).or_insert_with(|| Seen::new(event));
                seen.add(event);
                let key = self.open_rows.hasher().hash_one((
                    event.name.wire(),
                    event.client,
                    event.verdict.decision,
                ));
                let handed_out = self.handed_out;
                let takes =
                    |open: &&mut OpenRow| event.time < open.closes && open.closes > handed_out;
                if let Some(open) = self.open_rows.get_mut(&key).filter(takes) {
                    if open.added == 0 {
                        added.push(key);
                    }
                    open.added += 1;
                    written.coalesced += 1;
                    continue;
                }
                let closes = event.time.saturating_add(coalesce_ms);
                self.sequence += 1;
                self.last_row += 1;
                let keys = (self.last_row, self.opening, self.sequence);
                insert_event(&mut insert, event, &seen.text, keys, closes, dropped)?;
                dropped = 0;
                written.stored += 1;
                if coalesce_ms > 0 && self.closing.len() < MAX_OPEN_ROWS {
                    let row = self.last_row;
                    self.closing.push_back((closes, key));
                    let before = self.open_rows.insert(key, OpenRow { row, closes, added: 0 });
                    if let Some(before) = before.filter(|before| before.added > 0) {
                        add_count(&transaction, &before)?;
                    }
                }
            }
            for key in added {
                if let Some(open) = self.open_rows.get_mut(&key).filter(|open| open.added > 0) {
                    add_count(&transaction, open)?;
                    open.added = 0;
                }
            }
            transaction
                .prepare_cached("INSERT INTO outbox SELECT row FROM event WHERE row > ?1")?
                .execute([before])?;
            write_domains(&transaction, &domains)?;
            for (id, names) in models.iter().filter(|(id, _)| !self.models.contains_key(id)) {
                transaction
                    .prepare_cached("INSERT OR IGNORE INTO model VALUES (?1, ?2, ?3)")?
                    .execute(params![id.cast_signed(), names.0, names.1])?;
            }
        }
        transaction.commit()?;
        self.models.extend(models.iter().map(|(id, names)| (*id, Arc::clone(names))));
        self.forget_closed(events.last().map_or(0, |event| event.time));
        Ok(written)
    }

    /// Forgets the rows whose windows are closed.
    fn forget_closed(&mut self, now: i64) {
        while let Some(&(closes, key)) = self.closing.front()
            && closes <= now
        {
            self.closing.pop_front();
            // The key may stand for a later row by now, which has a place of its own in `closing`.
            if self.open_rows.get(&key).is_some_and(|open| open.closes <= now) {
                self.open_rows.remove(&key);
            }
        }
    }

    fn forget_all_windows(&mut self) {
        self.open_rows.clear();
        self.closing.clear();
    }

    /// Removes rows beyond the bounds of age and size; gives how many of them no cluster had acknowledged.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn keep_within(&mut self, max_bytes: u64, oldest: i64) -> Outcome<u64> {
        let mut evicted = 0;
        // Before events: what a cluster has not got yet counts more than totals of names.
        self.cap_names(max_bytes)?;
        if self.oldest_time()?.is_some_and(|time| time < oldest) {
            evicted += self.delete("time < ?1", params![oldest])?;
        }
        while self.is_over(max_bytes)? {
            let finished = self.delete_oldest("row NOT IN (SELECT row FROM outbox)")?;
            if finished.1 > 0 {
                continue;
            }
            let mut removed = 0;
            for decision in Decision::ALL {
                let (pending, all) =
                    self.delete_oldest(&format!("decision = {}", *decision as u8))?;
                evicted += pending;
                removed += all;
                if all > 0 {
                    break;
                }
            }
            if removed == 0 {
                // Only names and overrides are left: the oldest names go.
                let gone = self.connection.execute(
                    "DELETE FROM domain WHERE name IN (SELECT name FROM domain ORDER BY last_seen LIMIT 10000)",
                    [],
                )?;
                if gone == 0 {
                    break;
                }
            }
        }
        Ok(evicted)
    }

    /// The time of the oldest row: a look that costs nothing, before one at all rows.
    fn oldest_time(&self) -> Outcome<Option<i64>> {
        let sql = "SELECT time FROM event ORDER BY row LIMIT 1";
        Ok(self.connection.query_row(sql, [], |row| row.get(0)).optional()?)
    }

    fn delete_oldest(&mut self, which: &str) -> Outcome<(u64, u64)> {
        let before: i64 =
            self.connection.query_row("SELECT count(*) FROM event", [], |row| row.get(0))?;
        let chosen = format!(
            "row IN (SELECT row FROM event WHERE {which} ORDER BY row LIMIT {})",
            before / 20 + 100
        );
        let pending = self.delete(&chosen, [])?;
        let after: i64 =
            self.connection.query_row("SELECT count(*) FROM event", [], |row| row.get(0))?;
        Ok((pending, (before - after).unsigned_abs()))
    }

    /// Deletes events; gives how many of them were pending.
    fn delete(&mut self, which: &str, values: impl rusqlite::Params + Copy) -> Outcome<u64> {
        let transaction = begin(&mut self.connection)?;
        let chosen =
            format!("DELETE FROM outbox WHERE row IN (SELECT row FROM event WHERE {which})");
        let pending = transaction.execute(&chosen, values)?;
        transaction.execute(&format!("DELETE FROM event WHERE {which}"), values)?;
        transaction
            .execute("DELETE FROM dead_letter WHERE row NOT IN (SELECT row FROM event)", [])?;
        transaction.commit()?;
        Ok(pending as u64)
    }

    fn cap_names(&mut self, max_bytes: u64) -> Outcome<()> {
        let share = i64::try_from(max_bytes / 4 / NAME_BYTES).unwrap_or(i64::MAX);
        for (table, key, order, most) in [
            ("domain", "name", "last_seen", MAX_DOMAINS),
            ("to_vet", "key", "written DESC, key", MAX_TO_VET),
        ] {
            let most = most.min(share);
            let count: i64 =
                self.connection
                    .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
            if count > most {
                let excess = count - most + most / 10;
                let sql = format!(
                    "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} ORDER BY {order} LIMIT {excess})"
                );
                self.connection.execute(&sql, [])?;
            }
        }
        Ok(())
    }

    /// Whether the pages in use and the log beside them are more than `max_bytes`.
    fn is_over(&self, max_bytes: u64) -> Outcome<bool> {
        if self.pages_in_use()? + self.log_size() <= max_bytes {
            return Ok(false);
        }
        // Most of the log is copies of pages: brought home, it is empty. A reader may hinder that for a while, which is no
        // reason to remove rows: of a log that stays, a quarter of the bound counts at most.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(self.pages_in_use()? + self.log_size().min(max_bytes / 4) > max_bytes)
    }

    fn pages_in_use(&self) -> Outcome<u64> {
        let pragma = |name: &str| -> rusqlite::Result<i64> {
            self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
        };
        let used = (pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?;
        Ok(used.unsigned_abs())
    }

    fn log_size(&self) -> u64 {
        let log = self.path.as_ref().map(|path| format!("{}-wal", path.display()));
        log.and_then(|log| std::fs::metadata(log).ok()).map_or(0, |metadata| metadata.len())
    }

    /// Overrides, if another process or [`Database::put_decided`] changed them since the last look.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn changed_overrides(&mut self) -> Outcome<Option<Vec<Override>>> {
        let version = data_version(&self.connection)?;
        if version == self.data_version {
            return Ok(None);
        }
        self.data_version = version;
        let generation = meta(&self.connection, "override_generation")?.unwrap_or_default();
        if generation == self.generation {
            return Ok(None);
        }
        self.generation = generation;
        Ok(Some(overrides(&self.connection)?))
    }

    /// All overrides.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn overrides(&self) -> Outcome<Vec<Override>> {
        Ok(overrides(&self.connection)?)
    }

    /// Makes every count final now, so that all pending rows may be forwarded.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn close_windows(&mut self, now: i64) -> Outcome<()> {
        self.forget_all_windows();
        self.connection.execute(
            "UPDATE event SET closes = ?1 WHERE closes > ?1 AND row IN (SELECT row FROM outbox)",
            [now],
        )?;
        Ok(())
    }

    /// How many rows no cluster has acknowledged, if another process wrote to the store since the last time.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn changed_pending(&mut self) -> Outcome<Option<u64>> {
        let version = data_version(&self.connection)?;
        if version == self.counted_version {
            return Ok(None);
        }
        self.counted_version = version;
        self.count_pending().map(Some)
    }

    fn count_pending(&self) -> Outcome<u64> {
        let count = "SELECT count(*) FROM outbox";
        Ok(self.connection.query_row(count, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }

    /// Marks the store as closed in order. The connection ends when the value is dropped.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn mark_clean(&mut self) -> Outcome<()> {
        set_meta(&self.connection, "clean", "1")?;
        Ok(())
    }

    /// The store's own id, the same for its whole life.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn instance(&self) -> Outcome<String> {
        Ok(meta(&self.connection, "instance")?.unwrap_or_default())
    }

    /// The oldest pending events after a row whose count is final, as documents for the cluster.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn pending(
        &mut self,
        after: i64,
        max_documents: usize,
        max_bytes: usize,
        now: i64,
        host: &str,
        namespace: &str,
    ) -> Outcome<Vec<elastic::Document>> {
        self.handed_out = self.handed_out.max(now);
        let sql = format!(
            "SELECT {EVENT_COLUMNS}, 0 FROM outbox o CROSS JOIN event e ON e.row = o.row
             WHERE o.row > ?3 AND e.closes <= ?1 ORDER BY o.row LIMIT ?2"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let limit = i64::try_from(max_documents).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![now, limit, after])?;
        let mut documents = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let event = event_row(row, &self.models)?;
            let mut source = Vec::with_capacity(USUAL_DOCUMENT);
            write_document(&mut source, &event, host, namespace);
            bytes += source.len();
            if bytes > max_bytes && !documents.is_empty() {
                break;
            }
            documents.push(elastic::Document { row: event.row, id: event.id, source });
        }
        Ok(documents)
    }

    /// Writes down what became of documents; gives how many rows were newly delivered and newly dead.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn settle(&mut self, settled: &elastic::Settled, now: i64) -> Outcome<(u64, u64)> {
        let transaction = begin(&mut self.connection)?;
        let (mut delivered, mut dead) = (0, 0);
        {
            let mut take_out =
                transaction.prepare_cached("DELETE FROM outbox WHERE row BETWEEN ?1 AND ?2")?;
            // Most batches are rows without a gap: one statement for all of them.
            for rows in settled.delivered.chunk_by(|row, next| row.checked_add(1) == Some(*next)) {
                if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
                    delivered += take_out.execute([first, last])? as u64;
                }
            }
            let mut bury = transaction
                .prepare_cached("INSERT OR REPLACE INTO dead_letter VALUES (?1, ?2, ?3)")?;
            for (row, reason) in &settled.dead {
                if take_out.execute([row, row])? > 0 {
                    bury.execute(params![row, now, reason])?;
                    dead += 1;
                }
            }
        }
        transaction.commit()?;
        Ok((delivered, dead))
    }

    /// Vetting documents that the index does not have yet, oldest first.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn to_vet(&self, max: usize) -> Outcome<Vec<elastic::ToVet>> {
        let sql = "SELECT key, name, state, example, score, time, count, author FROM to_vet WHERE written = 0 ORDER BY key LIMIT ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let mut rows = statement.query([limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (key, name, state): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let time: i64 = row.get(5)?;
            let state = match state.as_str() {
                // Taken back for one scope, another may be left.
                "decided" | "withdrawn" => match ruling_of(&self.connection, &name)? {
                    Some(ruling) => elastic::VetState::Decided(ruling),
                    None => elastic::VetState::Withdrawn { author: row.get(7)?, at_ms: time },
                },
                _ => elastic::VetState::Pending {
                    example: row.get(3)?,
                    score: row.get::<_, f64>(4)? as f32,
                    first_seen_ms: time,
                    count: row.get::<_, i64>(6)?.unsigned_abs(),
                },
            };
            found.push(elastic::ToVet { key, name, state });
        }
        Ok(found)
    }

    /// Remembers that the index has these vetting documents.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn vetting_written(&mut self, keys: &[i64]) -> Outcome<()> {
        let transaction = begin(&mut self.connection)?;
        for key in keys {
            transaction
                .prepare_cached("UPDATE to_vet SET written = 1 WHERE key = ?1")?
                .execute([key])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// How far the vetting index was read.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn cursor(&self) -> Outcome<elastic::Cursor> {
        let index = meta(&self.connection, "cursor_index")?.unwrap_or_default();
        let seq_no = meta(&self.connection, "cursor_seq_no")?
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        Ok(elastic::Cursor { index, seq_no })
    }

    /// Takes over decisions from the vetting index; gives all overrides if that changed any.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn put_decided(
        &mut self,
        decided: &[elastic::Decided],
        cursor: &elastic::Cursor,
    ) -> Outcome<Option<Vec<Override>>> {
        let transaction = begin(&mut self.connection)?;
        let mut changed = 0;
        for decision in decided {
            changed += transaction.execute(
                "DELETE FROM override WHERE name = ?1 AND from_index = 1",
                [&decision.name],
            )?;
            if let Some(ruling) = &decision.ruling {
                changed += transaction.execute(
                    "INSERT INTO override (name, class, author, note, scope, created, expires, from_index)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1)",
                    params![
                        decision.name, ruling.class.as_str(), ruling.author, ruling.note,
                        index_scope(&ruling.scope), ruling.at_ms, ruling.expires_ms
                    ],
                )?;
            }
        }
        set_meta(&transaction, "cursor_index", &cursor.index)?;
        set_meta(&transaction, "cursor_seq_no", &cursor.seq_no.to_string())?;
        if changed > 0 {
            bump_generation(&transaction)?;
        }
        transaction.commit()?;
        if changed == 0 {
            return Ok(None);
        }
        self.generation = meta(&self.connection, "override_generation")?.unwrap_or_default();
        Ok(Some(overrides(&self.connection)?))
    }

    /// Dead letters, names that wait for an administrator, and since when the oldest of them does.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn waiting(&self) -> Outcome<(u64, u64, Option<i64>)> {
        let dead: i64 =
            self.connection.query_row("SELECT count(*) FROM dead_letter", [], |row| row.get(0))?;
        let (names, oldest): (i64, Option<i64>) = self.connection.query_row(
            "SELECT count(*), min(time) FROM to_vet WHERE state = 'pending'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok((dead.unsigned_abs(), names.unsigned_abs(), oldest))
    }
}

/// Name and version of models by id.
pub type Models = HashMap<u64, Arc<(String, String)>>;

fn models(connection: &Connection) -> rusqlite::Result<Models> {
    let mut statement = connection.prepare("SELECT id, name, version FROM model")?;
    let rows = statement.query_map([], |row| {
        let id: i64 = row.get(0)?;
        Ok((id.cast_unsigned(), Arc::new((row.get(1)?, row.get(2)?))))
    })?;
    rows.collect()
}

/// What a batch says about one name.
struct Seen {
    registered: Option<String>,
    text: String,
    first: i64,
    last: i64,
    counts: [i64; 3],
    score: Option<f32>,
    decision: Decision,
}

impl Seen {
    fn new(event: &Event) -> Seen {
        let text = event.name.to_text();
        Seen {
            registered: registered_domain(&text).map(str::to_owned),
            text,
            first: event.time,
            last: event.time,
            counts: [0; 3],
            score: None,
            decision: event.verdict.decision,
        }
    }

    fn add(&mut self, event: &Event) {
        self.last = event.time;
        if let Some(count) = self.counts.get_mut(event.verdict.decision as usize) {
            *count += 1;
        }
        self.score = event.scored.then_some(event.verdict.score).or(self.score);
        self.decision = event.verdict.decision;
    }
}

/// The registered domain of a name in text form.
fn registered_domain(text: &str) -> Option<&str> {
    let domain = crate::suffix::registered_domain(text.as_bytes())?;
    std::str::from_utf8(domain).ok()
}

fn write_domains(
    transaction: &Transaction<'_>,
    domains: &HashMap<&[u8], Seen, ahash::RandomState>,
) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO domain VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (name) DO UPDATE SET last_seen = ?4, allowed = allowed + ?5, vetted = vetted + ?6,
         blocked = blocked + ?7, score = coalesce(?8, score), decision = ?9",
    )?;
    let mut queue = transaction.prepare_cached(
        "INSERT INTO to_vet (name, state, example, score, time, count, author, written)
         VALUES (?1, 'pending', ?2, ?3, ?4, ?5, '', 0) ON CONFLICT (name) DO UPDATE SET count = count + ?5",
    )?;
    // In the order of the table: pages are then visited once.
    let mut domains: Vec<&Seen> = domains.values().collect();
    domains.sort_unstable_by(|one, other| one.text.cmp(&other.text));
    for seen in domains {
        let [allowed, vetted, blocked] = seen.counts;
        let decision = seen.decision as u8;
        let score = seen.score.map(f64::from);
        upsert.execute(params![
            seen.text,
            seen.registered,
            seen.first,
            seen.last,
            allowed,
            vetted,
            blocked,
            score,
            decision
        ])?;
        if vetted > 0 {
            let domain = seen.registered.as_ref().unwrap_or(&seen.text);
            queue.execute(params![domain, seen.text, score.unwrap_or(0.0), seen.first, vetted])?;
        }
    }
    Ok(())
}

fn add_count(transaction: &Transaction<'_>, open: &OpenRow) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE event SET count = count + ?2 WHERE row = ?1")?
        .execute([open.row, open.added.cast_signed()])?;
    Ok(())
}

const INSERT_EVENT: &str = "INSERT INTO event (row, opening, sequence, time, name, client, client_mode, qtype, score, label, decision,
    source, action, flags, sinkhole4, sinkhole6, model, vet, block, client_group, count, closes, dropped_before)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, 1, ?21, ?22)";

fn insert_event(
    insert: &mut rusqlite::CachedStatement<'_>,
    event: &Event,
    name: &str,
    (row, opening, sequence): (i64, i64, i64),
    closes: i64,
    dropped: u64,
) -> rusqlite::Result<()> {
    let verdict = &event.verdict;
    let (v4, v6, hash);
    let client: Option<&[u8]> = match event.client {
        Client::Unknown => None,
        Client::Address(IpAddr::V4(address)) => {
            v4 = address.octets();
            Some(&v4)
        }
        Client::Address(IpAddr::V6(address)) => {
            v6 = address.octets();
            Some(&v6)
        }
        Client::Hashed(bytes) => {
            hash = bytes;
            Some(&hash)
        }
    };
    let mode = match event.client_mode {
        RecordClient::Full => 0,
        RecordClient::Truncate => 1,
        RecordClient::Hmac => 2,
        RecordClient::None => 3,
    };
    insert.execute(params![
        row,
        opening,
        sequence,
        event.time,
        name,
        client,
        mode,
        event.qtype,
        event.scored.then_some(f64::from(verdict.score)),
        verdict.label as u8,
        verdict.decision as u8,
        verdict.source as u8,
        verdict.action as u8,
        verdict.flags,
        verdict.sinkhole4.map(|address| address.octets()),
        verdict.sinkhole6.map(|address| address.octets()),
        verdict.model.cast_signed(),
        event.thresholds.0,
        event.thresholds.1,
        event.group.as_deref(),
        closes,
        dropped.cast_signed(),
    ])?;
    Ok(())
}

/// Bytes that hold nearly every document: one that has to grow costs a copy.
const USUAL_DOCUMENT: usize = 1536;

/// What [`event_row`] reads first; a number of [`STATES`] comes next.
const EVENT_COLUMNS: &str = "e.row, e.opening, e.sequence, e.time, e.name, e.client, e.client_mode, e.qtype, e.score, e.label,
    e.decision, e.source, e.action, e.flags, e.sinkhole4, e.sinkhole6, e.model, e.vet, e.block, e.client_group, e.count,
    e.dropped_before";

/// What can have become of a row.
const STATES: [&str; 3] = ["pending", "delivered", "dead"];

/// What became of the row, for a query that does not know.
const STATE: &str = "CASE WHEN e.row IN (SELECT row FROM outbox) THEN 0 WHEN e.row IN (SELECT row FROM dead_letter) THEN 2 ELSE 1 END";

fn event_row(row: &Row<'_>, models: &Models) -> rusqlite::Result<EventRow> {
    let (opening, sequence, time): (i64, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let mode: i64 = row.get(6)?;
    let client_mode = match mode {
        0 => RecordClient::Full,
        1 => RecordClient::Truncate,
        2 => RecordClient::Hmac,
        _ => RecordClient::None,
    };
    let client = match (row.get_ref(5)?.as_blob_or_null()?, client_mode) {
        (Some(bytes), RecordClient::Hmac) => {
            bytes.try_into().map_or(Client::Unknown, Client::Hashed)
        }
        (Some(bytes), _) => address_of(bytes).map_or(Client::Unknown, Client::Address),
        (None, _) => Client::Unknown,
    };
    let number = |index: usize| -> rusqlite::Result<u8> { row.get(index) };
    let state: u8 = row.get(22)?;
    let model = row.get::<_, i64>(16)?.cast_unsigned();
    Ok(EventRow {
        row: row.get(0)?,
        id: event_id(time, opening, sequence),
        sequence: sequence.unsigned_abs(),
        time,
        name: row.get(4)?,
        client,
        client_mode,
        qtype: row.get(7)?,
        score: row.get::<_, Option<f64>>(8)?.map(|score| score as f32),
        label: Label::from_number(number(9)?).unwrap_or_default(),
        decision: Decision::from_number(number(10)?).unwrap_or_default(),
        source: Source::from_number(number(11)?).unwrap_or_default(),
        action: Action::from_number(number(12)?).unwrap_or_default(),
        flags: row.get(13)?,
        sinkhole4: row.get::<_, Option<[u8; 4]>>(14)?.map(Ipv4Addr::from),
        sinkhole6: row.get::<_, Option<[u8; 16]>>(15)?.map(Ipv6Addr::from),
        model: (model, models.get(&model).cloned().unwrap_or_default()),
        thresholds: (row.get::<_, f64>(17)? as f32, row.get::<_, f64>(18)? as f32),
        group: row.get(19)?,
        count: row.get::<_, i64>(20)?.unsigned_abs(),
        dropped_before: row.get::<_, i64>(21)?.unsigned_abs(),
        state: STATES.get(usize::from(state)).unwrap_or(&"delivered"),
    })
}

/// The id of an event: it says when it was, and no other event of any store has it.
fn event_id(time: i64, opening: i64, sequence: i64) -> String {
    let mut id = Vec::with_capacity(48);
    push_hex(&mut id, time.cast_unsigned(), 12);
    id.push(b'-');
    push_hex(&mut id, opening.cast_unsigned(), 16);
    id.push(b'-');
    push_hex(&mut id, sequence.cast_unsigned(), 1);
    String::from_utf8(id).unwrap_or_default()
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::from(Ipv6Addr::from(octets))))
        .ok()
}

impl EventRow {
    /// The client as text: an address, a hash as hexadecimal digits, or nothing.
    pub fn client_text(&self) -> String {
        match self.client {
            Client::Unknown => String::new(),
            Client::Address(address) => address.to_string(),
            Client::Hashed(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

fn write_document(out: &mut Vec<u8>, event: &EventRow, host: &str, namespace: &str) {
    let hash;
    let client = match event.client {
        Client::Unknown => document::Client::Unknown,
        Client::Address(address) => document::Client::Address(address),
        Client::Hashed(_) => {
            hash = event.client_text();
            document::Client::Hashed(&hash)
        }
    };
    let dotted = event.name.as_bytes();
    let suffix = crate::suffix::suffix_start(dotted);
    let domain = crate::suffix::registered_start(dotted, suffix);
    let (vet, block) = event.thresholds;
    let (sha, names) = &event.model;
    let record = VerdictRecord {
        id: &event.id,
        sequence: event.sequence,
        time_ms: event.time,
        name: &event.name,
        registered_domain: domain.and_then(|start| event.name.get(start..)),
        suffix: event.name.get(suffix..).filter(|_| suffix > 0),
        client,
        client_mode: client_mode_word(event.client_mode),
        qtype: event.qtype,
        score: event.score,
        label: event.label,
        decision: event.decision,
        source: event.source,
        action: event.action,
        sinkhole4: event.sinkhole4,
        sinkhole6: event.sinkhole6,
        model: event.score.map(|_| ModelRecord { name: &names.0, version: &names.1, sha: *sha }),
        thresholds: (policy::set(vet), policy::set(block)),
        count: event.count,
        flags: event.flags,
        group: event.group.as_deref(),
        dropped_before: event.dropped_before,
    };
    document::verdict(out, &record, host, namespace);
}

fn client_mode_word(mode: RecordClient) -> &'static str {
    match mode {
        RecordClient::Full => "full",
        RecordClient::Truncate => "truncate",
        RecordClient::Hmac => "hmac",
        RecordClient::None => "none",
    }
}

/// A second process's connection: the command line's.
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens an existing store to read it and to change overrides. Never makes one.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no store, or it is of a newer version.
    pub fn open(state_dir: &Path) -> Result<Reader> {
        let folder =
            std::fs::canonicalize(state_dir).map_err(|error| Error::file(state_dir, error))?;
        let path = database_path(&folder);
        let no_store =
            "no store here yet: it is made when the DNS server has classified its first name";
        if !path.exists() {
            return Err(Error::file(&path, no_store));
        }
        refuse_odd_files(&path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let look = |connection: &Connection| -> rusqlite::Result<i64> {
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.query_row("PRAGMA user_version", [], |row| row.get(0))
        };
        let connection = Connection::open_with_flags(&path, flags);
        let connection = connection.map_err(|error| at(&path, &error))?;
        let version = look(&connection).map_err(|error| at(&path, &error))?;
        refuse_newer(version, Some(&path))?;
        if is_foreign(&connection).map_err(|error| at(&path, &error))? {
            return Err(Error::file(&path, FOREIGN));
        }
        if version == 0 {
            return Err(Error::file(&path, no_store));
        }
        if version < SCHEMA_VERSION {
            let text = format!(
                "version {version} of the store; the DNS server brings it to version {SCHEMA_VERSION} when it starts with this library"
            );
            return Err(Error::file(&path, text));
        }
        configure(&connection).map_err(|error| at(&path, &error))?;
        Ok(Reader { connection, path })
    }

    fn ask<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        question(&self.connection).map_err(|error| at(&self.path, &error))
    }

    /// The newest events, newest first; of one name and what is below it, if one is given.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be read.
    pub fn history(&self, name: Option<&Name>, limit: usize) -> Result<Vec<EventRow>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let name = name.map(Name::to_text);
        let of_name = match name {
            None => "?1 IS NULL",
            Some(_) => {
                "e.name IN (SELECT name FROM domain WHERE name = ?1 OR registered = ?1 UNION SELECT ?1)"
            }
        };
        let sql = format!(
            "SELECT {EVENT_COLUMNS}, {STATE} FROM event e WHERE {of_name} ORDER BY e.row DESC LIMIT ?2"
        );
        self.ask(|connection| {
            let models = models(connection)?;
            let mut statement = connection.prepare(&sql)?;
            statement.query_map(params![name, limit], |row| event_row(row, &models))?.collect()
        })
    }

    /// Names with their counts: the last seen first.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be read.
    pub fn domains(&self, decision: Option<Decision>, limit: usize) -> Result<Vec<DomainRow>> {
        let column = match decision {
            None => "1",
            Some(Decision::Allow) => "allowed",
            Some(Decision::Vet) => "vetted",
            Some(Decision::Block) => "blocked",
        };
        let sql = format!(
            "SELECT name, registered, first_seen, last_seen, allowed, vetted, blocked, score, decision FROM domain
             WHERE {column} > 0 ORDER BY last_seen DESC LIMIT ?1"
        );
        self.ask(|connection| {
            let mut statement = connection.prepare(&sql)?;
            let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok(DomainRow {
                    name: row.get(0)?,
                    registered: row.get(1)?,
                    first_seen: row.get(2)?,
                    last_seen: row.get(3)?,
                    allowed: row.get::<_, i64>(4)?.unsigned_abs(),
                    vetted: row.get::<_, i64>(5)?.unsigned_abs(),
                    blocked: row.get::<_, i64>(6)?.unsigned_abs(),
                    score: row.get::<_, Option<f64>>(7)?.map(|score| score as f32),
                    decision: Decision::from_number(row.get(8)?).unwrap_or_default(),
                })
            })?;
            rows.collect()
        })
    }

    /// Registered domains that wait for an administrator, oldest first.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be read.
    pub fn vetting_queue(&self, limit: usize) -> Result<Vec<WaitingRow>> {
        self.ask(|connection| {
            let mut statement = connection.prepare(
                "SELECT name, example, score, time, count FROM to_vet WHERE state = 'pending' ORDER BY key LIMIT ?1",
            )?;
            let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok(WaitingRow {
                    domain: row.get(0)?,
                    example: row.get(1)?,
                    score: row.get::<_, f64>(2)? as f32,
                    since_ms: row.get(3)?,
                    count: row.get::<_, i64>(4)?.unsigned_abs(),
                })
            })?;
            rows.collect()
        })
    }

    /// All overrides, the newest first.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be read.
    pub fn overrides(&self) -> Result<Vec<Override>> {
        let mut all = self.ask(overrides)?;
        all.sort_by_key(|one| std::cmp::Reverse(one.created));
        Ok(all)
    }

    /// Adds an override; one of the same name and scope made here is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Busy`] if the store cannot be written.
    pub fn add_override(&mut self, one: &Override) -> Result<()> {
        let name = one.name.to_text();
        self.change(|transaction| {
            transaction.execute(
                "INSERT INTO override (name, class, author, note, scope, created, expires, from_index)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)
                 ON CONFLICT (name, scope, from_index) DO UPDATE SET class = ?2, author = ?3, note = ?4, created = ?6, expires = ?7",
                params![name, one.class.as_str(), one.author, one.note, one.scope.to_string(), one.created, one.expires],
            )?;
            tell_index(transaction, &name, "decided", &one.author, one.created)?;
            Ok(1)
        })?;
        Ok(())
    }

    /// Removes the overrides of a name made here (of one scope, if given); gives how many there were.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Busy`] if the store cannot be written.
    pub fn remove_override(
        &mut self,
        name: &Name,
        scope: Option<&Scope>,
        author: &str,
        now: i64,
    ) -> Result<usize> {
        let name = name.to_text();
        self.change(|transaction| {
            let scope = scope.map(Scope::to_string);
            // Its copy that came back from the index would hold on until the index hears of this.
            transaction.execute(
                "DELETE FROM override WHERE name = ?1 AND from_index = 1 AND (?2 IS NULL OR scope = ?2)
                 AND (class, author, created, scope) IN
                 (SELECT class, author, created, scope FROM override WHERE name = ?1 AND from_index = 0)",
                params![name, scope],
            )?;
            let removed = transaction.execute(
                "DELETE FROM override WHERE name = ?1 AND from_index = 0 AND (?2 IS NULL OR scope = ?2)",
                params![name, scope],
            )?;
            if removed > 0 {
                tell_index(transaction, &name, "withdrawn", author, now)?;
            }
            Ok(removed)
        })
    }

    fn change(
        &mut self,
        body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize>,
    ) -> Result<usize> {
        let path = self.path.clone();
        let run = || -> rusqlite::Result<usize> {
            let transaction = begin(&mut self.connection)?;
            let changed = body(&transaction)?;
            if changed > 0 {
                bump_generation(&transaction)?;
            }
            transaction.commit()?;
            Ok(changed)
        };
        run().map_err(|error| at(&path, &error))
    }

    /// Dead letters: event and reason, newest first.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be read.
    pub fn dead_letters(&self, limit: usize) -> Result<Vec<(EventRow, String)>> {
        let sql = format!(
            "SELECT {EVENT_COLUMNS}, 2, d.reason FROM event e JOIN dead_letter d ON d.row = e.row
             ORDER BY e.row DESC LIMIT ?1"
        );
        self.ask(|connection| {
            let models = models(connection)?;
            let mut statement = connection.prepare(&sql)?;
            let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok((event_row(row, &models)?, row.get(23)?))
            })?;
            rows.collect()
        })
    }

    /// Puts dead letters back into the outbox; gives how many there were.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Busy`] if the store cannot be written.
    pub fn replay(&mut self) -> Result<usize> {
        let path = self.path.clone();
        let mut run = || -> rusqlite::Result<usize> {
            let transaction = begin(&mut self.connection)?;
            let back = transaction
                .execute("INSERT OR IGNORE INTO outbox SELECT row FROM dead_letter", [])?;
            transaction.execute("DELETE FROM dead_letter", [])?;
            transaction.commit()?;
            Ok(back)
        };
        run().map_err(|error| at(&path, &error))
    }

    /// Counts of the whole store.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be read.
    pub fn overview(&self) -> Result<Overview> {
        self.ask(|connection| {
            let count = |sql: &str| -> rusqlite::Result<u64> {
                connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
            };
            let mut overview = Overview {
                domains: count("SELECT count(*) FROM domain")?,
                overrides: count("SELECT count(*) FROM override")?,
                to_vet: count("SELECT count(*) FROM to_vet WHERE state = 'pending'")?,
                clean: meta(connection, "clean")?.as_deref() != Some("0"),
                ..Overview::default()
            };
            let sql =
                "SELECT decision, count(*), sum(count), min(time), max(time) FROM event GROUP BY decision";
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let decision: u8 = row.get(0)?;
                let rows_here = row.get::<_, i64>(1)?.unsigned_abs();
                overview.events += rows_here;
                overview.questions += row.get::<_, i64>(2)?.unsigned_abs();
                if let Some(slot) = overview.by_decision.get_mut(usize::from(decision)) {
                    *slot += rows_here;
                }
                let (first, last): (i64, i64) = (row.get(3)?, row.get(4)?);
                overview.first = Some(overview.first.map_or(first, |known| known.min(first)));
                overview.last = Some(overview.last.map_or(last, |known| known.max(last)));
            }
            let pending = count("SELECT count(*) FROM outbox")?;
            let dead = count("SELECT count(*) FROM dead_letter")?;
            overview.by_state = [pending, overview.events.saturating_sub(pending + dead), dead];
            Ok(overview)
        })
    }
}

/// The overrides of a store that nobody holds, read without leaving a trace; none if there is no store.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read as a store.
pub fn overrides_at_rest(state_dir: &Path, held: bool) -> Result<Vec<Override>> {
    let Ok(folder) = std::fs::canonicalize(state_dir) else { return Ok(Vec::new()) };
    let path = database_path(&folder);
    if !path.exists() {
        return Ok(Vec::new());
    }
    refuse_odd_files(&path)?;
    let read = || -> rusqlite::Result<Vec<Override>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if held {
            Connection::open_with_flags(&path, flags)?
        } else {
            Connection::open_with_flags(file_uri(&path), flags)?
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        if connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(Vec::new());
        }
        overrides(&connection)
    };
    read().map_err(|error| at(&path, &error))
}

/// A file as a URI that tells SQLite to take it as it is: no lock, no log, no file beside it.
fn file_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(byte))
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri + "?immutable=1"
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA journal_size_limit = 16777216;
         PRAGMA cache_size = -8192;",
    )
}

fn refuse_newer(version: i64, path: Option<&Path>) -> Result<()> {
    if version <= SCHEMA_VERSION {
        return Ok(());
    }
    let place = path.map_or_else(|| "store".to_owned(), |path| path.display().to_string());
    Err(Error::Io(format!(
        "{place}: version {version} of the store is newer than version {SCHEMA_VERSION} of this library; use the newer library"
    )))
}

/// Whether a database holds something and is not of this library: it then stays as it is.
fn is_foreign(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT application_id <> ?1 AND EXISTS (SELECT 1 FROM sqlite_master) FROM pragma_application_id";
    connection.query_row(sql, [APPLICATION_ID], |row| row.get(0))
}

const FOREIGN: &str = "is a database of another program; move it away, or give another state_dir";

/// Makes an empty file that only its owner may read, if it is missing; SQLite gives its helpers the same mode.
fn create_private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::file(path, error)),
    }
}

/// Refuses links, FIFOs and folders in the places of SQLite's own files: it would follow them, or wait for ever.
fn refuse_odd_files(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        match std::fs::symlink_metadata(&file) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::file(&file, "not a regular file; move it away"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
        .optional()
}

fn set_meta(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", [key, value])?;
    Ok(())
}

fn bump_generation(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'override_generation'",
        [],
    )?;
    Ok(())
}

fn overrides(connection: &Connection) -> rusqlite::Result<Vec<Override>> {
    let mut statement = connection.prepare(
        "SELECT name, class, author, note, scope, created, expires, from_index FROM override",
    )?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, class, scope): (String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(4)?);
        // A row that makes no sense (edited by hand) is passed over; the others still count.
        let (Ok(name), Ok(class), Ok(scope)) =
            (name.parse(), Class::parse(&class), Scope::parse(&scope))
        else {
            continue;
        };
        all.push(Override {
            name,
            class,
            author: row.get(2)?,
            note: row.get(3)?,
            scope,
            created: row.get(5)?,
            expires: row.get(6)?,
            from_index: row.get(7)?,
        });
    }
    Ok(all)
}

/// Notes that the vetting index has to hear of a decision made here.
fn tell_index(
    connection: &Connection,
    name: &str,
    state: &str,
    author: &str,
    time: i64,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO to_vet (name, state, example, score, time, count, author, written) VALUES (?1, ?2, ?1, 0, ?4, 0, ?3, 0)
         ON CONFLICT (name) DO UPDATE SET state = ?2, author = ?3, time = ?4, written = 0",
        params![name, state, author, time],
    )?;
    Ok(())
}

/// The decision made here on a name, as the vetting index writes it.
fn ruling_of(connection: &Connection, name: &str) -> rusqlite::Result<Option<elastic::Ruling>> {
    let sql = "SELECT class, author, note, scope, created, expires FROM override WHERE name = ?1 AND from_index = 0
               ORDER BY created DESC LIMIT 1";
    let row = connection.query_row(sql, [name], |row| {
        let class: String = row.get(0)?;
        Ok((class, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?, row.get(4)?, row.get(5)?))
    });
    let Some((class, author, note, scope, at_ms, expires_ms)) = row.optional()? else {
        return Ok(None);
    };
    let Ok(class) = Class::parse(&class) else { return Ok(None) };
    let scope = if scope == "all" { String::new() } else { scope };
    Ok(Some(elastic::Ruling { class, author, note, scope, at_ms, expires_ms }))
}

/// A scope as the index writes it (empty for everybody) in this store's form.
fn index_scope(scope: &str) -> String {
    if scope.is_empty() { "all".to_owned() } else { scope.to_owned() }
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| Error::Io(format!("store: no random number: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elastic::{Cursor, Decided, Ruling, Settled, VetState};
    use crate::verdict::Verdict;

    fn event(name: &str, time: i64, decision: Decision) -> Event {
        Event {
            time,
            name: name.parse().unwrap(),
            client: Client::Address("192.0.2.0".parse().unwrap()),
            client_mode: RecordClient::Truncate,
            qtype: 1,
            verdict: Verdict {
                score: 0.75,
                label: Label::Malicious,
                decision,
                model: 7,
                ..Verdict::default()
            },
            scored: true,
            thresholds: (0.5, 0.9),
            group: None,
        }
    }

    fn models() -> Models {
        Models::from([(7, Arc::new(("seed".to_owned(), "1".to_owned())))])
    }

    fn open(folder: &tempfile::TempDir) -> Database {
        Database::open(folder.path()).unwrap()
    }

    #[test]
    fn equal_verdicts_within_the_window_are_one_row() {
        let mut database = Database::in_memory().unwrap();
        let events = [
            event("a.example", 1, Decision::Allow),
            event("a.example", 2, Decision::Allow),
            event("a.example", 3, Decision::Block),
        ];
        assert_eq!(
            database.write(&events, 10_000, 0, &models()).unwrap(),
            Written { stored: 2, coalesced: 1 }
        );
        let later = [
            event("a.example", 9_000, Decision::Allow),
            event("a.example", 20_000, Decision::Allow),
        ];
        assert_eq!(
            database.write(&later, 10_000, 5, &models()).unwrap(),
            Written { stored: 1, coalesced: 1 }
        );
        // Only what can no longer change may leave.
        assert_eq!(
            database.pending(i64::MIN, 10, usize::MAX, 10_000, "h", "default").unwrap().len(),
            0
        );
        let documents = database.pending(i64::MIN, 10, usize::MAX, 10_003, "h", "default").unwrap();
        assert_eq!(documents.len(), 2);
        let text = String::from_utf8(documents[0].source.clone()).unwrap();
        assert!(
            text.contains("\"count\":3") && text.contains("\"registered_domain\":\"a.example\""),
            "{text}"
        );
        database.close_windows(20_001).unwrap();
        let documents = database.pending(i64::MIN, 10, usize::MAX, 20_001, "h", "default").unwrap();
        assert!(String::from_utf8_lossy(&documents[2].source).contains("\"dropped_before\":5"));
    }

    #[test]
    fn a_row_that_may_have_left_is_not_added_to() {
        let mut database = Database::in_memory().unwrap();
        let at = |time| event("a.example", time, Decision::Allow);
        database.write(&[at(1)], 10_000, 0, &models()).unwrap();
        let first = database.pending(i64::MIN, 10, usize::MAX, 10_001, "h", "default").unwrap();
        assert_eq!(first.len(), 1);
        // Asked within the window, but written only after its row was handed out.
        assert_eq!(
            database.write(&[at(10_000), at(10_002)], 10_000, 0, &models()).unwrap(),
            Written { stored: 1, coalesced: 1 }
        );
        let delivered = vec![first[0].row];
        database.settle(&Settled { delivered, dead: Vec::new() }, 5).unwrap();
        let rest = database.pending(i64::MIN, 10, usize::MAX, 90_000, "h", "default").unwrap();
        let counts = [&first[0], &rest[0]].map(|document| {
            let document: serde_json::Value = serde_json::from_slice(&document.source).unwrap();
            document["mlbridge"]["count"].as_u64().unwrap()
        });
        assert_eq!((counts, rest.len()), ([1, 2], 1));
    }

    #[test]
    fn a_new_row_is_never_taken_for_one_that_was_evicted() {
        let mut database = Database::in_memory().unwrap();
        let some = |from: i64| -> Vec<Event> {
            (from..from + 3).map(|n| event(&format!("n{n}.example"), n, Decision::Allow)).collect()
        };
        database.write(&some(0), 0, 0, &models()).unwrap();
        let on_the_way = database.pending(i64::MIN, 10, usize::MAX, 100, "h", "default").unwrap();
        assert_eq!(database.keep_within(u64::MAX, i64::MAX).unwrap(), 3);
        database.write(&some(3), 0, 0, &models()).unwrap();
        let delivered = on_the_way.iter().map(|document| document.row).collect();
        let settled = Settled { delivered, dead: Vec::new() };
        assert_eq!(database.settle(&settled, 5).unwrap(), (0, 0));
        assert_eq!(database.count_pending().unwrap(), 3);
        // The same for a store that takes the place of a damaged one.
        let mut other = Database::in_memory().unwrap();
        other.begin_after(database.last_row());
        other.write(&some(6), 0, 0, &models()).unwrap();
        assert_eq!(other.settle(&settled, 5).unwrap(), (0, 0));
    }

    #[test]
    fn delivered_rows_leave_the_outbox_and_dead_letters_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open(&folder);
        let events: Vec<Event> =
            (0..3).map(|n| event(&format!("n{n}.example"), n, Decision::Block)).collect();
        database.write(&events, 0, 0, &models()).unwrap();
        let documents = database.pending(i64::MIN, 10, usize::MAX, 100, "h", "default").unwrap();
        let settled = Settled {
            delivered: vec![documents[0].row],
            dead: vec![(documents[1].row, "no".to_owned())],
        };
        assert_eq!(database.settle(&settled, 5).unwrap(), (1, 1));
        assert_eq!(database.settle(&settled, 5).unwrap(), (0, 0), "settling twice changes nothing");
        assert_eq!(database.count_pending().unwrap(), 1);

        let mut reader = Reader::open(folder.path()).unwrap();
        assert_eq!(reader.dead_letters(10).unwrap()[0].1, "no");
        assert_eq!(reader.replay().unwrap(), 1);
        assert_eq!(database.count_pending().unwrap(), 2);
        drop(database);
        let again = open(&folder);
        assert_eq!((again.recovered, again.was_unclean), (2, true));
    }

    #[test]
    fn ids_are_kept_and_never_equal() {
        let folder = tempfile::tempdir().unwrap();
        let mut ids = std::collections::HashSet::new();
        for _ in 0..3 {
            let mut database = open(&folder);
            database
                .write(
                    &[
                        event("a.example", 1, Decision::Block),
                        event("b.example", 1, Decision::Block),
                    ],
                    0,
                    0,
                    &models(),
                )
                .unwrap();
            ids.extend(
                database
                    .pending(i64::MIN, 100, usize::MAX, 100, "h", "default")
                    .unwrap()
                    .into_iter()
                    .map(|document| document.id),
            );
            database.mark_clean().unwrap();
        }
        assert_eq!(ids.len(), 6);
    }

    #[test]
    fn the_least_important_rows_leave_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open(&folder);
        let name = |n: i64| format!("{n}-{}.example", "x".repeat(50));
        let events: Vec<Event> =
            (0..6000).map(|n| event(&name(n), n, Decision::ALL[n as usize % 3])).collect();
        database.write(&events, 0, 0, &models()).unwrap();
        let size = database.pages_in_use().unwrap();
        let evicted = database.keep_within(size * 7 / 10, 0).unwrap();
        assert!(evicted > 0);
        let left = Reader::open(folder.path()).unwrap().overview().unwrap();
        assert_eq!(left.by_decision[2], 2000, "{left:?}");
        assert!(left.by_decision[0] < 2000, "{left:?}");
        assert_eq!(left.events + evicted, 6000);
        assert_eq!(
            database.keep_within(u64::MAX, i64::MAX).unwrap() + evicted,
            6000,
            "all are too old"
        );
    }

    #[test]
    fn names_do_not_push_events_out_that_no_cluster_has() {
        let mut database = Database::in_memory().unwrap();
        let name = |n: i64| format!("{n}-{}.example", "x".repeat(50));
        let events: Vec<Event> = (0..20_000).map(|n| event(&name(n), n, Decision::Block)).collect();
        database.write(&events, 0, 0, &models()).unwrap();
        let delivered = (1..=19_000).collect();
        database.settle(&Settled { delivered, dead: Vec::new() }, 0).unwrap();
        let whole = database.pages_in_use().unwrap();
        assert_eq!(database.keep_within(whole / 6, 0).unwrap(), 0);
        assert!(database.pages_in_use().unwrap() <= whole / 6);
        assert_eq!(database.count_pending().unwrap(), 1000);
    }

    #[test]
    fn overrides_of_another_process_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open(&folder);
        assert!(database.changed_overrides().unwrap().is_none());
        let mut reader = Reader::open(folder.path()).unwrap();
        let one = Override {
            name: "bad.example".parse().unwrap(),
            class: Class::Malicious,
            author: "me".to_owned(),
            note: "why".to_owned(),
            scope: Scope::All,
            created: 5,
            expires: Some(9),
            from_index: false,
        };
        reader.add_override(&one).unwrap();
        assert_eq!(database.changed_overrides().unwrap().unwrap(), std::slice::from_ref(&one));
        assert!(database.changed_overrides().unwrap().is_none());
        let told = database.to_vet(10).unwrap();
        assert!(matches!(&told[0].state, VetState::Decided(ruling) if ruling.author == "me"));
        database.vetting_written(&[told[0].key]).unwrap();
        assert!(database.to_vet(10).unwrap().is_empty());
        assert_eq!(reader.remove_override(&one.name, None, "me", 6).unwrap(), 1);
        assert!(database.changed_overrides().unwrap().unwrap().is_empty());
        assert!(matches!(
            database.to_vet(10).unwrap()[0].state,
            VetState::Withdrawn { at_ms: 6, .. }
        ));
    }

    #[test]
    fn decisions_of_the_index_are_kept_with_the_cursor() {
        let mut database = Database::in_memory().unwrap();
        let ruling = Ruling {
            class: Class::Benign,
            author: "them".to_owned(),
            note: String::new(),
            scope: String::new(),
            at_ms: 3,
            expires_ms: None,
        };
        let cursor = Cursor { index: "uuid".to_owned(), seq_no: 4 };
        let decided = [Decided { name: "ok.example".to_owned(), ruling: Some(ruling) }];
        let all = database.put_decided(&decided, &cursor).unwrap().unwrap();
        assert!(all[0].from_index && all[0].class == Class::Benign && all[0].scope == Scope::All);
        assert_eq!(database.cursor().unwrap(), cursor);
        let back = [Decided { name: "ok.example".to_owned(), ruling: None }];
        assert!(database.put_decided(&back, &cursor).unwrap().unwrap().is_empty());
        assert!(database.put_decided(&[], &cursor).unwrap().is_none());
    }

    #[test]
    fn what_is_taken_back_here_is_not_kept_by_its_copy_in_the_index() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open(&folder);
        let mut reader = Reader::open(folder.path()).unwrap();
        let one = Override {
            name: "bad.example".parse().unwrap(),
            class: Class::Malicious,
            author: "me".to_owned(),
            note: String::new(),
            scope: Scope::All,
            created: 5,
            expires: None,
            from_index: false,
        };
        let group =
            Override { scope: Scope::parse("group:guests").unwrap(), created: 4, ..one.clone() };
        reader.add_override(&group).unwrap();
        reader.add_override(&one).unwrap();
        let told = database.to_vet(10).unwrap();
        let VetState::Decided(ruling) = told[0].state.clone() else { panic!("{told:?}") };
        let echo = Decided { name: told[0].name.clone(), ruling: Some(ruling.clone()) };
        database.put_decided(&[echo], &Cursor::default()).unwrap();
        assert_eq!(reader.remove_override(&one.name, Some(&Scope::All), "me", 6).unwrap(), 1);
        let left = database.changed_overrides().unwrap().unwrap();
        assert_eq!(left, std::slice::from_ref(&group));
        // The index hears of the decision that is left.
        let told = database.to_vet(10).unwrap();
        assert!(
            matches!(&told[0].state, VetState::Decided(ruling) if ruling.scope == "group:guests"),
            "{told:?}"
        );
        // Somebody else's decision in the index stays.
        let theirs = Ruling { author: "them".to_owned(), ..ruling };
        let decided = [Decided { name: told[0].name.clone(), ruling: Some(theirs) }];
        database.put_decided(&decided, &Cursor::default()).unwrap();
        assert_eq!(reader.remove_override(&one.name, None, "me", 7).unwrap(), 1);
        let left = database.changed_overrides().unwrap().unwrap();
        assert!(matches!(left.as_slice(), [left] if left.from_index), "{left:?}");
    }

    #[test]
    fn names_to_vet_wait_in_the_queue_by_registered_domain() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open(&folder);
        let events =
            [event("a.x.example", 1, Decision::Vet), event("b.x.example", 2, Decision::Vet)];
        database.write(&events, 0, 0, &models()).unwrap();
        let queue = Reader::open(folder.path()).unwrap().vetting_queue(10).unwrap();
        assert_eq!((queue.len(), queue[0].domain.as_str(), queue[0].count), (1, "x.example", 2));
    }

    #[test]
    fn damaged_and_newer_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = database_path(folder.path());
        std::fs::write(
            &path,
            "this is no database, and it is long enough to be read as a header of one".repeat(20),
        )
        .unwrap();
        assert!(Database::open(folder.path()).err().unwrap().corrupt);
        let aside = Database::set_aside(folder.path()).unwrap();
        assert!(aside.exists() && !path.exists());
        let database = open(&folder);
        database.connection.pragma_update(None, "user_version", 99).unwrap();
        drop(database);
        let failure = Database::open(folder.path()).err().unwrap();
        assert!(
            !failure.corrupt && failure.error.to_string().contains("version 99"),
            "{:?}",
            failure.error
        );
    }

    #[test]
    fn a_store_of_version_1_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open(&folder);
        let events: Vec<Event> =
            (0..3).map(|n| event(&format!("n{n}.example"), n, Decision::Block)).collect();
        database.write(&events, 0, 0, &models()).unwrap();
        let version_1 = "ALTER TABLE event ADD COLUMN state INTEGER NOT NULL DEFAULT 0; UPDATE event SET state = row - 1;
             INSERT INTO dead_letter VALUES (3, 0, 'no');
             CREATE INDEX event_pending ON event (row) WHERE state = 0; DROP TABLE outbox; PRAGMA user_version = 1;";
        database.connection.execute_batch(version_1).unwrap();
        drop(database);
        let error = Reader::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("version 1 of the store"), "{error}");
        assert_eq!(open(&folder).recovered, 1);
        let reader = Reader::open(folder.path()).unwrap();
        let rows = reader.history(None, 10).unwrap();
        let states: Vec<&str> = rows.iter().map(|row| row.state).collect();
        assert_eq!(states, ["dead", "delivered", "pending"]);
        assert_eq!(reader.overview().unwrap().by_state, [1, 1, 1]);
    }

    #[test]
    fn ids_are_fixed_text() {
        let id = event_id(0x0199_a2b3_c4d5, -2, 0x1f);
        assert_eq!(id, "0199a2b3c4d5-fffffffffffffffe-1f");
        assert_eq!(event_id(0, 0, 0), "000000000000-0000000000000000-0");
        assert_eq!(event_id(-1, 1, 1), "ffffffffffffffff-0000000000000001-1");
    }

    #[test]
    fn a_database_of_another_program_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = database_path(folder.path());
        std::fs::write(&path, "").unwrap();
        let error = Reader::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("no store here yet"), "{error}");
        let foreign = Connection::open(&path).unwrap();
        for version in [0, 1] {
            let sql = format!("CREATE TABLE other{version} (x); PRAGMA user_version = {version};");
            foreign.execute_batch(&sql).unwrap();
            let before = std::fs::read(&path).unwrap();
            let error = Reader::open(folder.path()).err().unwrap().to_string();
            assert!(error.contains("of another program"), "{error}");
            let error = Database::open(folder.path()).err().unwrap().error.to_string();
            assert!(error.contains("of another program"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), before);
        }
    }

    #[test]
    fn reading_at_rest_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(overrides_at_rest(folder.path(), false).unwrap().is_empty());
        drop(open(&folder));
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        let before = files();
        assert!(overrides_at_rest(folder.path(), false).unwrap().is_empty());
        assert_eq!(files(), before);
    }
}
