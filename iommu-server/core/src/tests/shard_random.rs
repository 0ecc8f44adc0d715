//! Random requests of several clients, with effects refused now and then. After
//! every step: each device reaches exactly its holder's mapped buffers, no two
//! buffers share memory, and at the end everything is back.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use ipc_proto::{Access, Badge, PagePreference};
use proptest::prelude::*;
use sim::vtd::{Dma, Model};

use super::kernel::Object;
use super::machine::{World, device};

const DEVICES: [u32; 3] = [0x18, 0x20, 0x8008];
const SLOTS: u16 = 6;
/// Each window slot of a buffer is followed by room for so many frames.
const ROOM: u16 = 40;

#[derive(Clone, Copy, Debug)]
enum Step {
    Alloc {
        client: u16,
        slot: u16,
        pages: u64,
        private: bool,
    },
    Import {
        from: (u16, u16),
        client: u16,
        slot: u16,
    },
    Map {
        client: u16,
        slot: u16,
        iova: Option<u64>,
    },
    Unmap(u16, u16),
    Free(u16, u16),
    Attach(usize, u16),
    Detach(usize),
    Gone(u16),
}

fn step() -> impl Strategy<Value = (Step, Option<u64>)> {
    let client = 0u16..3;
    let slot = 0..SLOTS;
    let both = (client.clone(), slot.clone());
    let step = prop_oneof![
        6 => (both.clone(), 1u64..33, any::<bool>())
            .prop_map(|((client, slot), pages, private)| Step::Alloc { client, slot, pages, private }),
        2 => (both.clone(), both.clone()).prop_map(|(from, (client, slot))| Step::Import { from, client, slot }),
        6 => (both.clone(), prop::option::of(prop_oneof![Just(0u64), Just(0x10_0000), Just(0x1f_f000), Just(0xfee0_0000)]))
            .prop_map(|((client, slot), iova)| Step::Map { client, slot, iova }),
        3 => both.clone().prop_map(|(client, slot)| Step::Unmap(client, slot)),
        3 => both.prop_map(|(client, slot)| Step::Free(client, slot)),
        3 => (0..DEVICES.len(), client.clone()).prop_map(|(device, client)| Step::Attach(device, client)),
        2 => (0..DEVICES.len()).prop_map(Step::Detach),
        1 => client.prop_map(Step::Gone),
    ];
    let refuse = prop_oneof![5 => Just(None), 1 => (0u64..12).prop_map(Some)];
    (step, refuse)
}

#[derive(Clone, Debug)]
struct Held {
    badge: Badge,
    frames: Vec<u64>,
    iova: Option<u64>,
    private: bool,
    /// The owner's place, when it is a share.
    of: Option<(u16, u16)>,
}

struct Run {
    world: World,
    held: BTreeMap<(u16, u16), Held>,
    attached: BTreeMap<usize, u16>,
}

impl Run {
    fn frames_of(&mut self, key: (u16, u16), badge: Badge, pages: u32) -> Vec<u64> {
        let first = key.1 * ROOM + 1;
        self.world.frames(badge, 0, pages as u16, first).unwrap();
        self.frames_in_window(key, pages)
    }

    fn frames_in_window(&self, key: (u16, u16), pages: u32) -> Vec<u64> {
        let first = key.1 * ROOM + 1;
        (0..pages as u16)
            .map(
                |page| match self.world.kernel.cap_in_window(key.0, first + page) {
                    Some(Object::Frame { base, .. }) => base,
                    other => panic!("{other:?}"),
                },
            )
            .collect()
    }

    fn forget(&mut self, key: (u16, u16)) {
        self.held.remove(&key);
        self.held.retain(|_, held| held.of != Some(key));
        // Frames that a share's holder got stay with it until the owner's end; the windows are the
        // clients' own to clear.
        self.clear_window(key);
    }

    fn clear_window(&mut self, key: (u16, u16)) {
        for slot in key.1 * ROOM..(key.1 + 1) * ROOM {
            self.world.kernel.drop_from_window(key.0, slot);
        }
    }

    fn apply(&mut self, step: Step, refuse: Option<u64>) {
        // A refusal while a failed step is undone loses what could not be undone, on purpose: an
        // occupied window fails a step, so nothing is refused then.
        let into = match step {
            Step::Alloc { client, slot, .. } | Step::Import { client, slot, .. } => {
                Some((client, slot))
            }
            _ => None,
        };
        let occupied = into.is_some_and(|key| self.held.contains_key(&key));
        self.world.kernel.refuse(refuse.filter(|_| !occupied));
        match step {
            Step::Alloc {
                client,
                slot,
                pages,
                private,
            } => {
                let key = (client, slot);
                let (bytes, place) = (pages << 12, slot * ROOM);
                let done = if private {
                    self.world.alloc_private(client, bytes, place)
                } else {
                    let done = self
                        .world
                        .alloc(client, bytes, PagePreference::Small, place);
                    done.map(|shape| shape.pages)
                };
                let provoked = self.world.kernel.refused();
                self.world.kernel.refuse(None);
                match done {
                    Ok(pages) => {
                        assert!(!self.held.contains_key(&key), "over an occupied slot");
                        let badge = self.world.buffer_badge(client, slot * ROOM);
                        let frames = if private {
                            self.frames_in_window(key, pages)
                        } else {
                            self.frames_of(key, badge, pages)
                        };
                        self.held.insert(
                            key,
                            Held {
                                badge,
                                frames,
                                iova: None,
                                private,
                                of: None,
                            },
                        );
                    }
                    Err(refusal) => {
                        assert!(provoked || self.held.contains_key(&key), "{refusal:?}");
                    }
                }
            }
            Step::Import { from, client, slot } => {
                let key = (client, slot);
                let Some(source) = self.held.get(&from).cloned() else {
                    return;
                };
                let done = self.world.import(client, source.badge, slot * ROOM);
                self.world.kernel.refuse(None);
                assert!(done.is_err() || !source.private);
                if let Ok(shape) = done {
                    let badge = self.world.buffer_badge(client, slot * ROOM);
                    let frames = self.frames_of(key, badge, shape.pages);
                    assert_eq!(frames, source.frames);
                    let held = Held {
                        badge,
                        frames,
                        iova: None,
                        private: false,
                        of: Some(source.of.unwrap_or(from)),
                    };
                    self.held.insert(key, held);
                }
            }
            Step::Map { client, slot, iova } => {
                if let Some(held) = self.held.get_mut(&(client, slot)) {
                    let wanted = iova.unwrap_or(ipc_proto::ANY_IOVA);
                    let done = self.world.map(held.badge, wanted, Access::ReadWrite);
                    if let Ok(at) = done {
                        assert_eq!(held.iova, None);
                        held.iova = Some(at);
                    }
                }
            }
            Step::Unmap(client, slot) => {
                if let Some(held) = self.held.get_mut(&(client, slot)) {
                    let done = self.world.unmap(held.badge);
                    assert_eq!(done.is_ok(), held.iova.take().is_some());
                }
            }
            Step::Free(client, slot) => {
                // Refusals while taking apart lose memory on purpose; that has a test of its own.
                self.world.kernel.refuse(None);
                if let Some(held) = self.held.get(&(client, slot)).cloned() {
                    self.world.free(held.badge).unwrap();
                    self.forget((client, slot));
                }
            }
            Step::Attach(number, client) => {
                let done = self.world.attach(device(DEVICES[number]), client);
                assert_eq!(done.is_ok(), !self.attached.contains_key(&number));
                self.attached.entry(number).or_insert(client);
            }
            Step::Detach(number) => {
                let done = self.world.detach(device(DEVICES[number]));
                assert_eq!(done.is_ok(), self.attached.remove(&number).is_some());
            }
            Step::Gone(client) => {
                self.world.kernel.refuse(None);
                self.world.client_gone(client).unwrap();
                self.attached.retain(|_, holder| *holder != client);
                for slot in 0..SLOTS {
                    self.forget((client, slot));
                }
            }
        }
        self.world.kernel.refuse(None);
        // A share's capability ends with its owner's buffer: its window slots are empty then, or
        // hold frames that nobody mapped.
        for client in 0..3 {
            for slot in 0..SLOTS {
                if !self.held.contains_key(&(client, slot)) {
                    self.clear_window((client, slot));
                }
            }
        }
    }

    fn check(&self) {
        let mut owned = BTreeSet::new();
        for held in self.held.values().filter(|held| held.of.is_none()) {
            for frame in &held.frames {
                assert!(owned.insert(*frame), "{frame:#x} is in two buffers");
            }
        }
        let mut places = BTreeSet::from([0, 0x10_0000, 0x1f_f000, 0x20_0000]);
        places.extend(self.held.values().filter_map(|held| held.iova));
        for (number, requester) in DEVICES.iter().enumerate() {
            let holder = self.attached.get(&number);
            for place in &places {
                for address in [*place, place + 0x1000, place + 0x1f000] {
                    let wanted = self.held.iter().find_map(|((client, _), held)| {
                        let iova = held.iova.filter(|_| Some(client) == holder)?;
                        let page = address.checked_sub(iova)? >> 12;
                        held.frames.get(page as usize).copied()
                    });
                    let reached = self.world.dma(device(*requester), address, Dma::Write);
                    assert_eq!(reached.ok(), wanted, "{requester:#x} at {address:#x}");
                }
            }
        }
    }
}

fn run(model: Model, steps: &[(Step, Option<u64>)]) {
    let mut run = Run {
        // Every check is a storm of faults.
        world: World::patient(model),
        held: BTreeMap::new(),
        attached: BTreeMap::new(),
    };
    let before = (run.world.figures(), run.world.kernel.shape());
    for (step, refuse) in steps {
        run.apply(*step, *refuse);
        run.check();
    }
    for client in 0..3 {
        run.apply(Step::Gone(client), None);
        run.check();
    }
    let after = (run.world.figures(), run.world.kernel.shape());
    assert_eq!(after, before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 5))]

    #[test]
    fn qemus_unit(steps in prop::collection::vec(step(), 1..120)) {
        run(Model::QEMU, &steps);
    }

    #[test]
    fn caching_mode(steps in prop::collection::vec(step(), 1..120)) {
        run(Model::QEMU.caching(), &steps);
    }
}
