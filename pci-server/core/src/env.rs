//! The seams of the shard: one small trait for each thing it needs from
//! outside, and [`Env`], which is all of them.
//!
//! Implemented by the binary on seL4 and by the tests, which fail any of the
//! calls on purpose. A call that fails has changed nothing.

use core::fmt;

use hw::{Clock, ConfigSpace, Sbdf};
use ipc_proto::iommu::{ReservedAtReply, TroubleNextReply};
use ipc_proto::{
    Badge, ClientId, ContextChoice, Message, Messages, Properties, Refusal, Switch, Turns, Width,
};

use crate::bank::PageSize;
use ledger::Words;

/// The iommu-server shard below.
pub trait Iommu {
    /// Moves the device from the blocking context to one of the client's, whose number is given.
    /// `ats_queue`: depth of its invalidate queue if it may cache translations, else 0.
    ///
    /// # Errors
    /// The server's refusal.
    fn attach(
        &mut self,
        device: Sbdf,
        client: ClientId,
        context: ContextChoice,
        ats_queue: u8,
    ) -> Result<(Properties, u16), Refusal>;
    /// Whether an attached device may keep translations from now on; whether it may then. With `ats_queue` 0 it has
    /// forgotten what it kept, and its answer is waited for no more.
    ///
    /// # Errors
    /// The server's refusal.
    fn keep(&mut self, device: Sbdf, ats_queue: u8) -> Result<Switch, Refusal>;
    /// Moves the device back. When this returns no DMA of it reaches memory.
    ///
    /// # Errors
    /// The server's refusal: the device may still reach memory.
    fn detach(&mut self, device: Sbdf) -> Result<(), Refusal>;
    /// What an attachment of the device would promise.
    ///
    /// # Errors
    /// The server's refusal.
    fn promise(&mut self, device: Sbdf) -> Result<Properties, Refusal>;
    /// Says that the device's requests may carry another requester id. To be said before [`Self::attach`];
    /// saying it again changes nothing.
    ///
    /// # Errors
    /// The server's refusal.
    fn alias(&mut self, device: Sbdf, alias: Sbdf) -> Result<(), Refusal>;
    /// Makes `count` messages deliverable by this device alone; gives what to program instead.
    ///
    /// # Errors
    /// The server's refusal.
    fn remap(
        &mut self,
        device: Sbdf,
        vectors: VectorBlock,
        count: u16,
    ) -> Result<VectorBlock, Refusal>;
    /// Delivers messages of a block that [`Self::remap`] gave to the core that `address` names; they are counted in the
    /// block. None is lost.
    ///
    /// # Errors
    /// The server's refusal: some may go where they went.
    fn reroute(
        &mut self,
        device: Sbdf,
        remapped: VectorBlock,
        messages: Messages,
        address: u64,
    ) -> Result<(), Refusal>;
    /// Takes every message of the device back. When this returns none of them can be raised.
    ///
    /// # Errors
    /// The server's refusal: messages may still be raised.
    fn unremap(&mut self, device: Sbdf) -> Result<(), Refusal>;
    /// The `index`-th region that firmware reserved for DMA of the device.
    ///
    /// # Errors
    /// `EndOfList`, or the server's refusal.
    fn reserved_at(&mut self, device: Sbdf, index: u16) -> Result<ReservedAtReply, Refusal>;
    /// A device that gives trouble, if there is one.
    ///
    /// # Errors
    /// `EndOfList`, or the server's refusal.
    fn trouble_next(&mut self) -> Result<TroubleNextReply, Refusal>;
}

/// Vectors that were taken together: message n is `address`, `data + n`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VectorBlock {
    /// Where the device writes.
    pub address: u64,
    /// What it writes for the first vector.
    pub data: u32,
}

/// Vectors that a client can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prospect {
    /// Kept for it, and free.
    pub kept: u16,
    /// Free for everybody.
    pub common: u16,
    /// How many more than it holds it may have.
    pub left: u16,
}

/// The msi-server shard below.
pub trait Vectors {
    /// Takes vectors for `messages` (a power of two of them) and places their interrupt handlers in the
    /// client's window from `slot` on.
    ///
    /// # Errors
    /// The server's refusal.
    fn take(
        &mut self,
        device: Sbdf,
        client: ClientId,
        messages: Messages,
        slot: u16,
    ) -> Result<VectorBlock, Refusal>;
    /// The address that sends messages of the device, all of one block, to another core.
    ///
    /// # Errors
    /// The server's refusal.
    fn retarget(&mut self, device: Sbdf, messages: Messages, core: u8) -> Result<u64, Refusal>;
    /// What a metered message of the device signals from now on.
    ///
    /// # Errors
    /// The server's refusal.
    fn bind(&mut self, device: Sbdf, message: u16, flags: u64) -> Result<(), Refusal>;
    /// Passes metered messages of the device on again; how many of the device's are still not.
    ///
    /// # Errors
    /// The server's refusal.
    fn resume(&mut self, device: Sbdf, messages: Messages) -> Result<u16, Refusal>;
    /// A metered message that is to be switched off, and how often it came.
    ///
    /// # Errors
    /// `EndOfList`, or the server's refusal.
    fn message_trouble(&mut self) -> Result<(Sbdf, u16, u32), Refusal>;
    /// What a client can have.
    ///
    /// # Errors
    /// The server's refusal.
    fn vectors_for(&mut self, client: ClientId) -> Result<Prospect, Refusal>;
    /// The client's device raises an interrupt line from now on.
    ///
    /// # Errors
    /// The server's refusal.
    fn join_line(&mut self, device: Sbdf, client: ClientId, line: u16) -> Result<(), Refusal>;
    /// The device does not raise its line any more.
    ///
    /// # Errors
    /// The server's refusal.
    fn leave_line(&mut self, device: Sbdf) -> Result<(), Refusal>;
    /// A device whose interrupt is to be switched off, and how often it came (0: nobody acknowledges it).
    ///
    /// # Errors
    /// `EndOfList`, or the server's refusal.
    fn line_trouble(&mut self) -> Result<(Sbdf, u32), Refusal>;
    /// Gives every vector of the device back.
    ///
    /// # Errors
    /// The server's refusal.
    fn give_back(&mut self, device: Sbdf) -> Result<(), Refusal>;
}

/// Device capabilities.
pub trait Grants {
    /// Mints the device capability of assignment slot `assignment`, keeps it as the master and
    /// places a copy in the client's window.
    ///
    /// # Errors
    /// `WindowSlotOccupied`, `SlotsExhausted`, `KernelRefused`.
    fn place_device(
        &mut self,
        assignment: u16,
        badge: Badge,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal>;
    /// Takes the master and every copy of it away.
    ///
    /// # Errors
    /// `KernelRefused`: copies may be left.
    fn revoke_device(&mut self, assignment: u16) -> Result<(), Refusal>;
    /// Mints the narrowed device capability `view` (1 to [`crate::shard::MAX_VIEWS`]), keeps it as a master of its own
    /// and places a copy in the client's window.
    ///
    /// # Errors
    /// `WindowSlotOccupied`, `SlotsExhausted`, `KernelRefused`.
    fn place_view(
        &mut self,
        view: u16,
        badge: Badge,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal>;
    /// Takes the master of a narrowed capability and every copy of it away.
    ///
    /// # Errors
    /// `KernelRefused`: copies may be left.
    fn revoke_view(&mut self, view: u16) -> Result<(), Refusal>;
    /// After a restart: masters that an earlier life has minted stay for these assignment slots and views, one bit each;
    /// all others, and every copy of them, go.
    ///
    /// # Errors
    /// `KernelRefused`: copies may be left.
    fn keep_masters(&mut self, assignments: u64, views: u64) -> Result<(), Refusal>;
}

/// Memory behind a BAR: whole pages. Those of different BARs do not overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionId {
    /// First address, a multiple of 4 KiB.
    pub base: u64,
    /// Bytes, a multiple of 4 KiB, not 0.
    pub bytes: u64,
}

impl RegionId {
    /// Last address, included.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.base.saturating_add(self.bytes.saturating_sub(1))
    }
}

/// Device memory: frames for clients, and MSI-X tables for the shard itself.
pub trait BarMemory {
    /// Places frames of `count` pages of a size from page `first` in the client's window from `slot`
    /// on: all or none.
    ///
    /// # Errors
    /// `WindowSlotOccupied`, `SlotsExhausted`, `KernelRefused`, `PageOutOfRange` (not the shard's
    /// memory); `PageWithheld` where there are frames of the other size.
    fn place_frames(
        &mut self,
        region: RegionId,
        size: PageSize,
        first: u32,
        count: u16,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal>;
    /// Maps pages for the shard itself, as table `table` (an assignment slot; at most
    /// [`crate::MAX_TABLE_PAGES`]); nothing if they are mapped already.
    ///
    /// # Errors
    /// `SlotsExhausted`, `KernelRefused`.
    fn map_table(
        &mut self,
        region: RegionId,
        table: u16,
        first: u32,
        pages: u16,
    ) -> Result<(), Refusal>;
    /// Reads four bytes of a mapped table; all ones where nothing is mapped.
    fn read_table(&self, table: u16, offset: u32) -> u32;
    /// Writes four bytes of a mapped table.
    fn write_table(&mut self, table: u16, offset: u32, value: u32);
    /// Maps one page for the shard itself, beside table `table` and in place of the page that was mapped so
    /// before. It may be a page of the table.
    ///
    /// # Errors
    /// `SlotsExhausted`, `KernelRefused`.
    fn map_page(&mut self, region: RegionId, table: u16, page: u32) -> Result<(), Refusal>;
    /// Reads a register of the mapped page; all ones where nothing is mapped.
    fn read_page(&self, table: u16, offset: u16, width: Width) -> u32;
    /// Writes a register of the mapped page.
    fn write_page(&mut self, table: u16, offset: u16, width: Width, value: u32);
    /// Takes every frame of the region away, from every holder and from the shard itself
    /// (where it is mapped as `table`).
    ///
    /// # Errors
    /// `KernelRefused`: frames may be left.
    fn revoke_frames(&mut self, region: RegionId, table: u16) -> Result<(), Refusal>;
    /// After a restart, once for each region of which an earlier life may have made frames that stay.
    fn keep_frames(&mut self, region: RegionId);
    /// After a restart, when all that stay are named: takes all other frames away, and those that were being placed.
    ///
    /// # Errors
    /// `KernelRefused`: frames may be left.
    fn sweep_frames(&mut self) -> Result<(), Refusal>;
}

/// Requests that are answered later.
pub trait Parking {
    /// The right and duty to answer one request.
    type Ticket;
    /// Puts the caller of the current request aside.
    ///
    /// # Errors
    /// `TooManyParked`, `KernelRefused`.
    fn park(&mut self) -> Result<Self::Ticket, Refusal>;
    /// Answers; nothing happens if the caller is gone.
    fn answer(&mut self, ticket: Self::Ticket, reply: &Message);
}

/// One timer.
pub trait Alarm {
    /// Signals the shard after `micros` microseconds (at least 1). The newest counts.
    fn arm(&mut self, micros: u64);
}

/// Signals upwards; nobody waits for them.
pub trait Signals {
    /// There is news about a device of this client.
    fn tell_client(&mut self, client: ClientId);
    /// Every revocation that the supervisor asked for is done.
    fn tell_supervisor(&mut self);
}

/// Capability slots and device memory in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Private slots.
    pub slots: u32,
    /// Bytes of device memory made into frames or split for them.
    pub untyped_bytes: u64,
}

/// Everything else.
pub trait Host {
    /// A line for people: at boot, and about faults.
    fn log(&mut self, line: fmt::Arguments<'_>);
    /// What is in use.
    fn usage(&self) -> Usage;
    /// The time-stamp counter: what a request has cost.
    fn ticks(&self) -> u64;
    /// How the server has spent its time.
    fn turns(&self) -> Turns;
}

/// All that a shard needs of its surroundings. [`Words`] is its ledger, laid out in [`crate::notes`].
pub trait Env:
    ConfigSpace
    + Clock
    + Iommu
    + Vectors
    + Grants
    + BarMemory
    + Parking
    + Alarm
    + Signals
    + Host
    + Words
{
}

impl<E> Env for E where
    E: ConfigSpace
        + Clock
        + Iommu
        + Vectors
        + Grants
        + BarMemory
        + Parking
        + Alarm
        + Signals
        + Host
        + Words
{
}
