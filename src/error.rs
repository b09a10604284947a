//! The crate's one error type.
//!
//! Texts are lower case, without a full stop, and name the setting or the file and the value at fault. They never show a
//! secret. The map to the C status codes stands in `ffi`.

use std::fmt;
use std::path::Path;

/// What can go wrong in the library.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An impossible argument, for example a client address of five bytes.
    Invalid(String),
    /// The bytes are not a domain name.
    Name(&'static str),
    /// A setting is unknown, malformed, out of bounds or contradicts another one.
    Config(String),
    /// A file, a directory or the store could not be used.
    Io(String),
    /// The model could not be loaded, or failed to score.
    Model(String),
    /// The work was not done within the time allowed.
    Timeout(String),
    /// The process forked after the engine's worker thread had started; only the parent records.
    Forked,
    /// Somebody else holds what is needed; the text names the process.
    Busy(String),
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error about one setting, in the one form all settings errors have.
    pub fn setting(key: &str, value: &str, reason: impl fmt::Display) -> Error {
        Error::Config(format!("{key}: \"{value}\" {reason}"))
    }

    /// An error about a file, in the one form all file errors have.
    pub fn file(path: &Path, reason: impl fmt::Display) -> Error {
        Error::Io(format!("{}: {reason}", path.display()))
    }

    /// The error with the place of the mistake before its text: a setting's key, the first part of one, or the file that
    /// holds it. Which file is at fault does not say where to change it.
    pub fn under(self, key: &str) -> Error {
        match self {
            Error::Config(text) => Error::Config(format!("{key}{text}")),
            Error::Io(text) => Error::Io(format!("{key}{text}")),
            Error::Model(text) => Error::Model(format!("{key}{text}")),
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Name(reason) => write!(f, "not a domain name: {reason}"),
            Error::Forked => f.write_str(
                "the process forked after the engine had started; this child records nothing",
            ),
            Error::Invalid(text)
            | Error::Config(text)
            | Error::Io(text)
            | Error::Model(text)
            | Error::Timeout(text)
            | Error::Busy(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}
