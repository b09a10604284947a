//! No panic leaves the library: every exported function runs its body in [`guard`].

use super::types::mlb_status;
use crate::error::Error;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// How a call ended, if not well.
pub(super) enum Failure {
    /// With an error of the library.
    Error(Error),
    /// With an argument that cannot be.
    Argument(&'static str),
    /// With a buffer too small.
    Range,
    /// With a panic.
    Panic,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl Failure {
    pub(super) fn status(&self) -> mlb_status {
        match self {
            Failure::Error(error) => error.into(),
            Failure::Argument(_) => mlb_status::MLB_E_INVALID,
            Failure::Range => mlb_status::MLB_E_RANGE,
            Failure::Panic => mlb_status::MLB_E_PANIC,
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Failure::Error(error) => error.to_string(),
            Failure::Argument(text) => (*text).to_owned(),
            Failure::Range => "the buffer is too small".to_owned(),
            Failure::Panic => "a panic inside the library was caught".to_owned(),
        }
    }
}

thread_local! {
    /// Whether this thread is inside the library. No destructor, so nothing runs at thread exit.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs the body of an exported function; a panic becomes a failure, and nothing is printed about it.
pub(super) fn guard<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    caught(body).unwrap_or(Err(Failure::Panic))
}

/// As [`guard`], for a body of any type: nothing if it panicked.
pub(super) fn caught<T>(body: impl FnOnce() -> T) -> Option<T> {
    INSIDE.with(|inside| {
        inside.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(body));
        inside.set(false);
        outcome.ok()
    })
}

/// Keeps panics of the library from writing to the host's standard error; those of a host written in Rust still do.
pub(super) fn silence_panics() {
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_ours =
                std::thread::current().name().is_some_and(|name| name.starts_with("mlbridge"));
            if !is_ours && !INSIDE.with(Cell::get) {
                before(info);
            }
        }));
    });
}
