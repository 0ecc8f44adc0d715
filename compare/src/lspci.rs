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

/// lspci's readings of these functions of the dump at `path`, by their names ([`Dumped::name`]). What
/// it does not read from there it is given again in a form that has nothing but registers.
///
/// # Errors
/// lspci is not there, cannot be started, or cannot be given a part of the dump.
pub fn read(path: &Path, functions: &[Dumped]) -> Result<BTreeMap<String, Reading>, Error> {
    let mut readings = BTreeMap::new();
    let whole = run(&mut verbose(path))?;
    let printed = text::parse(&String::from_utf8_lossy(&whole.stdout));
    let is_one_group = printed.len() <= functions.len();
    if whole.status.success() && is_one_group {
        keep(printed, &mut readings);
    }
    // Each round settles at least one function.
    for _ in functions {
        let open = |function: &&Dumped| !readings.contains_key(&function.name());
        let rest: Vec<&Dumped> = functions.iter().filter(open).collect();
        let Some(first) = rest.first() else {
            break;
        };
        let mut file = tempfile::NamedTempFile::new().map_err(Error::Spawn)?;
        let text: String = rest.iter().map(|function| in_dump(function)).collect();
        file.write_all(text.as_bytes()).map_err(Error::Spawn)?;
        let output = run(&mut verbose(file.path()))?;
        let printed = text::parse(&String::from_utf8_lossy(&output.stdout));
        // It stops in the middle of the first function that it cannot bear, or before any.
        let culprit = match printed.last() {
            Some(function) => function.name.clone(),
            None => first.name(),
        };
        keep(printed, &mut readings);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or("it said nothing");
            readings.insert(culprit, Reading::GaveUp(said.to_owned()));
        }
    }
    Ok(readings)
}

fn keep(printed: Vec<Function>, readings: &mut BTreeMap<String, Reading>) {
    for function in printed {
        readings.insert(function.name.clone(), Reading::Function(function));
    }
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
