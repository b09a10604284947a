//! Training and evaluation: from lists of names to a model's directory, and from a model to its figures.
//!
//! `names` reads lists; `encode` turns names into rows; `bag`, `conv` and `adam` are the nets and how they learn; `run`
//! is the recipe; `calibrate` finds the false-positive rates; `write` makes the directory, with golden scores from
//! `reference`; `evaluate` and `report` tell how good a model is, `compare` whether it may replace another. Only the command line uses this; nothing here runs
//! inside a DNS server.

// No query, file or server reaches an index here unchecked: what a file holds is checked where it is read
// (`names`), and everything after that indexes arrays that this module itself has sized.
#![allow(clippy::indexing_slicing, clippy::expect_used)]

mod adam;
mod bag;
pub mod calibrate;
pub mod compare;
mod conv;
mod encode;
pub mod evaluate;
pub mod metrics;
pub mod names;
mod reference;
pub mod report;
pub mod run;
pub mod write;
