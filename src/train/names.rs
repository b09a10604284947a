//! The names to learn from, and the files that they come in.
//!
//! Files may be gzip-compressed. Their kind is told from their lines, not from their names:
//! - the corpus's TSV: a header line `domain label class family source split` (tabs or commas, in any order; other columns
//!   are ignored, `domain` and `label` are needed; a label is 0 or benign, 1 or malicious);
//! - anything else, line by line: a plain name, `*.name`, an URL, a hosts-file line (`0.0.0.0 name name`), a block list's
//!   `||name^`, or CSV, of which the first field that can be a name counts (`rank,name` as Tranco, Umbrella, DomCop and
//!   Majestic have it; fields may be quoted). Empty lines and what follows `#` or begins with `!`, `;` or `[` are comments.
//!
//! Lines that hold no domain name are counted, never fatal: neither addresses, nor paths, nor exceptions of block lists
//! are names, and names of one label are left out, because the engine never scores them. A name met twice with one label
//! counts once, and is kept to validate with if one of both was; a name that is both benign and malicious is left out.

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
        name_at(&self.bytes, &self.ends, index)
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
        if name.labels() < 2 || self.bytes.len() + dotted.len() > u32::MAX as usize {
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
    /// [`Error::Io`] if it cannot be read or a corpus file's label is none.
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
            if number == 1 {
                columns = Columns::of(line);
                if columns.is_some() {
                    return Ok(());
                }
            }
            if let Some(columns) = &columns {
                if line.trim().is_empty() {
                    return Ok(());
                }
                let (name, about) = columns.read(self, line, plain).ok_or_else(|| {
                    Error::file(
                        path,
                        format!("line {number}: the label is not 0 or benign, 1 or malicious"),
                    )
                })?;
                self.push(name, about);
            } else if !for_each_name(line, &mut |name| self.push(name, plain)) {
                self.unreadable += 1;
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
            let line = line.trim();
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
            if number == 1 && ["as", "label", "class"].contains(&word.as_str()) {
                return Ok(());
            }
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
    /// one stays (an administrator's label), else the first; a heavier label also wins against a lighter one. Of equally
    /// heavy ones, what is kept to validate with stays so: it would be no validation if another file taught it.
    pub fn settle(&mut self) {
        let mut best: HashMap<&[u8], u32, ahash::RandomState> = HashMap::default();
        let mut keep = vec![true; self.len()];
        let mut contradictory = 0;
        for index in 0..self.len() {
            let name = name_at(&self.bytes, &self.ends, index);
            let Some(&other) = best.get(name) else {
                best.insert(name, index as u32);
                continue;
            };
            let other = other as usize;
            let (mine, theirs) = (self.about[index], self.about[other]);
            if mine.weight > theirs.weight {
                keep[other] = false;
                best.insert(name, index as u32);
                continue;
            }
            keep[index] = false;
            if mine.weight < theirs.weight {
                continue;
            }
            self.about[other].validation |= mine.validation;
            if mine.malicious != theirs.malicious && keep[other] {
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

/// The name at `index` of names one after another and their ends.
#[inline(always)]
fn name_at<'a>(bytes: &'a [u8], ends: &[u32], index: usize) -> &'a [u8] {
    let start = if index == 0 { 0 } else { ends[index - 1] };
    &bytes[start as usize..ends[index] as usize]
}

/// Where the columns of a corpus file stand.
struct Columns {
    between: char,
    domain: usize,
    label: usize,
    class: Option<usize>,
    family: Option<usize>,
    source: Option<usize>,
    split: Option<usize>,
}

impl Columns {
    fn of(header: &str) -> Option<Columns> {
        let between = if header.contains('\t') { '\t' } else { ',' };
        let place = |word: &str| header.split(between).position(|column| unquoted(column) == word);
        Some(Columns {
            between,
            domain: place("domain")?,
            label: place("label")?,
            class: place("class"),
            family: place("family"),
            source: place("source"),
            split: place("split"),
        })
    }

    fn read<'a>(&self, names: &mut Names, line: &'a str, plain: About) -> Option<(&'a str, About)> {
        let fields: Vec<&str> = line.split(self.between).map(unquoted).collect();
        let field = |place: Option<usize>| place.and_then(|place| fields.get(place)).copied();
        let malicious = match field(Some(self.label))? {
            "0" | "benign" => false,
            "1" | "malicious" => true,
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

/// A field without the quotation marks and the white space around it.
fn unquoted(field: &str) -> &str {
    let field = field.trim();
    field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(field)
}

/// Hands over the names on a line of a plain list, a CSV, a hosts file or a block list; false if there is none on a line
/// that is neither empty nor a comment.
fn for_each_name(line: &str, take: &mut impl FnMut(&str)) -> bool {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', '!', ';', '[']) {
        return true;
    }
    let line = match line.split_once('#') {
        // Element hiding and the like say something of a page, nothing of its name.
        Some((rule, rest))
            if rest.starts_with(['#', '@', '?', '$', '%']) && !rule.ends_with(' ') =>
        {
            return false;
        }
        Some((text, _)) => text.trim_end(),
        None => line,
    };
    if let Some(rule) = line.strip_prefix("||") {
        let (text, rest) = rule.split_once('^').unwrap_or((rule, ""));
        let name = name_of_word(text).filter(|_| rest.is_empty() || rest.starts_with('$'));
        name.into_iter().for_each(&mut *take);
        return name.is_some();
    }
    if line.contains([',', ';']) {
        let name = line.split([',', ';']).find_map(|field| name_of_word(unquoted(field)));
        name.into_iter().for_each(&mut *take);
        return name.is_some();
    }
    let mut words = line.split_ascii_whitespace().peekable();
    let all = words.next_if(|word| word.parse::<std::net::IpAddr>().is_ok()).is_some();
    let names = words.filter_map(|word| name_of_word(unquoted(word)));
    names.take(if all { usize::MAX } else { 1 }).map(take).count() > 0
}

/// The name in a word: the word, or the host of an URL. No name: one label, an address, a number, a path or a pattern.
fn name_of_word(word: &str) -> Option<&str> {
    let word = match word.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            let host = rest.split(['/', '?', '#']).next()?;
            let host = host.rsplit('@').next()?;
            host.split_once(':').map_or(host, |(host, _)| host)
        }
        Some(_) => return None,
        None => word.strip_prefix("*.").or_else(|| word.strip_prefix('.')).unwrap_or(word),
    };
    let inside = word.strip_suffix('.').unwrap_or(word);
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let is_pattern = word.contains(['/', ':', '*', '|', '^', '=', '<', '>', '[', ']', '@', '"']);
    (inside.contains('.') && !is_number && !is_pattern).then_some(word)
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

/// How files begin that are packed by something else than gzip.
const PACKED: [(&[u8], &str); 4] = [
    (b"PK\x03\x04", "zip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
];

/// Calls `each` with every line of a file, unpacked if it is gzip; a line that is not UTF-8 is read with replacements,
/// and of a line that is too long only the beginning counts.
fn for_each_line(path: &Path, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    /// No list has longer lines; what is beyond would only fill memory.
    const MAX_LINE: u64 = 1 << 16;
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let start = reader.fill_buf().map_err(|error| Error::file(path, error))?;
    if let Some((_, packer)) = PACKED.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(Error::file(
            path,
            format!("packed by {packer}; unpack it, or pack it by gzip"),
        ));
    }
    let mut reader: Box<dyn BufRead> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader)))
    } else {
        Box::new(reader)
    };
    let mut line = Vec::new();
    let mut is_first = true;
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        let read = read.map_err(|error| Error::file(path, error))?;
        if read == 0 {
            return Ok(());
        }
        if read as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            reader.skip_until(b'\n').map_err(|error| Error::file(path, error))?;
        }
        // Editors of other systems begin a file with a byte order mark.
        let text = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_first).unwrap_or(&line);
        is_first = false;
        let text = String::from_utf8_lossy(text);
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
    fn what_lists_say_besides_names_is_no_name() {
        let text = "Rank,Domain\n2,\"a.example.com\",9.9\n\"3\",\"b.example.com\",\"10.0\"\n4\tc.example.com\n\
            0.0.0.0 0.0.0.0\n127.0.0.1 localhost\n127.0.0.1\td.example.com e.example.com\n::1 ip6-localhost\n\
            @@||no.example.com^\n||f.example.com^$third-party\n||no.example.com/x^\n||no*.example.com^\n*.g.example.com\n\
            .h.example.com\nhttp://u@i.example.com:80/path?x\nno.example.com/path\nno.example.com##.ad\n\
            [Adblock Plus 2.0]\n1.2.3.4\n10.0.0.0/8\n2001:db8::1\nsingle\naddress=/no.example.com/0.0.0.0\n\
            local-zone: \"j.example.com\" always_nxdomain\nno[.]example[.]com\n1,1,k.example.com,com\nm.example.com. # n\n\
            b\u{fc}cher.example\n";
        let names = read(text.as_bytes(), BENIGN);
        let expected: Vec<String> =
            ('a'..='k').map(|letter| format!("{letter}.example.com")).collect();
        let found = list(&names);
        assert_eq!(found[..expected.len()], expected);
        assert_eq!(found[expected.len()..], ["m.example.com", "xn--bcher-kva.example"]);
        assert_eq!(names.unreadable, 15);
    }

    #[test]
    fn a_byte_order_mark_hides_no_line_and_a_cut_line_makes_no_name() {
        let mut text = b"\xef\xbb\xbffirst.example\r\n".to_vec();
        text.extend(vec![b'x'; 1 << 16]);
        text.extend(b"cut.example\nlast.example\n");
        assert_eq!(list(&read(&text, BENIGN)), ["first.example", "last.example"]);
        let columns =
            b"\xef\xbb\xbflabel,\"domain\"\r\nmalicious,\"x.example\"\r\n\r\n0,y.example\r\n";
        let names = read(columns, BENIGN);
        assert_eq!(list(&names), ["x.example", "y.example"]);
        assert!(names.about[0].malicious && !names.about[1].malicious);
    }

    #[test]
    fn a_file_packed_in_another_way_is_told() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"PK\x03\x04...").unwrap();
        let error = Names::new().read(file.path(), BENIGN).unwrap_err().to_string();
        assert!(error.contains("zip"), "{error}");
    }

    #[test]
    fn what_is_kept_to_validate_with_stays_so() {
        let mut names = read(b"one.example\ntwo.example\n", BENIGN);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"two.example\n").unwrap();
        names.read(file.path(), Kind { malicious: false, validation: true }).unwrap();
        names.settle();
        let kept: Vec<bool> = names.about.iter().map(|about| about.validation).collect();
        assert_eq!(kept, [false, true]);
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
                b"\xef\xbb\xbfname,as\r\n \nvetted.example\tmalicious\n{\"name\":\"evil.example\",\"as\":\"benign\"}\n",
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
