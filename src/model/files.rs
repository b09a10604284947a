//! The files of a model: from a directory, bounded and verified, or embedded in the library.
//!
//! Only the manifest and the files that it names are read, and each of these must have the SHA-256 given there. So the
//! SHA-256 of the manifest stands for the whole model.

use super::manifest::{self, Manifest};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest manifest accepted, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;
/// Largest other file accepted, in bytes; the models shipped have files of a few MiB.
const MAX_FILE: u64 = 64 << 20;

const MANIFEST: &str = "manifest.json";
/// The network, which every model has.
pub(super) const NETWORK: &str = "model.onnx";
/// The dictionary of the encoder `ngram-fields`.
pub(super) const DICTIONARY: &str = "dictionary.bin";

/// A model's files in memory.
pub(super) struct Files {
    /// Where they came from, for error texts.
    origin: PathBuf,
    /// The manifest, checked.
    pub(super) manifest: Manifest,
    /// The SHA-256 of the manifest's bytes.
    pub(super) sha256: [u8; 32],
    others: Vec<(String, Cow<'static, [u8]>)>,
}

impl Files {
    /// The files embedded in the library. Their hashes are compared by a test, not at each start.
    pub(super) fn embedded() -> Result<Files> {
        const EMBEDDED_MANIFEST: &[u8] = include_bytes!("../../models/default/manifest.json");
        const EMBEDDED_NETWORK: &[u8] = include_bytes!("../../models/default/model.onnx");
        const EMBEDDED_DICTIONARY: &[u8] = include_bytes!("../../models/default/dictionary.bin");
        let mut files = Files::with_manifest(Path::new("(embedded model)"), EMBEDDED_MANIFEST)?;
        files.others.push((NETWORK.to_string(), Cow::Borrowed(EMBEDDED_NETWORK)));
        files.others.push((DICTIONARY.to_string(), Cow::Borrowed(EMBEDDED_DICTIONARY)));
        Ok(files)
    }

    /// Files that were just made.
    #[cfg(feature = "train")]
    pub(super) fn in_memory(manifest: &[u8], others: Vec<(String, Vec<u8>)>) -> Result<Files> {
        let mut files = Files::with_manifest(Path::new("(new model)"), manifest)?;
        files.others.extend(others.into_iter().map(|(name, content)| (name, Cow::Owned(content))));
        Ok(files)
    }

    /// Reads the manifest of a directory and the files it names.
    pub(super) fn read(dir: &Path) -> Result<Files> {
        let manifest = read_bounded(&dir.join(MANIFEST), MAX_MANIFEST)?;
        let mut files = Files::with_manifest(dir, &manifest)?;
        for name in files.manifest.files.keys() {
            let content = read_bounded(&dir.join(name), MAX_FILE)?;
            files.others.push((name.clone(), Cow::Owned(content)));
        }
        files.verify()?;
        Ok(files)
    }

    fn with_manifest(origin: &Path, bytes: &[u8]) -> Result<Files> {
        let manifest = manifest::parse(bytes).map_err(|reason| about(origin, MANIFEST, reason))?;
        let sha256 = Sha256::digest(bytes).into();
        Ok(Files { origin: origin.to_path_buf(), manifest, sha256, others: Vec::new() })
    }

    /// Compares each file with its SHA-256 in the manifest.
    fn verify(&self) -> Result<()> {
        for (name, expected) in &self.manifest.files {
            let found = hex(&Sha256::digest(self.get(name)?));
            if *expected != found {
                let reason = format!("its SHA-256 is {found}, but {MANIFEST} says {expected}");
                return Err(self.error(name, reason));
            }
        }
        Ok(())
    }

    /// The content of a file that the manifest names.
    pub(super) fn get(&self, name: &str) -> Result<&[u8]> {
        let found = self.others.iter().find(|(own, _)| own == name);
        let missing =
            || self.error(MANIFEST, format!("files: lacks {name}, which the model needs"));
        found.map(|(_, content)| content.as_ref()).ok_or_else(missing)
    }

    /// An error about one of the files.
    pub(super) fn error(&self, name: &str, reason: impl std::fmt::Display) -> Error {
        about(&self.origin, name, reason)
    }
}

fn about(origin: &Path, name: &str, reason: impl std::fmt::Display) -> Error {
    Error::Model(format!("{}: {reason}", origin.join(name).display()))
}

/// Reads a regular file of at most `max` bytes.
fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>> {
    let failed = |reason| Error::file(path, reason);
    // Asked before opening: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::file(path, "not a regular file"));
    }
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(max + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > max {
        return Err(Error::file(path, format!("over {max} bytes, the most such a file may have")));
    }
    Ok(content)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_files_are_what_their_manifest_says() {
        Files::embedded().unwrap().verify().unwrap();
    }
}
