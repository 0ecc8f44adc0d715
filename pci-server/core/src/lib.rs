//! pci-server without the kernel: the devices of one shard, who holds them, and
//! everything that is done to them.
//!
//! | Module | What it knows |
//! |---|---|
//! | [`env`](mod@env) | the seams: what the shard needs of kernel, servers below, clock and log |
//! | [`device`] | [`Device`]: the record of a function; why one is withheld |
//! | [`table`] | [`Table`]: the functions by address, in order, and by client |
//! | [`boot`] | enumeration, examination, quarantine, overlaps |
//! | [`groups`] | which functions can reach each other, and go to one client together |
//! | [`registers`] | which register of which capability may be written |
//! | [`config`] | a mediated access: checks, policy, access of the register's own width |
//! | [`again`] | what is asked for again when a server below was restarted |
//! | [`assignment`] | [`Assignment`]: a slot for a held device, and its generations |
//! | [`interrupts`] | MSI and MSI-X: program, restore, silence |
//! | [`notes`] | what is noted for the next start, should the shard be restarted |
//! | [`pages`] | pages of a BAR, and which are withheld |
//! | [`translation`] | a device's own cache of translations (ATS) |
//! | [`reset`] | the resets, as steps with waits in between |
//! | [`ports`] | hot-plug slots as state machines; errors that ports collect; their own interrupt |
//! | [`virtual_functions`] | SR-IOV: what is checked and sized before virtual functions are switched on |
//! | [`shard`] | [`Shard`]: the service; [`assign`](shard) and [`revoke`](shard) in fixed order |
//! | [`bridge`] | what bridges forward: bus numbers and windows |
//! | [`placement`] | where BARs are put |
//! | [`space`] | ranges of addresses |
//! | [`bank`] | device memory from untypeds to frames, for an environment on seL4 |
//!
//! A shard owns whole ranges of buses and shares nothing. It never waits: what
//! takes time is a job of the device, made of steps that the timer starts; the
//! caller's request is parked meanwhile.
//!
//! What it must not do: call a client or the supervisor (it only signals them),
//! trust a register, or touch a bridge or another function of the platform.
//!
//! Neighbours: `ipc_proto::pci` is the service, `hw` decodes, `system` says who
//! may have what; the binary and the tests implement [`Env`].
#![no_std]
#![forbid(unsafe_code)]

pub mod again;
pub mod assignment;
pub mod bank;
pub mod boot;
pub mod bridge;
pub mod config;
pub mod device;
pub mod env;
pub mod groups;
pub mod interrupts;
pub mod notes;
pub mod pages;
pub mod placement;
pub mod ports;
pub mod registers;
pub mod reset;
pub mod shard;
pub mod space;
pub mod table;
pub mod translation;
pub mod virtual_functions;

pub use assignment::Assignment;
pub use device::{Device, Malformed, Withheld};
pub use env::{Env, RegionId, Usage, VectorBlock};
pub use shard::{Lent, Shard, Tables};
pub use table::{Index, Table};

/// Functions of a shard that [`Tables`] has room for unless it is told otherwise; further ones are
/// reported and nobody gets them.
pub const MAX_FUNCTIONS: usize = 1024;
/// Buses of a shard, likewise.
pub const MAX_BUSES: usize = 256;
/// Most devices of a shard that are held at a time.
pub const MAX_ASSIGNMENTS: usize = 64;
/// Most frames that one request places; the reply says how many were.
pub const MAX_FRAMES: u16 = 256;
/// Pages of a device's MSI-X table: 2,048 entries of 16 bytes, at any offset in a page.
pub const MAX_TABLE_PAGES: u16 = 9;
/// Largest memory BAR that is believed, in bytes.
pub const MAX_BAR_BYTES: u64 = 1 << 40;
