//! `./x plan FOLDER`: which remapping unit serves which device, as the ACPI tables of a machine
//! say, or of many machines. What a plan is: [`hw::acpi::plan`].

use super::Success;
use crate::error::Error;
use hw::acpi::IommuPlan;
use hw::acpi::plan::{NoTopology, Topology};
use owo_colors::OwoColorize;
use sim::config::Machine;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How files with tables of remapping units begin.
const TABLES: [&str; 2] = ["DMAR", "IVRS"];

/// What the tables of all machines came to.
#[derive(Default)]
struct Tally {
    plans: usize,
    refused: usize,
    machines: usize,
    /// Machines without such a table.
    without: usize,
}

/// Shows the plans of the machine whose tables are in `folder`, or of the machines whose folders
/// are in it; with a dump of configuration space (`lspci -xxxx`) also what is behind bridges.
///
/// # Errors
/// A folder or file cannot be read, or the dump makes no sense. A table that is refused is no error.
pub fn plan(folder: &Path, dump: Option<&Path>) -> Result<Success, Error> {
    let machine = dump.map(configuration).transpose()?;
    let topology: &dyn Topology = match &machine {
        Some(machine) => machine,
        None => &NoTopology,
    };
    let mut tally = Tally::default();
    let own = tables(folder)?;
    if own.is_empty() {
        for machine in sorted(folder)?.iter().filter(|path| path.is_dir()) {
            tally.machine(machine, &tables(machine)?, topology)?;
        }
    } else {
        tally.machine(folder, &own, topology)?;
    }
    // One machine has been shown whole.
    if tally.machines > 1 {
        tally.show();
    }
    Ok(match tally.plans {
        0 => Success::No,
        _ => Success::Yes,
    })
}

impl Tally {
    fn machine(
        &mut self,
        folder: &Path,
        tables: &[PathBuf],
        topology: &dyn Topology,
    ) -> Result<(), Error> {
        self.machines += 1;
        if tables.is_empty() {
            self.without += 1;
        }
        let machine = folder.file_name().unwrap_or(folder.as_os_str());
        for table in tables {
            let bytes = std::fs::read(table).map_err(Error::file("read", table))?;
            let file = table.file_name().unwrap_or_default();
            let heading = format!("{} {}", machine.display(), file.display());
            anstream::println!("{}", heading.bold());
            match IommuPlan::from_bytes(&bytes) {
                Ok(plan) => {
                    self.plans += 1;
                    anstream::println!("{}", plan.show(topology));
                }
                Err(error) => {
                    self.refused += 1;
                    anstream::println!("{}: {error}\n", "refused".red().bold());
                }
            }
        }
        Ok(())
    }

    fn show(&self) {
        let Self {
            plans,
            refused,
            machines,
            without,
        } = self;
        anstream::println!(
            "{machines} machines: {plans} plans, {refused} refused; {without} without DMAR and IVRS"
        );
    }
}

/// The machine of a dump.
fn configuration(dump: &Path) -> Result<Machine, Error> {
    let text = std::fs::read_to_string(dump).map_err(Error::file("read", dump))?;
    let unread = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    Machine::from_lspci(&text).map_err(|error| Error::file("read", dump)(unread(error)))
}

/// The files of a folder that hold tables of remapping units.
fn tables(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = sorted(folder)?;
    files.retain(|path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        path.is_file()
            && !name.ends_with(".dsl")
            && TABLES.iter().any(|table| name.starts_with(table))
    });
    Ok(files)
}

/// What is in a folder, by name.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
        let mut paths = entries.collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    list().map_err(Error::file("list", folder))
}
