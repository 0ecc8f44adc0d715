//! Compares two readings of a dump of configuration spaces, field by field: that
//! of `portcullis-hw` through the simulated configuration space, and that of
//! `lspci -F`, which knows nothing of this project.
//!
//! In the order of a comparison:
//!
//! - [`lspci`] runs the program; [`text`] splits what it printed into functions,
//!   capabilities and tokens.
//! - [`ours`] reads the same function with `hw` and gives the fields that it found,
//!   under the names that lspci has for them.
//! - [`matching`] pairs tokens with fields; [`explain`] is the table of the reasons for
//!   which two readings may differ.
//! - [`report`] counts and prints.
//!
//! Start with [`compare`]. It knows `hw` and `sim` alone.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test may stop at the first surprise"
    )
)]

pub mod explain;
pub mod field;
pub mod lspci;
pub mod matching;
pub mod ours;
pub mod report;
pub mod sizes;
pub mod text;

use std::path::{Path, PathBuf};

use sim::config::{DumpError, Dumped, Machine, dump};

use report::{Dump, Report};

/// Why a dump could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The dump makes no sense.
    #[error("{}: {source}", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DumpError,
    },
    /// There is no lspci, or it failed.
    #[error(transparent)]
    Lspci(#[from] lspci::Error),
}

/// Compares the readings of the dump at `path`; with `regions` also the sizes of BARs on a machine
/// that is modelled after that file.
///
/// # Errors
/// A file cannot be read or makes no sense, or lspci cannot be run. That readings differ is no
/// error, but in the report.
pub fn compare(path: &Path, regions: Option<&Path>) -> Result<Report, Error> {
    let text = read(path)?;
    let in_dump = |source| Error::Dump {
        path: path.to_owned(),
        source,
    };
    let functions = dump::read(&text).map_err(in_dump)?;
    let mut result = Dump::new(path);
    for group in groups(functions) {
        let mut machine = Machine::new();
        for function in &group {
            machine.insert(function.at, function.space());
        }
        let theirs = lspci::read(path, &group)?;
        for function in &group {
            let ours = ours::read(&machine, function);
            let theirs = theirs.get(&function.name());
            result.functions.push(matching::compare(&ours, theirs));
        }
    }
    if let Some(regions) = regions {
        let sizes = read(regions)?;
        let mut machine = Machine::from_lspci(&text).map_err(in_dump)?;
        machine
            .apply_regions(&sizes)
            .map_err(|source| Error::Dump {
                path: regions.to_owned(),
                source,
            })?;
        result.sizes = sizes::compare(&mut machine, &sizes);
    }
    Ok(Report {
        dumps: vec![result],
    })
}

/// The functions in groups in which every address is there once: a dump may be several in one file.
fn groups(functions: Vec<Dumped>) -> Vec<Vec<Dumped>> {
    let mut groups: Vec<Vec<Dumped>> = Vec::new();
    for function in functions {
        let is_free = |group: &&mut Vec<Dumped>| group.iter().all(|other| other.at != function.at);
        match groups.iter_mut().find(is_free) {
            Some(group) => group.push(function),
            None => groups.push(vec![function]),
        }
    }
    groups
}

fn read(path: &Path) -> Result<String, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(source) => Err(Error::File {
            path: path.to_owned(),
            source,
        }),
    }
}
