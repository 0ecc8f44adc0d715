//! What is wrong with a description on this machine: [`check`]. The tool has
//! checked the same description, but for the machine that it was told about; and
//! the compiled form may come from anywhere. The root task believes neither.

mod vectors;

use core::fmt;

use system::bundle::program;
use system::layout::{INDEX_BITS, MAX_PDS, MAX_SHARDS, priority};
use system::model::{self, Client, End, IommuChoice, System};
use thiserror::Error;

use crate::facts::Machine;

/// Vectors that the kernel has for users on x86_64 (`irq_user_max` of 5.0.0's `plat/machine.h`).
pub const VECTORS: u16 = 108;
/// Largest stack of a client, in pages.
const MAX_STACK_PAGES: u16 = 1024;
/// Sizes of a client's own untyped, in bits.
const UNTYPED_BITS: core::ops::RangeInclusive<u8> = 12..=26;
/// Pages of table memory that make sense.
const TABLE_PAGES: core::ops::RangeInclusive<u32> = 16..=(1 << 18);

/// A rule that the description breaks on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PolicyError {
    /// The tool and the root task are of different versions.
    #[error("the description has format {0}, this root task reads {expected}: rebuild with ./x", expected = model::FORMAT)]
    Format(u32),
    /// The kernel drives the IOMMU itself.
    #[error(
        "the kernel's own IOMMU driver is on ({0} levels): start the kernel with `disable_iommu`, or say `iommu = \"kernel\"`"
    )]
    KernelIommu(u64),
    /// The kernel's own IOMMU driver is asked for and is off.
    #[error(
        "the description asks for the kernel's own IOMMU driver, and that is off: the machine has no unit for it, or the kernel was started with `disable_iommu`"
    )]
    NoKernelIommu,
    /// VT-d is asked for and there is none.
    #[error("the description asks for VT-d, and the machine has no DMAR table with a unit")]
    NoVtd,
    /// AMD-Vi is asked for and there is none.
    #[error("the description asks for AMD-Vi, and the machine has no IVRS table with a unit")]
    NoAmdVi,
    /// There is no HPET.
    #[error("the machine has no HPET that can be used: the timer service needs one")]
    NoTimer,
    /// A program is not in the bundle.
    #[error("{pd}: the image has no program `{program}`")]
    NoProgram {
        /// Who needs it.
        pd: model::Name,
        /// Its name.
        program: model::Name,
    },
    /// A name stands for two PDs, or for a server.
    #[error("the name `{0}` is a server's or another client's")]
    Name(model::Name),
    /// A number of a client is outside its range.
    #[error("{client}: {what} is {value}, it may be {least} to {most}")]
    Range {
        /// Whose.
        client: model::Name,
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u64,
        /// Least it may be.
        least: u64,
        /// Most it may be.
        most: u64,
    },
    /// A number of the system is outside its range.
    #[error("{what} is {value}, it may be {least} to {most}")]
    SystemRange {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u64,
        /// Least it may be.
        least: u64,
        /// Most it may be.
        most: u64,
    },
    /// More PDs than there can be.
    #[error("{0} protection domains, there can be {max}", max = MAX_PDS)]
    TooManyPds(usize),
    /// A channel does not join two clients.
    #[error("the channel `{0}` does not join two different clients, or another bears its name")]
    Channel(model::Name),
    /// The run would never end.
    #[error("the description ends the run when its clients have finished, and none has to finish")]
    NeverEnds,
}

/// A list of programs by name.
pub trait Programs {
    /// Is there a program of this name?
    fn has(&self, name: &str) -> bool;
}

impl Programs for system::bundle::Bundle<'_> {
    fn has(&self, name: &str) -> bool {
        name != system::bundle::SYSTEM && self.find(name).is_some()
    }
}

/// Checks a description against the machine and the bundle, with `pci_shards` as planned.
///
/// # Errors
/// The first rule that is broken.
pub fn check(
    system: &System,
    machine: &Machine,
    programs: &impl Programs,
    pci_shards: usize,
) -> Result<(), PolicyError> {
    if system.format != model::FORMAT {
        return Err(PolicyError::Format(system.format));
    }
    match (system.iommu, machine.kernel_iommu_levels) {
        (IommuChoice::Kernel, 0) => return Err(PolicyError::NoKernelIommu),
        (_, 0) | (IommuChoice::Kernel | IommuChoice::None, _) => {}
        (_, levels) => return Err(PolicyError::KernelIommu(levels)),
    }
    let has = |kind| machine.units.iter().any(|unit| unit.kind == kind);
    match system.iommu {
        IommuChoice::Vtd if !has(IommuChoice::Vtd) => return Err(PolicyError::NoVtd),
        IommuChoice::AmdVi if !has(IommuChoice::AmdVi) => return Err(PolicyError::NoAmdVi),
        _ => {}
    }
    if machine.timer.is_none() {
        return Err(PolicyError::NoTimer);
    }
    let number = |what, value: u64, least: u64, most: u64| in_range(None, what, value, least, most);
    number(
        "the number of msi-server shards",
        system.shards.msi.into(),
        1,
        MAX_SHARDS as u64,
    )?;
    vectors::check(system)?;
    number(
        "the number of pci-server shards",
        system.shards.pci.into(),
        0,
        MAX_SHARDS as u64,
    )?;
    number(
        "the memory for IOMMU tables, in pages,",
        system.table_pages.into(),
        (*TABLE_PAGES.start()).into(),
        (*TABLE_PAGES.end()).into(),
    )?;
    number("the DMA pool", system.dma_pool, 4096, 1 << 40)?;
    let pds = 4 + usize::from(system.shards.msi) + pci_shards + system.clients.len();
    if pds > MAX_PDS {
        return Err(PolicyError::TooManyPds(pds));
    }
    for server in [
        program::CONSOLE,
        program::TIMER,
        program::IOMMU,
        program::MSI,
        program::PCI,
    ] {
        if !programs.has(server) {
            let name = model::Name::try_from(server).unwrap_or_default();
            return Err(PolicyError::NoProgram {
                pd: name.clone(),
                program: name,
            });
        }
    }
    for (index, client) in system.clients.iter().enumerate() {
        let before = system
            .clients
            .iter()
            .take(index)
            .any(|other| other.name == client.name);
        if before || is_reserved(&client.name) {
            return Err(PolicyError::Name(client.name.clone()));
        }
        check_client(client, system, machine, programs)?;
    }
    for (index, channel) in system.channels.iter().enumerate() {
        let [first, second] = channel.ends;
        let known = |id: u16| usize::from(id) < system.clients.len();
        let mut before = system.channels.iter().take(index);
        if first == second
            || !known(first)
            || !known(second)
            || before.any(|other| other.name == channel.name)
        {
            return Err(PolicyError::Channel(channel.name.clone()));
        }
    }
    if system.end == End::Finished && !system.clients.iter().any(|client| client.must_finish) {
        return Err(PolicyError::NeverEnds);
    }
    Ok(())
}

fn check_client(
    client: &Client,
    system: &System,
    machine: &Machine,
    programs: &impl Programs,
) -> Result<(), PolicyError> {
    if !programs.has(&client.program) {
        return Err(PolicyError::NoProgram {
            pd: client.name.clone(),
            program: client.program.clone(),
        });
    }
    let number = |what, value: u64, least: u64, most: u64| {
        in_range(Some(&client.name), what, value, least, most)
    };
    number(
        "its priority",
        client.priority.into(),
        1,
        priority::CLIENT_MAX.into(),
    )?;
    number(
        "its core",
        client.core.into(),
        0,
        u64::from(machine.cores.max(1)) - 1,
    )?;
    number(
        "its stack, in pages,",
        client.stack_pages.into(),
        1,
        MAX_STACK_PAGES.into(),
    )?;
    let (least, most) = (*UNTYPED_BITS.start(), *UNTYPED_BITS.end());
    number(
        "its untyped memory, in bits,",
        client.untyped_bits.into(),
        least.into(),
        most.into(),
    )?;
    number(
        "its grant window, in bits,",
        client.window_bits.into(),
        1,
        INDEX_BITS.into(),
    )?;
    number("its DMA quota", client.dma_quota, 0, system.dma_pool)?;
    number("its largest buffer", client.largest_buffer, 4096, u64::MAX)?;
    number(
        "its number of vectors",
        client.vectors.into(),
        0,
        VECTORS.into(),
    )
}

fn in_range(
    client: Option<&model::Name>,
    what: &'static str,
    value: u64,
    least: u64,
    most: u64,
) -> Result<(), PolicyError> {
    match client {
        _ if (least..=most).contains(&value) => Ok(()),
        Some(client) => Err(PolicyError::Range {
            client: client.clone(),
            what,
            value,
            least,
            most,
        }),
        None => Err(PolicyError::SystemRange {
            what,
            value,
            least,
            most,
        }),
    }
}

/// Is it the root task's name, or does it begin like a server's?
fn is_reserved(name: &str) -> bool {
    let stems = [
        program::CONSOLE,
        program::TIMER,
        program::IOMMU,
        program::MSI,
        program::PCI,
    ];
    let is = |stem: &str| {
        name.strip_prefix(stem)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    name.is_empty() || name == "root" || stems.iter().any(|stem| is(stem))
}

/// A name made of a stem and a shard's number.
#[must_use]
pub fn shard_name(stem: &str, shard: u8) -> model::Name {
    let mut name = model::Name::new();
    // The longest stem and three digits fit a name (a test holds it).
    let _ = fmt::Write::write_fmt(&mut name, format_args!("{stem}-{shard}"));
    name
}

#[cfg(test)]
pub(crate) mod tests;
