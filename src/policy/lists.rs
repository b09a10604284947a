//! Allow lists, block lists and popular names, read from files.
//!
//! A line is a name (exact), a hosts-file line (exact), `*.x` (below x) or an adblock line `||x^` (x and below;
//! `@@||x^` allows). Comments begin with `#` or `!`. What a line says beyond that (paths, options, element hiding)
//! is not about names, and the line is passed over; how many were is told. No file is kept open or mapped.

use crate::error::{Error, Result};
use crate::name::{MAX_WIRE, Name};
use crate::sys;
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Longest line that is read, in bytes; the rest of a longer one is passed over.
const MAX_LINE: u64 = 8192;
/// Most names that all files of a set may have.
const MAX_NAMES: usize = 20_000_000;

const ALLOW_EXACT: u8 = 1;
const ALLOW_BELOW: u8 = 2;
const BLOCK_EXACT: u8 = 4;
const BLOCK_BELOW: u8 = 8;

/// What a list says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Allow it.
    Allow,
    /// Block it.
    Block,
}

/// Allow and block lists behind one look-up: the entry with the most labels wins, a tie is allow.
#[derive(Debug, Default)]
pub struct Lists {
    entries: HashMap<Box<[u8]>, u8, ahash::RandomState>,
    /// Lines that said nothing about a name.
    pub ignored: usize,
}

impl Lists {
    /// Reads the files of allow and block lists.
    ///
    /// # Errors
    /// [`Error::Io`] that names the file, or the file with which the lists became too long.
    pub fn read(allow: &[PathBuf], block: &[PathBuf]) -> Result<Lists> {
        let mut lists = Lists::default();
        for (key, paths, is_block) in
            [("lists.allow: ", allow, false), ("lists.block: ", block, true)]
        {
            for path in paths {
                for_each_line(path, |line| {
                    lists.add_line(line, is_block);
                    if lists.entries.len() > MAX_NAMES {
                        return Err(Error::file(
                            path,
                            format!("over {MAX_NAMES} names in the lists"),
                        ));
                    }
                    Ok(())
                })
                .map_err(|error| error.under(key))?;
            }
        }
        Ok(lists)
    }

    /// Whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many names and wildcards the lists have.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the lists say about a name.
    pub fn find(&self, name: &Name) -> Option<Listed> {
        let (mut allow, mut block) = (ALLOW_EXACT, BLOCK_EXACT);
        for suffix in name.suffixes() {
            let marks = self.entries.get(suffix).copied().unwrap_or(0);
            if marks & allow != 0 {
                return Some(Listed::Allow);
            }
            if marks & block != 0 {
                return Some(Listed::Block);
            }
            (allow, block) = (ALLOW_BELOW, BLOCK_BELOW);
        }
        None
    }

    fn add_line(&mut self, line: &[u8], is_block: bool) {
        match parse_line(line) {
            Line::Nothing => {}
            Line::Foreign => self.ignored += 1,
            Line::Names { text, below, exact, except } => {
                let (exactly, underneath) = match is_block && !except {
                    true => (BLOCK_EXACT, BLOCK_BELOW),
                    false => (ALLOW_EXACT, ALLOW_BELOW),
                };
                let marks = (u8::from(exact) * exactly) | (u8::from(below) * underneath);
                for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
                    if word.starts_with(b"#") {
                        break;
                    }
                    match Name::from_text(word) {
                        // Hosts files begin with "127.0.0.1 localhost"; nobody means to block that.
                        Ok(name) if name.labels() >= 2 || below => {
                            *self.entries.entry(name.wire().into()).or_default() |= marks;
                        }
                        _ => self.ignored += 1,
                    }
                }
            }
        }
    }
}

enum Line<'a> {
    Nothing,
    Foreign,
    Names { text: &'a [u8], below: bool, exact: bool, except: bool },
}

fn parse_line(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") || line.starts_with(b"!") || line.starts_with(b"[")
    {
        return Line::Nothing;
    }
    let (except, rule) = match line.strip_prefix(b"@@") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    if let Some(anchored) = rule.strip_prefix(b"||") {
        return match anchored.strip_suffix(b"^") {
            Some(text) if !text.contains(&b'/') && !text.contains(&b'*') => {
                Line::Names { text, below: true, exact: true, except }
            }
            _ => Line::Foreign,
        };
    }
    if except {
        return Line::Foreign;
    }
    if let Some(text) = line.strip_prefix(b"*.") {
        return Line::Names { text, below: true, exact: false, except };
    }
    let first = line.split(u8::is_ascii_whitespace).next().unwrap_or(&[]);
    let is_address = std::str::from_utf8(first).is_ok_and(|word| word.parse::<IpAddr>().is_ok());
    if is_address {
        let text = line.get(first.len()..).unwrap_or(&[]);
        return if text.trim_ascii().is_empty() {
            Line::Foreign
        } else {
            Line::Names { text, below: false, exact: true, except }
        };
    }
    let rest = line.get(first.len()..).unwrap_or(&[]).trim_ascii();
    let looks_like_a_rule = first
        .iter()
        .any(|byte| matches!(byte, b'/' | b'|' | b'^' | b'$' | b'#' | b'*' | b':' | b',' | b'='));
    if looks_like_a_rule || !(rest.is_empty() || rest.starts_with(b"#")) {
        return Line::Foreign;
    }
    Line::Names { text: first, below: false, exact: true, except }
}

/// Popular registered domains.
#[derive(Debug, Default)]
pub struct Popular {
    domains: HashSet<Box<[u8]>, ahash::RandomState>,
}

impl Popular {
    /// Reads ranked lists: a domain a line, or `rank,domain` as Tranco, Umbrella and DomCop give them. A name that is no
    /// registered domain (a public suffix, a shared host) makes nothing popular.
    ///
    /// # Errors
    /// [`Error::Io`] that names the file.
    pub fn read(paths: &[PathBuf]) -> Result<Popular> {
        let mut popular = Popular::default();
        for path in paths {
            for_each_line(path, |line| {
                let field = |text: &[u8]| text.trim_ascii().trim_ascii_start().to_vec();
                let mut fields =
                    line.split(|&byte| byte == b',' || byte == b';' || byte == b'\t').map(|text| {
                        let text = field(text);
                        text.strip_prefix(b"\"")
                            .and_then(|text| text.strip_suffix(b"\""))
                            .map(<[u8]>::to_vec)
                            .unwrap_or(text)
                    });
                let name = match (fields.next(), fields.next()) {
                    (Some(rank), Some(name))
                        if !rank.is_empty() && rank.iter().all(u8::is_ascii_digit) =>
                    {
                        name
                    }
                    (Some(name), _) => name,
                    (None, _) => return Ok(()),
                };
                if let Ok(name) = Name::from_text(&name) {
                    let mut buffer = [0; MAX_WIRE];
                    let dotted = name.dotted(&mut buffer);
                    if crate::suffix::registered_domain(dotted) == Some(dotted) {
                        popular.domains.insert(dotted.into());
                    }
                }
                if popular.domains.len() > MAX_NAMES {
                    return Err(Error::file(path, format!("over {MAX_NAMES} names in the lists")));
                }
                Ok(())
            })
            .map_err(|error| error.under("lists.popular: "))?;
        }
        Ok(popular)
    }

    /// Whether there is no popular domain.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Whether a name's registered domain is popular.
    pub fn covers(&self, name: &Name) -> bool {
        let mut buffer = [0; MAX_WIRE];
        crate::suffix::registered_domain(name.dotted(&mut buffer))
            .is_some_and(|domain| self.domains.contains(domain))
    }
}

fn for_each_line(path: &Path, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let (file, _) = sys::open_regular(path)?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    let mut is_first = true;
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|error| Error::file(path, error))?;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && read as u64 == MAX_LINE {
            let mut rest = Vec::new();
            // The tail of an overlong line, piece by piece, so that memory stays bounded.
            while reader
                .by_ref()
                .take(MAX_LINE)
                .read_until(b'\n', &mut rest)
                .map_err(|error| Error::file(path, error))?
                > 0
                && rest.last() != Some(&b'\n')
            {
                rest.clear();
            }
            // The cut may lie within a name, and what is left of it may be another's.
            while line.last().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                line.pop();
            }
        }
        // Editors of other systems begin a file with a byte order mark.
        let text = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_first).unwrap_or(&line);
        is_first = false;
        take(text)?;
    }
}

/// Size and time of files, to see that one changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint(Vec<Option<(u64, u64, SystemTime)>>);

impl Fingerprint {
    /// Looks at the files; a missing one is a fingerprint too.
    pub fn of<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Fingerprint {
        use std::os::unix::fs::MetadataExt;
        let look = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
        };
        Fingerprint(paths.map(look).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn find(lists: &Lists, name: &str) -> Option<Listed> {
        lists.find(&name.parse().unwrap())
    }

    #[test]
    fn every_kind_of_line() {
        let block = file(
            "# comment\n! comment\n[Adblock Plus]\nexact.example\n0.0.0.0 hosts.example other.example # why\n127.0.0.1 localhost\n*.below.example\n||both.example^\n@@||ok.both.example^\n||path.example/x\nexample.com##.ad\nBig.Example.\n||opt.example^$third-party\n",
        );
        let lists = Lists::read(&[], &[block.path().to_owned()]).unwrap();
        for (name, expected) in [
            ("exact.example", Some(Listed::Block)),
            ("a.exact.example", None),
            ("hosts.example", Some(Listed::Block)),
            ("other.example", Some(Listed::Block)),
            ("localhost", None),
            ("below.example", None),
            ("a.below.example", Some(Listed::Block)),
            ("both.example", Some(Listed::Block)),
            ("x.y.both.example", Some(Listed::Block)),
            ("ok.both.example", Some(Listed::Allow)),
            ("a.ok.both.example", Some(Listed::Allow)),
            ("big.example", Some(Listed::Block)),
            ("path.example", None),
            ("opt.example", None),
        ] {
            assert_eq!(find(&lists, name), expected, "{name}");
        }
        assert_eq!(lists.ignored, 4);
    }

    #[test]
    fn the_most_labels_win_and_a_tie_is_allow() {
        let allow = file("good.wide.example\n||tie.example^\n*.deep.example\n");
        let block = file("||wide.example^\n||tie.example^\nbad.deep.example\n");
        let lists = Lists::read(&[allow.path().to_owned()], &[block.path().to_owned()]).unwrap();
        assert_eq!(find(&lists, "good.wide.example"), Some(Listed::Allow));
        assert_eq!(find(&lists, "x.good.wide.example"), Some(Listed::Block));
        assert_eq!(find(&lists, "tie.example"), Some(Listed::Allow));
        assert_eq!(find(&lists, "bad.deep.example"), Some(Listed::Block));
        assert_eq!(find(&lists, "other.deep.example"), Some(Listed::Allow));
    }

    #[test]
    fn popular_domains_cover_what_is_below_but_not_shared_hosts() {
        let list = file("1,example.com\r\n2,weebly.com\nco.uk\n\"3\",\"bbc.co.uk\"\n");
        let popular = Popular::read(&[list.path().to_owned()]).unwrap();
        for (name, expected) in [
            ("example.com", true),
            ("a.b.example.com", true),
            ("shop.weebly.com", false),
            ("evil.co.uk", false),
            ("www.bbc.co.uk", true),
        ] {
            assert_eq!(popular.covers(&name.parse().unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn a_byte_order_mark_hides_no_line() {
        let block = file("\u{feff}0.0.0.0 first.example\n||second.example^\n");
        let lists = Lists::read(&[], &[block.path().to_owned()]).unwrap();
        assert_eq!(find(&lists, "first.example"), Some(Listed::Block));
        assert_eq!(find(&lists, "second.example"), Some(Listed::Block));
        let popular = file("\u{feff}1,example.com\n");
        let popular = Popular::read(&[popular.path().to_owned()]).unwrap();
        assert!(popular.covers(&"example.com".parse().unwrap()));
    }

    #[test]
    fn a_cut_line_makes_no_name_that_nobody_wrote() {
        let names = (0..2000).map(|n| format!(" host{n}.example.org"));
        let block = file(&format!("0.0.0.0{}\n", names.collect::<String>()));
        let lists = Lists::read(&[], &[block.path().to_owned()]).unwrap();
        assert_eq!(find(&lists, "host7.example.org"), Some(Listed::Block));
        let listed = lists.entries.keys().map(|wire| Name::from_wire(wire).unwrap().to_text());
        for name in listed {
            assert!(name.starts_with("host") && name.ends_with(".example.org"), "{name}");
        }
    }

    #[test]
    fn a_fifo_in_a_lists_place_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let error = Lists::read(&[], &[path]).unwrap_err().to_string();
        assert!(error.ends_with("not a regular file"), "{error}");
    }

    #[test]
    fn overlong_lines_and_missing_files() {
        let long = file(&format!("{}\nafter.example\n", "x".repeat(50_000)));
        let lists = Lists::read(&[], &[long.path().to_owned()]).unwrap();
        assert_eq!(find(&lists, "after.example"), Some(Listed::Block));
        let error = Lists::read(&[], &[PathBuf::from("/nowhere/list")]).unwrap_err().to_string();
        assert!(error.starts_with("lists.block: /nowhere/list: "), "{error}");
    }
}
