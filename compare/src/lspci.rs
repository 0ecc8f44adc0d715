//! Runs `lspci -F` on a dump, and again on what is left if it stops at a function.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
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
/// lspci is not there, cannot be started, or cannot be given what is left of the dump after a
/// function at which it stopped.
pub fn read(path: &Path, functions: &[Dumped]) -> Result<BTreeMap<String, Reading>, Error> {
    let mut readings = BTreeMap::new();
    let mut output = run(&mut verbose(path))?;
    // Each round settles at least one function.
    for _ in functions {
        let printed = text::parse(&String::from_utf8_lossy(&output.stdout));
        let last = printed.last().map(|function| function.name.clone());
        for function in printed {
            readings.insert(function.name.clone(), Reading::Function(function));
        }
        if output.status.success() {
            break;
        }
        // It stops in the middle of the first function that it cannot bear, or before any.
        let open = |function: &&Dumped| !readings.contains_key(&function.name());
        let culprit = last.or_else(|| functions.iter().find(open).map(Dumped::name));
        if let Some(culprit) = culprit {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or("it said nothing").to_owned();
            readings.insert(culprit, Reading::GaveUp(said));
        }
        let open = |function: &&Dumped| !readings.contains_key(&function.name());
        let rest: String = functions.iter().filter(open).map(in_dump).collect();
        if rest.is_empty() {
            break;
        }
        let mut file = tempfile::NamedTempFile::new().map_err(Error::Spawn)?;
        file.write_all(rest.as_bytes()).map_err(Error::Spawn)?;
        output = run(&mut verbose(file.path()))?;
    }
    Ok(readings)
}

/// A function in the form of a dump.
fn in_dump(function: &Dumped) -> String {
    let mut text = format!("{} -\n", function.name());
    for (row, bytes) in function.bytes.chunks(16).enumerate() {
        let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{:02x}: {}\n", 16 * row, bytes.join(" "));
    }
    text + "\n"
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
