//! [`Corpus`]: tables to begin with.

use std::path::{Path, PathBuf};

use crate::tables;

/// Kinds of tables of which real ones are taken.
const KINDS: [&str; 7] = ["MCFG", "APIC", "DMAR", "IVRS", "SRAT", "SLIT", "HPET"];

/// Where tables of real machines are: `acpi` in the folder that `PORTCULLIS_DATA` names, or in
/// `../shared/data` beside the project; `None` if there is no such folder.
#[must_use]
pub fn real_tables() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let data = std::env::var_os("PORTCULLIS_DATA").unwrap_or_else(|| beside.into());
    let folder = Path::new(&data).join("acpi");
    folder.canonicalize().ok().filter(|folder| folder.is_dir())
}

/// Tables that mutations begin with.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    /// Built here, one of each kind with records of all kinds.
    pub built: Vec<Vec<u8>>,
    /// Of real machines.
    pub real: Vec<Vec<u8>>,
}

impl Corpus {
    /// The tables that are built here.
    #[must_use]
    pub fn built() -> Self {
        Self {
            built: vec![
                tables::full_dmar(),
                tables::full_ivrs(),
                tables::full_madt(),
                tables::full_srat(),
                tables::slit(4, &[10; 16]),
                tables::mcfg(&[(0xb000_0000, 0, 0, 255), (0x2_0000_0000, 1, 0x40, 0x7f)]),
                tables::hpet(0, 0xfed0_0000),
                tables::table(b"XSDT", &[0x10; 64]),
                tables::table(b"RSDT", &[0x10; 64]),
            ],
            real: Vec::new(),
        }
    }

    /// Adds the tables of real machines in `folder`, which has a folder for each. Two tables with
    /// the same bytes are one.
    ///
    /// # Errors
    /// A file or folder cannot be read.
    pub fn add_real(&mut self, folder: &Path) -> std::io::Result<()> {
        for machine in std::fs::read_dir(folder)? {
            let machine = machine?.path();
            if !machine.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(machine)? {
                let file = file?;
                let name = file.file_name();
                let name = name.to_string_lossy();
                if KINDS.iter().any(|kind| name.starts_with(kind)) {
                    self.real.push(std::fs::read(file.path())?);
                }
            }
        }
        // The order of a folder is not the same everywhere.
        self.real.sort();
        self.real.dedup();
        Ok(())
    }

    /// Number of tables.
    #[must_use]
    pub fn len(&self) -> usize {
        self.built.len() + self.real.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A table by number; built ones and real ones half of the time each.
    #[must_use]
    pub fn pick(&self, random: u64) -> &[u8] {
        let list = match random & 1 {
            1 if !self.real.is_empty() => &self.real,
            _ => &self.built,
        };
        let index = (random >> 1) % (list.len().max(1) as u64);
        list.get(index as usize).map_or(&[], Vec::as_slice)
    }
}
