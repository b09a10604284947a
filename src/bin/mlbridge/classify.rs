//! `mlbridge classify`: verdicts on many names, at the engine's speed.

use crate::{Settings, output};
use clap::Args;
use mlbridge::Name;
use mlbridge::engine::{self, Engine};
use mlbridge::error::{Error, Result};
use mlbridge::sys::at_once;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Lines that one thread takes at a time.
const PIECE: usize = 16_384;
/// Longest line that can hold a name.
const MAX_LINE: u64 = 1 << 16;

/// Arguments of the command.
#[derive(Args)]
pub struct Classify {
    /// Names; with neither names nor --file, standard input is read
    names: Vec<String>,
    /// A file with a name a line (empty lines and # comments are passed over); - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// One JSON object a line instead of columns: name, score, label, decision, source, action
    #[arg(long)]
    json: bool,
    /// Ask as this client (for groups and scopes)
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Threads; 0 takes all processors
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: usize,
}

impl Classify {
    /// Runs the command.
    pub fn run(self, settings: &Settings) -> Result<()> {
        let engine = engine::open_unrecorded(&settings.read()?)?;
        if !self.names.is_empty() {
            let lines: Vec<Vec<u8>> =
                self.names.iter().map(|name| name.clone().into_bytes()).collect();
            output::print(&self.verdicts(&engine, &lines));
            return self.none_was_bad(&lines);
        }
        let input: Box<dyn Read> = match &self.file {
            Some(path) if path.as_os_str() != "-" => {
                Box::new(File::open(path).map_err(|error| Error::file(path, error))?)
            }
            _ => Box::new(std::io::stdin()),
        };
        self.stream(&engine, BufReader::with_capacity(1 << 20, input))
    }

    /// Names on the command line that are none make the command fail; lines of a file are only marked.
    fn none_was_bad(&self, lines: &[Vec<u8>]) -> Result<()> {
        lines.iter().try_for_each(|line| Name::from_text(line).map(|_| ()))
    }

    fn stream(&self, engine: &Engine, mut input: impl BufRead) -> Result<()> {
        let jobs = match self.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs.min(256),
        };
        let mut progress = Progress::new();
        loop {
            let mut pieces: Vec<Vec<Vec<u8>>> = Vec::new();
            for _ in 0..jobs {
                let piece = read_lines(&mut input)?;
                if piece.is_empty() {
                    break;
                }
                pieces.push(piece);
            }
            if pieces.is_empty() {
                progress.end();
                return Ok(());
            }
            let texts = at_once(pieces.len(), |number| {
                pieces.get(number).map_or_else(String::new, |piece| self.verdicts(engine, piece))
            });
            for (text, piece) in texts.iter().zip(&pieces) {
                output::print(text);
                progress.add(piece.len());
            }
        }
    }

    fn verdicts(&self, engine: &Engine, lines: &[Vec<u8>]) -> String {
        let mut text = String::with_capacity(lines.len() * 48);
        for line in lines {
            match Name::from_text(line) {
                Ok(name) => self.write_verdict(&mut text, engine, &name),
                Err(error) => self.write_error(&mut text, line, &error),
            }
        }
        text
    }

    fn write_verdict(&self, text: &mut String, engine: &Engine, name: &Name) {
        let verdict = engine.classify(name, self.client, 1);
        let (score, label, decision) = (verdict.score, verdict.label, verdict.decision);
        let (source, action) = (verdict.source, verdict.action);
        // Writing to a String cannot fail.
        let _ = if self.json {
            let shown = serde_json::Value::from(name.to_text());
            writeln!(
                text,
                "{{\"name\":{shown},\"score\":{score},\"label\":\"{label}\",\"decision\":\"{decision}\",\"source\":\"{source}\",\"action\":\"{action}\"}}"
            )
        } else {
            writeln!(text, "{score:.6}\t{decision}\t{label}\t{source}\t{action}\t{name}")
        };
    }

    fn write_error(&self, text: &mut String, line: &[u8], error: &Error) {
        let shown = String::from_utf8_lossy(line);
        let _ = if self.json {
            let (shown, error) =
                (serde_json::Value::from(shown), serde_json::Value::from(error.to_string()));
            writeln!(text, "{{\"name\":{shown},\"error\":{error}}}")
        } else {
            writeln!(text, "-\terror\t-\t-\t-\t{}\t{error}", shown.escape_debug())
        };
    }
}

/// The next lines that hold a name; empty at the end of the input.
fn read_lines(input: &mut impl BufRead) -> Result<Vec<Vec<u8>>> {
    let mut lines = Vec::with_capacity(PIECE);
    let mut line = Vec::new();
    while lines.len() < PIECE {
        line.clear();
        let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        let read = read.map_err(|error| Error::Io(format!("input: {error}")))?;
        if read == 0 {
            break;
        }
        if read as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            // The rest of the line belongs to what is no name already; it must not pass for one.
            input.skip_until(b'\n').map_err(|error| Error::Io(format!("input: {error}")))?;
        }
        let name = line.trim_ascii();
        if !name.is_empty() && !name.starts_with(b"#") {
            lines.push(name.to_vec());
        }
    }
    Ok(lines)
}

/// Says on a terminal how far a long input has come.
struct Progress {
    began: Instant,
    shown: Option<Instant>,
    names: usize,
}

impl Progress {
    fn new() -> Progress {
        Progress { began: Instant::now(), shown: None, names: 0 }
    }

    fn add(&mut self, names: usize) {
        self.names += names;
        let due = self.shown.unwrap_or(self.began).elapsed() >= Duration::from_millis(500);
        if due && std::io::stderr().is_terminal() {
            let rate = self.names as f64 / self.began.elapsed().as_secs_f64();
            eprint!("\r{} names, {rate:.0} a second ", self.names);
            self.shown = Some(Instant::now());
        }
    }

    fn end(&self) {
        if self.shown.is_some() {
            eprintln!();
        }
    }
}
