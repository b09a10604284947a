//! The files of a model: from a directory, bounded and verified, or embedded in the library.
//!
//! Only files that the manifest names are read, each compared with the SHA-256 given there.

use super::manifest::{self, Manifest};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest manifest accepted, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;
/// Largest other file accepted, in bytes. The default model's are a few MiB.
const MAX_FILE: u64 = 64 << 20;

const MANIFEST: &str = "manifest.json";
/// The network, which every model has.
pub(super) const NETWORK: &str = "model.onnx";

/// A model's files in memory.
pub(super) struct Files {
    /// Where they came from, for error texts.
    origin: PathBuf,
    manifest: Cow<'static, [u8]>,
    others: Vec<(String, Cow<'static, [u8]>)>,
}

impl Files {
    /// The files embedded in the library.
    pub(super) fn embedded() -> Files {
        const NETWORK_BYTES: &[u8] = include_bytes!("../../models/seed2020/model.onnx");
        const MANIFEST_BYTES: &[u8] = include_bytes!("../../models/seed2020/manifest.json");
        Files {
            origin: PathBuf::from("(embedded model)"),
            manifest: Cow::Borrowed(MANIFEST_BYTES),
            others: vec![(NETWORK.to_string(), Cow::Borrowed(NETWORK_BYTES))],
        }
    }

    /// Reads the manifest of a directory and the files it names.
    pub(super) fn read(dir: &Path) -> Result<Files> {
        let bytes = read_bounded(&dir.join(MANIFEST), MAX_MANIFEST)?;
        let mut files = Files { origin: dir.to_path_buf(), manifest: bytes.into(), others: vec![] };
        for (name, _) in files.manifest()?.files {
            let content = read_bounded(&dir.join(&name), MAX_FILE)?;
            files.others.push((name, content.into()));
        }
        files.verify()?;
        Ok(files)
    }

    /// The manifest, parsed and checked.
    pub(super) fn manifest(&self) -> Result<Manifest> {
        manifest::parse(&self.manifest).map_err(|reason| self.error(MANIFEST, reason))
    }

    /// Compares each file with its SHA-256 in the manifest.
    fn verify(&self) -> Result<()> {
        for (name, expected) in &self.manifest()?.files {
            let found = hex(&Sha256::digest(self.get(name)?));
            if *expected != found {
                let reason = format!("its SHA-256 is {found}, not {expected} as {MANIFEST} says");
                return Err(self.error(name, reason));
            }
        }
        Ok(())
    }

    /// The content of a file that the manifest names.
    pub(super) fn get(&self, name: &str) -> Result<&[u8]> {
        let found = self.others.iter().find(|(own, _)| own == name);
        let missing =
            || self.error(MANIFEST, format!("names no file {name}, which the model needs"));
        found.map(|(_, content)| content.as_ref()).ok_or_else(missing)
    }

    /// The SHA-256 of the manifest, which stands for the whole model.
    pub(super) fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.manifest).into()
    }

    /// An error about one of the files.
    pub(super) fn error(&self, name: &str, reason: impl std::fmt::Display) -> Error {
        Error::Model(format!("{}: {reason}", self.origin.join(name).display()))
    }
}

/// Reads a regular file of at most `max` bytes.
fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|reason| Error::file(path, reason))?;
    let about = file.metadata().map_err(|reason| Error::file(path, reason))?;
    if !about.is_file() {
        return Err(Error::file(path, "not a regular file"));
    }
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content).map_err(|reason| Error::file(path, reason))?;
    if content.len() as u64 > max {
        return Err(Error::file(
            path,
            format!("over {max} bytes, too large for this file of a model"),
        ));
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
        Files::embedded().verify().unwrap();
    }
}
