//! `mlbridge history`, `status` and `replay`: what a store holds.

use crate::{Settings, output};
use clap::Args;
use mlbridge::Decision;
use mlbridge::error::{Error, Result};
use mlbridge::store::sqlite::{EventRow, Reader, database_path};
use mlbridge::sys::{self, DirectoryLock};
use serde_json::json;

/// Arguments of `history`.
#[derive(Args)]
pub struct History {
    /// Only this name; of a registered domain also what is below it
    name: Option<String>,
    /// Names with their counts instead of single events
    #[arg(long)]
    names: bool,
    /// Only names that were ever decided so: allow, vet or block (with --names)
    #[arg(long, value_name = "DECISION", requires = "names")]
    decision: Option<String>,
    /// Dead letters with the cluster's reasons
    #[arg(long, conflicts_with_all = ["names", "name"])]
    dead: bool,
    /// Most rows
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// JSON, an array
    #[arg(long)]
    json: bool,
}

impl History {
    /// Runs the command.
    pub fn run(self, settings: &Settings) -> Result<()> {
        let reader = Reader::open(&settings.store()?)?;
        if self.dead {
            return self.dead_letters(&reader);
        }
        if self.names {
            return self.domains(&reader);
        }
        let name = self.name.as_deref().map(str::parse).transpose()?;
        let rows = reader.history(name.as_ref(), self.limit)?;
        if self.json {
            return output::json(&rows.iter().map(event_json).collect::<Vec<_>>());
        }
        let cells: Vec<Vec<String>> = rows.iter().map(event_cells).collect();
        output::table(
            &["time (UTC)", "decision", "score", "source", "action", "count", "client", "name"],
            &cells,
        );
        Ok(())
    }

    fn domains(&self, reader: &Reader) -> Result<()> {
        let decision = match &self.decision {
            None => None,
            Some(word) => Some(Decision::parse(word).ok_or_else(|| {
                Error::Invalid(format!("--decision: \"{word}\" is not allow, vet or block"))
            })?),
        };
        let rows = reader.domains(decision, self.limit)?;
        if self.json {
            return output::json(&rows);
        }
        let cells = rows.iter().map(|row| {
            vec![
                output::moment(row.last_seen),
                row.decision.to_string(),
                output::score(row.score),
                row.allowed.to_string(),
                row.vetted.to_string(),
                row.blocked.to_string(),
                row.name.clone(),
            ]
        });
        let headings =
            ["last seen (UTC)", "decision", "score", "allowed", "vetted", "blocked", "name"];
        output::table(&headings, &cells.collect::<Vec<_>>());
        Ok(())
    }

    fn dead_letters(&self, reader: &Reader) -> Result<()> {
        let rows = reader.dead_letters(self.limit)?;
        if self.json {
            let values = rows
                .iter()
                .map(|(row, reason)| json!({ "event": event_json(row), "reason": reason }));
            return output::json(&values.collect::<Vec<_>>());
        }
        let cells = rows
            .iter()
            .map(|(row, reason)| vec![output::moment(row.time), row.name.clone(), reason.clone()]);
        output::table(&["time (UTC)", "name", "reason"], &cells.collect::<Vec<_>>());
        Ok(())
    }
}

fn event_cells(row: &EventRow) -> Vec<String> {
    vec![
        output::moment(row.time),
        row.decision.to_string(),
        output::score(row.score),
        row.source.to_string(),
        row.action.to_string(),
        row.count.to_string(),
        row.client_text(),
        row.name.clone(),
    ]
}

fn event_json(row: &EventRow) -> serde_json::Value {
    json!({
        "id": row.id,
        "time_ms": row.time,
        "name": row.name,
        "client": row.client_text(),
        "qtype": row.qtype,
        "score": row.score,
        "label": row.label,
        "decision": row.decision,
        "source": row.source,
        "action": row.action,
        "flags": row.flags,
        "count": row.count,
        "group": row.group,
        "model": { "name": row.model.1.0, "version": row.model.1.1, "id": format!("{:016x}", row.model.0) },
        "state": row.state,
    })
}

/// Arguments of `status`.
#[derive(Args)]
pub struct Status {
    /// JSON, an object
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Runs the command.
    pub fn run(self, settings: &Settings) -> Result<()> {
        let directory = settings.store()?;
        let overview = Reader::open(&directory)?.overview()?;
        let holder = DirectoryLock::holder(&directory);
        if self.json {
            return output::json(
                &json!({ "state_dir": directory, "held_by": holder, "store": overview }),
            );
        }
        let [allow, vet, block] = overview.by_decision;
        let [pending, delivered, dead] = overview.by_state;
        let moment = |time: Option<i64>| time.map_or_else(|| "-".to_owned(), output::moment);
        let held = match (holder, overview.clean) {
            (Some(process), _) => format!("held by process {process}"),
            (None, true) => "closed in order".to_owned(),
            (None, false) => {
                "not closed in order: the last process that held it was killed".to_owned()
            }
        };
        let rows = [
            ("store", database_path(&directory).display().to_string()),
            ("state", held),
            ("events", format!("{} rows for {} questions", overview.events, overview.questions)),
            ("decisions", format!("{allow} allow, {vet} vet, {block} block")),
            ("cluster", format!("{pending} pending, {delivered} delivered, {dead} dead letters")),
            ("names", overview.domains.to_string()),
            ("overrides", overview.overrides.to_string()),
            ("to vet", format!("{} registered domains", overview.to_vet)),
            ("first, last", format!("{}, {} (UTC)", moment(overview.first), moment(overview.last))),
        ];
        let text: String =
            rows.iter().map(|(word, value)| format!("{word:12} {value}\n")).collect();
        output::print(&text);
        Ok(())
    }
}

/// Puts dead letters back into the outbox.
pub fn replay(settings: &Settings) -> Result<()> {
    let directory = settings.store()?;
    sys::become_owner_of(&directory)?;
    let count = Reader::open(&directory)?.replay()?;
    output::print(&format!("{count} dead letters are in the outbox again\n"));
    Ok(())
}
