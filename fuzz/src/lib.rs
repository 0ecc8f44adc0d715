//! Malformed input for the readers of what firmware says, without end and
//! reproducible: input `n` of a seed is the same on every machine.
//!
//! | Module | What it does |
//! |---|---|
//! | [`corpus`] | tables to begin with: built here, and of real machines where there are any |
//! | [`mutate`] | breaks a table as firmware, or an attacker, would |
//! | [`check`] | reads it, and holds what must be true whatever it is |
//! | [`run`] | millions of that on all processors, with a watch on inputs that do not end |
//!
//! Why not a coverage-guided fuzzer: those need a nightly compiler. The readers are small and the mutations know
//! the structure of tables, so that every rule is reached; [`check::Outcome`] counts which were.
#![forbid(unsafe_code)]

pub mod check;
pub mod corpus;
pub mod mutate;
pub mod run;
pub mod topology;

#[path = "../../hw/tests/tables/mod.rs"]
mod tables;
