//! Vocabulary and seams of the PCI manager: what a device is called, what its
//! configuration space and the firmware's tables say, and the traits through
//! which hardware reaches the pure cores.
//!
//! | Module | What it knows |
//! |---|---|
//! | [`address`] | [`Sbdf`], bus ranges, the place of a function in ECAM |
//! | [`access`] | the seams: [`ConfigSpace`], [`Mmio`], [`Clock`] |
//! | [`header`] | the common header, command and status bits, bridges |
//! | [`bar`] | base address registers and the expansion ROM: decode and sizing |
//! | [`capability`] | both capability lists, one file a capability family |
//! | [`enumeration`] | which functions a segment has, and behind which host bridge |
//! | [`acpi`] | the firmware's tables: ECAM windows, DMA remapping units, interrupt controllers |
//! | [`msi`] | message addresses and data, MSI-X entries, pages to withhold |
//!
//! Everything read from a device or from firmware is an allegation: each
//! reader checks it once and returns a typed value or a typed error. Nothing
//! here panics on what it reads, allocates, or loops without a bound.
//!
//! Used by the servers' cores and by the root task; implemented for real
//! hardware by `sel4/glue` and for tests by `sim`.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")
)]

pub mod access;
pub mod acpi;
pub mod address;
pub mod bar;
pub mod capability;
pub mod enumeration;
pub mod header;
pub mod msi;

pub use access::{Clock, ConfigSpace, Mmio};
pub use address::{BusRange, Sbdf};
pub use bar::{Bar, Bars};
pub use header::{ClassCode, Header, Ids};
