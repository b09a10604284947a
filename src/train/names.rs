//! The names to learn from, and the files that they come in.
//!
//! Files may be gzip-compressed. Their kind is told from their lines, not from their names:
//! - the corpus's TSV: a header line `domain label class family source split` (tabs, in any order; other columns are
//!   ignored, `domain` and `label` are needed);
//! - anything else, line by line: a plain name, `rank,name` (Tranco, Umbrella), a hosts-file line (`0.0.0.0 name`), or
//!   `||name^`. Empty lines and what follows `#` or begins with `!` are comments.
//!
//! Lines that hold no domain name are counted, never fatal. A name met twice with one label counts once; a name that is
//! both benign and malicious is left out.

use crate::error::{Error, Result};
use crate::name::{MAX_WIRE, Name};
use flate2::read::MultiGzDecoder;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// What is known of one name besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct About {
    /// Its label.
    pub malicious: bool,
    /// Number of its class in [`Names::word`].
    pub class: u32,
    /// Number of its family; 0, the empty word, if unknown.
    pub family: u32,
    /// Number of the list it comes from.
    pub source: u32,
    /// Kept out of training to validate with.
    pub validation: bool,
    /// How much it weighs in training; 1 is usual.
    pub weight: f32,
}

/// Names in dotted lower-case form, in the order read.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// What is known of each.
    pub about: Vec<About>,
    words: Vec<String>,
    numbers: HashMap<String, u32, ahash::RandomState>,
    /// Lines that held no domain name.
    pub unreadable: u64,
    /// Names left out because they were benign and malicious at once.
    pub contradictory: u64,
}

/// How names of a file without a label column are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The label.
    pub malicious: bool,
    /// Whether the names are kept to validate with.
    pub validation: bool,
}

impl Names {
    /// No names.
    pub fn new() -> Names {
        let mut names = Names::default();
        names.number("");
        names
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.about.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.about.is_empty()
    }

    /// The name at `index`.
    #[inline(always)]
    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..self.ends[index] as usize]
    }

    /// The class, family or source of a number.
    pub fn word(&self, number: u32) -> &str {
        &self.words[number as usize]
    }

    fn number(&mut self, word: &str) -> u32 {
        if let Some(&number) = self.numbers.get(word) {
            return number;
        }
        let number = self.words.len() as u32;
        self.words.push(word.to_owned());
        self.numbers.insert(word.to_owned(), number);
        number
    }

    fn push(&mut self, text: &str, about: About) {
        let Ok(name) = Name::from_text(text.as_bytes()) else {
            self.unreadable += 1;
            return;
        };
        let mut buffer = [0; MAX_WIRE];
        let dotted = name.dotted(&mut buffer);
        if dotted.is_empty() || self.bytes.len() + dotted.len() > u32::MAX as usize {
            self.unreadable += 1;
            return;
        }
        self.bytes.extend_from_slice(dotted);
        self.ends.push(self.bytes.len() as u32);
        self.about.push(about);
    }

    /// Reads a file of names of one kind. In a corpus file the columns say what a name is, and `kind` only has a say
    /// about validation; whether it was one is returned.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Invalid`] if a corpus file's label is neither 0 nor 1.
    pub fn read(&mut self, path: &Path, kind: Kind) -> Result<bool> {
        let source =
            path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let source = self.number(&source);
        let class = self.number(if kind.malicious { "malicious" } else { "benign" });
        let plain = About {
            malicious: kind.malicious,
            class,
            family: 0,
            source,
            validation: kind.validation,
            weight: 1.0,
        };
        let mut columns: Option<Columns> = None;
        let mut number = 0_u64;
        for_each_line(path, |line| {
            number += 1;
            if number == 1 && line.starts_with("domain\t") {
                columns = Columns::of(line);
            } else if let Some(columns) = &columns {
                let (name, about) = columns.read(self, line, plain).ok_or_else(|| {
                    Error::file(path, format!("line {number}: the label is neither 0 nor 1"))
                })?;
                self.push(name, about);
            } else if let Some(name) = name_of_line(line) {
                self.push(name, plain);
            }
            Ok(())
        })?;
        Ok(columns.is_some())
    }

    /// Reads labels that administrators gave: JSON lines with `name` and `as`, or lines `name as` separated by a tab or
    /// a comma, where `as` is benign, malicious or honeypot. Each weighs `weight` times a usual name.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read or a line has no such word.
    pub fn read_labels(&mut self, path: &Path, weight: f32) -> Result<()> {
        let source = self.number("vetted");
        let benign = self.number("benign");
        let malicious = self.number("malicious");
        let mut number = 0_u64;
        for_each_line(path, |line| {
            number += 1;
            if line.is_empty() || line.starts_with('#') {
                return Ok(());
            }
            let bad = || {
                Error::file(
                    path,
                    format!("line {number}: expected a name and benign, malicious or honeypot"),
                )
            };
            let (name, word) = label_of_line(line).ok_or_else(bad)?;
            let is_malicious = match word.as_str() {
                "benign" => false,
                "malicious" | "honeypot" => true,
                _ => return Err(bad()),
            };
            let class = if is_malicious { malicious } else { benign };
            let about = About {
                malicious: is_malicious,
                class,
                family: 0,
                source,
                validation: false,
                weight,
            };
            self.push(&name, about);
            Ok(())
        })
    }

    /// Drops names met before with the same label, and both of those that contradict each other. Of equals the heavier
    /// one stays (an administrator's label), else the first; a heavier label also wins against a lighter one.
    pub fn settle(&mut self) {
        let mut best: HashMap<&[u8], u32, ahash::RandomState> = HashMap::default();
        let mut keep = vec![true; self.len()];
        let mut contradictory = 0;
        for index in 0..self.len() {
            let Some(&other) = best.get(self.get(index)) else {
                best.insert(self.get(index), index as u32);
                continue;
            };
            let other = other as usize;
            let (mine, theirs) = (self.about[index], self.about[other]);
            if mine.weight > theirs.weight {
                keep[other] = false;
                best.insert(self.get(index), index as u32);
                continue;
            }
            keep[index] = false;
            if mine.weight == theirs.weight && mine.malicious != theirs.malicious {
                contradictory += 1;
                keep[other] = false;
            }
        }
        if keep.iter().all(|&stays| stays) {
            return;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut ends = Vec::with_capacity(self.len());
        let mut about = Vec::with_capacity(self.len());
        for index in (0..self.len()).filter(|&index| keep[index]) {
            bytes.extend_from_slice(self.get(index));
            ends.push(bytes.len() as u32);
            about.push(self.about[index]);
        }
        (self.bytes, self.ends, self.about) = (bytes, ends, about);
        self.contradictory += contradictory;
    }
}

/// Where the columns of a corpus file stand.
struct Columns {
    domain: usize,
    label: usize,
    class: Option<usize>,
    family: Option<usize>,
    source: Option<usize>,
    split: Option<usize>,
}

impl Columns {
    fn of(header: &str) -> Option<Columns> {
        let place = |word: &str| header.split('\t').position(|column| column == word);
        Some(Columns {
            domain: place("domain")?,
            label: place("label")?,
            class: place("class"),
            family: place("family"),
            source: place("source"),
            split: place("split"),
        })
    }

    fn read<'a>(&self, names: &mut Names, line: &'a str, plain: About) -> Option<(&'a str, About)> {
        let fields: Vec<&str> = line.split('\t').collect();
        let field = |place: Option<usize>| place.and_then(|place| fields.get(place)).copied();
        let malicious = match field(Some(self.label))? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let class = field(self.class).unwrap_or(if malicious { "malicious" } else { "benign" });
        let mut about = About { malicious, class: names.number(class), ..plain };
        about.family = names.number(field(self.family).unwrap_or(""));
        about.source = field(self.source).map_or(plain.source, |source| names.number(source));
        about.validation |= field(self.split) == Some("val");
        Some((fields.get(self.domain)?, about))
    }
}

/// The name on a line of a plain list, a CSV, a hosts file or a block list; nothing on an empty line or a comment.
fn name_of_line(line: &str) -> Option<&str> {
    let line = line.split('#').next().unwrap_or("").trim();
    if line.is_empty() || line.starts_with('!') {
        return None;
    }
    if let Some(rule) = line.strip_prefix("||") {
        return rule.split('^').next();
    }
    if let Some((first, rest)) = line.split_once(',') {
        let is_rank = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
        return if is_rank { rest.split(',').next() } else { Some(first) };
    }
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    match words.next() {
        Some(second) if first.parse::<std::net::IpAddr>().is_ok() => Some(second),
        _ => Some(first),
    }
}

/// The name and the word on a line of an export of labels.
fn label_of_line(line: &str) -> Option<(String, String)> {
    if line.starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        return Some((text("name")?, text("as")?));
    }
    let (name, rest) = line.split_once(['\t', ','])?;
    let word = rest.split(['\t', ',']).next()?;
    Some((name.trim().to_owned(), word.trim().to_owned()))
}

/// Calls `each` with every line of a file, unpacked if it is gzip; a line that is not UTF-8 is read with replacements.
fn for_each_line(path: &Path, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    /// No list has longer lines; what is beyond would only fill memory.
    const MAX_LINE: u64 = 1 << 16;
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let start = reader.fill_buf().map_err(|error| Error::file(path, error))?;
    let mut reader: Box<dyn BufRead> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader)))
    } else {
        Box::new(reader)
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| Error::file(path, error))? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        each(text.trim_end_matches(['\n', '\r']))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(text: &[u8], kind: Kind) -> Names {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let mut names = Names::new();
        names.read(file.path(), kind).unwrap();
        names
    }

    fn list(names: &Names) -> Vec<String> {
        (0..names.len()).map(|i| String::from_utf8_lossy(names.get(i)).into_owned()).collect()
    }

    const BENIGN: Kind = Kind { malicious: false, validation: false };

    #[test]
    fn lists_of_every_kind_are_read() {
        let text = b"# comment\nPlain.example\r\n1,ranked.example\n0.0.0.0 hosts.example # why\n||rule.example^$third-party\n! note\n\nlast.example,2020\na..b\n";
        let names = read(text, BENIGN);
        let expected =
            ["plain.example", "ranked.example", "hosts.example", "rule.example", "last.example"];
        assert_eq!(list(&names), expected);
        assert_eq!(names.unreadable, 1);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        assert_eq!(list(&read(&packed.finish().unwrap(), BENIGN)), expected);
    }

    #[test]
    fn corpus_columns_say_what_a_name_is() {
        let text = b"domain\tlabel\tclass\tfamily\tsource\tdate\taug\tsplit\tmix\nx.example\t1\tdga\tnymaim\tlist\t\t0\tval\tc\n";
        let names = read(text, BENIGN);
        let about = names.about[0];
        assert!(about.malicious && about.validation);
        assert_eq!(
            (names.word(about.class), names.word(about.family), names.word(about.source)),
            ("dga", "nymaim", "list")
        );
    }

    #[test]
    fn contradictions_fall_and_labels_of_administrators_win() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"both.example\ntwice.example\ntwice.example\nvetted.example\n").unwrap();
        let mut names = Names::new();
        names.read(file.path(), BENIGN).unwrap();
        let mut other = tempfile::NamedTempFile::new().unwrap();
        other.write_all(b"both.example\nevil.example\n").unwrap();
        names.read(other.path(), Kind { malicious: true, validation: false }).unwrap();
        let mut labels = tempfile::NamedTempFile::new().unwrap();
        labels
            .write_all(
                b"vetted.example\tmalicious\n{\"name\":\"evil.example\",\"as\":\"benign\"}\n",
            )
            .unwrap();
        names.read_labels(labels.path(), 10.0).unwrap();
        names.settle();
        let about: Vec<(String, bool)> =
            list(&names).into_iter().zip(names.about.iter().map(|about| about.malicious)).collect();
        let expected =
            [("twice.example", false), ("vetted.example", true), ("evil.example", false)];
        assert_eq!(about, expected.map(|(name, bad)| (name.to_owned(), bad)));
        assert_eq!(names.contradictory, 1);
    }
}
