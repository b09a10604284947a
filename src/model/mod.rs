//! The model: a name in, a score out.
//!
//! A model is a directory (`models/README.md`): `model.onnx`, `manifest.json`, and what its encoder needs. One is
//! embedded in the library. Loading checks everything that can be checked then; after it a [`Model`] never changes, and
//! any number of threads may score with it at once.
//!
//! The parts: [`manifest`] reads what the model says of itself, `files` reads and verifies its directory, the encoders
//! turn a name into numbers, `tract` is the only file that names tract. A scorer joins an encoder and an engine.
//!
//! Left out: caching, thresholds set by the administrator, decisions. They belong to the engine and the policy.

mod chars;
mod codepoints;
mod explain;
mod fields;
mod files;
mod fused;
pub(crate) mod kernel;
pub mod manifest;
pub mod ngram;
pub(crate) mod onnx;
mod tract;

use crate::error::Error;
use crate::name::{MAX_WIRE, Name};
use crate::suffix::suffix_start;
use files::Files;
use manifest::{Encoder, FprTable, Manifest, Thresholds};
use serde::Serialize;
use std::path::Path;

type Result<T, E = Error> = std::result::Result<T, E>;

/// What computes the scores: the setting `model.engine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The fused engine where there is one for the model's shape and its self-check passes, else tract.
    #[default]
    Auto,
    /// The fused engine; a model it cannot run is an error.
    Fused,
    /// tract, which runs every model.
    Tract,
}

impl EngineChoice {
    /// The word used in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            EngineChoice::Auto => "auto",
            EngineChoice::Fused => "fused",
            EngineChoice::Tract => "tract",
        }
    }

    /// The choice of a word, if it is one.
    pub fn parse(word: &str) -> Option<EngineChoice> {
        [EngineChoice::Auto, EngineChoice::Fused, EngineChoice::Tract]
            .into_iter()
            .find(|choice| choice.as_str() == word)
    }
}

/// An encoder and an engine joined: scores names.
trait Scorer: Send + Sync {
    /// The model's output for the name, as it came out: not yet checked. The name's public suffix begins at byte `suffix`
    /// of its dotted form ([`suffix_start`]).
    fn raw_score(&self, name: &Name, suffix: usize) -> Result<f32, Failure>;

    /// `fused` or `tract`.
    fn engine(&self) -> &'static str;

    /// What contributed to the score. Scorers that cannot tell keep this default, which says so.
    fn explain(&self, name: &Name) -> Result<Explanation, Failure> {
        let score = self.raw_score(name, suffix_of(name))?;
        Ok(Explanation { score, logit: None, base: None, method: "none", spans: Vec::new() })
    }
}

/// Why a network cannot be loaded or run. Who catches it adds the file or the model.
#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lets only a network's output from 0 to 1 pass.
fn in_range(output: f32) -> Result<f32, Failure> {
    if (0.0..=1.0).contains(&output) {
        return Ok(output);
    }
    Err(Failure(format!("its output is {output}, not a number from 0 to 1")))
}

/// Why a name got its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The score explained, 0..1.
    pub score: f32,
    /// The score's logit, not rounded to 0 or 1 as a score near the ends is; none with the method `none`.
    pub logit: Option<f32>,
    /// The logit of a name of which nothing is known: this and the contributions (those of `n-gram` excepted, which are
    /// part of the others) add up to `logit`, within a tenth.
    pub base: Option<f32>,
    /// How the contributions were found; `none`: this model's scorer cannot tell, and there are no spans.
    pub method: &'static str,
    /// The parts of the name that contributed, in the order of the name.
    pub spans: Vec<Span>,
}

/// A part of a name and what it contributed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// First byte in the dotted name ([`Name::dotted`]).
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// The bytes as text.
    pub text: String,
    /// What the part is, for example `suffix`, `n-gram`.
    pub kind: &'static str,
    /// Contribution to the score's logit; above 0 speaks for malicious.
    pub contribution: f32,
}

/// A loaded model. Immutable; scores from any number of threads at once.
pub struct Model {
    scorer: Box<dyn Scorer>,
    name: String,
    version: String,
    sha256: [u8; 32],
    thresholds: Thresholds,
    fpr: Option<FprTable>,
    notice: Option<String>,
}

impl Model {
    /// The model embedded in the library.
    ///
    /// # Errors
    /// [`Error::Config`] if the engine chosen cannot run it. (That its files are intact is tested at build time.)
    pub fn embedded(choice: EngineChoice) -> Result<Model> {
        Model::from_files(Files::embedded()?, choice)
    }

    /// The model of a directory. Files are read into memory, so the directory may change or vanish afterwards.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read or is too large, [`Error::Model`] for one whose content is not
    /// what the manifest says or that the engine cannot run (both name the file), [`Error::Config`] if the engine
    /// chosen cannot run this model.
    pub fn load(dir: &Path, choice: EngineChoice) -> Result<Model> {
        Model::from_files(Files::read(dir)?, choice)
    }

    /// A model of files in memory: the manifest, and each file that it names.
    ///
    /// # Errors
    /// As [`Model::load`], without those of reading.
    #[cfg(feature = "train")]
    pub(crate) fn in_memory(manifest: &[u8], others: Vec<(String, Vec<u8>)>) -> Result<Model> {
        Model::from_files(Files::in_memory(manifest, others)?, EngineChoice::Auto)
    }

    fn from_files(files: Files, choice: EngineChoice) -> Result<Model> {
        let (scorer, notice) = build_scorer(&files, choice)?;
        let Files { manifest, sha256, .. } = files;
        let Manifest { name, version, thresholds, fpr, .. } = manifest;
        Ok(Model { scorer, name, version, sha256, thresholds, fpr, notice })
    }

    /// The score of a name, 0 (benign) to 1 (malicious). The same name always gets the same bits from one loaded
    /// model; other engines agree within 1e-5.
    ///
    /// # Errors
    /// [`Error::Model`] if the model fails on this name or its output is no number from 0 to 1.
    pub fn score(&self, name: &Name) -> Result<f32> {
        self.score_with_suffix(name, suffix_of(name))
    }

    /// As [`Model::score`], for who knows where in the dotted form the public suffix begins: to find it costs a tenth of
    /// a score.
    pub(crate) fn score_with_suffix(&self, name: &Name, suffix: usize) -> Result<f32> {
        let score = self.scorer.raw_score(name, suffix);
        self.checked(score, |score| *score)
    }

    /// Adds the model's name to a failure, and lets only scores from 0 to 1 pass.
    fn checked<T>(&self, result: Result<T, Failure>, score: impl Fn(&T) -> f32) -> Result<T> {
        result
            .and_then(|value| in_range(score(&value)).map(|_| value))
            .map_err(|reason| Error::Model(format!("model {}: {reason}", self.name)))
    }

    /// The share of benign names expected at or above this score, 0..1; 0 if the model does not know.
    pub fn fpr(&self, score: f32) -> f32 {
        self.fpr.as_ref().map_or(0.0, |table| table.rate(score))
    }

    /// The score from which the model's makers would have a name vetted, if they say.
    pub fn vet_threshold(&self) -> Option<f32> {
        self.thresholds.vet
    }

    /// The score from which the model's makers would have a name blocked, if they say.
    pub fn block_threshold(&self) -> Option<f32> {
        self.thresholds.block
    }

    /// The first 8 bytes of [`Model::sha256`], big endian: the model's number in verdicts and records.
    pub fn id(&self) -> u64 {
        let mut first = [0; 8];
        first.iter_mut().zip(self.sha256).for_each(|(to, from)| *to = from);
        u64::from_be_bytes(first)
    }

    /// The SHA-256 of `manifest.json`. The manifest names the SHA-256 of each other file of the model, so this one
    /// number stands for all of it; `sha256sum manifest.json` gives it too.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The model's name, from its manifest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's version, from its manifest.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What computes the scores: `fused` or `tract`.
    pub fn engine(&self) -> &'static str {
        self.scorer.engine()
    }

    /// What the administrator should know about how this model was loaded: that its fused engine failed the self-check
    /// and tract runs it, or that it was trained with another suffix list. Nothing if all is well.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Why a name gets its score, as far as the scorer can tell.
    ///
    /// # Errors
    /// As [`Model::score`].
    pub fn explain(&self, name: &Name) -> Result<Explanation> {
        self.checked(self.scorer.explain(name), |explanation| explanation.score)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({} {}, {:016x}, {})", self.name, self.version, self.id(), self.engine())
    }
}

/// Where a name's public suffix begins in its dotted form.
fn suffix_of(name: &Name) -> usize {
    suffix_start(name.dotted(&mut [0; MAX_WIRE]))
}

/// A scorer, and the text for [`Model::notice`].
type Built = (Box<dyn Scorer>, Option<String>);

/// Joins the model's encoder with the engine chosen.
fn build_scorer(files: &Files, choice: EngineChoice) -> Result<Built> {
    match &files.manifest.encoder {
        Encoder::Codepoints16x16 {} => {
            refuse_fused(&files.manifest, choice)?;
            Ok((Box::new(codepoints::TractScorer::load(files)?), None))
        }
        Encoder::Chars(spec) => {
            refuse_fused(&files.manifest, choice)?;
            Ok((Box::new(chars::TractScorer::load(spec, files)?), None))
        }
        Encoder::NgramFields(spec) => fields::load(spec, files, choice),
    }
}

/// The error for `model.engine = fused` on a model whose encoder has no fused engine.
fn refuse_fused(manifest: &Manifest, choice: EngineChoice) -> Result<()> {
    if choice != EngineChoice::Fused {
        return Ok(());
    }
    let reason = format!(
        "cannot run model {} (encoder {}); use auto or tract",
        manifest.name,
        manifest.encoder.name()
    );
    Err(Error::setting("model.engine", choice.as_str(), reason))
}

#[cfg(test)]
mod tests;
