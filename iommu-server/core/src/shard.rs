//! [`Shard`]: one iommu-server. What it keeps, and the ways in: requests
//! ([`Shard::serve`]), fault interrupts and the timer.
//!
//! `serve`: from a message to its operation. `service`: the operations as the contract names them. `memory`: making and
//! taking apart buffers. `mapping`: buffers in contexts. `contexts`: those of a
//! client. `devices`: attaching, detaching, messages. `reserved`: what firmware
//! reserved. `shares`: how many slots each client may have. `storms`: faults and devices that give trouble. `ledger`: what is noted for the
//! next start; `recover`: that start.

mod contexts;
mod devices;
mod ledger;
mod mapping;
mod memory;
mod recover;
mod reserved;
mod serve;
mod service;
mod shares;
mod storms;

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::{BadgeKind, Call, ClientId, Refusal, Rule};
use system::info::{
    AliasRange, MAX_ALIAS_RANGES, MAX_RESERVED, MAX_UNITS, Reserved, Slots as SlotRange,
    UntypedPiece,
};
use system::layout::MAX_SHARDS;
use system::model::{DeviceMatch, MAX_CLIENTS, MAX_DEVICE_RULES};
use thiserror::Error;

use crate::backend::{Addressing, Backend, BackendError};
use crate::buffers::{Buffers, Certainty, MAX_BUFFERS};
use crate::context::Context;
use crate::env::{EffectError, Env};
use crate::faults::{FaultQueue, Gate, Storm};
use crate::notes::{self, MessageNote};
use crate::pool::{Pool, PoolError, Slots};
use contexts::Private;
use storms::{Standing, Stranger, Untold};

pub use contexts::MAX_PRIVATE;
pub use devices::MAX_ALIASES;
pub use recover::has_started;
pub use storms::MAX_STRANGERS;

/// Most devices attached at a time.
pub const MAX_ATTACHED: usize = 256;

/// Most requester ids attached at a time, and most aliases known.
pub const MAX_REQUESTERS: usize = 320;

/// Most blocks of messages at a time.
pub const MAX_MESSAGE_BLOCKS: usize = 256;

/// A client may have at least so many private contexts, while there are any.
const MIN_PRIVATE_A_CLIENT: usize = 2;

/// A client may have at least so many buffers, however many clients there are.
const MIN_BUFFERS_A_CLIENT: u16 = 16;

/// What the system description allows a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// DMA memory, in bytes.
    pub quota: u64,
    /// Its largest buffer, in bytes: one is made or freed in one turn, in which nobody else is served.
    pub largest: u64,
    /// Slots of its grant window: 2^this.
    pub window_bits: u8,
}

/// What a shard starts with.
pub struct Setup<'s> {
    /// The clients, by id.
    pub clients: &'s [ClientLimits],
    /// Buses of each pci-server shard, by shard: (segment, first, last).
    pub buses: &'s [(u16, u8, u8)],
    /// Free slots of the server's CNode.
    pub slots: SlotRange,
    /// Memory of the pool.
    pub pool: &'s [UntypedPiece],
    /// What firmware reserved.
    pub reserved: &'s [Reserved],
    /// Requester ids that firmware says are other devices' too.
    pub aliases: &'s [AliasRange],
    /// Devices that may have what firmware reserved for them: by address.
    pub reserved_allowed: &'s [DeviceMatch],
    /// A device with more faults than this is silenced ([`crate::FAULT_BOUND`]).
    pub fault_bound: u32,
}

/// Why a shard cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SetupError {
    /// More clients, shards or slots than there is room for.
    #[error("there are more clients, shards or slots than there is room for")]
    TooMany,
    /// A piece of the pool is unusable (its number).
    #[error("piece {0} of the pool of DMA memory is no aligned power of two of pages")]
    Piece(usize),
    /// The ledger has too few words.
    #[error("the ledger has no room for what is to be noted")]
    Ledger,
}

struct Client {
    limits: ClientLimits,
    used_bytes: u64,
    buffers: u16,
    context: Context,
    faults: FaultQueue,
    /// Faults of its devices, ever.
    faulted: u32,
    /// What has come of its end so far, while some of its buffers are left.
    ending: Option<Result<(), Refusal>>,
}

impl Client {
    const fn new() -> Self {
        Self {
            limits: ClientLimits {
                quota: 0,
                largest: 0,
                window_bits: 0,
            },
            used_bytes: 0,
            buffers: 0,
            context: Context::new(),
            faults: FaultQueue::new(),
            faulted: 0,
            ending: None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Attached {
    device: Sbdf,
    client: ClientId,
    /// Number of the client's context.
    context: u16,
    /// `Unconfirmed`: the unit did not confirm that it blocks the device again.
    certainty: Certainty,
    storm: Storm,
    standing: Standing,
    /// What its pci-server shard is still to hear.
    trouble: Untold,
    /// Its faults that its pci-server shard has not heard of.
    untold_faults: u32,
}

/// A requester id in a context: a device's own, or an alias of one or several.
#[derive(Clone, Copy, Debug)]
struct Requester {
    id: Sbdf,
    client: ClientId,
    context: u16,
    /// Devices that use it.
    users: u16,
    certainty: Certainty,
}

/// A shard's memory, too large for a stack.
pub struct Storage {
    pool: Pool,
    buffers: Buffers,
    clients: [Client; MAX_CLIENTS],
    private: [Private; MAX_PRIVATE],
    devices: Vec<Attached, MAX_ATTACHED>,
    requesters: Vec<Requester, MAX_REQUESTERS>,
    aliases: Vec<(Sbdf, Sbdf), MAX_REQUESTERS>,
    messages: Vec<MessageNote, MAX_MESSAGE_BLOCKS>,
    strangers: Vec<Stranger, MAX_STRANGERS>,
    reserved: Vec<Reserved, MAX_RESERVED>,
    slots: Option<Slots>,
}

impl Storage {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pool: Pool::new(),
            buffers: Buffers::new(),
            clients: [const { Client::new() }; MAX_CLIENTS],
            private: [const { Private::new() }; MAX_PRIVATE],
            devices: Vec::new(),
            requesters: Vec::new(),
            aliases: Vec::new(),
            messages: Vec::new(),
            strangers: Vec::new(),
            reserved: Vec::new(),
            slots: None,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::new()
    }
}

/// One iommu-server.
pub struct Shard<'a, E, B> {
    env: E,
    backend: B,
    addressing: Addressing,
    pool: &'a mut Pool,
    buffers: &'a mut Buffers,
    clients: &'a mut [Client],
    private: &'a mut [Private; MAX_PRIVATE],
    devices: &'a mut Vec<Attached, MAX_ATTACHED>,
    /// Requester ids in contexts.
    requesters: &'a mut Vec<Requester, MAX_REQUESTERS>,
    /// Devices with requester ids they have besides their own.
    aliases: &'a mut Vec<(Sbdf, Sbdf), MAX_REQUESTERS>,
    /// Messages that were made deliverable.
    messages: &'a mut Vec<MessageNote, MAX_MESSAGE_BLOCKS>,
    strangers: &'a mut Vec<Stranger, MAX_STRANGERS>,
    reserved: &'a [Reserved],
    firmware_aliases: Vec<AliasRange, MAX_ALIAS_RANGES>,
    reserved_allowed: Vec<DeviceMatch, MAX_DEVICE_RULES>,
    slots: &'a mut Slots,
    buses: Vec<(u16, u8, u8), MAX_SHARDS>,
    gates: [Gate; MAX_UNITS],
    buffers_a_client: u16,
    private_a_client: usize,
    fault_bound: u32,
    faults: u64,
    /// Faults of devices that nobody holds.
    unheld_faults: u32,
    operations: u64,
    refused: u64,
}

impl<'a, E: Env, B: Backend> Shard<'a, E, B> {
    /// A shard over a back end whose units block every device.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(
        storage: &'a mut Storage,
        env: E,
        backend: B,
        setup: &Setup<'_>,
    ) -> Result<Self, SetupError> {
        let mut shard = Self::assemble(storage, env, backend, setup)?;
        shard.env.store(notes::HEADER, notes::STARTED);
        Ok(shard)
    }

    /// A shard that holds nothing yet.
    fn assemble(
        storage: &'a mut Storage,
        env: E,
        backend: B,
        setup: &Setup<'_>,
    ) -> Result<Self, SetupError> {
        let slots = Slots::new(setup.slots.first, setup.slots.count).ok_or(SetupError::TooMany)?;
        let clients = storage
            .clients
            .get_mut(..setup.clients.len())
            .ok_or(SetupError::TooMany)?;
        for (client, limits) in clients.iter_mut().zip(setup.clients) {
            client.limits = *limits;
        }
        for (number, piece) in setup.pool.iter().enumerate() {
            if !storage.pool.add(piece) {
                return Err(SetupError::Piece(number));
            }
        }
        let too_many = |_| SetupError::TooMany;
        storage.reserved = Vec::from_slice(setup.reserved).map_err(too_many)?;
        storage.buffers.open();
        let share = MAX_BUFFERS / setup.clients.len().max(1);
        Ok(Self {
            env,
            addressing: backend.addressing(),
            backend,
            pool: &mut storage.pool,
            buffers: &mut storage.buffers,
            clients,
            private: &mut storage.private,
            devices: &mut storage.devices,
            requesters: &mut storage.requesters,
            aliases: &mut storage.aliases,
            messages: &mut storage.messages,
            strangers: &mut storage.strangers,
            reserved: &storage.reserved,
            firmware_aliases: Vec::from_slice(setup.aliases).map_err(too_many)?,
            reserved_allowed: Vec::from_slice(setup.reserved_allowed).map_err(too_many)?,
            slots: storage.slots.insert(slots),
            buses: Vec::from_slice(setup.buses).map_err(too_many)?,
            gates: [Gate::new(); MAX_UNITS],
            buffers_a_client: (share as u16).max(MIN_BUFFERS_A_CLIENT),
            private_a_client: (MAX_PRIVATE / setup.clients.len().max(1)).max(MIN_PRIVATE_A_CLIENT),
            fault_bound: setup.fault_bound,
            faults: 0,
            unheld_faults: 0,
            operations: 0,
            refused: 0,
        })
    }

    /// The world, for tests and for the loop around the shard.
    pub fn env(&mut self) -> &mut E {
        &mut self.env
    }

    /// The back end.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The client that a call of kind `Client` came from.
    fn caller(&self, call: Call) -> Result<ClientId, Refusal> {
        self.known(ClientId(call.badge.index))
    }

    fn known(&self, client: ClientId) -> Result<ClientId, Refusal> {
        if usize::from(client.0) < self.clients.len() {
            Ok(client)
        } else {
            Err(Refusal::new(Rule::UnknownBadge, client.0.into()))
        }
    }

    fn client(&mut self, client: ClientId) -> Result<&mut Client, Refusal> {
        self.clients
            .get_mut(usize::from(client.0))
            .ok_or(Refusal::new(Rule::UnknownBadge, client.0.into()))
    }

    /// Place of the buffer that a call of kind `Buffer` is about.
    #[inline]
    fn buffer(&self, call: Call) -> Result<u16, Refusal> {
        self.buffers
            .find(call.badge)
            .ok_or(Refusal::new(Rule::StaleCapability, call.badge.index.into()))
    }

    /// Checks that `count` slots from `slot` on lie in the client's window.
    fn window(&self, client: ClientId, slot: u16, count: u16) -> Result<(), Refusal> {
        let bits = self
            .clients
            .get(usize::from(client.0))
            .map_or(0, |client| client.limits.window_bits);
        match bits {
            0 => Err(Rule::NoWindow.into()),
            bits if u64::from(slot) + u64::from(count) <= 1u64 << bits.min(16) => Ok(()),
            _ => Err(Refusal::new(Rule::WindowSlotOutOfRange, slot.into())),
        }
    }

    /// Checks that a device is on the buses of the calling pci-server shard.
    fn on_its_buses(&self, call: Call, device: Sbdf) -> Result<(), Refusal> {
        debug_assert_eq!(call.badge.kind, BadgeKind::Shard);
        if usize::from(call.badge.index) >= self.buses.len() {
            return Err(Refusal::new(Rule::UnknownBadge, call.badge.index.into()));
        }
        if self.has_bus(call.badge.index, device) {
            Ok(())
        } else {
            Err(Refusal::new(Rule::OutsideShard, device.to_bits().into()))
        }
    }

    /// Is the device on a bus of pci-server shard `shard`?
    fn has_bus(&self, shard: u16, device: Sbdf) -> bool {
        let buses = self.buses.get(usize::from(shard));
        buses.is_some_and(|&(segment, first, last)| {
            device.segment() == segment && (first..=last).contains(&device.bus())
        })
    }
}

/// The broken rule behind a back end's error.
fn backend_refusal(error: BackendError) -> Refusal {
    match error {
        BackendError::NoUnit => Rule::NoIommu,
        BackendError::DomainsExhausted => Rule::DomainsExhausted,
        BackendError::TablesExhausted => Rule::TablesExhausted,
        BackendError::NoDomain => Rule::NoContext,
        BackendError::Unconfirmed => Rule::InvalidationTimeout,
        BackendError::DeviceSilent => Rule::DeviceTlbTimeout,
        BackendError::RemapExhausted => Rule::RemapExhausted,
        BackendError::BadMessage(_) => Rule::BadArgument,
        BackendError::Cannot => Rule::BackendCannot,
    }
    .into()
}

/// The kernel's "delete first", where it says that a slot of our own is occupied.
const KERNEL_DELETE_FIRST: u64 = 8;

/// The broken rule behind a refused effect on our own slots.
fn effect_refusal(error: EffectError) -> Refusal {
    let number = match error {
        EffectError::Occupied => KERNEL_DELETE_FIRST,
        EffectError::Kernel(number) => number,
    };
    Refusal::new(Rule::KernelRefused, number)
}

/// The broken rule behind a refused block.
fn pool_refusal(error: PoolError) -> Refusal {
    match error {
        PoolError::Exhausted => Rule::DmaPoolExhausted.into(),
        PoolError::TooManyBlocks => Rule::TooManyBuffers.into(),
        PoolError::Slots => Rule::SlotsExhausted.into(),
        PoolError::Effect(error) => effect_refusal(error),
    }
}
