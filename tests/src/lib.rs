//! Tests of the project as a whole that run on the host:
//!
//! - `tests/descriptions.rs`: one wrong system description for each rule;
//! - `tests/layers.rs`: which package may know which, and where `unsafe` may stand;
//! - `tests/habits.rs`: length of files, opening words, no paths of anybody's machine;
//! - `tests/documents.rs`: links, commands, files and descriptions that the documents name.
//!
//! Scenarios that run in QEMU are descriptions in `systems/` with a `[scenario]`
//! table; `./x test` finds and runs them.

#![no_std]
#![forbid(unsafe_code)]
