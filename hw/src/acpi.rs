//! ACPI tables, read from bytes: where configuration space is ([`Mcfg`]), which
//! DMA remapping units there are ([`Dmar`] of Intel, [`Ivrs`] of AMD), processors and
//! interrupt controllers ([`Madt`]), the HPET ([`Hpet`]), and what is near what
//! ([`Srat`], [`Slit`]).
//!
//! Each table borrows the bytes that it was found in and hands out its records
//! through iterators; [`Platform`] goes from the RSDP through all tables and
//! keeps what they say in bounded lists, of remapping units as an [`IommuPlan`].
//! No AML is interpreted.
//!
//! Every length in a table is an allegation. A table is checked whole (length,
//! checksum) before any record is read; a record that passes the end ends the
//! iteration with a [`TableError`], one with a bad value is reported and passed over.
//!
//! Why not the `acpi` crate: see `docs/adr/0001-acpi-tables.md`.

mod dmar;
mod hpet;
mod ivrs;
mod madt;
mod mcfg;
pub mod plan;
mod platform;
mod root;
mod slit;
mod srat;
mod table;

pub use dmar::{
    Andd, Atsr, Dmar, DmarFlags, Drhd, MAX_PATH, Path, PathHop, Remapping, Rhsa, Rmrr, Satc, Scope,
    ScopeKind, Scopes, Sidp,
};
pub use hpet::Hpet;
pub use ivrs::{
    AcpiDevice, BlockKind, Declared, DeviceEntry, DeviceSettings, Ivhd, Ivmd, Ivrs, IvrsBlock,
    MemoryFlags, MemoryUsers, Uid, UnitFlags,
};
pub use madt::{ApicUse, InterruptOverride, IoApic, LocalApic, Madt, MadtEntry, Polarity, Trigger};
pub use mcfg::Mcfg;
pub use plan::IommuPlan;
pub use platform::{InterruptPlan, Part, PhysicalMemory, Platform, ProximityPlan};
pub use root::{RSDP_ALIGN, RootTable, Rsdp};
pub use slit::Slit;
pub use srat::{
    Affinity, DeviceAffinity, DeviceHandle, MemoryAffinity, MemoryAffinityFlags, ProcessorAffinity,
    Srat,
};
pub use table::{Record, Rule, Signature, Table, TableError, TableHeader};
