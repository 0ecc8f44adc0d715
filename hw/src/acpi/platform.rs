//! [`Platform`]: all tables at once, from the root pointer to bounded lists
//! that outlive the memory they were read from.
//!
//! Each part is judged by itself ([`Part`]): a broken DMAR is not the same as
//! none, and does not hide where configuration space is.

use heapless::Vec;

use super::hpet::Hpet;
use super::madt::{ApicUse, InterruptOverride, IoApic, LocalApic, Madt, MadtEntry};
use super::mcfg::Mcfg;
use super::plan::IommuPlan;
use super::root::{RootTable, Rsdp};
use super::srat::{Affinity, DeviceHandle, MemoryAffinity, MemoryAffinityFlags, Srat};
use super::table::{Rule, Signature, TableError, TableHeader};
use crate::Sbdf;
use crate::address::EcamWindow;

/// Tables that a root table may list.
const MAX_TABLES: usize = 128;
/// Longest table that is read: 2,000 processors take 32 KiB.
const MAX_TABLE_BYTES: u32 = 256 * 1024;

/// What a table says: `Ok(None)` if the machine has no such table.
pub type Part<T> = Result<Option<T>, TableError>;

/// Physical memory with firmware's tables in it.
pub trait PhysicalMemory {
    /// The `length` bytes from physical `address` on, until the next call; `None` if they
    /// cannot be read.
    fn bytes(&mut self, address: u64, length: usize) -> Option<&[u8]>;
}

/// What the MADT says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InterruptPlan {
    /// Physical address of the local APICs.
    pub local_apic_address: u64,
    /// Processors that can be started.
    pub processors: Vec<LocalApic, 288>,
    /// IOAPICs.
    pub io_apics: Vec<IoApic, 32>,
    /// ISA interrupts that are wired to another number.
    pub overrides: Vec<InterruptOverride, 16>,
}

/// What the SRAT says: proximity domains. For most devices firmware gives the domain of their host
/// bridge in AML, which is not read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProximityPlan {
    /// Local APIC ids of processors, and their domains.
    pub processors: Vec<(u32, u32), 288>,
    /// Memory that counts.
    pub memory: Vec<MemoryAffinity, 64>,
    /// Functions that the table names itself, and their domains.
    pub devices: Vec<(Sbdf, u32), 64>,
}

/// What the firmware's tables say about the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform {
    /// MCFG: ECAM windows.
    pub ecam: Part<Vec<EcamWindow, 16>>,
    /// DMAR or IVRS: remapping units.
    pub remapping: Part<IommuPlan>,
    /// MADT: processors and interrupt controllers.
    pub interrupts: Part<InterruptPlan>,
    /// HPET: the first timer block.
    pub hpet: Part<Hpet>,
    /// SRAT: what is near what.
    pub proximity: Part<ProximityPlan>,
}

impl Platform {
    /// Goes from the root pointer through the list of tables; of two tables of a kind the first counts.
    ///
    /// # Errors
    /// The list itself is broken. What is wrong with a single table is in its part.
    pub fn discover<M: PhysicalMemory>(memory: &mut M, rsdp: &Rsdp) -> Result<Self, TableError> {
        let mut found = Self {
            ecam: Ok(None),
            remapping: Ok(None),
            interrupts: Ok(None),
            hpet: Ok(None),
            proximity: Ok(None),
        };
        for address in list(memory, rsdp)? {
            // A table that cannot even be named is none of ours.
            let Ok(header) = header(memory, address, Signature(*b"????")) else {
                continue;
            };
            match header.signature {
                Signature::MCFG => {
                    first(&mut found.ecam, || windows(whole(memory, address, header)?))
                }
                // No machine has both.
                Signature::DMAR | Signature::IVRS => first(&mut found.remapping, || {
                    IommuPlan::from_bytes(whole(memory, address, header)?)
                }),
                Signature::SRAT => first(&mut found.proximity, || {
                    ProximityPlan::from_bytes(whole(memory, address, header)?)
                }),
                Signature::APIC => first(&mut found.interrupts, || {
                    InterruptPlan::from_bytes(whole(memory, address, header)?)
                }),
                Signature::HPET => first(&mut found.hpet, || {
                    Hpet::parse(whole(memory, address, header)?)
                }),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn first<T>(part: &mut Part<T>, read: impl FnOnce() -> Result<T, TableError>) {
    if matches!(part, Ok(None)) {
        *part = read().map(Some);
    }
}

/// Addresses of all tables: copied, since reading a table may unmap the list.
fn list<M: PhysicalMemory>(
    memory: &mut M,
    rsdp: &Rsdp,
) -> Result<Vec<u64, MAX_TABLES>, TableError> {
    let (address, kind) = rsdp.root_table();
    let header = header(memory, address, kind)?;
    let root = RootTable::parse(whole(memory, address, header)?, kind)?;
    let mut addresses = Vec::new();
    for address in root.addresses() {
        keep(&mut addresses, address, kind, "tables")?;
    }
    Ok(addresses)
}

fn header<M: PhysicalMemory>(
    memory: &mut M,
    address: u64,
    expected: Signature,
) -> Result<TableHeader, TableError> {
    TableHeader::parse(
        bytes(memory, address, TableHeader::BYTES, expected)?,
        expected,
    )
}

fn whole<M: PhysicalMemory>(
    memory: &mut M,
    address: u64,
    header: TableHeader,
) -> Result<&[u8], TableError> {
    if header.length > MAX_TABLE_BYTES {
        return Err(TableError {
            table: header.signature,
            offset: 4,
            rule: Rule::BadValue {
                field: "table length",
                value: u64::from(header.length),
            },
        });
    }
    bytes(memory, address, header.length as usize, header.signature)
}

fn bytes<M: PhysicalMemory>(
    memory: &mut M,
    address: u64,
    length: usize,
    table: Signature,
) -> Result<&[u8], TableError> {
    let unreadable = TableError {
        table,
        offset: 0,
        rule: Rule::Unreadable { address },
    };
    memory.bytes(address, length).ok_or(unreadable)
}

fn windows(bytes: &[u8]) -> Result<Vec<EcamWindow, 16>, TableError> {
    let mut windows = Vec::new();
    for window in Mcfg::parse(bytes)?.windows() {
        keep(&mut windows, window?, Signature::MCFG, "ECAM windows")?;
    }
    Ok(windows)
}

impl InterruptPlan {
    /// Reads a MADT. Processors that cannot be started are left out, and the second of two
    /// entries for one processor, which firmware may give in both forms.
    ///
    /// # Errors
    /// The table breaks a rule, or says more than is kept.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TableError> {
        let madt = Madt::parse(bytes)?;
        let table = Signature::APIC;
        let mut plan = Self {
            local_apic_address: u64::from(madt.local_apic_address),
            ..Self::default()
        };
        for entry in madt.entries() {
            match entry? {
                MadtEntry::LocalApic(apic) => {
                    let known = plan.processors.iter().any(|other| other.id == apic.id);
                    if apic.usable == ApicUse::Enabled && !known {
                        keep(&mut plan.processors, apic, table, "processors")?;
                    }
                }
                MadtEntry::IoApic(apic) => keep(&mut plan.io_apics, apic, table, "IOAPICs")?,
                MadtEntry::Override(line) => {
                    keep(&mut plan.overrides, line, table, "interrupt overrides")?;
                }
                MadtEntry::LocalApicAddress(address) => plan.local_apic_address = address,
                MadtEntry::Other { .. } => {}
            }
        }
        Ok(plan)
    }
}

impl ProximityPlan {
    /// Reads a SRAT. Entries that firmware marks as not counting are left out.
    ///
    /// # Errors
    /// The table breaks a rule, or says more than is kept.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TableError> {
        let table = Signature::SRAT;
        let mut plan = Self::default();
        for entry in Srat::parse(bytes)?.entries() {
            match entry? {
                Affinity::Processor(one) if one.enabled => {
                    let entry = (one.apic_id, one.domain);
                    keep(&mut plan.processors, entry, table, "processors")?;
                }
                Affinity::Memory(range) if range.flags.contains(MemoryAffinityFlags::ENABLED) => {
                    keep(&mut plan.memory, range, table, "memory ranges")?;
                }
                Affinity::Initiator(device) if device.enabled => {
                    if let DeviceHandle::Pci(at) = device.device {
                        keep(&mut plan.devices, (at, device.domain), table, "devices")?;
                    }
                }
                _ => {}
            }
        }
        Ok(plan)
    }

    /// Proximity domain of a function, where the table names it.
    #[must_use]
    pub fn domain_of(&self, device: Sbdf) -> Option<u32> {
        let named = self.devices.iter().find(|(at, _)| *at == device)?;
        Some(named.1)
    }
}

fn keep<T, const N: usize>(
    list: &mut Vec<T, N>,
    item: T,
    table: Signature,
    what: &'static str,
) -> Result<(), TableError> {
    list.push(item).map_err(|_| TableError {
        table,
        offset: 0,
        rule: Rule::TooMany {
            what,
            limit: N as u32,
        },
    })
}
