//! mlbridge: machine-learning verdicts on domain names, inside the DNS server.
//!
//! A DNS server asks about each queried name and gets, without leaving its process, a score, a decision (allow, vet,
//! block) and what to answer. This crate is the library behind the C ABI of `include/mlbridge.h`; `ARCHITECTURE.md`
//! says how the parts fit.

#![deny(missing_docs, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

#[cfg(panic = "abort")]
compile_error!(
    "mlbridge must be built with panic = \"unwind\": a panic must never end the DNS server"
);

mod cache;
pub mod config;
pub mod elastic;
pub mod engine;
pub mod error;
pub mod ffi;
pub mod model;
pub mod name;
pub mod policy;
pub mod stats;
pub mod store;
pub mod suffix;
pub mod sys;
#[cfg(feature = "train")]
pub mod train;
pub mod verdict;

pub use config::Config;
pub use engine::Engine;
pub use error::{Error, Result};
pub use model::Model;
pub use name::Name;
pub use verdict::{Action, Decision, Label, Source, Verdict};
