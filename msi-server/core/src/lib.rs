//! What an msi-server shard decides: which device gets which interrupt vectors.
//!
//! [`Shard`] implements `ipc_proto::msi::Service` over an [`Env`], which carries out the three steps that
//! need the kernel. Each vector is in one of three states:
//!
//! - free;
//! - held: by one device of one client, with a handler whose copy lies in the client's window;
//! - lost: the kernel would not take its handler back. It is never given out again.
//!
//! What it must not do: hand out a vector outside its range, or one whose old handler still exists.
//!
//! Neighbours: pci-server shards call it for devices of their buses; `msi-server` joins it with the kernel.
#![no_std]
#![forbid(unsafe_code)]

mod service;
mod shard;

pub use shard::{ConfigError, MAX_VECTORS, Shard};

use hw::Sbdf;
use ipc_proto::{ClientId, Refusal, Turns};

/// What the kernel does for the shard.
pub trait Env {
    /// The master capability of an interrupt handler.
    type Handler;

    /// Makes the handler of kernel vector `vector`, for message `number` of `device`.
    ///
    /// # Errors
    /// `SlotsExhausted`, `KernelRefused`. Nothing is left behind then.
    fn issue(&mut self, vector: u16, device: Sbdf, number: u16) -> Result<Self::Handler, Refusal>;

    /// Places a copy of the handler in slot `slot` of the client's window.
    ///
    /// # Errors
    /// `NoWindow`, `WindowSlotOutOfRange`, `WindowSlotOccupied`, `KernelRefused`. Nothing is placed then.
    fn place(
        &mut self,
        handler: &Self::Handler,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal>;

    /// Takes every copy of the handler back and deletes it: the vector signals nobody any more.
    ///
    /// # Errors
    /// `KernelRefused`; copies may be left.
    fn retire(&mut self, handler: Self::Handler) -> Result<(), Refusal>;

    /// Capability slots in use, for the figures.
    fn slots_used(&self) -> u32;

    /// How the server has spent its time.
    fn turns(&self) -> Turns;
}
