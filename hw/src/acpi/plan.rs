//! What a DMAR or an IVRS comes down to: [`IommuPlan`]: the remapping units, which
//! devices each serves, which memory is reserved for which devices, and the
//! requester ids of IOAPICs and timers.
//!
//! A table names devices behind bridges by the way to them, so a plan is symbolic: it stays true
//! when buses are renumbered. [`IommuPlan::claims`] makes numbers of it, with a [`Topology`] that
//! tells which buses are behind a bridge: [`Claims`].
//!
//! A table that breaks a rule, contradicts itself or says more than is kept gives no plan at all
//! but a [`TableError`]: to serve a device by the wrong unit leaves it unprotected.

mod amdvi;
mod claims;
mod show;
mod vtd;

pub use claims::{Claim, Claims, NoTopology, Served, Topology, Unserved};
pub use show::Shown;

use heapless::{String, Vec};

use super::dmar::{Path, PathHop};
use super::ivrs::{BlockKind, Declared, DeviceSettings, UnitFlags};
use super::table::{Rule, Signature, TableError};

/// Units that are kept.
pub const MAX_UNITS: usize = 32;
/// Scopes of units that are kept.
pub const MAX_SCOPES: usize = 384;
/// Reserved regions that are kept.
pub const MAX_RESERVED: usize = 64;
/// Scopes of reserved regions that are kept.
pub const MAX_RESERVED_SCOPES: usize = 128;
/// Sources of interrupts that are kept.
pub const MAX_SOURCES: usize = 96;
/// Statements about address translation services that are kept.
pub const MAX_ATS: usize = 64;
/// Bytes of the name of a device that are kept.
pub const MAX_NAME: usize = 32;

/// A name of a device that only ACPI's name space has: of a longer one the end.
pub type Name = String<MAX_NAME, u8>;

/// What an AMD unit is, besides what all units are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AmdviUnit {
    /// Requester id of the function that the unit is: nobody may have it.
    pub id: u16,
    /// Offset of the unit's capability in that function's configuration space.
    pub capability: u16,
    /// Form of the block that was chosen: the highest.
    pub form: BlockKind,
    /// What it can do.
    pub flags: UnitFlags,
    /// Attributes, see [`super::Ivhd::features`].
    pub features: u32,
    /// Image of the extended feature register; 0 where firmware gives none.
    pub extended_features: u64,
    /// Number of the unit's own MSI.
    pub message: u8,
}

/// Which driver a unit needs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnitKind {
    /// Intel VT-d.
    Vtd,
    /// AMD-Vi.
    Amdvi(AmdviUnit),
}

/// A remapping unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UnitPlan {
    /// Which driver it needs.
    pub kind: UnitKind,
    /// Physical address of its registers.
    pub base: u64,
    /// Bytes of registers.
    pub size: u64,
    /// PCI segment of its devices.
    pub segment: u16,
    /// Serves every device of the segment that no other unit names.
    pub include_all: bool,
    /// Proximity domain, where the table gives one.
    pub domain: Option<u32>,
}

/// Devices, as a table names them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Extent {
    /// All of the segment.
    All,
    /// Requester ids from `first` to `last`, included.
    Ids {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// The function that a path leads to.
    Function(Path),
    /// The bridge that a path leads to, and everything behind it.
    Hierarchy(Path),
}

/// Devices that belong to a unit or region.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OwnedExtent {
    /// Index in [`IommuPlan::units`] or [`IommuPlan::reserved`].
    pub owner: u8,
    /// The devices.
    pub extent: Extent,
    /// What else the table says about them (AMD only).
    pub declared: Declared,
}

/// How devices reach reserved memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Each page is to be mapped to itself, with these rights.
    Identity {
        /// Devices read.
        read: bool,
        /// Devices write.
        write: bool,
    },
    /// Addresses in it are to be left untranslated (exclusion range of AMD); an identity mapping
    /// with all rights does the same.
    Excluded,
}

/// Memory that firmware has devices use by DMA. Who uses it: [`IommuPlan::reserved_scopes`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reserved {
    /// PCI segment of the devices.
    pub segment: u16,
    /// First physical address, a multiple of 4 KiB.
    pub base: u64,
    /// Last physical address, included.
    pub limit: u64,
    /// What the devices do there.
    pub access: Access,
}

/// What sends interrupts, or DMA, without being a PCI function.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SourceKind {
    /// The IOAPIC with this id, as the MADT has it.
    IoApic(u8),
    /// The timer block with this number.
    Hpet(u8),
    /// A device that only ACPI's name space has. The name is for people.
    NameSpace(Name),
}

/// A source that is no PCI function, and the requester id that its transactions carry.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// Index in [`IommuPlan::units`] of the unit that serves it.
    pub unit: u8,
    /// The source.
    pub kind: SourceKind,
    /// The way to its requester id, in the unit's segment.
    pub path: Path,
    /// Interrupts that pass the unit (AMD only).
    pub settings: DeviceSettings,
}

/// Which devices may use address translation services.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AtsKind {
    /// Devices behind these root ports (ATSR).
    BehindPort,
    /// These integrated devices (SATC).
    Integrated,
    /// These integrated devices, which do not work without (SATC).
    Required,
}

/// A statement about address translation services (VT-d only: AMD says it with each device).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AtsScope {
    /// What is said.
    pub kind: AtsKind,
    /// PCI segment of the devices.
    pub segment: u16,
    /// The devices.
    pub extent: Extent,
}

/// What a DMAR or an IVRS says, with bounds on everything; see the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IommuPlan {
    /// The table that it comes from: [`Signature::DMAR`] or [`Signature::IVRS`].
    pub table: Signature,
    /// Bits of a physical address that DMA can reach, at most 64.
    pub host_address_bits: u8,
    /// Interrupt remapping is supported by the platform.
    pub interrupt_remapping: bool,
    /// The units, in the order of the table.
    pub units: Vec<UnitPlan, MAX_UNITS, u8>,
    /// Which devices belong to which unit, in the order of the table.
    pub unit_scopes: Vec<OwnedExtent, MAX_SCOPES, u16>,
    /// Memory that must stay mapped for some devices.
    pub reserved: Vec<Reserved, MAX_RESERVED, u8>,
    /// Which devices use which region.
    pub reserved_scopes: Vec<OwnedExtent, MAX_RESERVED_SCOPES, u8>,
    /// Requester ids of what is no PCI function.
    pub sources: Vec<Source, MAX_SOURCES, u8>,
    /// Which devices may use address translation services.
    pub ats: Vec<AtsScope, MAX_ATS, u8>,
}

impl IommuPlan {
    /// Reads a DMAR or an IVRS, whichever `bytes` begin with.
    ///
    /// # Errors
    /// It is neither, breaks a rule, contradicts itself, or says more than is kept.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TableError> {
        if bytes.starts_with(&Signature::IVRS.0) {
            Self::from_ivrs(bytes)
        } else {
            Self::from_dmar(bytes)
        }
    }

    /// Reads a DMAR.
    ///
    /// # Errors
    /// As [`Self::from_bytes`].
    pub fn from_dmar(bytes: &[u8]) -> Result<Self, TableError> {
        vtd::plan(bytes)
    }

    /// Reads an IVRS. Of several blocks about a unit the one of the highest type counts.
    ///
    /// # Errors
    /// As [`Self::from_bytes`].
    pub fn from_ivrs(bytes: &[u8]) -> Result<Self, TableError> {
        amdvi::plan(bytes)
    }

    fn empty(table: Signature) -> Self {
        Self {
            table,
            host_address_bits: 0,
            interrupt_remapping: false,
            units: Vec::new(),
            unit_scopes: Vec::new(),
            reserved: Vec::new(),
            reserved_scopes: Vec::new(),
            sources: Vec::new(),
            ats: Vec::new(),
        }
    }

    /// Adds a unit; two at one address cannot be.
    fn add_unit(&mut self, unit: UnitPlan, offset: u32) -> Result<u8, TableError> {
        let error = |rule| TableError {
            table: self.table,
            offset,
            rule,
        };
        let overlaps = |other: &UnitPlan| {
            let (end, other_end) = (
                unit.base.saturating_add(unit.size),
                other.base.saturating_add(other.size),
            );
            unit.base < other_end && other.base < end
        };
        if self.units.iter().any(overlaps) {
            let (field, value) = ("register base address of two units", unit.base);
            return Err(error(Rule::BadValue { field, value }));
        }
        let second = |other: &UnitPlan| other.include_all && other.segment == unit.segment;
        if unit.include_all && self.units.iter().any(second) {
            let (field, value) = ("segment with two units for all other devices", unit.segment);
            let value = u64::from(value);
            return Err(error(Rule::BadValue { field, value }));
        }
        // At most `MAX_UNITS`.
        let index = self.units.len() as u8;
        let (what, limit) = ("remapping units", MAX_UNITS as u32);
        match self.units.push(unit) {
            Ok(()) => Ok(index),
            Err(_) => Err(error(Rule::TooMany { what, limit })),
        }
    }

    fn too_many(&self, offset: u32, what: &'static str, limit: usize) -> TableError {
        TableError {
            table: self.table,
            offset,
            rule: Rule::TooMany {
                what,
                limit: limit as u32,
            },
        }
    }

    fn add_unit_scope(&mut self, scope: OwnedExtent, offset: u32) -> Result<(), TableError> {
        let full = self.too_many(offset, "device scopes of units", MAX_SCOPES);
        self.unit_scopes.push(scope).map_err(|_| full)
    }

    fn add_reserved(&mut self, region: Reserved, offset: u32) -> Result<u8, TableError> {
        let full = self.too_many(offset, "reserved regions", MAX_RESERVED);
        let index = self.reserved.len() as u8;
        self.reserved.push(region).map_err(|_| full)?;
        Ok(index)
    }

    fn add_reserved_scope(&mut self, scope: OwnedExtent, offset: u32) -> Result<(), TableError> {
        let full = self.too_many(offset, "device scopes of regions", MAX_RESERVED_SCOPES);
        self.reserved_scopes.push(scope).map_err(|_| full)
    }

    fn add_source(&mut self, source: Source, offset: u32) -> Result<(), TableError> {
        let full = self.too_many(offset, "interrupt sources", MAX_SOURCES);
        self.sources.push(source).map_err(|_| full)
    }

    fn add_ats(&mut self, scope: AtsScope, offset: u32) -> Result<(), TableError> {
        let full = self.too_many(offset, "device scopes for ATS", MAX_ATS);
        self.ats.push(scope).map_err(|_| full)
    }
}

/// The path that leads to a requester id directly.
fn direct(id: u16) -> Path {
    let [bus, function] = id.to_be_bytes();
    let mut hops = Vec::new();
    // The first of `MAX_PATH`.
    let _ = hops.push(PathHop {
        device: function >> 3,
        function: function & 7,
    });
    Path { bus, hops }
}

/// As much of the end of `text` as is kept; it is ASCII, so any cut is one between characters.
fn name(text: &str) -> Name {
    let from = text.len().saturating_sub(MAX_NAME);
    let end = text.get(from..).unwrap_or_default();
    // It fits: at most `MAX_NAME` bytes.
    Name::try_from(end).unwrap_or_default()
}
