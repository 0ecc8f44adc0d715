//! The iommu-server's core: which device reaches which memory.
//!
//! - [`Shard`] implements `ipc_proto::iommu::Service`: DMA buffers for
//!   clients, contexts for pci-server shards, figures for the supervisor.
//! - [`Backend`] is what a shard needs of its IOMMU units; [`vtd`] drives
//!   Intel units, [`amdvi`] AMD's, [`iospace`] asks the kernel to, [`Physical`] stands for a
//!   machine without any.
//! - [`pool`] gives memory to buffers and takes it back.
//! - [`Env`] and [`TableMemory`] are the seams to the kernel: capability
//!   effects, and the memory that holds the units' tables.
//!
//! The invariant everything serves: memory leaves a buffer only after every
//! unit that may have cached a translation to it has confirmed that it forgot.
//! Where a unit does not confirm, the memory stays out of circulation.
//!
//! It must not wait for a client or a device beyond a counted number of polls,
//! name the kernel, or trust a number that came from a client or a unit.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a test may stop at the first surprise"
    )
)]

#[cfg(test)]
extern crate std;

mod adopt;
pub mod amdvi;
mod backend;
mod buffers;
mod context;
mod env;
mod faults;
pub mod iospace;
mod notes;
mod paging;
mod physical;
mod place;
pub mod pool;
mod shard;
mod tables;
pub mod vtd;

#[cfg(test)]
mod tests;

pub use adopt::{Adopt, Found};
pub use backend::{
    Addressing, Backend, BackendError, Chosen, DeviceCache, DomainId, Drained, Extent, Fault,
    InterruptMessage, MessagePart,
};
pub use buffers::{MAX_BLOCKS, MAX_BUFFERS, MAX_PAGES};
pub use context::MAX_MAPPINGS;
pub use env::{EffectError, Env, Note, Placed, Slot, TableMemory, Target};
pub use faults::{FAULT_BOUND, FAULT_BURST, FAULT_PERIOD_US, FORGIVEN_US, MAX_RECORDS};
pub use paging::Leaf;
pub use physical::Physical;
pub use shard::{
    ClientLimits, MAX_ALIASES, MAX_ATTACHED, MAX_MESSAGE_BLOCKS, MAX_PRIVATE, MAX_REQUESTERS,
    MAX_STRANGERS, Setup, SetupError, Shard, Storage, has_started,
};
