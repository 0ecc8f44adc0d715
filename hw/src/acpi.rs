//! ACPI tables, read from bytes: where configuration space is ([`Mcfg`]), which
//! DMA remapping units there are ([`Dmar`]), processors and interrupt
//! controllers ([`Madt`]), the HPET ([`Hpet`]).
//!
//! Each table borrows the bytes that it was found in and hands out its records
//! through iterators; [`Platform`] goes from the RSDP through all tables and
//! keeps what they say in bounded lists. No AML is interpreted.
//!
//! Every length in a table is an allegation. A table is checked whole (length,
//! checksum) before any record is read; a record that passes the end ends the
//! iteration with a [`TableError`], one with a bad value is reported and passed over.
//!
//! Why not the `acpi` crate: see `docs/adr/0001-acpi-tables.md`.

mod dmar;
mod hpet;
mod madt;
mod mcfg;
mod platform;
mod root;
mod table;

pub use dmar::{
    Atsr, Dmar, DmarFlags, Drhd, MAX_PATH, PathHop, Remapping, Rhsa, Rmrr, Scope, ScopeKind,
};
pub use hpet::Hpet;
pub use madt::{ApicUse, InterruptOverride, IoApic, LocalApic, Madt, MadtEntry, Polarity, Trigger};
pub use mcfg::Mcfg;
pub use platform::{
    InterruptPlan, OwnedScope, Part, PhysicalMemory, Platform, RemappingPlan, ReservedRegion, Unit,
};
pub use root::{RSDP_ALIGN, RootTable, Rsdp};
pub use table::{Rule, Signature, Table, TableError, TableHeader};
