//! Masks and pending bits of messages, with whatever is done to them and whatever the device raises meanwhile: against a model that
//! knows nothing of registers, by a device that knows nothing of the server.
//!
//! [`card`] is the device: it is shown every write that the server does, in order, and sends what the specification says it
//! sends; events of it fall between any two writes. [`model`] is what a holder may expect. Neither uses the code under test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;
mod pending_model;

use common::devices::memory32;
use common::*;
use hw::Sbdf;
use ipc_proto::pci::Stub;
use ipc_proto::{Mechanism, Refusal, Rule, Switch, Width};
use pci_core::env::VectorBlock;
use pending_model::card::{Card, Shape};
use pending_model::model::{Change, Model};
use proptest::prelude::*;
use sim::config::{BarShape, Endpoint, ExpressShape, Machine, MsiShape, MsixShape, PortKind};
use system::model::DeviceMatch;

const BAR: u64 = 0x80_0000_0000;
/// Of the table and the pending bits in it: the table does not begin on a page.
const TABLE: u64 = 0x2100;
const PENDING: u64 = 0x3000;

#[derive(Clone, Debug)]
enum Step {
    Enable {
        first: u16,
        count: u16,
    },
    Disable,
    Mask {
        first: u16,
        count: u16,
        switch: bool,
    },
    /// Message control is written: enable bit, function mask.
    Control {
        enable: bool,
        mask: bool,
    },
    /// MSI's mask bits are written.
    Masks(u32),
    Move {
        first: u16,
        count: u16,
        core: u8,
    },
    Reset,
    Restart,
    /// Nothing is asked; only the device does something.
    Nothing,
}

/// A message that the device has reason to send, after so much of a step's writes.
type Event = (u16, prop::sample::Index);

fn enable() -> impl Strategy<Value = Step> {
    let of = |(first, count)| Step::Enable { first, count };
    prop_oneof![
        2 => (0u16..6).prop_map(move |shift| of((0, 1 << shift))),
        1 => (0u16..4, 1u16..7).prop_map(of),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let range = || prop_oneof![2 => (0u16..5, Just(1)), 1 => (0u16..4, 1u16..5)];
    prop_oneof![
        3 => enable(),
        3 => Just(Step::Disable),
        6 => (range(), any::<bool>()).prop_map(|((first, count), switch)| Step::Mask { first, count, switch }),
        3 => (prop::bool::weighted(0.8), any::<bool>()).prop_map(|(enable, mask)| Step::Control { enable, mask }),
        3 => any::<u32>().prop_map(Step::Masks),
        2 => (range(), 0u8..4).prop_map(|((first, count), core)| Step::Move { first, count, core }),
        1 => (0u16..4, 0u8..4).prop_map(|(shift, core)| Step::Move { first: 0, count: 1 << shift, core }),
        2 => Just(Step::Reset),
        2 => Just(Step::Restart),
        4 => Just(Step::Nothing),
    ]
}

/// Messages are enabled first: what happens without is the least of it.
fn steps() -> impl Strategy<Value = Vec<(Step, Vec<Event>)>> {
    let events = || {
        let index = any::<prop::sample::Index>;
        let one = (prop_oneof![3 => 0u16..5, 1 => 0u16..12], index());
        let all = index().prop_map(|when| (0..12).map(|message| (message, when)).collect());
        prop_oneof![
            1 => Just(Vec::new()),
            2 => prop::collection::vec(one, 1..4).prop_map(|mut events: Vec<Event>| {
                // Two of the same message in one step may be one, or not.
                events.sort_by_key(|(message, _)| *message);
                events.dedup_by_key(|(message, _)| *message);
                events
            }),
            2 => all,
        ]
    };
    let rest = prop::collection::vec((step(), events()), 1..24);
    ((enable(), events()), rest).prop_map(|(first, rest)| [vec![first], rest].concat())
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (any::<bool>(), prop::bool::weighted(0.7), 0u8..6).prop_map(|(wide, maskable, log2)| {
            Shape::Msi {
                wide,
                maskable,
                log2,
            }
        }),
        (3u16..9).prop_map(|entries| Shape::MsiX { entries }),
    ]
}

fn endpoint(shape: Shape) -> Endpoint {
    let endpoint = Endpoint::new(0x1234, 0x5678).class(0xff, 0, 0);
    match shape {
        Shape::Msi {
            wide,
            maskable,
            log2,
        } => endpoint
            .bar(0, memory32(4096, 0xe000_0000))
            .msi(MsiShape {
                wide,
                maskable,
                vectors_log2: log2,
            })
            .advanced_features(),
        Shape::MsiX { entries } => endpoint
            .bar(
                0,
                BarShape::Memory64 {
                    size: 16 << 10,
                    address: BAR,
                    prefetchable: false,
                },
            )
            .msix(MsixShape {
                entries,
                table: (0, TABLE as u32),
                pending: (0, PENDING as u32),
            })
            .express(ExpressShape {
                kind: PortKind::Integrated,
                flr: true,
                slot: None,
            }),
    }
}

/// The server, the device and what is expected of both.
struct Bench {
    booted: Option<Booted>,
    at: Sbdf,
    shape: Shape,
    /// Messages are remapped.
    isolated: bool,
    card: Card,
    model: Model,
}

impl Bench {
    fn new(shape: Shape, isolated: bool, keeps: bool) -> Self {
        let mut machine = Machine::new();
        let at = machine.add("00:03.0", endpoint(shape));
        let mut world = World::new(machine);
        world.promise.interrupts_isolated = isolated;
        let any = DeviceMatch::Class { class: 0, mask: 0 };
        let booted = Booted::with(world, pci_info(), vec![client("zero", &[any])]);
        booted.assigned(0, at, 0);
        let card = booted.world(|world| {
            world.did.clear();
            Card::new(shape, keeps, &world.machine.snapshot(at))
        });
        Self {
            booted: Some(booted),
            at,
            shape,
            isolated,
            card,
            model: Model::new(shape, keeps),
        }
    }

    fn booted(&self) -> &Booted {
        self.booted.as_ref().unwrap()
    }

    fn device(&self) -> Stub<Caller<'_>> {
        self.booted().device(self.booted().badge_in(0, 0))
    }

    /// What each message in use is to be sent as, but for the core, in order of the messages.
    fn programmed(&self) -> Vec<(u64, u32)> {
        self.booted().world(|world| {
            if let Some(blocks) = world.remapped.get(&self.at) {
                let of = |(handle, _, count): &(u32, VectorBlock, u16)| {
                    let address = 0xfee0_0018 | u64::from(*handle) << 5;
                    (0..u32::from(*count)).map(move |n| (address, n))
                };
                return blocks.iter().flat_map(of).collect();
            }
            let blocks = world.vectors.get(&self.at).into_iter().flatten();
            let of = |(data, count): &(u32, u16)| {
                let data = *data;
                (0..u32::from(*count)).map(move |n| (0xfee0_0000, data + n))
            };
            blocks.flat_map(of).collect()
        })
    }

    /// Asks the server; the change that this is, where it was done.
    fn ask(&mut self, step: &Step) -> Result<Change, Refusal> {
        let mechanism = match self.shape {
            Shape::Msi { .. } => Mechanism::Msi,
            Shape::MsiX { .. } => Mechanism::MsiX,
        };
        let device = self.device();
        let switch = |on: bool| if on { Switch::On } else { Switch::Off };
        let write = |offset: usize, width, value| {
            device.config_write((self.card.capability + offset) as u16, width, value)
        };
        match *step {
            Step::Enable { first, count } => {
                device.msi_enable(mechanism, first, count, 1)?;
                Ok(Change::Enabled { first, count })
            }
            Step::Disable => device.msi_disable().map(|_| Change::Disabled),
            Step::Mask {
                first,
                count,
                switch: on,
            } => device
                .msi_mask(first, count, switch(on))
                .map(|_| Change::Masked { first, count, on }),
            Step::Control { enable, mask } => {
                let value = self.card.control_with(enable, mask);
                write(2, Width::Word, value.into())?;
                Ok(Change::Switched {
                    enable,
                    mask: mask && mechanism == Mechanism::MsiX,
                })
            }
            Step::Masks(value) => {
                let Some((offset, value)) = self.card.masks_with(value) else {
                    return Ok(Change::Nothing);
                };
                write(offset, Width::Dword, value)?;
                Ok(Change::Written(value))
            }
            Step::Move { first, count, core } => {
                device.msi_affinity(first, count, core)?;
                Ok(Change::Moved { first, count, core })
            }
            Step::Reset => device.reset().map(|_| Change::Reset),
            Step::Restart => {
                let booted = self.booted.take().unwrap();
                self.booted = Some(booted.restarted());
                Ok(Change::Nothing)
            }
            Step::Nothing => Ok(Change::Nothing),
        }
    }

    /// Shows the device what the server has written, and lets it raise messages in between.
    fn replay(&mut self, events: &[Event]) {
        let at = self.at;
        let trace = self.booted().world(|world| std::mem::take(&mut world.did));
        let is_write = |did: &Did| match did {
            Did::Wrote { at: to, .. } => *to == at,
            Did::WroteTable { .. } => true,
            _ => false,
        };
        let writes: Vec<_> = trace.iter().filter(|did| is_write(did)).collect();
        for step in 0..=writes.len() {
            for (message, when) in events {
                if when.index(writes.len() + 1) == step {
                    self.card.raise(*message);
                }
            }
            match writes.get(step) {
                Some(Did::Wrote {
                    offset,
                    width,
                    value,
                    ..
                }) => self.card.write(*offset, *width, *value),
                Some(Did::WroteTable { offset, value }) => {
                    self.card.write_table(*offset - TABLE as u32 % 4096, *value);
                }
                _ => {}
            }
        }
        // The server sees the device's pending bits.
        let card = &self.card;
        self.booted().world(|world| match card.pending_register() {
            Some(offset) => world.machine.poke(at, offset, &card.pending.to_le_bytes()),
            None => drop(world.memory.insert(BAR + PENDING, card.pending)),
        });
    }

    fn go(&mut self, step: &Step, events: &[Event]) -> Result<(), TestCaseError> {
        let events = match step {
            // Whether what is raised in the middle of a reset is sent or lost is nobody's promise.
            Step::Reset => &[],
            _ => events,
        };
        let before = self.programmed();
        if before.is_empty() {
            // The tests' msi-server counts up. Not the same again, else what is left of before would do.
            self.booted().world(|world| {
                world.next_vector = if world.next_vector < 0x60 { 0x60 } else { 0x40 }
            });
        }
        let change = match self.ask(step) {
            Ok(change) => {
                let allowed = match change {
                    // Writing what is there already changes nothing and needs nothing.
                    Change::Switched { .. } | Change::Written(_) => true,
                    change => !self.model.refuses(change),
                };
                prop_assert!(allowed, "{step:?} was done");
                change
            }
            Err(refusal) => {
                let expected = self.model.refuses(step_of(step));
                prop_assert!(expected, "{step:?}: {refusal}");
                Change::Nothing
            }
        };
        let after = self.programmed();
        self.replay(events);
        let programmed = if after.is_empty() { before } else { after };

        // What was sent, by message: nothing else, and to no other core than it goes to.
        let sent = std::mem::take(&mut self.card.sent);
        let first = self.model.first().max(match change {
            Change::Enabled { first, .. } => first,
            _ => 0,
        });
        let mut came = Vec::new();
        for (address, data) in sent {
            let n = programmed.iter().position(|(base, wanted)| {
                let core = if base & 0x10 != 0 { 0 } else { 0xff << 12 };
                (address & !core, data) == (*base, *wanted)
            });
            prop_assert!(n.is_some(), "{data:#x} to {address:#x} of {programmed:x?}");
            let message = first + n.unwrap() as u16;
            let core = if address & 0x10 != 0 {
                0
            } else {
                (address >> 12) as u8
            };
            came.push((message, core));
        }
        for (message, core) in &came {
            let cores = [self.model.core(*message), {
                let mut after = self.model.clone();
                after.change(change);
                after.core(*message)
            }];
            prop_assert!(
                self.isolated || cores.contains(core),
                "message {message} went to core {core}, not {cores:?}"
            );
        }
        // Each event comes before the step or after it, whichever way each is taken: no message has to do with another.
        let pending = self.card.pending;
        for message in 0..self.shape.messages() {
            let seen = (
                came.iter().filter(|(came, _)| *came == message).count(),
                pending >> message & 1 != 0,
            );
            let with = |early: bool, late: bool| {
                let mut model = self.model.clone();
                let mut come = Vec::new();
                if early {
                    come.extend(model.raise(message));
                }
                come.extend(model.change(change));
                if late {
                    come.extend(model.raise(message));
                }
                let count = come.iter().filter(|come| **come == message).count();
                (count, model.pending() >> message & 1 != 0)
            };
            let allowed = match events.iter().any(|(raised, _)| *raised == message) {
                true => vec![with(true, false), with(false, true)],
                false => vec![with(false, false)],
            };
            prop_assert!(
                allowed.contains(&seen),
                "{step:?} with {events:?}: message {message} came so often and is pending: {seen:?}, not one of {allowed:?}"
            );
        }
        self.model.change(change);
        self.model.wait(pending);
        self.look()
    }

    /// The server tells the pending bits that the device has.
    fn look(&self) -> Result<(), TestCaseError> {
        let told = self.device().msi_pending(0, self.shape.messages());
        match told {
            Ok(told) => prop_assert_eq!(told.pending, u64::from(self.model.pending())),
            Err(refusal) => prop_assert_eq!(
                (refusal.rule, self.shape.maskable()),
                (Rule::NoSuchMechanism, false)
            ),
        }
        Ok(())
    }
}

/// What a step would change.
fn step_of(step: &Step) -> Change {
    match *step {
        Step::Enable { first, count } => Change::Enabled { first, count },
        Step::Disable => Change::Disabled,
        Step::Mask {
            first,
            count,
            switch: on,
        } => Change::Masked { first, count, on },
        Step::Control { enable, mask } => Change::Switched { enable, mask },
        Step::Masks(value) => Change::Written(value),
        Step::Move { first, count, core } => Change::Moved { first, count, core },
        Step::Reset => Change::Reset,
        Step::Restart | Step::Nothing => Change::Nothing,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    /// A message that is raised arrives once, as soon as nothing masks it; or never, where it was raised while messages were
    /// not enabled. It arrives as what was programmed, and where its holder wants it.
    #[test]
    fn what_is_raised_arrives_once(shape in shape(), isolated: bool, keeps: bool, steps in steps()) {
        let mut bench = Bench::new(shape, isolated, keeps);
        for (step, events) in &steps {
            bench.go(step, events)?;
        }
    }
}

/// A message that cannot be masked and that its holder has switched off stays off when the server is restarted, whatever is
/// asked of its mask then.
#[test]
fn unmasking_after_a_restart_switches_nothing_on() {
    let shape = Shape::Msi {
        wide: false,
        maskable: false,
        log2: 0,
    };
    let mut bench = Bench::new(shape, false, false);
    let (enable, mask) = (false, false);
    for step in [
        Step::Enable { first: 0, count: 1 },
        Step::Control { enable, mask },
        Step::Restart,
    ] {
        bench.go(&step, &[]).unwrap();
    }
    let refusal = bench.device().msi_mask(0, 1, Switch::Off).unwrap_err();
    assert_eq!(refusal.rule, Rule::NoSuchMechanism);
    bench.go(&Step::Nothing, &[]).unwrap();
    bench.card.raise(0);
    assert!(bench.card.sent.is_empty());
}

/// What was masked in an earlier setup is not in the next, nor after its reset.
#[test]
fn masks_end_with_their_setup() {
    let mut bench = Bench::new(Shape::MsiX { entries: 4 }, false, false);
    let (first, count, switch) = (0, 2, true);
    let enable = Step::Enable { first, count };
    let mask = Step::Mask {
        first,
        count: 1,
        switch,
    };
    for step in [enable.clone(), mask, Step::Disable, enable, Step::Reset] {
        bench.go(&step, &[]).unwrap();
    }
    bench.card.raise(0);
    assert_eq!(bench.card.sent.len(), 1);
}
