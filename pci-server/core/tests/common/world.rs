//! [`World`]: the environment of a shard in a test, and [`Did`]: what the shard did to it.

mod grants;
mod memory;
mod vectors;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use hw::{Clock, ConfigSpace, Sbdf};
use ipc_proto::iommu::{ReservedAtReply, TroubleNextReply};
use ipc_proto::{
    Badge, ClientId, ContextChoice, Message, Messages, Properties, Refusal, Rule, Switch, Turns,
    Width,
};
use pci_core::bank::{Bank, PageSize};
use pci_core::env::*;
use sim::clock::ManualClock;
use sim::config::Machine;

use super::kernel::{Kernel, Object, Place};

/// What a shard did to its surroundings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Did {
    Wrote {
        at: Sbdf,
        offset: u16,
        width: u8,
        value: u32,
    },
    Attached(Sbdf, ClientId),
    Remapped(Sbdf, u16),
    Unremapped(Sbdf),
    Detached(Sbdf),
    Kept(Sbdf, u8),
    TookVectors(Sbdf, u16),
    Retargeted(Sbdf, Messages, u8),
    Rerouted(Sbdf, u32, Messages, u64),
    GaveVectorsBack(Sbdf),
    Bound(Sbdf, u16, u64),
    Resumed(Sbdf, Messages),
    PlacedDevice(u16),
    RevokedDevice(u16),
    PlacedFrames {
        first: u32,
        count: u16,
    },
    RevokedFrames,
    MappedTable,
    WroteTable {
        offset: u32,
        value: u32,
    },
    Parked(u32),
    Answered(u32),
    ToldClient(ClientId),
    ToldSupervisor,
}

/// The environment of a shard.
pub struct World {
    pub machine: Machine,
    pub clock: ManualClock,
    pub kernel: Kernel,
    pub bank: Bank,
    /// Devices in a client's context.
    pub attached: BTreeMap<Sbdf, ClientId>,
    /// Vectors taken: first data value and how many.
    pub vectors: BTreeMap<Sbdf, Vec<(u32, u16)>>,
    pub next_vector: u32,
    /// Vectors that a client may have.
    pub vector_quota: u16,
    /// What an attachment promises.
    pub promise: Properties,
    /// Requester ids that devices have besides their own.
    pub aliases: BTreeSet<(Sbdf, Sbdf)>,
    /// Messages remapped: first handle, what they raise, how many.
    pub remapped: BTreeMap<Sbdf, Vec<(u32, VectorBlock, u16)>>,
    next_handle: u32,
    /// What firmware reserved.
    pub reserved: BTreeMap<Sbdf, Vec<ReservedAtReply>>,
    pub trouble: VecDeque<TroubleNextReply>,
    /// Who is on which line.
    pub lines: BTreeMap<Sbdf, (ClientId, u16)>,
    /// Reports of lines that wait.
    pub line_trouble: VecDeque<(Sbdf, u32)>,
    /// Reports of messages that wait.
    pub storms: VecDeque<(Sbdf, u16, u32)>,
    /// Messages that are not passed on.
    pub silenced: BTreeSet<(Sbdf, u16)>,
    /// Vectors that any client can have.
    pub prospect: Prospect,
    /// Masters of device capabilities.
    masters: BTreeMap<u16, u32>,
    /// Mapped MSI-X tables: first physical page.
    tables: BTreeMap<u16, u64>,
    /// Pages mapped beside them.
    pages: BTreeMap<u16, u64>,
    /// Device memory that was written: by physical address.
    pub memory: BTreeMap<u64, u32>,
    pub parking_limit: usize,
    pub parked: Vec<u32>,
    pub next_ticket: u32,
    pub answers: BTreeMap<u32, Message>,
    pub alarm: Option<u64>,
    pub did: Vec<Did>,
    pub log: Vec<String>,
    /// How often the shard was restarted.
    pub lives: u32,
}

/// For so many clients device memory is divided.
const CLIENTS: usize = 2;

/// Device memory of a shard: slot, address, bits.
pub const MEMORY: [(u32, u64, u8); 2] = [(100, 0xe000_0000, 28), (101, 0x80_0000_0000, 32)];

impl World {
    pub fn new(machine: Machine) -> Self {
        let mut world = Self {
            machine,
            clock: ManualClock::new(),
            kernel: Kernel::new(),
            bank: Bank::new(),
            attached: BTreeMap::new(),
            vectors: BTreeMap::new(),
            next_vector: 0x40,
            vector_quota: u16::MAX,
            promise: PROMISE,
            aliases: BTreeSet::new(),
            remapped: BTreeMap::new(),
            next_handle: 8,
            reserved: BTreeMap::new(),
            trouble: VecDeque::new(),
            lines: BTreeMap::new(),
            line_trouble: VecDeque::new(),
            storms: VecDeque::new(),
            silenced: BTreeSet::new(),
            prospect: Prospect {
                kept: 4,
                common: 60,
                left: 16,
            },
            masters: BTreeMap::new(),
            tables: BTreeMap::new(),
            pages: BTreeMap::new(),
            memory: BTreeMap::new(),
            parking_limit: 64,
            parked: Vec::new(),
            next_ticket: 0,
            answers: BTreeMap::new(),
            alarm: None,
            did: Vec::new(),
            log: Vec::new(),
            lives: 0,
        };
        // Device memory: 0xe000_0000..0xf000_0000, and 4 GiB far up.
        for (slot, base, bits) in MEMORY {
            world.kernel.give_untyped(slot, base, bits);
            world.bank.add(slot, base, bits).unwrap();
        }
        world.bank.divide(CLIENTS, world.kernel.slot_limit);
        world
    }

    /// What is left for the next life of a shard that was killed: everything that is not its own memory. Whoever waited
    /// for an answer is told that it was restarted.
    #[must_use]
    pub fn restarted(mut self) -> Self {
        self.lives += 1;
        self.kernel.restart(self.masters.values().copied());
        self.bank = Bank::new();
        for (slot, base, bits) in MEMORY {
            self.bank.add(slot, base, bits).unwrap();
        }
        self.bank.divide(CLIENTS, self.kernel.slot_limit);
        self.tables.clear();
        self.pages.clear();
        let restarted = Refusal::new(Rule::Restarted, 0).to_message();
        for ticket in self.parked.drain(..) {
            self.answers.insert(ticket, restarted);
        }
        self.alarm = None;
        self.did.clear();
        self.renumber();
        self
    }

    /// The servers below hand out what is free, so that what is asked for again is the same again.
    pub fn renumber(&mut self) {
        if self.lives == 0 {
            return;
        }
        let vectors = self.vectors.values().flatten();
        self.next_vector = vectors
            .map(|(first, count)| first + u32::from(*count))
            .max()
            .unwrap_or(0x40);
        let handles = self.remapped.values().flatten();
        self.next_handle = handles
            .map(|(first, _, count)| first + u32::from(*count))
            .max()
            .unwrap_or(8);
    }

    pub fn clock_us(&self) -> u64 {
        self.clock.now_us()
    }

    pub fn told_supervisor(&self) -> usize {
        self.did
            .iter()
            .filter(|did| **did == Did::ToldSupervisor)
            .count()
    }

    /// Everything outside the shard that an operation may change, except the trace.
    pub fn state(&self) -> impl PartialEq + fmt::Debug + use<> {
        let registers: Vec<_> = self
            .machine
            .addresses()
            .map(|at| (at, self.machine.snapshot(at)))
            .collect();
        (
            self.kernel.state(),
            self.attached.clone(),
            (self.vectors.clone(), self.remapped.clone()),
            self.masters.clone(),
            registers,
            self.bank.split_bytes(),
        )
    }

    fn note_write(&mut self, at: Sbdf, offset: u16, width: u8, value: u32) {
        self.did.push(Did::Wrote {
            at,
            offset,
            width,
            value,
        });
    }
}

impl ConfigSpace for World {
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        self.machine.read8(at, offset)
    }
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        self.machine.read16(at, offset)
    }
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        self.machine.read32(at, offset)
    }
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8) {
        if !self.kernel.effect() {
            return;
        }
        self.note_write(at, offset, 1, value.into());
        self.machine.write8(at, offset, value);
    }
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16) {
        if !self.kernel.effect() {
            return;
        }
        self.note_write(at, offset, 2, value.into());
        self.machine.write16(at, offset, value);
    }
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32) {
        if !self.kernel.effect() {
            return;
        }
        self.note_write(at, offset, 4, value);
        self.machine.write32(at, offset, value);
    }
}

impl Clock for World {
    fn now_us(&self) -> u64 {
        self.clock.now_us()
    }
}

pub const PROMISE: Properties = Properties {
    dma_isolated: true,
    interrupts_isolated: false,
    faults_reported: true,
    translation_cached: false,
    reset: None,
    vectors: 0,
};

impl Iommu for World {
    fn attach(
        &mut self,
        device: Sbdf,
        client: ClientId,
        _: ContextChoice,
        ats_queue: u8,
    ) -> Result<(Properties, u16), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        let refused = self.reserved.get(&device).into_iter().flatten();
        if refused.clone().any(|region| region.allowed == Switch::Off) {
            return Err(Refusal::new(Rule::ReservedRegion, device.to_bits().into()));
        }
        assert_eq!(
            self.attached.insert(device, client),
            None,
            "{device} attached twice"
        );
        self.did.push(Did::Attached(device, client));
        let properties = Properties {
            translation_cached: self.promise.translation_cached && ats_queue > 0,
            ..self.promise
        };
        Ok((properties, 0))
    }
    fn keep(&mut self, device: Sbdf, ats_queue: u8) -> Result<Switch, Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        assert!(
            self.attached.contains_key(&device),
            "{device} is not attached"
        );
        self.did.push(Did::Kept(device, ats_queue));
        let allowed = self.promise.translation_cached && ats_queue > 0;
        Ok(if allowed { Switch::On } else { Switch::Off })
    }
    fn detach(&mut self, device: Sbdf) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        let was = self.attached.remove(&device).is_some();
        // Who does not know how far it came says it again.
        assert!(was || self.lives > 0, "{device} was not attached");
        if !was {
            return Err(Refusal::new(Rule::NotAttached, device.to_bits().into()));
        }
        self.did.push(Did::Detached(device));
        Ok(())
    }
    fn promise(&mut self, _: Sbdf) -> Result<Properties, Refusal> {
        self.kernel.may_fail()?;
        Ok(self.promise)
    }
    fn alias(&mut self, device: Sbdf, alias: Sbdf) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        assert!(
            !self.attached.contains_key(&device),
            "{device} is attached without its alias"
        );
        self.aliases.insert((device, alias));
        Ok(())
    }
    fn remap(
        &mut self,
        device: Sbdf,
        vectors: VectorBlock,
        count: u16,
    ) -> Result<VectorBlock, Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        let handle = self.next_handle;
        self.next_handle += u32::from(count);
        self.remapped
            .entry(device)
            .or_default()
            .push((handle, vectors, count));
        self.did.push(Did::Remapped(device, count));
        // Remappable format: the handle is in the address, the data counts within it.
        Ok(VectorBlock {
            address: 0xfee0_0018 | u64::from(handle) << 5,
            data: 0,
        })
    }
    fn reroute(
        &mut self,
        device: Sbdf,
        remapped: VectorBlock,
        messages: Messages,
        address: u64,
    ) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        let handle = (remapped.address >> 5 & 0x7fff) as u32;
        let blocks = self.remapped.get(&device).map_or(&[][..], Vec::as_slice);
        let known = |(first, _, count): &&(u32, VectorBlock, u16)| {
            *first == handle && messages.end() <= u32::from(*count)
        };
        assert!(blocks.iter().any(|block| known(&block)), "no such block");
        self.did
            .push(Did::Rerouted(device, handle, messages, address));
        Ok(())
    }
    fn unremap(&mut self, device: Sbdf) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        self.remapped.remove(&device);
        self.renumber();
        self.did.push(Did::Unremapped(device));
        Ok(())
    }
    fn reserved_at(&mut self, device: Sbdf, index: u16) -> Result<ReservedAtReply, Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        let regions = self.reserved.get(&device);
        let region = regions.and_then(|regions| regions.get(usize::from(index)));
        region.copied().ok_or(Rule::EndOfList.into())
    }
    fn trouble_next(&mut self) -> Result<TroubleNextReply, Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        self.trouble.pop_front().ok_or(Rule::EndOfList.into())
    }
}

impl Parking for World {
    type Ticket = u32;
    fn park(&mut self) -> Result<u32, Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        if self.parked.len() >= self.parking_limit {
            return Err(Refusal::new(Rule::TooManyParked, self.parking_limit as u64));
        }
        self.next_ticket += 1;
        self.parked.push(self.next_ticket);
        self.did.push(Did::Parked(self.next_ticket));
        Ok(self.next_ticket)
    }
    fn answer(&mut self, ticket: u32, reply: &Message) {
        if !self.kernel.effect() {
            return;
        }
        let at = self
            .parked
            .iter()
            .position(|parked| *parked == ticket)
            .expect("answered twice");
        self.parked.remove(at);
        self.answers.insert(ticket, *reply);
        self.did.push(Did::Answered(ticket));
    }
}

impl Alarm for World {
    fn arm(&mut self, micros: u64) {
        assert!(micros > 0, "0 switches the timer off");
        if self.kernel.is_dead() {
            return;
        }
        self.alarm = Some(self.clock.now_us() + micros);
    }
}

impl Signals for World {
    fn tell_client(&mut self, client: ClientId) {
        if self.kernel.effect() {
            self.did.push(Did::ToldClient(client));
        }
    }
    fn tell_supervisor(&mut self) {
        if self.kernel.effect() {
            self.did.push(Did::ToldSupervisor);
        }
    }
}

impl Host for World {
    fn log(&mut self, line: fmt::Arguments<'_>) {
        self.log.push(line.to_string());
    }
    fn ticks(&self) -> u64 {
        self.machine.reads() as u64
    }
    fn turns(&self) -> Turns {
        Turns::default()
    }
    fn usage(&self) -> Usage {
        Usage {
            slots: self.kernel.slots_used(),
            untyped_bytes: self.bank.split_bytes(),
        }
    }
}
