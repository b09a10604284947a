//! What a model says of itself: `manifest.json`, read and checked.
//!
//! The form is described in `models/README.md`. Fields that only people and tools read (metrics, training data) are not
//! looked at here, unknown fields neither, so that a manifest may tell more than this version knows; an unknown
//! *encoder* or `format` is an error, because the scores would be wrong.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The one form of manifest that there is.
const FORMAT: u32 = 1;
/// Most files a model may have beside its manifest.
const MAX_FILES: usize = 16;
/// Most golden scores that are checked at load; each costs a run of the model.
const MAX_GOLDEN: usize = 64;
/// Most knots of a false-positive table.
const MAX_KNOTS: usize = 4096;

/// A checked manifest.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The model's name.
    pub name: String,
    /// The model's version.
    pub version: String,
    /// How a name becomes numbers.
    pub encoder: Encoder,
    /// The model's files beside the manifest, with their SHA-256 in lower-case hexadecimal.
    pub files: BTreeMap<String, String>,
    /// The bands its makers recommend.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// How many benign names reach a score.
    #[serde(default)]
    pub fpr: Option<FprTable>,
    /// Names with their scores, to check an engine with at load.
    #[serde(default)]
    pub golden: Vec<(String, f32)>,
}

/// How a name becomes the network's input. A new way is a new name, never another meaning of an old one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "name")]
pub enum Encoder {
    /// The 2020 network's: see the module `codepoints`.
    #[serde(rename = "codepoints-16x16")]
    Codepoints16x16 {},
    /// A number a character, up to a length: see the module `chars`.
    #[serde(rename = "chars")]
    Chars(CharsSpec),
    /// Rows of a table for n-grams and words of a name's parts, and a few plain numbers: see the module `ngram`.
    #[serde(rename = "ngram-fields")]
    NgramFields(NgramFieldsSpec),
}

impl Encoder {
    /// The encoder's name in manifests.
    pub const fn name(&self) -> &'static str {
        match self {
            Encoder::Codepoints16x16 {} => "codepoints-16x16",
            Encoder::Chars(_) => "chars",
            Encoder::NgramFields(_) => super::ngram::ENCODER,
        }
    }
}

/// The parameters of the encoder `ngram-fields`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NgramFieldsSpec {
    /// The suffix list that names were cut by in training ([`crate::suffix::SNAPSHOT`]).
    pub suffixes: String,
}

/// The parameters of the encoder `chars`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CharsSpec {
    /// The known characters, ASCII, each once; the first has number [`CharsSpec::first`], the next one more, and so on.
    pub vocabulary: String,
    /// The number of the vocabulary's first character.
    pub first: u16,
    /// The number of every byte that the vocabulary lacks.
    pub unknown: u16,
    /// The number that fills the rest of the input, after the name.
    pub padding: u16,
    /// Which end of a name that is too long is kept.
    pub keep: KeptEnd,
    /// The lengths of input the network is run with, ascending: a name takes the first that holds it, and the last one
    /// is the most characters the network sees. A network of a fixed length has one.
    pub lengths: Vec<usize>,
}

/// Which end of a name that is too long is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptEnd {
    /// The left end: the host's own labels.
    Start,
    /// The right end: the registered domain.
    End,
}

/// The score bands that a model's makers recommend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// From this score on, 0..1, a name should be vetted.
    pub vet: Option<f32>,
    /// From this score on, 0..1, a name should be blocked.
    pub block: Option<f32>,
}

/// How many benign names reach a score: knots of logit and rate, from the lowest logit to the highest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct FprTable {
    knots: Vec<(f64, f64)>,
}

impl FprTable {
    /// The share of benign names at or above a score. Between two knots the rate's logarithm runs straight over the
    /// score's logit, ln(s / (1 - s)); beyond the ends the end's rate counts.
    pub fn rate(&self, score: f32) -> f32 {
        let score = f64::from(score);
        let logit = (score / (1.0 - score)).ln();
        let above = self.knots.partition_point(|&(knot, _)| knot <= logit);
        let before = above.checked_sub(1).and_then(|index| self.knots.get(index));
        let rate = match (before, self.knots.get(above)) {
            (Some(&(low, low_rate)), Some(&(high, high_rate))) => {
                let share = (logit - low) / (high - low);
                (low_rate.ln() + share * (high_rate.ln() - low_rate.ln())).exp()
            }
            (Some(&(_, rate)), None) | (None, Some(&(_, rate))) => rate,
            (None, None) => 0.0,
        };
        rate as f32
    }

    fn check(&self) -> Result<(), String> {
        let knots = &self.knots;
        if !(2..=MAX_KNOTS).contains(&knots.len()) {
            return Err(format!("fpr: {} knots, must be 2 to {MAX_KNOTS}", knots.len()));
        }
        for &(logit, rate) in knots {
            if !logit.is_finite() || rate <= 0.0 || rate > 1.0 || rate.is_nan() {
                return Err(format!(
                    "fpr: knot [{logit}, {rate}] must be a number and a rate above 0, up to 1"
                ));
            }
        }
        let bad = knots.iter().zip(knots.iter().skip(1)).find(|(a, b)| b.0 <= a.0 || b.1 > a.1);
        match bad {
            Some((_, (logit, rate))) => {
                Err(format!("fpr: knot [{logit}, {rate}]: logits must rise and rates must not"))
            }
            None => Ok(()),
        }
    }
}

/// Whether a text may be a model's name or version; the error is the reason.
///
/// # Errors
/// The reason, for anything but 1 to 64 bytes without control characters.
pub fn check_short_text(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 64 || text.chars().any(char::is_control) {
        return Err("must be 1 to 64 bytes of text");
    }
    Ok(())
}

/// Reads and checks a manifest; the error is the reason, to which the caller adds the file.
pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|reason| reason.to_string())?;
    if manifest.format != FORMAT {
        return Err(format!(
            "format: {} is not known, this version reads {FORMAT}",
            manifest.format
        ));
    }
    for (key, text) in [("name", &manifest.name), ("version", &manifest.version)] {
        check_short_text(text).map_err(|reason| format!("{key}: {text:?} {reason}"))?;
    }
    check_files(&manifest.files)?;
    check_thresholds(manifest.thresholds)?;
    if let Some(table) = &manifest.fpr {
        table.check()?;
    }
    if manifest.golden.len() > MAX_GOLDEN {
        let found = manifest.golden.len();
        return Err(format!("golden: {found} names, at most {MAX_GOLDEN}"));
    }
    if let Encoder::Chars(spec) = &manifest.encoder {
        spec.check()?;
    }
    Ok(manifest)
}

fn check_files(files: &BTreeMap<String, String>) -> Result<(), String> {
    if files.len() > MAX_FILES {
        return Err(format!("files: {} files, at most {MAX_FILES}", files.len()));
    }
    for (name, sha256) in files {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(format!(
                "files: {name:?} must be the plain name of a file in the model's directory"
            ));
        }
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if sha256.len() != 64 || !sha256.bytes().all(hex) {
            return Err(format!(
                "files: {name}: {sha256:?} is no SHA-256 in lower-case hexadecimal"
            ));
        }
    }
    Ok(())
}

fn check_thresholds(thresholds: Thresholds) -> Result<(), String> {
    let Thresholds { vet, block } = thresholds;
    for (key, value) in [("vet", vet), ("block", block)] {
        if let Some(score) = value.filter(|score| !(0.0..=1.0).contains(score)) {
            return Err(format!("thresholds.{key}: {score} must be a score from 0 to 1"));
        }
    }
    match (vet, block) {
        (Some(vet), Some(block)) if vet > block => {
            Err(format!("thresholds.vet: {vet} is above thresholds.block: {block}"))
        }
        _ => Ok(()),
    }
}

impl CharsSpec {
    fn check(&self) -> Result<(), String> {
        let vocabulary = self.vocabulary.as_bytes();
        let repeated = vocabulary
            .iter()
            .enumerate()
            .any(|(at, byte)| vocabulary.get(at + 1..).is_some_and(|rest| rest.contains(byte)));
        if vocabulary.is_empty() || !self.vocabulary.is_ascii() || repeated {
            return Err(format!(
                "encoder.vocabulary: {:?} must be ASCII characters, each once",
                self.vocabulary
            ));
        }
        let last = usize::from(self.first) + vocabulary.len() - 1;
        if last > usize::from(u16::MAX) {
            return Err(format!(
                "encoder.first: {}: the last character's number would be {last}, above {}",
                self.first,
                u16::MAX
            ));
        }
        let ascending = self.lengths.iter().zip(self.lengths.iter().skip(1)).all(|(a, b)| a < b);
        let possible = self.lengths.iter().all(|length| (1..=256).contains(length));
        if !(1..=8).contains(&self.lengths.len()) || !ascending || !possible {
            return Err(format!(
                "encoder.lengths: {:?} must be 1 to 8 lengths of 1 to 256, ascending",
                self.lengths
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn with(change: impl FnOnce(&mut Value)) -> Result<Manifest, String> {
        let mut manifest = json!({
            "format": 1, "name": "n", "version": "1", "encoder": {"name": "codepoints-16x16"},
            "files": {"model.onnx": "0".repeat(64)},
        });
        change(&mut manifest);
        parse(manifest.to_string().as_bytes())
    }

    #[test]
    fn the_least_manifest_has_no_thresholds_and_no_rates() {
        let manifest = with(|_| ()).unwrap();
        assert_eq!(manifest.encoder, Encoder::Codepoints16x16 {});
        assert_eq!(manifest.thresholds, Thresholds::default());
        assert!(manifest.fpr.is_none());
    }

    #[test]
    fn what_only_people_read_is_let_be() {
        assert!(with(|m| m["metrics"] = json!({"auc": [1, "x"]})).is_ok());
    }

    #[test]
    fn errors_name_the_key_and_the_value() {
        type Case = (fn(&mut Value), &'static str);
        let cases: &[Case] = &[
            (|m| m["format"] = json!(2), "format: 2"),
            (|m| m["name"] = json!(""), "name: \"\""),
            (|m| m["version"] = json!("a\nb"), "version: \"a\\nb\""),
            (|m| m["encoder"]["name"] = json!("ngram-magic"), "ngram-magic"),
            (|m| m["encoder"] = json!({"name": "chars"}), "vocabulary"),
            (|m| m["files"] = json!({"../x": "0".repeat(64)}), "\"../x\""),
            (|m| m["files"] = json!({".x": "0".repeat(64)}), "\".x\""),
            (|m| m["files"]["model.onnx"] = json!("12"), "\"12\""),
            (|m| m["files"]["model.onnx"] = json!("A".repeat(64)), "lower-case"),
            (|m| m["thresholds"] = json!({"vet": 1.5}), "thresholds.vet: 1.5 must"),
            (|m| m["thresholds"] = json!({"vet": 0.9, "block": 0.8}), "above thresholds.block"),
            (|m| m["thresholds"] = json!({"veto": 0.9}), "veto"),
            (|m| m["fpr"] = json!([[0.0, 0.5]]), "1 knots"),
            (|m| m["fpr"] = json!([[0.0, 0.5], [1.0, 0.0]]), "[1, 0]"),
            (|m| m["fpr"] = json!([[0.0, 0.5], [0.0, 0.4]]), "logits must rise"),
            (|m| m["fpr"] = json!([[0.0, 0.5], [1.0, 0.6]]), "rates must not"),
        ];
        for (change, expected) in cases {
            let reason = with(change).unwrap_err();
            assert!(reason.contains(expected), "{reason:?} lacks {expected:?}");
        }
        for broken in [&b""[..], b"{", b"[]", b"\xff\xfe", b"null"] {
            assert!(parse(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn chars_needs_a_clean_vocabulary_and_ascending_lengths() {
        let chars = |vocabulary: &str, lengths: &[usize]| {
            with(|m| {
                m["encoder"] = json!({"name": "chars", "vocabulary": vocabulary, "first": 2, "unknown": 1,
                    "padding": 0, "keep": "end", "lengths": lengths});
            })
        };
        assert!(chars("abc", &[16, 32]).is_ok());
        assert!(chars("", &[16]).unwrap_err().contains("vocabulary"));
        assert!(chars("aba", &[16]).unwrap_err().contains("\"aba\""));
        assert!(chars("aé", &[16]).unwrap_err().contains("ASCII"));
        let high = with(|m| {
            m["encoder"] = json!({"name": "chars", "vocabulary": "abc", "first": 65534, "unknown": 1,
                "padding": 0, "keep": "end", "lengths": [16]});
        });
        assert!(high.unwrap_err().contains("encoder.first: 65534"));
        for lengths in [&[][..], &[0], &[16, 16], &[257], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            assert!(chars("abc", lengths).unwrap_err().contains("lengths"), "{lengths:?}");
        }
    }

    #[test]
    fn rates_run_log_linearly_over_the_logit_and_stop_at_the_ends() {
        let table = FprTable { knots: vec![(-2.0, 1.0), (2.0, 1e-2), (6.0, 1e-4)] };
        let at = |logit: f64| table.rate((1.0 / (1.0 + (-logit).exp())) as f32);
        let near = |found: f32, expected: f32| {
            assert!((found / expected - 1.0).abs() < 1e-4, "{found} is not {expected}");
        };
        near(at(0.0), 0.1);
        near(at(2.0), 1e-2);
        near(at(4.0), 1e-3);
        near(at(-9.0), 1.0);
        near(at(9.0), 1e-4);
        near(table.rate(0.0), 1.0);
        near(table.rate(1.0), 1e-4);
    }
}
