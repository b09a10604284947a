//! A domain name in canonical form, parsed once at the edge.
//!
//! Two names are equal when their uncompressed wire forms are equal after ASCII letters were lowered. Text is taken as
//! in master files (RFC 1035, section 5.1: `\DDD` and `\.`), with or without the final dot; text that is not ASCII is
//! converted to A-labels (IDNA, UTS 46), ASCII is not, because strict checks refuse names that DNS carries every day
//! (`_dmarc`, `r4---sn-x`). Text that is not UTF-8 is taken as raw bytes. Wire form never sees IDNA.
//!
//! Parsing never panics, never allocates for ASCII, and reads no more than [`MAX_TEXT`] bytes.

use crate::error::{Error, Result};
use std::fmt;

/// Longest wire form of a name, in bytes (RFC 1035, section 2.3.4).
pub const MAX_WIRE: usize = 255;
/// Longest label, in bytes.
pub const MAX_LABEL: usize = 63;
/// Longest dotted form: the wire form without its first length byte and its root.
pub const MAX_DOTTED: usize = MAX_WIRE - 2;
/// Longest text that can be a name: every byte escaped as `\DDD`, or a name in Unicode.
pub const MAX_TEXT: usize = 4096;

/// A canonical domain name.
#[derive(Clone, Copy)]
pub struct Name {
    /// Where the root label stands: the wire form is a byte longer. So the root is all zero, and quickly made.
    end: u8,
    labels: u8,
    wire: [u8; MAX_WIRE],
}

impl Name {
    /// The root.
    pub const ROOT: Name = Name { end: 0, labels: 0, wire: [0; MAX_WIRE] };

    /// Reads a name from text.
    ///
    /// # Errors
    /// [`Error::Name`] for an empty label, a label over 63 bytes, a name over 255 bytes in wire form, or a bad escape.
    pub fn from_text(text: &[u8]) -> Result<Name> {
        let mut name = Name::ROOT;
        name.read_text(text)?;
        Ok(name)
    }

    /// Reads a name from uncompressed wire form; the bytes must end with the root label.
    ///
    /// # Errors
    /// [`Error::Name`] for anything else, compression pointers included.
    pub fn from_wire(bytes: &[u8]) -> Result<Name> {
        let mut name = Name::ROOT;
        name.read_wire(bytes)?;
        Ok(name)
    }

    /// As [`Name::from_text`], into a name that is [`Name::ROOT`]: on the path of a query, so that its 257 bytes stay where
    /// they are. After an error the name is of no use.
    pub(crate) fn read_text(&mut self, text: &[u8]) -> Result<()> {
        if text.len() > MAX_TEXT {
            return Err(Error::Name("too long"));
        }
        if self.read_plain(text)? {
            return Ok(());
        }
        *self = Name::ROOT;
        if text.is_ascii() {
            return self.read_escaped(text);
        }
        let Ok(unicode) = std::str::from_utf8(text) else {
            return self.read_escaped(text);
        };
        match idna::domain_to_ascii(unicode) {
            Ok(ascii) if changes_escapes(unicode, &ascii) => {
                Err(Error::Name("an escape in an internationalised label"))
            }
            Ok(ascii) => self.read_text(ascii.as_bytes()),
            Err(_) => Err(Error::Name("no valid internationalised name (IDNA)")),
        }
    }

    /// As [`Name::from_wire`], into a name that is [`Name::ROOT`]; see [`Name::read_text`].
    pub(crate) fn read_wire(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(target) = self.wire.get_mut(..bytes.len()) else {
            return Err(Error::Name("over 255 bytes in wire form"));
        };
        // A length byte is at most 63, below every letter, so that the whole can be lowered at once.
        copy_lowered(bytes, target);
        let mut at = 0_usize;
        loop {
            let Some(&length) = bytes.get(at) else {
                return Err(Error::Name("wire form ends before the root label"));
            };
            if usize::from(length) > MAX_LABEL {
                return Err(Error::Name("label over 63 bytes, or a compression pointer"));
            }
            at += usize::from(length) + 1;
            if at > bytes.len() {
                return Err(Error::Name("wire form ends within a label"));
            }
            if length == 0 {
                break;
            }
            self.labels += 1;
        }
        if at != bytes.len() {
            return Err(Error::Name("bytes after the root label"));
        }
        self.end_at(at - 1)
    }

    /// Text of ASCII without an escape, nearly every one: copied and lowered at once, then cut at its dots. False for any
    /// other; the name is then of no use.
    fn read_plain(&mut self, text: &[u8]) -> Result<bool> {
        let text = match text {
            b"" => return Err(Error::Name("empty")),
            b"." => return Ok(true),
            _ => text.strip_suffix(b".").unwrap_or(text),
        };
        let end = text.len() + 1;
        let Some(target) = self.wire.get_mut(1..end).filter(|_| end < MAX_WIRE) else {
            return Ok(false);
        };
        copy_lowered(text, target);
        // Eight bytes at a time: a look at each byte is a branch that nobody can predict.
        let mut start = 0_usize;
        for (number, eight) in eights(text).enumerate() {
            if (equal_bytes(eight, b'\\') | eight & !LOW_BITS) != 0 {
                return Ok(false);
            }
            let mut dots = equal_bytes(eight, b'.');
            while dots != 0 {
                let at = number * 8 + (dots.trailing_zeros() / 8) as usize;
                self.close_label(start, at + 1)?;
                start = at + 1;
                dots &= dots - 1;
            }
        }
        self.close_label(start, end)?;
        self.end_at(end)?;
        Ok(true)
    }

    /// Text with escapes, or with bytes that are no text.
    fn read_escaped(&mut self, text: &[u8]) -> Result<()> {
        let mut at = 1_usize;
        let mut label_start = 0_usize;
        let mut bytes = text.iter().copied();
        while let Some(byte) = bytes.next() {
            match byte {
                b'.' => {
                    self.close_label(label_start, at)?;
                    label_start = at;
                    at += 1;
                    continue;
                }
                b'\\' => {
                    let value = unescape(&mut bytes)?;
                    self.push(&mut at, value.to_ascii_lowercase())?;
                }
                plain => self.push(&mut at, plain.to_ascii_lowercase())?,
            }
        }
        if at > label_start + 1 {
            self.close_label(label_start, at)?;
            self.push(&mut at, 0)?;
        } else {
            // The text ended with a dot: the label just opened is the root.
            let mut root = label_start;
            self.push(&mut root, 0)?;
        }
        self.end_at(at - 1)
    }

    fn end_at(&mut self, end: usize) -> Result<()> {
        self.end = u8::try_from(end).map_err(|_| Error::Name("over 255 bytes in wire form"))?;
        Ok(())
    }

    fn push(&mut self, at: &mut usize, byte: u8) -> Result<()> {
        let Some(slot) = self.wire.get_mut(*at) else {
            return Err(Error::Name("over 255 bytes in wire form"));
        };
        *slot = byte;
        *at += 1;
        Ok(())
    }

    fn close_label(&mut self, start: usize, end: usize) -> Result<()> {
        let length = end - start - 1;
        if length == 0 {
            return Err(Error::Name("empty label"));
        }
        if length > MAX_LABEL {
            return Err(Error::Name("label over 63 bytes"));
        }
        if let (Some(slot), Ok(value)) = (self.wire.get_mut(start), u8::try_from(length)) {
            *slot = value;
        }
        self.labels += 1;
        Ok(())
    }

    /// The canonical wire form, root label included.
    pub fn wire(&self) -> &[u8] {
        self.wire.get(..=usize::from(self.end)).unwrap_or(&[])
    }

    /// How many labels the name has; the root has none.
    pub fn labels(&self) -> usize {
        usize::from(self.labels)
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.labels == 0
    }

    /// The bytes of the labels with dots between them and no final dot: what encoders and the suffix list read.
    /// A dot inside a label looks like any other dot here.
    pub fn dotted<'a>(&self, buffer: &'a mut [u8; MAX_WIRE]) -> &'a [u8] {
        *buffer = self.wire;
        let mut at = 0_usize;
        let end = usize::from(self.end);
        while at < end {
            let Some(slot) = buffer.get_mut(at) else { break };
            let length = usize::from(*slot);
            *slot = b'.';
            at += length + 1;
        }
        buffer.get(1..end).unwrap_or(&[])
    }

    /// The name and its parents as wire-form suffixes, longest first, the root last.
    pub fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Some(self.wire());
        std::iter::from_fn(move || {
            let this = rest?;
            rest = match this.split_first() {
                Some((&0, _)) | None => None,
                Some((&length, _)) => this.get(usize::from(length) + 1..),
            };
            Some(this)
        })
    }

    /// Whether the name is `suffix` (canonical wire form) or below it.
    pub fn is_at_or_below(&self, suffix: &[u8]) -> bool {
        self.suffixes().any(|own| own == suffix)
    }

    /// The name as ASCII text without the final dot (the root is `.`); other bytes, dots in labels and backslashes are
    /// escaped as in master files.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.wire().len());
        // A String takes everything.
        let _ = write_text(self.wire(), &mut text);
        text
    }
}

/// Whether the conversion to A-labels made other escapes: one within a label that became Punycode, or a character that
/// became a backslash.
fn changes_escapes(unicode: &str, ascii: &str) -> bool {
    let count = |text: &str| text.matches('\\').count();
    let mut labels = ascii.split('.');
    count(unicode) != count(ascii)
        || labels.any(|label| label.starts_with("xn--") && count(label) > 0)
}

const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Eight times the same byte.
const fn eight_times(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The top bit of each of eight bytes that equals `wanted`.
fn equal_bytes(bytes: u64, wanted: u8) -> u64 {
    let differs = bytes ^ eight_times(wanted);
    // A byte is zero if neither its low seven bits nor its top bit is set; no sum here carries into the next byte.
    !(((differs & LOW_BITS) + LOW_BITS) | differs | LOW_BITS)
}

/// Eight bytes with their ASCII letters lowered.
fn lowered(bytes: [u8; 8]) -> [u8; 8] {
    let bytes = u64::from_le_bytes(bytes);
    let low = bytes & LOW_BITS;
    // The top bits of the sums say which bytes are at least `A`, and which are above `Z`.
    let (from_a, above_z) = (low + eight_times(0x80 - b'A'), low + eight_times(0x7f - b'Z'));
    let capitals = (from_a ^ above_z) & !bytes & !LOW_BITS;
    (bytes | capitals >> 2).to_le_bytes()
}

/// Copies bytes into as much room, ASCII letters lowered.
fn copy_lowered(from: &[u8], to: &mut [u8]) {
    let (Some(from_last), Some(to_last)) = (from.last_chunk(), to.last_chunk_mut()) else {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_ascii_lowercase());
        return;
    };
    // The end first: its eight bytes may overlap those before.
    *to_last = lowered(*from_last);
    for (to, from) in to.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
        *to = lowered(*from);
    }
}

/// A text's bytes, eight at a time, little-endian; the last ones with zeros above, perhaps nothing else.
fn eights(text: &[u8]) -> impl Iterator<Item = u64> {
    let (eights, rest) = text.as_chunks::<8>();
    eights.iter().map(|eight| u64::from_le_bytes(*eight)).chain([last_bytes(text, rest.len())])
}

/// The last `count` bytes (at most 7) of a text, little-endian, zero above.
fn last_bytes(text: &[u8], count: usize) -> u64 {
    match text.last_chunk::<8>() {
        Some(_) if count == 0 => 0,
        Some(last) => u64::from_le_bytes(*last) >> (64 - 8 * count),
        None => text.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    }
}

/// Reads what follows a backslash: three decimal digits up to 255, or one byte that stands for itself.
fn unescape(bytes: &mut impl Iterator<Item = u8>) -> Result<u8> {
    const BAD: Error = Error::Name("bad escape: \\DDD takes three digits up to 255");
    let first = bytes.next().ok_or(BAD)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit).ok_or(BAD)?;
        value = value * 10 + u32::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| BAD)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(self.wire(), f)
    }
}

/// Writes a wire-form name as text; see [`Name::to_text`].
pub fn write_text(wire: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    let mut rest = wire;
    let mut first = true;
    while let Some((&length, tail)) = rest.split_first() {
        let Some((label, tail)) = tail.split_at_checked(usize::from(length)) else { break };
        if length == 0 {
            break;
        }
        if !first {
            out.write_char('.')?;
        }
        first = false;
        write_label(label, out)?;
        rest = tail;
    }
    if first { out.write_char('.') } else { Ok(()) }
}

fn write_label(label: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    let is_plain = |byte: &u8| matches!(byte, 0x21..=0x7e) && !matches!(byte, b'.' | b'\\');
    for run in label.chunk_by(|one, next| is_plain(one) && is_plain(next)) {
        match (run, std::str::from_utf8(run)) {
            ([byte @ (b'.' | b'\\')], _) => write!(out, "\\{}", char::from(*byte))?,
            ([byte], _) if !is_plain(byte) => write!(out, "\\{byte:03}")?,
            (_, text) => out.write_str(text.unwrap_or_default())?,
        }
    }
    Ok(())
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.wire() == other.wire()
    }
}

impl Eq for Name {}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.wire().hash(state);
    }
}

impl std::str::FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name> {
        Name::from_text(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(input: &[u8]) -> String {
        Name::from_text(input).unwrap().to_text()
    }

    #[test]
    fn text_forms_of_one_name_are_equal() {
        for form in ["example.org", "EXAMPLE.org.", "ex\\097mple.org", "e\\xample.ORG"] {
            assert_eq!(form.parse::<Name>().unwrap(), "example.org".parse().unwrap(), "{form}");
        }
        assert_eq!(text(b"example.org."), "example.org");
        assert_eq!(text(b"."), ".");
    }

    #[test]
    fn names_that_dns_carries_are_taken_as_they_are() {
        for name in [
            "_dmarc.example.org",
            "r4---sn-x.googlevideo.com",
            "-a-.b_",
            "xn--bcher-kva.example",
            "a b.c",
        ] {
            assert!(Name::from_text(name.as_bytes()).is_ok(), "{name}");
        }
        assert_eq!(text(b"a b.c"), "a\\032b.c");
        assert_eq!(text(b"a\\.b.c"), "a\\.b.c");
        assert_eq!(Name::from_text(b"a\\.b.c").unwrap().labels(), 2);
        assert_eq!(text(b"\xff\xfe.c"), "\\255\\254.c");
    }

    #[test]
    fn unicode_becomes_a_labels() {
        assert_eq!(text("Bücher.example".as_bytes()), "xn--bcher-kva.example");
        assert_eq!(text("bücher。example".as_bytes()), "xn--bcher-kva.example");
        assert_eq!(text("a\\.b.bücher.example".as_bytes()), "a\\.b.xn--bcher-kva.example");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long_label = [b'a'; 64];
        let long_name = ["a"; 128].join(".");
        for bad in [
            &b""[..],
            b"..",
            b"a..b",
            b".a",
            b"a..",
            &long_label,
            long_name.as_bytes(),
            b"a\\",
            b"a\\25",
            b"a\\256",
            &[b'a'; 5000],
            // Punycode takes the backslash for a letter, and a full-width one becomes a plain one.
            "\u{fc}\\.com".as_bytes(),
            "\u{ff3c}.com".as_bytes(),
        ] {
            assert!(Name::from_text(bad).is_err(), "{bad:?}");
        }
        let longest = ["a"; 127].join(".");
        assert_eq!(Name::from_text(longest.as_bytes()).unwrap().wire().len(), 255);
        for bad in
            [&b""[..], b"\x01a", b"\x02a\x00", b"\xc0\x0c", b"\x40", b"\x01a\x00b", &[0; 256]]
        {
            assert!(Name::from_wire(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn suffixes_run_from_the_name_to_the_root() {
        let name: Name = "a.b.c".parse().unwrap();
        let all: Vec<&[u8]> = name.suffixes().collect();
        assert_eq!(all, [&b"\x01a\x01b\x01c\0"[..], b"\x01b\x01c\0", b"\x01c\0", b"\0"]);
        assert!(name.is_at_or_below("b.c".parse::<Name>().unwrap().wire()));
        assert!(!name.is_at_or_below("x.c".parse::<Name>().unwrap().wire()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Name::from_text(&bytes);
            let _ = Name::from_wire(&bytes);
        }

        #[test]
        fn bytes_are_lowered_and_found_as_one_by_one(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut copy = vec![0; bytes.len()];
            copy_lowered(&bytes, &mut copy);
            prop_assert_eq!(copy, bytes.to_ascii_lowercase());
            let found = eights(&bytes).map(|eight| equal_bytes(eight, b'.').count_ones());
            prop_assert_eq!(found.sum::<u32>() as usize, bytes.iter().filter(|&&byte| byte == b'.').count());
        }

        #[test]
        fn wire_and_text_are_two_forms_of_one_name(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(label.len() as u8);
                wire.extend_from_slice(label);
            }
            wire.push(0);
            let name = Name::from_wire(&wire).unwrap();
            prop_assert_eq!(Name::from_text(name.to_text().as_bytes()).unwrap(), name);
            prop_assert_eq!(name.labels(), labels.len());
            let mut buffer = [0; MAX_WIRE];
            let dotted = labels.iter().map(|l| l.to_ascii_lowercase()).collect::<Vec<_>>().join(&b'.');
            prop_assert_eq!(name.dotted(&mut buffer), &dotted[..]);
        }
    }
}
