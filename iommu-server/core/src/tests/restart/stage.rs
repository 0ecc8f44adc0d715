//! A machine in use, and what can be seen of it.

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec;

use ipc_proto::{ANY_IOVA, Access, ContextChoice, PagePreference, VERSION, iommu};
use sim::vtd::{Dma, Model};

use super::operations::Operation;
use crate::tests::kernel::{Object, Place};
use crate::tests::machine::{CLIENTS, device};
use crate::tests::mortal::{MortalWorld, Survivors};
use crate::vtd::Quarantine;

/// Of client 0, with messages.
pub const HELD: u32 = 0x18;
/// Of client 0, keeps translations.
pub const CACHING: u32 = 0x20;
/// Of client 0, in a context of its own.
pub const PRIVATE: u32 = 0x28;
/// Of client 1, behind a bridge.
pub const ALIASED: u32 = 0x208;
pub const BRIDGE: u32 = 0x200;
/// Nobody's.
pub const NEW: u32 = 0x30;
/// Alone on its bus, which has no table before.
pub const APART: u32 = 0x318;
pub const FAR: u64 = 0x4000_0000;

const DEVICES: [u32; 8] = [
    HELD,
    CACHING,
    PRIVATE,
    ALIASED,
    BRIDGE,
    NEW,
    ALIASED + 8,
    APART,
];
const ADDRESSES: [u64; 12] = [
    0x10_0000,
    0x10_1000,
    0x10_6000,
    0x10_8000,
    0x10_f000,
    0x11_0000,
    0x11_2000,
    0x12_0000,
    0x20_0000,
    0x30_0000,
    FAR,
    FAR + 0x1000,
];

pub struct Stage {
    pub survivors: Survivors,
}

/// What clients, devices and the kernel see.
#[derive(PartialEq, Eq, Debug, Clone)]
pub struct Look {
    /// What each device reaches.
    reach: BTreeMap<(u32, u64), u64>,
    /// Interrupts that it raises with each entry.
    raises: BTreeMap<(u32, u32), u8>,
    /// Whom each capability in a window is of, and how many the server has.
    windows: BTreeMap<(u16, u16), Object>,
    masters: BTreeSet<u32>,
    used: Vec<u64>,
    buffers: Vec<String>,
    devices: BTreeSet<String>,
    pool_free: u64,
    domains: u32,
}

impl Stage {
    pub fn new(model: Model, quarantine: Quarantine) -> Self {
        let mut survivors = Survivors::new(model);
        survivors.options.quarantine = quarantine;
        Self { survivors }
    }

    pub fn live<R>(&self, act: impl FnOnce(&mut MortalWorld<'_>) -> R) -> R {
        self.survivors.live(None, act).expect("nobody kills it")
    }

    /// Puts the machine in use.
    pub fn set(&self) {
        let small = PagePreference::Small;
        self.live(|world| {
            world.alloc(0, 16 << 12, small, 0).unwrap();
            world.alloc(0, 3 << 12, small, 3).unwrap();
            world.alloc(1, 5 << 12, small, 0).unwrap();
            world.alloc(1, 2 << 20, PagePreference::Large, 5).unwrap();
            world.alloc(2, 1 << 12, small, 0).unwrap();
            world.alloc_private(0, 3 << 12, 60).unwrap();
            world.alloc_private(2, 2 << 12, 10).unwrap();
            let shared = world.buffer_badge(0, 0);
            world.import(1, shared, 1).unwrap();
            world.import(1, shared, 2).unwrap();
            // A second way to memory of its own.
            world.import(0, shared, 6).unwrap();
            world.attach(device(HELD), 0).unwrap();
            world
                .attach_as(device(CACHING), 0, ContextChoice::Shared, 4)
                .unwrap();
            world
                .attach_as(device(PRIVATE), 0, ContextChoice::Private, 0)
                .unwrap();
            world.alias(device(ALIASED), device(BRIDGE)).unwrap();
            world.attach(device(ALIASED), 1).unwrap();
            for (client, slot, context) in [(0, 0, 0), (0, 6, 0), (0, 60, 0), (1, 0, 0), (1, 1, 0)]
            {
                let badge = world.buffer_badge(client, slot);
                world
                    .map_in(badge, ANY_IOVA, Access::ReadWrite, context)
                    .unwrap();
            }
            // Tables without a translation, where a large page may come.
            let badge = world.buffer_badge(1, 2);
            world.map(badge, 0x30_0000, Access::Read).unwrap();
            world.unmap(badge).unwrap();
            world.remap(device(HELD), 0xfee0_0000, 0x41, 3).unwrap();
            world.remap(device(HELD), 0xfee0_1000, 0x51, 1).unwrap();
            world.remap(device(ALIASED), 0xfee0_1000, 0x53, 2).unwrap();
        });
        // Everything is cached that can be.
        let _ = self.reach();
    }

    /// The operation; how many effects it had, or `None` when it was killed.
    pub fn act(&self, operation: &Operation, nth: Option<u64>) -> Option<u64> {
        let fuse = &self.survivors.fuse;
        self.survivors.live(nth, |world| {
            let before = fuse.burnt();
            (operation.run)(world);
            fuse.burnt() - before
        })
    }

    /// As whoever asked for it does: what is taken back is asked for again, what was attached is detached first.
    pub fn again(&self, operation: &Operation) {
        self.live(|world| (operation.run)(world));
    }

    /// Takes everything back.
    pub fn clear(&self) {
        self.live(|world| {
            for bits in DEVICES {
                let _ = world.detach(device(bits));
                let _ = world.unremap(device(bits));
                let _ = world.alias(device(bits), device(bits));
            }
            for client in 0..CLIENTS {
                world.client_gone(client).unwrap();
            }
        });
        for (place, _) in self.survivors.kernel.caps() {
            if let Place::Window(client, slot) = place {
                panic!("slot {slot} of client {client} is left");
            }
        }
    }

    /// Takes everything back as far as it goes: then nobody reaches anything, and no client has anything.
    pub fn give_up(&self) {
        self.live(|world| {
            for bits in DEVICES {
                let _ = world.detach(device(bits));
            }
            for client in 0..CLIENTS {
                let _ = world.client_gone(client);
            }
            for client in 0..CLIENTS {
                assert_eq!(world.hello(client, VERSION).unwrap().used, 0);
            }
        });
        assert_eq!(self.reach(), BTreeMap::new());
    }

    /// Every figure, and every capability.
    pub fn accounts(&self) -> (iommu::FiguresReply, BTreeMap<Place, Object>, u32) {
        self.live(|world| {
            let remapped = crate::Backend::remapped(world.shard.backend());
            (world.figures(), world.kernel.shape(), remapped)
        })
    }

    fn reach(&self) -> BTreeMap<(u32, u64), u64> {
        reach(&self.survivors.unit)
    }

    /// What is to be seen, after a restart if there was one.
    pub fn look(&self) -> Look {
        self.live(|world| {
            let figures = world.figures();
            let caps = world.kernel.caps();
            let mut windows = BTreeMap::new();
            let mut masters = BTreeSet::new();
            for (place, object) in caps {
                match (place, object) {
                    (Place::Window(client, slot), object) => {
                        windows.insert((client, slot), object);
                    }
                    (Place::Own(slot), Object::Endpoint { .. } | Object::Frame { .. }) => {
                        masters.insert(slot);
                    }
                    (Place::Own(_), Object::Untyped { .. }) => {}
                }
            }
            let buffers: Vec<_> = windows
                .iter()
                .filter_map(|((client, slot), object)| match object {
                    Object::Endpoint { badge } => Some((*client, *slot, *badge)),
                    _ => None,
                })
                .collect();
            let buffers = buffers.into_iter().map(|(client, slot, badge)| {
                std::format!("{client} {slot}: {badge:?} {:x?}", world.info(badge))
            });
            let buffers = buffers.collect();
            let used = (0..CLIENTS)
                .map(|client| world.hello(client, VERSION).unwrap().used)
                .collect();
            let devices = (0..figures.attached as u16)
                .map(|index| {
                    let found = world.attached_at(index).unwrap();
                    std::format!("{} {:?} {}", found.device, found.client, found.domain)
                })
                .collect();
            let unit = &self.survivors.unit;
            let mut raises = BTreeMap::new();
            for bits in DEVICES {
                for entry in 0..16 {
                    let address = 0xfee0_0018 | u64::from(entry) << 5;
                    if let Ok(raised) = unit.message(bits as u16, address, 0) {
                        raises.insert((bits, entry), raised.vector ^ raised.destination as u8);
                    }
                }
            }
            Look {
                reach: reach(unit),
                raises,
                windows,
                masters,
                used,
                buffers,
                devices,
                pool_free: figures.pool_free,
                domains: figures.domains_used,
            }
        })
    }

    /// Has devices try everything before each effect from now on.
    pub fn watch(&self, allowed: &Allowed) {
        let (allowed, unit) = (allowed.clone(), self.survivors.unit.clone());
        self.survivors
            .fuse
            .watch(Some(Box::new(move || allowed.of(&unit))));
    }

    pub fn unwatch(&self) {
        self.survivors.fuse.watch(None);
    }
}

/// What each device reaches, by its requests or what it keeps. Where devices without a holder are is left out.
fn reach(unit: &sim::vtd::Vtd) -> BTreeMap<(u32, u64), u64> {
    let mut reached = BTreeMap::new();
    for bits in DEVICES {
        let requester = bits as u16;
        for address in ADDRESSES {
            let _ = unit.ask(requester, address, Dma::Read);
            let kept = unit.translated(requester, address);
            for found in [Some(unit.dma(requester, address, Dma::Write)), kept] {
                if let Some(Ok(physical)) = found {
                    let before = reached.insert((bits, address), physical);
                    assert!(
                        before.is_none_or(|before| before == physical),
                        "{bits:#x} at {address:#x}"
                    );
                }
            }
        }
    }
    reached
}

/// What devices may reach.
#[derive(Clone)]
pub struct Allowed(BTreeSet<(u32, u64, u64)>);

impl Allowed {
    pub fn either(one: &Look, other: &Look) -> Self {
        let both = one.reach.iter().chain(&other.reach);
        Self(
            both.map(|((bits, at), physical)| (*bits, *at, *physical))
                .collect(),
        )
    }

    fn of(&self, unit: &sim::vtd::Vtd) {
        for ((bits, at), physical) in reach(unit) {
            let fits = self.0.contains(&(bits, at, physical));
            assert!(fits, "{bits:#x} at {at:#x} reaches {physical:#x}");
        }
    }

    pub fn check(&self, stage: &Stage) {
        self.of(&stage.survivors.unit);
    }
}
