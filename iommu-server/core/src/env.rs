//! [`Env`]: what a shard does to the world besides driving units: capability
//! effects, signals, time. [`TableMemory`]: the memory the units read.
//!
//! Implemented by the server's binary over the kernel, and by a model of the
//! kernel's capabilities in the tests.

use hw::Sbdf;
use ipc_proto::{Badge, ClientId, Trouble, Turns};
use ledger::Words;

use crate::Fault;

/// A slot of the server's own CNode.
pub type Slot = u32;

/// Why a capability effect did not happen. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectError {
    /// The slot of the grant window holds something.
    Occupied,
    /// The kernel refused; its error number.
    Kernel(u64),
}

/// What goes into a grant window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// A buffer capability: to call the server with, never to receive from its endpoint.
    Buffer,
    /// A frame: to read and write.
    Frame,
}

/// Where frames are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// In slots of the server's own from this one on.
    Own(Slot),
    /// In slots of this client's grant window from this one on: the client can do with them what it likes, and only
    /// revoking the untyped takes them.
    Window(ClientId, u16),
}

/// Something worth a line in the log. Never on a path that a client repeats at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Faults of a holder's devices, or of devices that nobody holds. Said of the 1st, 2nd, 4th,
    /// 8th and so on.
    Fault {
        /// The latest.
        fault: Fault,
        /// Who holds the device.
        holder: Option<ClientId>,
        /// How many faults the holder's devices, or those of nobody, have had.
        count: u32,
    },
    /// Faults of unit `unit` come faster than they are read; the unit drops some meanwhile.
    Storm {
        /// Which unit.
        unit: u8,
    },
    /// A device was silenced: blocked, and its faults not recorded any more.
    Trouble {
        /// Which.
        device: Sbdf,
        /// Why.
        trouble: Trouble,
        /// Faults, or 1.
        count: u32,
    },
    /// Memory that cannot be reused: a unit did not confirm, or the kernel refused a revocation.
    MemoryLost {
        /// How much.
        bytes: u64,
    },
}

/// The world of a shard, its ledger included. Every method either does its whole effect or none.
pub trait Env: Words {
    /// Makes two untypeds of 2^`half_bits` bytes, in ascending order of address, of the untyped in
    /// `untyped` (which has no children), in slots `into` and `into + 1`.
    ///
    /// # Errors
    /// The kernel's.
    fn split(&mut self, untyped: Slot, half_bits: u8, into: Slot) -> Result<(), EffectError>;

    /// Makes `count` (1..=256) frames of 2^`page_bits` bytes of the untyped, ascending from its first
    /// byte that no child covers, in as many slots.
    ///
    /// The kernel zeroes an untyped's used part when it is retyped again after its children are gone
    /// (seL4 5.0.0 `src/object/untyped.c`, `resetUntypedCap`; fresh untypeds begin as wholly used,
    /// `src/kernel/boot.c`): frames always start as zeros, which is what scrubs DMA memory.
    ///
    /// # Errors
    /// `Occupied` when a slot of the window holds something, or the kernel's.
    fn frames(
        &mut self,
        untyped: Slot,
        page_bits: u8,
        into: Target,
        count: u32,
    ) -> Result<(), EffectError>;

    /// Deletes every capability derived from the one in `slot`, in every PD.
    ///
    /// # Errors
    /// The kernel's.
    fn revoke(&mut self, slot: Slot) -> Result<(), EffectError>;

    /// Takes a capability that [`Self::mint`] made away: every copy in every PD, calls that wait with
    /// its badge, and itself.
    ///
    /// # Errors
    /// The kernel's; then it may be half gone, and its slot is not used again.
    fn retire(&mut self, slot: Slot) -> Result<(), EffectError>;

    /// Makes a capability of the server's endpoint with `badge` in `into`.
    ///
    /// # Errors
    /// The kernel's.
    fn mint(&mut self, badge: Badge, into: Slot) -> Result<(), EffectError>;

    /// Copies the capability in `slot` to slot `window_slot` of the client's grant window, with the
    /// rights that a client may have of this kind.
    ///
    /// # Errors
    /// `Occupied`, or the kernel's.
    fn place(
        &mut self,
        what: Placed,
        slot: Slot,
        client: ClientId,
        window_slot: u16,
    ) -> Result<(), EffectError>;

    /// After a restart: the capabilities in these slots stay, as an earlier life has left them.
    ///
    /// # Errors
    /// The slots are not the server's to take.
    fn adopt(&mut self, first: Slot, count: u32) -> Result<(), EffectError>;

    /// Ends a restart: takes what lies in slots that were not adopted, with all that was derived from it.
    fn sweep(&mut self);

    /// Empties slot `window_slot` of the client's grant window, which [`Self::place`] has just filled, or was
    /// to fill in an earlier life.
    fn take_back(&mut self, client: ClientId, window_slot: u16);

    /// Signals the client's event notification: it has a fault record.
    fn signal(&mut self, client: ClientId);

    /// Signals a pci-server shard: a device of its buses gives trouble.
    fn signal_shard(&mut self, shard: u16);

    /// Microseconds since some fixed moment; never goes back.
    fn now_us(&self) -> u64;

    /// How the server has spent its time.
    fn turns(&self) -> Turns;

    /// Has [`crate::Shard::on_timer`] called in about `micros` microseconds.
    fn wake_in(&mut self, micros: u64);

    /// Says something to whoever reads the log.
    fn note(&mut self, note: Note);
}

/// The memory that holds the units' tables: pages of 512 words of 64 bits,
/// physically contiguous, cached.
pub trait TableMemory {
    /// Pages there are.
    fn pages(&self) -> u32;
    /// Word `index` (0..512) of page `page`, as memory holds it now; 0 outside.
    fn read64(&self, page: u32, index: u16) -> u64;
    /// Writes a word, in one access; nothing outside.
    fn write64(&mut self, page: u32, index: u16, value: u64);
    /// Writes the cache lines of words `index..index + count` back to memory, for units that do
    /// not snoop caches. Later register writes happen after it.
    fn write_back(&mut self, page: u32, index: u16, count: u16);
}
