//! Where the pure cores meet seL4. A protection domain's program is its core joined with this package,
//! which holds all the `unsafe` that it needs.
//!
//! | Module | What it does |
//! |---|---|
//! | [`start`] | [`Pd::start`]: the PD finds its IPC buffer, its information and its log |
//! | [`log`](mod@log) | the [`log!`] macro, lines that may be lost and lines that may not |
//! | [`port`] | [`Port`]: a stub's transport over an endpoint capability |
//! | [`server`] | [`Server`]: receive, reply, receive |
//! | [`parking`] | [`Parking`]: requests that are answered later |
//! | [`turns`](mod@turns) | how the loop has spent its time |
//! | [`cspace`] | [`CSpace`]: own slots, the clients' grant windows, retype, revoke |
//! | [`mmio`] | [`EcamSpace`], [`MmioRegion`]: the seams of `hw` over mapped registers |
//! | [`ports`] | [`PortSpace`]: configuration space through I/O ports; [`Configuration`]: whichever there is |
//! | [`memory`] | [`TablePages`], [`SharedMemory`]: memory that devices read and write |
//! | [`mapping`] | [`AddressSpace`]: where a PD maps frames itself |
//! | [`clock`] | [`TscClock`] |
//! | [`driver`] | [`Driver`]: windows, interrupts and waiting for clients |
//! | [`root`] | what the root task needs: heap, bundle, its own address space |
//!
//! Neighbours: `sel4` and `sel4-rt` below; `hw` and `ipc-proto`, whose traits are implemented here; `system` for the layout.
//! Cores are not known here. One thread a PD is assumed throughout.
//!
//! # What is trusted
//! The root task: it builds the address space that `system::layout` describes and writes the PD's
//! information. Every address in that information is taken as it is. Nothing that comes from a client
//! or a device is trusted.
#![no_std]

pub mod clock;
pub mod cspace;
pub mod driver;
pub mod log;
pub mod mapping;
pub mod memory;
pub mod mmio;
pub mod parking;
pub mod port;
pub mod ports;
pub mod root;
pub mod server;
pub mod start;
pub mod turns;

pub use clock::TscClock;
pub use cspace::CSpace;
pub use driver::Driver;
pub use mapping::AddressSpace;
pub use memory::{SharedMemory, TablePages};
pub use mmio::{EcamSpace, MmioRegion};
pub use parking::{Parking, Ticket};
pub use port::{Below, Port};
pub use ports::{Configuration, PortSpace};
pub use server::{Answer, Arrived, Incoming, Server};
pub use start::Pd;

/// What the macros and the users' binaries name.
pub use {hw, ipc_proto, sel4, system};

use ipc_proto::{Refusal, Rule};

/// The kernel's number for an error (`seL4_Error`); `u64::MAX` for a method that it does not have.
#[must_use]
pub const fn error_code(error: sel4::Error) -> u64 {
    match error {
        sel4::Error::InvalidArgument => 1,
        sel4::Error::InvalidCapability => 2,
        sel4::Error::IllegalOperation => 3,
        sel4::Error::RangeError => 4,
        sel4::Error::AlignmentError => 5,
        sel4::Error::FailedLookup => 6,
        sel4::Error::TruncatedMessage => 7,
        sel4::Error::DeleteFirst => 8,
        sel4::Error::RevokeFirst => 9,
        sel4::Error::NotEnoughMemory => 10,
        sel4::Error::Unsupported => u64::MAX,
        sel4::Error::Unknown(code) => code,
    }
}

/// A kernel error as the refusal of a request: `KernelRefused` with the kernel's number.
#[must_use]
pub const fn refused(error: sel4::Error) -> Refusal {
    Refusal::new(Rule::KernelRefused, error_code(error))
}
