//! `mlbridge vet`: administrators' decisions on names.

use crate::{Settings, output};
use clap::Subcommand;
use mlbridge::error::{Error, Result};
use mlbridge::policy::overrides::{Class, Override, Scope};
use mlbridge::store::event::now_ms;
use mlbridge::store::sqlite::{Reader, WaitingRow};
use mlbridge::sys;
use serde_json::json;
use std::collections::BTreeMap;

/// What to do.
#[derive(Subcommand)]
pub enum Vet {
    /// Decide on a name and what is below it; in force within a second
    Add {
        /// The name
        name: String,
        /// What it is: benign (allow), malicious (block) or honeypot (block, answer with the honeypot's address)
        #[arg(long = "as", value_name = "CLASS")]
        class: String,
        /// Who decides; default: the user who is logged in
        #[arg(long)]
        author: Option<String>,
        /// Why
        #[arg(long, default_value = "")]
        note: String,
        /// Whose queries: all, group:NAME or a network
        #[arg(long, default_value = "all")]
        scope: String,
        /// When it ends: 90m, 12h, 30d, or a moment such as 2027-01-31T12:00:00Z
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
    },
    /// Take decisions on a name back
    Remove {
        /// The name
        name: String,
        /// Only the decision of this scope
        #[arg(long)]
        scope: Option<String>,
        /// Who takes it back
        #[arg(long)]
        author: Option<String>,
    },
    /// Show all decisions
    List {
        /// JSON, an array
        #[arg(long)]
        json: bool,
    },
    /// Show registered domains that wait for a decision, the oldest first
    Queue {
        /// Most rows
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// JSON, an array
        #[arg(long)]
        json: bool,
    },
    /// Write decisions as labels for training: name, tab, benign or malicious. Decisions for some clients only say what
    /// these may see, so they are left out; one made here counts before one from the cluster
    Export,
}

impl Vet {
    /// Runs the command.
    pub fn run(self, settings: &Settings) -> Result<()> {
        let directory = settings.store()?;
        match self {
            Vet::Add { name, class, author, note, scope, expires } => {
                let created = now_ms();
                let one = Override {
                    name: name.parse()?,
                    class: Class::parse(&class)?,
                    author: author.unwrap_or_else(user),
                    note,
                    scope: Scope::parse(&scope)?,
                    created,
                    expires: expires.map(|text| parse_end(&text, created)).transpose()?,
                    from_index: false,
                };
                if one.name.is_root() {
                    return Err(Error::Invalid(
                        "name: the root is every name; name a domain".to_owned(),
                    ));
                }
                sys::become_owner_of(&directory)?;
                Reader::open(&directory)?.add_override(&one)?;
                output::print(&format!("{} is {} for {}\n", one.name, class, one.scope));
            }
            Vet::Remove { name, scope, author } => {
                let scope = scope.map(|text| Scope::parse(&text)).transpose()?;
                let name = name.parse()?;
                sys::become_owner_of(&directory)?;
                let author = author.unwrap_or_else(user);
                let removed = Reader::open(&directory)?.remove_override(
                    &name,
                    scope.as_ref(),
                    &author,
                    now_ms(),
                )?;
                if removed == 0 {
                    return Err(Error::Invalid(format!("{name}: no decision to take back")));
                }
                output::print(&format!("{name}: {removed} taken back\n"));
            }
            Vet::List { json } => list(&Reader::open(&directory)?.overrides()?, json)?,
            Vet::Queue { limit, json } => {
                queue(&Reader::open(&directory)?.vetting_queue(limit)?, json)?
            }
            Vet::Export => {
                let all = Reader::open(&directory)?.overrides()?;
                let (for_all, for_some): (Vec<_>, Vec<_>) =
                    all.iter().partition(|one| one.scope == Scope::All);
                output::print(&labels(&for_all));
                if !for_some.is_empty() {
                    eprintln!("mlbridge: left out: {} for some clients only", for_some.len());
                }
            }
        }
        Ok(())
    }
}

/// The decisions as labels, one a name.
fn labels(overrides: &[&Override]) -> String {
    let mut by_name = BTreeMap::new();
    for from_index in [true, false] {
        let some = overrides.iter().filter(|one| one.from_index == from_index);
        by_name.extend(some.map(|one| (one.name.to_text(), one.class)));
    }
    let label = |class| if class == Class::Benign { "benign" } else { "malicious" };
    by_name.iter().map(|(name, &class)| format!("{name}\t{}\n", label(class))).collect()
}

fn list(overrides: &[Override], as_json: bool) -> Result<()> {
    if as_json {
        let values = overrides.iter().map(|one| {
            json!({
                "name": one.name.to_text(),
                "class": one.class.as_str(),
                "author": one.author,
                "note": one.note,
                "scope": one.scope.to_string(),
                "created_ms": one.created,
                "expires_ms": one.expires,
                "from_index": one.from_index,
            })
        });
        return output::json(&values.collect::<Vec<_>>());
    }
    let now = now_ms();
    let rows = overrides.iter().map(|one| {
        let end = match one.expires {
            None => "never".to_owned(),
            Some(end) if end <= now => "expired".to_owned(),
            Some(end) => output::moment(end),
        };
        vec![
            output::moment(one.created),
            one.class.as_str().to_owned(),
            one.scope.to_string(),
            end,
            one.author.clone(),
            one.name.to_text(),
            one.note.clone(),
        ]
    });
    output::table(
        &["made (UTC)", "class", "scope", "ends (UTC)", "author", "name", "note"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

fn queue(waiting: &[WaitingRow], as_json: bool) -> Result<()> {
    if as_json {
        return output::json(&waiting);
    }
    let rows = waiting.iter().map(|row| {
        vec![
            output::moment(row.since_ms),
            output::score(Some(row.score)),
            row.count.to_string(),
            row.domain.clone(),
            row.example.clone(),
        ]
    });
    output::table(
        &["since (UTC)", "score", "count", "domain", "example"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

/// Reads when a decision ends: a time from now, or a moment.
fn parse_end(text: &str, now: i64) -> Result<i64> {
    let refuse = || {
        Error::Invalid(format!(
            "--expires: \"{text}\" is not like 90m, 12h, 30d or 2027-01-31T12:00:00Z"
        ))
    };
    let end = match text.strip_suffix(['m', 'h', 'd']).map(str::parse::<i64>) {
        Some(Ok(count)) if count > 0 => {
            let unit = if text.ends_with('m') {
                60_000
            } else if text.ends_with('h') {
                3_600_000
            } else {
                86_400_000
            };
            count.checked_mul(unit).and_then(|span| now.checked_add(span)).ok_or_else(refuse)?
        }
        _ => {
            let moment =
                time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
            moment.map_err(|_| refuse())?.unix_timestamp().checked_mul(1000).ok_or_else(refuse)?
        }
    };
    if end <= now {
        Err(Error::Invalid(format!("--expires: \"{text}\" is over already")))
    } else {
        Ok(end)
    }
}

/// The user at the keyboard, also behind sudo.
fn user() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|key| std::env::var(key).ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "unknown".to_owned())
}
