//! The encoder `ngram-fields`: from a name to the rows of a table and a few plain numbers.
//!
//! One implementation, used by training and by inference alike, so that both see the same name. It allocates nothing,
//! takes any bytes, never panics, and its work is bounded (a name has at most 253 bytes). What follows is all that
//! another language needs to rebuild it; `models/default/golden.tsv` holds scores to check against.
//!
//! **Input**: the name's labels with dots between them, ASCII lower case, no final dot ([`crate::Name::dotted`]).
//!
//! **Parts** ([`Parts`]): the *suffix* is the public suffix by the Public Suffix List (private section included) and the
//! list of shared hosts ([`crate::suffix`]); it always leaves at least one label, so a name that is itself a public
//! suffix gives its first label away; a name of one label is its own core and its own last label. The *core* is the
//! label left of the suffix, the *sub-domain* everything left of the core, dots kept.
//!
//! **Keys** ([`visit`]): 64-bit numbers, each in one of three pools.
//! - n-grams: of the text `^core$` (pool core, space 1) and, if there is a sub-domain, of `^sub$` with its last
//!   180 bytes (pool sub, space 2), every substring of 1 to 5 bytes, markers included, except a lone `^` or `$`.
//!   Key = the bytes, little-endian, in bits 0 to 39, XOR `(n + 8 * space + 1) << 56`. Repeated n-grams count each time.
//! - words (pool word): FNV-1a-64 (Fowler, Noll, Vo: offset basis 14695981039346656037 replaced by
//!   1469598103934665603, the value the design began with; prime 1099511628211) of a text, XOR `id << 56`, with id
//!   30 last label; 31 suffix, if of more than one label; 32 last two labels, if there are three or more; 33 last three
//!   labels, if there are four or more; 34 core; 35 each label of the sub-domain, the eleven nearest to the core;
//!   36 each piece of two or more bytes of a label of kind 34 or 35 that holds hyphens.
//!   Two more describe the shape: id 40 with [`hash`]`(labels * 64 + min(length of core, 40) + 1)`, id 41 with
//!   `FNV(last label) * 31 + min(length of core, 40)` (both XOR `id << 56`; arithmetic modulo 2^64).
//!
//! **Rows**: [`hash`] of the key, looked up in the [`Dictionary`]; a key that is not there contributes nothing and is
//! not counted. Each pool is the mean of its rows; zero without any. At most [`MAX_ROWS`] rows of a pool are taken, in
//! the order in which [`visit`] names the keys: n-grams from the text's end to its start and by length from 1 to 5;
//! words in the order given above, labels from the core leftwards, a label before its pieces.
//!
//! **Dense numbers** ([`dense`]): fourteen, listed there.

mod dictionary;
mod inputs;
pub mod net;

pub use dictionary::{Builder, Dictionary};
pub use inputs::Inputs;

use crate::suffix::suffix_start;
use std::sync::LazyLock;

/// The encoder's name in a manifest.
pub const ENCODER: &str = "ngram-fields";
/// How many pools there are.
pub const POOLS: usize = 3;
/// How many dense numbers there are.
pub const DENSE: usize = 14;
/// How many rows of one pool are taken at most, by pool. Longer names exist; what is beyond adds little to a mean.
pub const MAX_ROWS: [usize; POOLS] = [128, 128, 32];

/// The pool of n-grams of the core label.
pub const CORE: usize = 0;
/// The pool of n-grams of the sub-domain.
pub const SUB: usize = 1;
/// The pool of words.
pub const WORD: usize = 2;

/// Longest n-gram, in bytes.
const MAX_GRAM: usize = 5;
/// How many bytes of a sub-domain are read, from its end.
const MAX_SUB: usize = 180;
/// How many labels of a sub-domain become words.
const MAX_SUB_LABELS: usize = 11;
const MARKS: [u8; 2] = [b'^', b'$'];

/// A name cut into its parts; positions are bytes of the dotted form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The whole name.
    pub name: &'a [u8],
    /// What is left of the core, without the dot; empty if there is nothing.
    pub sub: &'a [u8],
    /// The label left of the suffix.
    pub core: &'a [u8],
    /// The public suffix.
    pub suffix: &'a [u8],
    /// How many labels the name has.
    pub labels: usize,
}

impl<'a> Parts<'a> {
    /// Cuts a dotted lower-case name.
    pub fn of(name: &'a [u8]) -> Parts<'a> {
        Parts::with_suffix(name, suffix_start(name))
    }

    /// Cuts a dotted lower-case name whose public suffix begins at byte `suffix` ([`suffix_start`]).
    pub fn with_suffix(name: &'a [u8], suffix: usize) -> Parts<'a> {
        let labels = 1 + name.iter().filter(|&&byte| byte == b'.').count();
        let mut cut = suffix;
        if cut == 0 {
            cut = name.iter().position(|&byte| byte == b'.').map_or(0, |dot| dot + 1);
        }
        if cut == 0 {
            return Parts { name, sub: &[], core: name, suffix: name, labels };
        }
        let before = name.get(..cut - 1).unwrap_or(&[]);
        let (sub, core) = split_last(before);
        Parts { name, sub, core, suffix: name.get(cut..).unwrap_or(&[]), labels }
    }

    /// Where the core begins.
    pub fn core_start(&self) -> usize {
        if self.sub.is_empty() && self.name.first() != Some(&b'.') { 0 } else { self.sub.len() + 1 }
    }
}

/// Cuts off the last label: what is left of its dot, and the label.
fn split_last(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().rposition(|&byte| byte == b'.') {
        Some(dot) => (text.get(..dot).unwrap_or(&[]), text.get(dot + 1..).unwrap_or(&[])),
        None => (&[], text),
    }
}

/// What [`visit`] hands over for each key.
pub trait Visitor {
    /// A key of `pool`, which comes from the `len` bytes at `start` of the dotted name. Positions of an n-gram leave
    /// its markers out; word 40 has the whole name, word 41 the last label.
    fn key(&mut self, pool: usize, key: u64, start: usize, len: usize);
}

impl<F: FnMut(usize, u64, usize, usize)> Visitor for F {
    #[inline(always)]
    fn key(&mut self, pool: usize, key: u64, start: usize, len: usize) {
        self(pool, key, start, len);
    }
}

/// Names every key of a name, pool after pool, in the order that the module's documentation fixes.
#[inline(always)]
pub fn visit(parts: &Parts<'_>, visitor: &mut impl Visitor) {
    let core_start = parts.core_start();
    grams(parts.core, core_start, CORE, visitor);
    if !parts.sub.is_empty() {
        let skipped = parts.sub.len().saturating_sub(MAX_SUB);
        grams(parts.sub.get(skipped..).unwrap_or(&[]), skipped, SUB, visitor);
    }
    words(parts, core_start, visitor);
}

/// The n-grams of `^text$`, from its end; `start` is where `text` stands in the name.
#[inline(always)]
fn grams(text: &[u8], start: usize, pool: usize, visitor: &mut impl Visitor) {
    let space = pool as u64 + 1;
    let mut window = 0_u64;
    let mut held = 0_usize;
    let mut at = text.len() + 1;
    let [open, close] = MARKS;
    let bytes = std::iter::once(&open).chain(text).chain(std::iter::once(&close));
    for &byte in bytes.rev() {
        window = (window << 8 | u64::from(byte)) & 0xff_ffff_ffff;
        held = (held + 1).min(MAX_GRAM);
        let first = if MARKS.contains(&byte) { 2 } else { 1 };
        for n in first..=held {
            let key = (window & (u64::MAX >> (64 - 8 * n))) ^ ((n as u64 + 8 * space + 1) << 56);
            // The marked text has one byte before the plain one.
            let from = at.max(1) - 1;
            let to = (at + n - 1).min(text.len());
            visitor.key(pool, key, start + from, to - from);
        }
        at = at.saturating_sub(1);
    }
}

#[inline(always)]
fn words(parts: &Parts<'_>, core_start: usize, visitor: &mut impl Visitor) {
    let name = parts.name;
    let end = name.len();
    let (before_last, last) = split_last(name);
    let last_hash = fnv(last);
    let mut word = |id: u64, hash: u64, start: usize, len: usize| {
        visitor.key(WORD, hash ^ (id << 56), start, len);
    };
    word(30, last_hash, end - last.len(), last.len());
    if parts.suffix.len() > last.len() {
        word(31, fnv(parts.suffix), end - parts.suffix.len(), parts.suffix.len());
    }
    if parts.labels >= 3 {
        let (before_two, second) = split_last(before_last);
        let two = second.len() + 1 + last.len();
        word(32, fnv(name.get(end - two..).unwrap_or(&[])), end - two, two);
        if parts.labels >= 4 {
            let three = split_last(before_two).1.len() + 1 + two;
            word(33, fnv(name.get(end - three..).unwrap_or(&[])), end - three, three);
        }
    }
    label_words(34, parts.core, core_start, &mut word);
    let mut left = parts.sub;
    for _ in 0..MAX_SUB_LABELS {
        if left.is_empty() {
            break;
        }
        let (rest, label) = split_last(left);
        label_words(35, label, left.len() - label.len(), &mut word);
        left = rest;
    }
    let length = parts.core.len().min(40) as u64;
    word(40, hash(parts.labels as u64 * 64 + length + 1), 0, end);
    word(41, last_hash.wrapping_mul(31).wrapping_add(length), end - last.len(), last.len());
}

/// A label as a word, and its pieces between hyphens.
#[inline(always)]
fn label_words(id: u64, label: &[u8], start: usize, word: &mut impl FnMut(u64, u64, usize, usize)) {
    word(id, fnv(label), start, label.len());
    if !label.contains(&b'-') {
        return;
    }
    let mut at = start;
    for piece in label.split(|&byte| byte == b'-') {
        if piece.len() >= 2 {
            word(36, fnv(piece), at, piece.len());
        }
        at += piece.len() + 1;
    }
}

/// FNV-1a with this encoder's own start value (see the module's documentation).
#[inline(always)]
fn fnv(text: &[u8]) -> u64 {
    text.iter().fold(1_469_598_103_934_665_603, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
    })
}

/// The hash of a key: `h = key * 0x9E3779B97F4A7C15; h ^= h >> 32; h *= 0xD6E8FEB86659FD93`, modulo 2^64.
#[inline(always)]
pub fn hash(key: u64) -> u64 {
    let first = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (first ^ first >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// `c log2 c` for every count of a byte.
static X_LOG2: LazyLock<[f32; 256]> = LazyLock::new(|| {
    std::array::from_fn(
        |count| if count < 2 { 0.0 } else { (count as f64 * (count as f64).log2()) as f32 },
    )
});

#[inline(always)]
fn x_log2(table: &[f32; 256], count: u8) -> f32 {
    table.get(usize::from(count)).copied().unwrap_or(0.0)
}

/// The dense numbers of a name, all near 0 to 1 and, but for the first, third, eleventh and last, of the core label:
///
/// 0 length of name / 32; 1 length / 16; 2 labels / 4; 3 digits / (length + 0.01); 4 vowels (aeiouy) / letters, 0
/// without letters; 5 longest run of consonants (letters that are no vowels) / 6; 6 longest run of digits / 6;
/// 7 hyphens / 2; 8 entropy of the bytes in bits / 4; 9 distinct bytes / (length + 0.01); 10 length of sub-domain / 16;
/// 11 bytes of 0-9a-f / (length + 0.01); 12 changes between digit and other / 4; 13 one if the sub-domain is `www`.
#[inline(always)]
pub fn dense(parts: &Parts<'_>) -> [f32; DENSE] {
    let core = parts.core;
    let mut seen = [0_u8; 256];
    let (mut digits, mut letters, mut vowels, mut hyphens, mut hex, mut changes) =
        (0_u32, 0_u32, 0_u32, 0_u32, 0_u32, 0_u32);
    let (mut consonants, mut most_consonants, mut run, mut longest) = (0_u32, 0_u32, 0_u32, 0_u32);
    let (mut distinct, mut repeated) = (0_u32, 0.0_f32);
    let xlog2 = &*X_LOG2;
    let mut before = None;
    for &byte in core {
        if let Some(count) = seen.get_mut(usize::from(byte)) {
            distinct += u32::from(*count == 0);
            let next = count.saturating_add(1);
            repeated += x_log2(xlog2, next) - x_log2(xlog2, *count);
            *count = next;
        }
        let digit = byte.is_ascii_digit();
        let letter = byte.is_ascii_lowercase();
        let vowel = matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u' | b'y');
        digits += u32::from(digit);
        letters += u32::from(letter);
        vowels += u32::from(vowel);
        hyphens += u32::from(byte == b'-');
        hex += u32::from(digit || matches!(byte, b'a'..=b'f'));
        consonants = if letter && !vowel { consonants + 1 } else { 0 };
        most_consonants = most_consonants.max(consonants);
        run = if digit { run + 1 } else { 0 };
        longest = longest.max(run);
        changes += u32::from(before.is_some_and(|other| other != digit));
        before = Some(digit);
    }
    let length = core.len() as f32;
    let whole = length + 0.01;
    // -sum of p log2 p with p = c / n, written as (n log2 n - sum of c log2 c) / n.
    let all = x_log2(xlog2, u8::try_from(core.len()).unwrap_or(u8::MAX));
    let entropy = if core.is_empty() { 0.0 } else { (all - repeated) / length };
    [
        parts.name.len() as f32 / 32.0,
        length / 16.0,
        parts.labels as f32 / 4.0,
        digits as f32 / whole,
        if letters > 0 { vowels as f32 / letters as f32 } else { 0.0 },
        most_consonants as f32 / 6.0,
        longest as f32 / 6.0,
        hyphens as f32 / 2.0,
        entropy / 4.0,
        distinct as f32 / whole,
        parts.sub.len() as f32 / 16.0,
        hex as f32 / whole,
        changes as f32 / 4.0,
        if parts.sub == b"www" { 1.0 } else { 0.0 },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(name: &str) -> [String; 3] {
        let parts = Parts::of(name.as_bytes());
        [parts.sub, parts.core, parts.suffix].map(|part| String::from_utf8_lossy(part).into_owned())
    }

    fn keys(name: &[u8]) -> Vec<(usize, u64, String)> {
        let mut keys = Vec::new();
        visit(&Parts::of(name), &mut |pool: usize, key: u64, start: usize, len: usize| {
            keys.push((pool, key, String::from_utf8_lossy(&name[start..start + len]).into_owned()));
        });
        keys
    }

    #[test]
    fn names_are_cut_at_the_suffix() {
        for (name, expected) in [
            ("www.example.co.uk", ["www", "example", "co.uk"]),
            ("example.com", ["", "example", "com"]),
            ("a.b.shop.weebly.com", ["a.b", "shop", "weebly.com"]),
            ("co.uk", ["", "co", "uk"]),
            ("weebly.com", ["", "weebly", "com"]),
            ("localhost", ["", "localhost", "localhost"]),
            ("", ["", "", ""]),
        ] {
            assert_eq!(parts(name), expected, "{name}");
        }
    }

    /// Golden vectors: the keys of one small name, written out by hand from the module's documentation.
    #[test]
    fn keys_are_those_of_the_documentation() {
        let fnv = |text: &str| {
            text.bytes().fold(1_469_598_103_934_665_603_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
            })
        };
        let gram = |text: &[u8], space: u64| {
            let bytes = text.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
            bytes ^ (text.len() as u64 + 8 * space + 1) << 56
        };
        let core: [&[u8]; 4] = [b"b", b"b$", b"^b", b"^b$"];
        let found = keys(b"x-yz.b.co.uk");
        let of = |pool: usize| -> Vec<u64> {
            found.iter().filter(|key| key.0 == pool).map(|key| key.1).collect()
        };
        assert_eq!(of(CORE), core.map(|text| gram(text, 1)));
        assert!(of(SUB).contains(&gram(b"^x-yz", 2)) && !of(SUB).contains(&gram(b"^", 2)));
        assert_eq!(of(SUB).len(), 18);
        let word = |id: u64, text: &str| fnv(text) ^ id << 56;
        assert_eq!(
            of(WORD),
            [
                word(30, "uk"),
                word(31, "co.uk"),
                word(32, "co.uk"),
                word(33, "b.co.uk"),
                word(34, "b"),
                word(35, "x-yz"),
                word(36, "yz"),
                hash(4 * 64 + 1 + 1) ^ 40 << 56,
                (fnv("uk").wrapping_mul(31).wrapping_add(1)) ^ 41 << 56,
            ]
        );
        assert_eq!(hash(1), 0x9E37_79B9_E17D_05AC_u64.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        let spans: Vec<&str> =
            found.iter().filter(|key| key.0 == WORD).map(|key| key.2.as_str()).collect();
        assert_eq!(&spans[..7], ["uk", "co.uk", "co.uk", "b.co.uk", "b", "x-yz", "yz"]);
    }

    #[test]
    fn dense_numbers_are_those_of_the_documentation() {
        let found = dense(&Parts::of(b"www.aab1-2.com"));
        let expected = [
            14.0 / 32.0,
            6.0 / 16.0,
            3.0 / 4.0,
            2.0 / 6.01,
            2.0 / 3.0,
            1.0 / 6.0,
            1.0 / 6.0,
            1.0 / 2.0,
            // 2 of one byte, 4 others once, of 6.
            (1.0 / 3.0 * 3.0_f32.log2() + 4.0 / 6.0 * 6.0_f32.log2()) / 4.0,
            5.0 / 6.01,
            3.0 / 16.0,
            5.0 / 6.01,
            3.0 / 4.0,
            1.0,
        ];
        for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 1e-6, "{place}: {found}, not {expected}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_encoded_without_a_panic(name in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'.'), Just(b'-')], 0..254)) {
            for (pool, _, text) in keys(&name) {
                prop_assert!(pool < POOLS && text.len() <= 3 * name.len());
            }
            prop_assert!(dense(&Parts::of(&name)).iter().all(|value| value.is_finite()));
        }
    }
}
