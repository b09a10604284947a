//! Writes a model's directory: all of it or nothing.
//!
//! The files are made in a directory beside the one wanted, loaded as a test, and then take its place; the other files of
//! a directory that is replaced (a README, say) are taken over. A directory that holds more than files is never replaced.

use super::calibrate::{BLOCK_RATE, Table, UNSEEN_LISTS, VET_RATE};
use super::evaluate::Evaluation;
use super::reference::Reference;
use super::run::Outcome;
use crate::error::{Error, Result};
use crate::model::ngram::ENCODER;
use crate::model::{EngineChoice, Model, onnx};
use crate::name::Name;
use crate::suffix;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Golden scores in the manifest, checked at each load.
const CHECKED_AT_LOAD: usize = 16;

/// What the manifest says besides what the run found.
pub struct About<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// What it is, in a sentence.
    pub description: &'a str,
    /// How it was trained: data, options.
    pub training: Value,
    /// Names for the golden scores.
    pub golden: &'a [Name],
}

/// A model's files: name and content.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// The model that was selected by, trained without the validation names, with the calibration of the final one.
///
/// # Errors
/// [`Error::Model`] if what was trained cannot run.
pub fn selected(outcome: &Outcome) -> Result<Model> {
    let (dictionary, weights) = &outcome.selected;
    let onnx = onnx::write(weights);
    let dictionary = dictionary.to_bytes();
    let manifest = json!({
        "format": 1,
        "name": "selected",
        "version": "1",
        "encoder": encoder(),
        "files": hashes(&onnx, &dictionary),
        "thresholds": thresholds(&outcome.calibration),
        "fpr": outcome.calibration.knots,
    });
    let others = vec![("model.onnx".to_owned(), onnx), ("dictionary.bin".to_owned(), dictionary)];
    Model::in_memory(manifest.to_string().as_bytes(), others)
}

/// The files of a trained model; `metrics` are those of the selected one.
pub fn files(outcome: &Outcome, about: &About<'_>, metrics: &Evaluation) -> Files {
    let reference = Reference::new(&outcome.keys, &outcome.weights);
    let golden: Vec<(String, f64)> =
        about.golden.iter().map(|name| (name.to_text(), reference.score(name))).collect();
    let onnx = onnx::write(&outcome.weights);
    let dictionary = outcome.dictionary.to_bytes();
    let step = (golden.len() / CHECKED_AT_LOAD).max(1);
    let checked: Vec<Value> = golden
        .iter()
        .step_by(step)
        .take(CHECKED_AT_LOAD)
        .map(|(name, score)| json!([name, round(*score, 8)]))
        .collect();
    let manifest = json!({
        "format": 1,
        "name": about.name,
        "version": about.version,
        "description": about.description,
        "encoder": encoder(),
        "files": hashes(&onnx, &dictionary),
        "thresholds": thresholds(&outcome.calibration),
        "fpr": outcome.calibration.knots,
        "golden": checked,
        "calibration": {
            "benign_names": outcome.calibration.names,
            "rate_at_vet": VET_RATE,
            "rate_at_block": BLOCK_RATE,
            "unseen_lists_factor": UNSEEN_LISTS,
        },
        "metrics": metrics,
        "training": about.training,
        "history": outcome.history,
    });
    let mut manifest = serde_json::to_string_pretty(&manifest).unwrap_or_default();
    manifest.push('\n');
    let mut table = "name\tscore\n".to_owned();
    for (name, score) in &golden {
        table.push_str(&format!("{name}\t{score:.9}\n"));
    }
    vec![
        ("model.onnx", onnx),
        ("dictionary.bin", dictionary),
        ("manifest.json", manifest.into_bytes()),
        ("golden.tsv", table.into_bytes()),
    ]
}

fn encoder() -> Value {
    json!({ "name": ENCODER, "suffixes": suffix::SNAPSHOT })
}

fn hashes(onnx: &[u8], dictionary: &[u8]) -> Value {
    json!({ "model.onnx": sha256(onnx), "dictionary.bin": sha256(dictionary) })
}

/// The scores at the rates of vetting and blocking; none where too few names were measured.
fn thresholds(table: &Table) -> Value {
    let at = |rate: f64| table.logit(rate).map(|logit| round(1.0 / (1.0 + (-logit).exp()), 8));
    json!({ "vet": at(VET_RATE), "block": at(BLOCK_RATE) })
}

/// Checks before the work that [`replace`] can put a model at `dir`, and gives the directory's own path: what is there is
/// nothing, an empty directory, or a model.
///
/// # Errors
/// [`Error::Io`] naming what is in the way.
pub fn prepare(dir: &Path) -> Result<PathBuf> {
    let refused = |reason: &str| Error::file(dir, reason);
    let own = if dir.symlink_metadata().is_ok() {
        dir.canonicalize().map_err(|reason| Error::file(dir, reason))?
    } else {
        let name = dir.file_name().ok_or_else(|| refused("is no name of a directory"))?;
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|reason| Error::file(parent, reason))?;
        parent.canonicalize().map_err(|reason| Error::file(parent, reason))?.join(name)
    };
    if let Ok(metadata) = own.metadata() {
        let others = others(&own)?;
        if !others.is_empty() && !own.join("manifest.json").is_file() {
            return Err(refused("holds files but no manifest.json: it is no model's directory"));
        }
        let device =
            own.parent().and_then(|parent| parent.metadata().ok()).map(|parent| parent.dev());
        if device != Some(metadata.dev()) {
            return Err(refused(
                "is a mount point, which cannot be replaced; name a directory in it",
            ));
        }
        if std::env::current_dir().is_ok_and(|here| here.starts_with(&own)) {
            return Err(refused("cannot be replaced while it is the working directory"));
        }
    }
    let trial = beside(&own, "new");
    fs::create_dir(&trial)
        .and_then(|()| fs::remove_dir(&trial))
        .map_err(|reason| Error::file(&trial, reason))?;
    Ok(own)
}

/// A name beside a directory.
fn beside(dir: &Path, mark: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{mark}-{}", std::process::id()));
    dir.with_file_name(name)
}

/// The files of a directory, which may hold nothing else.
fn others(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |reason| Error::file(dir, reason);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_type().map_err(failed)?.is_file() {
            let reason = "is no plain file, so the directory that holds it is not replaced";
            return Err(Error::file(&entry.path(), reason));
        }
        paths.push(entry.path());
    }
    Ok(paths)
}

/// Puts files into the place of a directory, which may exist, and gives the model that they are.
///
/// # Errors
/// [`Error::Io`] naming the file, or why the library does not accept the model; the old directory is then still there.
pub fn replace(dir: &Path, files: &Files) -> Result<Model> {
    let (new, old) = (beside(dir, "new"), beside(dir, "old"));
    let loaded = |()| Model::load(&new, EngineChoice::Auto);
    let made = fill(&new, dir, files).and_then(loaded).and_then(|model| {
        if dir.exists() {
            fs::rename(dir, &old).map_err(|reason| Error::file(dir, reason))?;
        }
        fs::rename(&new, dir).map_err(|reason| {
            // Nothing else to do if even that fails: the old files are still in `old`.
            let _ = fs::rename(&old, dir);
            Error::file(dir, reason)
        })?;
        Ok(model)
    });
    let leftover = if made.is_ok() { &old } else { &new };
    if leftover.exists() {
        fs::remove_dir_all(leftover).map_err(|reason| Error::file(leftover, reason))?;
    }
    made
}

fn fill(new: &Path, dir: &Path, files: &Files) -> Result<()> {
    fs::create_dir_all(new).map_err(|reason| Error::file(new, reason))?;
    for (name, content) in files {
        let path = new.join(name);
        fs::write(&path, content).map_err(|reason| Error::file(&path, reason))?;
    }
    let Ok(metadata) = dir.metadata() else { return Ok(()) };
    for other in others(dir)? {
        let path = new.join(other.file_name().unwrap_or_default());
        let taken = if path.exists() {
            // Who could read the old file can read the new one.
            fs::metadata(&other).and_then(|old| fs::set_permissions(&path, old.permissions()))
        } else {
            fs::copy(&other, &path).map(|_| ())
        };
        taken.map_err(|reason| Error::file(&path, reason))?;
    }
    fs::set_permissions(new, metadata.permissions()).map_err(|reason| Error::file(new, reason))
}

/// A number with so many digits behind the point.
fn round(value: f64, digits: i32) -> f64 {
    let unit = 10.0_f64.powi(digits);
    (value * unit).round() / unit
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
