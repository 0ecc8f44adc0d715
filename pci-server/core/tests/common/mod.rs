//! The world around a shard in a test: a simulated machine, the kernel's
//! capabilities as a model, the servers below as tables, and a record of what the
//! shard did, in order. Any call that can fail can be made to.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by several test programs, each of which may stop at the first surprise"
)]

pub mod devices;
pub mod kernel;
pub mod plug;
pub mod scene;
pub mod world;

pub use world::*;

use std::cell::RefCell;
use std::fmt;

use hw::{Clock, Sbdf};
use ipc_proto::pci::{self, HolderReply, Stub};
use ipc_proto::{Badge, BadgeKind, ClientId, ContextChoice, Message, Transport};
use kernel::{Object, Place};
use pci_core::{Shard, Tables};
use sim::config::Machine;
use system::info::{ClientEntry, EcamWindow, PciInfo, UntypedPiece};
use system::model::DeviceMatch;

/// A client that may have these devices.
pub fn client(name: &str, devices: &[DeviceMatch]) -> ClientEntry {
    ClientEntry {
        name: name.try_into().unwrap(),
        window: 500,
        window_bits: 8,
        events: 501,
        notification: 0,
        devices: devices.iter().copied().collect(),
        dma_quota: 1 << 20,
        largest_buffer: 1 << 20,
        vectors: 16,
        reserved_vectors: 0,
        interrupt_rate: 0,
        core: 0,
    }
}

/// A shard with bus 0 to 0x3f of segment 0 and an IOMMU.
pub fn pci_info() -> PciInfo {
    let mut info = PciInfo {
        config_ports: 0,
        port_interrupt: None,
        unit_messages: Default::default(),
        large_bars: Default::default(),
        ats: Default::default(),
        virtual_functions: Default::default(),
        proximity: Default::default(),
        io: Default::default(),
        shard: 0,
        ecam: Default::default(),
        mmio: Default::default(),
        withheld: Default::default(),
        iommu_present: true,
        iommu_shard: 0,
        msi_shard: 0,
        intx: Default::default(),
        unprotected: false,
        done: 502,
    };
    let window = EcamWindow {
        vaddr: 0x4000_0000,
        paddr: 0xb000_0000,
        segment: 0,
        first_bus: 0,
        last_bus: 0x3f,
    };
    info.ecam.push(window).unwrap();
    for (slot, base, bits) in MEMORY {
        info.mmio.push(UntypedPiece { slot, base, bits }).unwrap();
    }
    info
}

/// A booted shard, shared by the capabilities that lead to it.
pub struct Booted {
    pub shard: RefCell<Shard<'static, World>>,
    info: &'static PciInfo,
    clients: &'static [ClientEntry],
}

impl Booted {
    pub fn new(machine: Machine, clients: Vec<ClientEntry>) -> Self {
        Self::with(World::new(machine), pci_info(), clients)
    }

    pub fn with(world: World, info: PciInfo, clients: Vec<ClientEntry>) -> Self {
        let booted = Self::start(world, Box::leak(Box::new(info)), clients.leak());
        booted.world(|world| world.did.clear());
        booted
    }

    /// Kills the shard, if it is not dead, and starts it again.
    pub fn restarted(self) -> Self {
        let Self {
            shard,
            info,
            clients,
        } = self;
        let world = shard.into_inner().into_env();
        Self::start(world.restarted(), info, clients)
    }

    /// Kills the shard after so many effects from now on.
    pub fn kill_after(&self, effects: u64) {
        self.world(|world| world.kernel.killed_at = Some(world.kernel.effects + effects));
    }

    pub fn is_dead(&self) -> bool {
        self.world(|world| world.kernel.is_dead())
    }

    fn start(world: World, info: &'static PciInfo, clients: &'static [ClientEntry]) -> Self {
        // Too large for a test's stack on its way to the heap.
        let tables: &'static mut Tables<u32> = std::thread::Builder::new()
            .stack_size(32 << 20)
            .spawn(|| Box::leak(Box::new(Tables::new())))
            .unwrap()
            .join()
            .unwrap();
        let mut shard = Shard::boot(world, info, clients, tables.lend());
        shard.report();
        Self {
            shard: RefCell::new(shard),
            info,
            clients,
        }
    }

    /// Looks at or changes the world.
    pub fn world<R>(&self, with: impl FnOnce(&mut World) -> R) -> R {
        with(self.shard.borrow_mut().env_mut())
    }

    /// Sends a request over a capability with this badge; `None` when it was parked.
    pub fn send(&self, badge: Badge, request: pci::Request) -> Option<Message> {
        self.shard
            .borrow_mut()
            .serve(badge.to_word(), &request.encode(), |reply| *reply)
    }

    /// Lets the timer run out once, if it is armed.
    pub fn tick(&self) -> bool {
        let due = self.world(|world| {
            let due = world.alarm.take()?;
            let now = world.clock.now_us();
            world.clock.advance_us(due.saturating_sub(now));
            Some(())
        });
        if due.is_some() {
            self.shard.borrow_mut().on_timer();
        }
        due.is_some()
    }

    /// Lets time pass until nothing is under way.
    pub fn settle(&self) {
        for _ in 0..10_000 {
            if !self.tick() {
                return;
            }
        }
        panic!("the timer never comes to rest");
    }

    pub fn stub(&self, badge: Badge) -> Stub<Caller<'_>> {
        Stub(Caller {
            booted: self,
            badge,
        })
    }

    /// A client's way to the shard.
    pub fn client(&self, id: u16) -> Stub<Caller<'_>> {
        self.stub(Badge::plain(BadgeKind::Client, id))
    }

    pub fn supervisor(&self) -> Stub<Caller<'_>> {
        self.stub(Badge::plain(BadgeKind::Supervisor, 0))
    }

    /// The badge of the device capability in a window slot.
    pub fn badge_in(&self, client: u16, slot: u16) -> Badge {
        match self.world(|world| world.kernel.object(Place::Window(client, slot))) {
            Some(Object::Device { badge }) => Badge::from_word(badge).unwrap(),
            other => panic!("{other:?} is no device capability"),
        }
    }

    /// Over a device capability with this badge.
    pub fn device(&self, badge: Badge) -> Stub<Caller<'_>> {
        self.stub(badge)
    }

    /// Assigns, and gives the way to the device.
    pub fn assigned(&self, client: u16, at: Sbdf, slot: u16) -> Stub<Caller<'_>> {
        self.client(client)
            .assign(at, slot, ContextChoice::Shared)
            .unwrap();
        self.device(self.badge_in(client, slot))
    }

    /// Everything that a failed operation must leave as it was.
    pub fn state(&self) -> impl PartialEq + fmt::Debug + use<> {
        let figures = self.supervisor().figures().unwrap();
        let mut holders = Vec::new();
        while let Ok(holder) = self.supervisor().holder(holders.len() as u32) {
            holders.push(holder);
        }
        self.check_held(&holders);
        let figures = (
            figures.devices,
            figures.assigned,
            figures.slots_used,
            figures.untyped_used,
        );
        (figures, holders, self.world(|world| world.state()))
    }
}

impl Booted {
    /// The lists of what each client holds say what the list of all devices says.
    fn check_held(&self, holders: &[HolderReply]) {
        let supervisor = self.supervisor();
        for client in 0..4 {
            let mut held: Vec<_> = (0..)
                .map_while(|index| supervisor.held_at(ClientId(client), index).ok())
                .map(|held| (held.device, held.ids, held.class))
                .collect();
            held.sort();
            let all = holders.iter().filter(|row| row.holder == client + 1);
            let all: Vec<_> = all.map(|row| (row.device, row.ids, row.class)).collect();
            assert_eq!(held, all);
        }
        for (index, row) in holders.iter().enumerate() {
            let by_index = supervisor.holder_bar(index as u32, 0).unwrap();
            let by_address = supervisor.held_bar(row.device, 0).unwrap();
            assert_eq!(
                (by_index.kind, by_index.base, by_index.bytes),
                (by_address.kind, by_address.base, by_address.bytes)
            );
        }
    }
}

/// A capability of the shard. A parked request waits while time passes.
#[derive(Clone, Copy)]
pub struct Caller<'b> {
    booted: &'b Booted,
    badge: Badge,
}

impl Transport for Caller<'_> {
    fn call(&self, request: &Message) -> Message {
        let first = self.booted.world(|world| world.next_ticket);
        let reply = self
            .booted
            .shard
            .borrow_mut()
            .serve(self.badge.to_word(), request, |reply| *reply);
        let restarted = ipc_proto::Refusal::new(ipc_proto::Rule::Restarted, 0).to_message();
        if self.booted.is_dead() {
            return restarted;
        }
        if let Some(reply) = reply {
            return reply;
        }
        let ticket = self.booted.world(|world| world.next_ticket);
        assert_eq!(
            ticket,
            first + 1,
            "a request without an answer was not parked"
        );
        for _ in 0..10_000 {
            if let Some(answer) = self.booted.world(|world| world.answers.remove(&ticket)) {
                return answer;
            }
            if self.booted.is_dead() {
                return restarted;
            }
            assert!(self.booted.tick(), "a parked request is never answered");
        }
        panic!("a parked request is never answered");
    }
}
