//! What an msi-server shard decides: which device gets which interrupt vectors, and who is told when a line is raised.
//!
//! [`Shard`] implements `ipc_proto::msi::Service` over an [`Env`], which carries out the steps that need the
//! kernel. The root task has made the handler of every vector of the shard; the shard keeps the originals. Each vector
//! is in one of four states:
//!
//! - free: a message that raises it all the same is absorbed by the shard, and counted;
//! - held: by one device of one client, with a copy of its handler in the client's window;
//! - kept: its device does not obey, and its holder is gone. Only the shard that owns the device can free it;
//! - lost: the kernel would not take the copies back. It is never given out again.
//!
//! A vector that is held is its client's own, and no server on its way; or metered ([`Shard::on_message`]), where the
//! description bounds how often the client may be interrupted.
//!
//! A line of the I/O APIC ([`lines`]) has a vector of its own for good; its handler never leaves the shard.
//!
//! The shard may be killed at any instruction and made anew: [`Shard::new`] finds in its ledger ([`notes`]) who holds what,
//! undoes what was being taken and finishes what was being given back ([`recovery`]). A start without a past is
//! the same with an empty ledger.
//!
//! What it must not do: hand out a vector outside its range, or one of which copies may be left; wait for a client.
//!
//! Neighbours: pci-server shards call it for devices of their buses; `msi-server` joins it with the kernel.
#![no_std]
#![forbid(unsafe_code)]

mod lines;
mod metered;
mod notes;
pub mod rate;
mod recovery;
mod service;
mod shard;
mod vectors;

pub use lines::{MAX_USERS, PATIENCE_US, STORM, WINDOW_US};
pub use notes::LEDGER_WORDS;
pub use shard::{ConfigError, MAX_VECTORS, Shard};

use ipc_proto::{ClientId, Refusal, Turns};
use ledger::Words;

/// What the kernel does for the shard.
pub trait Env {
    /// What outlives the server.
    type Ledger: Words;

    /// The ledger, of [`LEDGER_WORDS`] at least; zeros at the first start.
    fn ledger(&mut self) -> &mut Self::Ledger;

    /// Places a copy of the handler of a vector (as the kernel counts) in slot `slot` of the client's window.
    ///
    /// # Errors
    /// `NoWindow`, `WindowSlotOutOfRange`, `WindowSlotOccupied`, `KernelRefused`. Nothing is placed then.
    fn place(&mut self, vector: u16, client: ClientId, slot: u16) -> Result<(), Refusal>;

    /// Takes every copy of the vector's handler back. From then on it signals the shard ([`Shard::on_absorbed`]).
    ///
    /// # Errors
    /// `KernelRefused`; copies may be left, or nobody be told.
    fn reclaim(&mut self, vector: u16) -> Result<(), Refusal>;

    /// Comes back when every message that one of `cores` (bit n: core n) had been sent has been taken there, and so has signalled
    /// whom its vector signals.
    fn quiesce(&mut self, cores: u16) {
        let _ = cores;
    }

    /// Lets the vector (as the kernel counts) signal the shard as its `meter`-th metered one ([`Shard::on_message`]).
    ///
    /// # Errors
    /// `KernelRefused`.
    fn meter(&mut self, vector: u16, meter: usize) -> Result<(), Refusal>;

    /// Lets the kernel drop the vector, until [`Self::meter`] or [`Self::reclaim`].
    fn hush(&mut self, vector: u16);

    /// From now on [`Self::pass`] of the vector signals `flags` on the client's event notification.
    ///
    /// # Errors
    /// `KernelRefused`; nothing is signalled then.
    fn name(&mut self, vector: u16, client: ClientId, flags: u64) -> Result<(), Refusal>;

    /// Signals what was named for the vector, if anything was. What is named outlives the shard.
    fn pass(&mut self, vector: u16);

    /// Nothing is named for the vector any more.
    fn unname(&mut self, vector: u16);

    /// Lets the `line`-th line of the shard come again.
    fn acknowledge(&mut self, line: usize);

    /// Tells a client that a line was raised.
    fn tell_client(&mut self, client: ClientId);

    /// Tells a pci-server shard that there is trouble with a line.
    fn tell_shard(&mut self, shard: u16);

    /// Microseconds since some moment.
    fn now_us(&self) -> u64;

    /// Calls [`Shard::on_timer`] after so many microseconds. The newest counts.
    fn arm(&mut self, micros: u64);

    /// Capability slots in use, for the figures.
    fn slots_used(&self) -> u32;

    /// How the server has spent its time.
    fn turns(&self) -> Turns;
}
