//! Runs `lspci -F` on a dump, and again for each function if it gives up on the whole.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Command, Output};

use sim::config::dump::Dumped;

use crate::text::{self, Function};

/// Why there is no reading of lspci's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not installed.
    #[error("lspci is missing: install the Debian package pciutils")]
    Missing,
    /// It cannot be started.
    #[error("cannot run lspci: {0}")]
    Spawn(io::Error),
}

/// lspci's reading of one function, or what it said instead.
#[derive(Clone, Debug)]
pub enum Reading {
    /// What it printed.
    Function(Function),
    /// It gave up.
    GaveUp(String),
}

/// Version of the installed lspci, as it says it.
///
/// # Errors
/// It is not there, or cannot be started.
pub fn version() -> Result<String, Error> {
    let output = run(Command::new("lspci").arg("--version"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// lspci's readings of the dump at `path` by the functions' names ([`Dumped::name`]).
///
/// # Errors
/// lspci is not there, or cannot be started.
pub fn read(path: &Path, functions: &[Dumped]) -> Result<BTreeMap<String, Reading>, Error> {
    let whole = run(&mut verbose(path))?;
    let mut readings = BTreeMap::new();
    if whole.status.success() {
        for function in text::parse(&String::from_utf8_lossy(&whole.stdout)) {
            readings.insert(function.name.clone(), Reading::Function(function));
        }
        return Ok(readings);
    }
    // It stops at the first function that it cannot bear.
    for function in functions {
        let name = function.name();
        let output = run(verbose(path).arg("-s").arg(&name))?;
        let printed = text::parse(&String::from_utf8_lossy(&output.stdout));
        let reading = match printed.into_iter().next() {
            Some(function) if output.status.success() => Reading::Function(function),
            _ => {
                let said = String::from_utf8_lossy(&output.stderr);
                Reading::GaveUp(said.lines().last().unwrap_or("it said nothing").to_owned())
            }
        };
        readings.insert(name, reading);
    }
    Ok(readings)
}

fn verbose(path: &Path) -> Command {
    let mut command = Command::new("lspci");
    command
        .arg("-F")
        .arg(path)
        .args(["-vvv", "-nn", "-D"])
        .env("LC_ALL", "C");
    command
}

fn run(command: &mut Command) -> Result<Output, Error> {
    command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing,
        _ => Error::Spawn(error),
    })
}
