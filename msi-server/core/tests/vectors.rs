//! The shard against an independent model, on a kernel that can refuse any step.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{
    Badge, BadgeKind, ClientId, Exhausted, Message, Messages, Refusal, Rule, VectorUse, Word,
};
use msi_core::{ConfigError, Shard};
use proptest::prelude::*;

mod common;
use common::*;

fn device(number: u8) -> Sbdf {
    Sbdf::from_parts(0, 3, number, 0).unwrap()
}

/// A vector that is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    device: Sbdf,
    client: u16,
    message: u16,
    core: u8,
    purpose: VectorUse,
}

/// The vectors, as a plain list of who holds each.
#[derive(Clone, Debug)]
struct Model {
    first: u16,
    rows: Vec<Option<Row>>,
    /// Whose alone a vector is.
    owners: Vec<Option<u16>>,
    clients: Vec<(u16, u16, u8)>,
}

impl Model {
    /// `None`: there are too few to keep.
    fn new(first: u16, vectors: u16, clients: &[(u16, u16, u8)]) -> Option<Self> {
        let mut model = Self {
            first,
            rows: vec![None; vectors.into()],
            owners: vec![None; vectors.into()],
            clients: clients.to_vec(),
        };
        for (client, (_, reserved, _)) in (0..).zip(clients) {
            if *reserved == 0 {
                continue;
            }
            let size = usize::from(reserved.next_power_of_two());
            let start = model.run(size, size.min(32), |owner| owner.is_none())?;
            model.owners[start..start + size].fill(Some(client));
        }
        Some(model)
    }

    /// The first run of free vectors of some owner.
    fn run(&self, size: usize, align: usize, of: impl Fn(Option<u16>) -> bool) -> Option<usize> {
        (0..self.rows.len()).find(|start| {
            let number = usize::from(self.first) + start + 0x30;
            number.is_multiple_of(align)
                && start + size <= self.rows.len()
                && (*start..start + size).all(|at| self.rows[at].is_none() && of(self.owners[at]))
        })
    }

    fn used(&self, client: u16) -> u16 {
        let rows = self.rows.iter().flatten();
        rows.filter(|row| row.client == client).count() as u16
    }

    fn alloc(&mut self, device: Sbdf, client: u16, messages: Messages) -> Result<u16, Rule> {
        let count = messages.count;
        if !matches!(count, 1 | 2 | 4 | 8 | 16 | 32) {
            return Err(Rule::BadMessageCount);
        }
        let (quota, _, core) = self.clients[usize::from(client)];
        if self.used(client) + count > quota {
            return Err(Rule::VectorQuota);
        }
        let foreign = |row: &Row| {
            row.device == device && (row.client != client || row.purpose == VectorUse::Kept)
        };
        if self.rows.iter().flatten().any(foreign) {
            return Err(Rule::HeldByAnother);
        }
        let size = usize::from(count);
        let own = self.run(size, size, |owner| owner == Some(client));
        let start = own.or_else(|| self.run(size, size, |owner| owner.is_none()));
        let start = start.ok_or(Rule::VectorsExhausted)?;
        for number in 0..count {
            self.rows[start + usize::from(number)] = Some(Row {
                device,
                client,
                message: messages.first + number,
                core,
                purpose: VectorUse::Message,
            });
        }
        Ok(self.first + start as u16)
    }

    fn free(&mut self, device: Sbdf) -> u16 {
        let mut freed = 0;
        for row in &mut self.rows {
            if row.is_some_and(|row| row.device == device) {
                *row = None;
                freed += 1;
            }
        }
        freed
    }

    fn gone(&mut self, client: u16) -> u16 {
        let rows = self.rows.iter_mut().flatten();
        let mut kept = 0;
        for row in rows.filter(|row| row.client == client) {
            row.purpose = VectorUse::Kept;
            kept += 1;
        }
        kept
    }

    fn retarget(&mut self, device: Sbdf, message: u16, core: u8) -> Result<u64, Rule> {
        if core >= CORES {
            return Err(Rule::NoSuchCore);
        }
        let mut rows = self.rows.iter_mut().flatten();
        let row = rows.find(|row| row.device == device && row.message == message);
        row.ok_or(Rule::ForeignVector)?.core = core;
        Ok(0xfee0_0000 | u64::from(2 * core) << 12)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alloc {
        device: u8,
        client: u16,
        first: u16,
        count: u16,
    },
    Free {
        device: u8,
    },
    Gone {
        client: u16,
    },
    Retarget {
        device: u8,
        message: u16,
        core: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let count = prop_oneof![4 => (0u16..6).prop_map(|shift| 1 << shift), 1 => 0u16..70];
    prop_oneof![
        6 => (0u8..6, 0u16..3, count)
            .prop_map(|(device, client, count)| Step::Alloc { device, client, first: 0, count }),
        3 => (0u8..6).prop_map(|device| Step::Free { device }),
        1 => (0u16..3).prop_map(|client| Step::Gone { client }),
        2 => (0u8..6, 0u16..40, 0u8..5)
            .prop_map(|(device, message, core)| Step::Retarget { device, message, core }),
    ]
}

proptest! {
    #[test]
    fn the_shard_does_what_the_model_does(
        first in 0u16..40,
        vectors in 0u16..68,
        reserved in 0u16..12,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let clients = [(40, 0, 1), (7, reserved, 3), (0, 0, 0)];
        let Some(mut model) = Model::new(first, vectors, &clients) else {
            let clients: Vec<_> = clients.into_iter().map(client).collect();
            let made = Shard::new(&info(first, vectors), &clients, Shared::default());
            prop_assert_eq!(made.map(|_| ()), Err(ConfigError::Reserved { client: 1 }));
            return Ok(());
        };
        let mut bench = Bench::with(first, vectors, &clients);
        // How many messages each device has: those that are added count on.
        let mut messages = [0; 6];
        for step in steps {
            match step {
                Step::Alloc { device: number, client, first, count } => {
                    // An empty place in the window, if there is one; else the model would have to know windows.
                    let taken = bench.kernel.0.borrow().windows.clone();
                    let slot = (0..WINDOW).find(|slot| (*slot..slot.saturating_add(count)).all(|slot| slot < WINDOW && !taken.contains_key(&(client, slot))));
                    let Some(slot) = slot else { continue };
                    let wanted = Messages { first: first + messages[usize::from(number)], count };
                    let ours = bench.alloc_by(0, device(number), client, wanted, slot);
                    let theirs = model.alloc(device(number), client, wanted);
                    prop_assert_eq!(ours.map(|reply| reply.first).map_err(|refusal| refusal.rule), theirs);
                    if let Ok(reply) = ours {
                        messages[usize::from(number)] += count;
                        let core = u64::from(clients[usize::from(client)].2);
                        prop_assert_eq!(reply.address, 0xfee0_0000 | ((2 * core) << 12));
                        prop_assert_eq!(reply.data, u32::from(reply.first) + 0x30);
                        prop_assert_eq!(reply.data % u32::from(count), 0);
                        for number in 0..count {
                            let placed = bench.kernel.0.borrow().windows.get(&(client, slot + number)).copied();
                            prop_assert_eq!(placed, Some(reply.first + number));
                        }
                    }
                }
                Step::Free { device: number } => {
                    messages[usize::from(number)] = 0;
                    prop_assert_eq!(bench.free(device(number)), Ok(model.free(device(number))));
                }
                Step::Gone { client } => {
                    prop_assert_eq!(bench.gone(client), model.gone(client));
                }
                Step::Retarget { device: number, message, core } => {
                    let one = Messages { first: message, count: 1 };
                    let ours = bench.retarget(device(number), one, core).map_err(|refusal| refusal.rule);
                    prop_assert_eq!(ours, model.retarget(device(number), message, core));
                }
            }
            let of_devices = |row: &&msi::VectorAtReply| matches!(row.purpose, VectorUse::Message | VectorUse::Kept);
            let held: Vec<_> = bench.all().iter().filter(of_devices).map(|row| {
                let of = Row { device: row.device, client: row.client.0, message: row.message, core: row.core, purpose: row.purpose };
                (row.vector, of, row.data)
            }).collect();
            let wanted: Vec<_> = (first..).zip(&model.rows)
                .filter_map(|(vector, row)| row.map(|row| (vector, row, u32::from(vector) + 0x30)))
                .collect();
            prop_assert_eq!(&held, &wanted);
            // A copy of the handler of each lies in one window slot of its holder, and of no other; those of the dead lie nowhere.
            let kernel = bench.kernel.0.borrow().clone();
            let alive: Vec<_> = wanted.iter().filter(|row| row.1.purpose == VectorUse::Message).collect();
            prop_assert_eq!(kernel.windows.len(), alive.len());
            for ((client, _), vector) in &kernel.windows {
                prop_assert!(alive.iter().any(|row| row.0 == *vector && row.1.client == *client));
                prop_assert!(!kernel.absorbing.contains(vector));
            }
            let figures = bench.figures();
            prop_assert_eq!((figures.vectors, figures.free), (vectors, vectors - wanted.len() as u16));
        }
    }

    #[test]
    fn no_message_changes_another_clients_vectors(badge: u64, label in 0u64..0x400, words in prop::collection::vec(prop_oneof![0u64..70, any::<u64>()], 0..6)) {
        let mut bench = Bench::new(0, 64, &[64, 64]);
        bench.alloc(device(1), 0, 4, 0).unwrap();
        let before = bench.kernel.0.borrow().clone();
        // A client, whatever it sends over whatever of its capabilities.
        let badge = Badge::new(BadgeKind::Client, (badge >> 12) as u16, badge as u16).to_word();
        let reply = msi::dispatch(&mut bench.shard, badge, &Message::with_words(label, &words).unwrap()).unwrap();
        prop_assert_eq!(&*bench.kernel.0.borrow(), &before);
        prop_assert!(reply.label != 0 || label == 0x301);
    }
}

#[test]
fn every_refused_step_is_undone() {
    for failing in 0..8 {
        let mut bench = Bench::new(0, 64, &[64]);
        bench.alloc(device(9), 0, 1, 40).unwrap();
        let before = bench.kernel.0.borrow().windows.clone();
        bench.kernel.0.borrow_mut().refuse_in = Some(failing);
        assert_eq!(
            bench.alloc(device(1), 0, 8, 0),
            Err(Refusal::new(Rule::KernelRefused, 10)),
            "step {failing}"
        );
        assert_eq!(bench.kernel.0.borrow().windows, before, "step {failing}");
        assert_eq!(bench.figures().free, 63);
        assert_eq!(
            bench.alloc(device(1), 0, 8, 0).map(|reply| reply.first),
            Ok(8)
        );
    }
}

#[test]
fn an_occupied_window_slot_takes_all_back() {
    let mut bench = Bench::new(0, 64, &[64]);
    bench.alloc(device(9), 0, 1, 5).unwrap();
    let before = bench.kernel.0.borrow().windows.clone();
    assert_eq!(
        bench.alloc(device(1), 0, 8, 0),
        Err(Refusal::new(Rule::WindowSlotOccupied, 5))
    );
    assert_eq!(
        bench.alloc(device(1), 0, 8, 60),
        Err(Refusal::new(Rule::WindowSlotOutOfRange, 64))
    );
    assert_eq!(
        bench
            .alloc(device(1), 0, 8, 65530)
            .map_err(|refusal| refusal.rule),
        Err(Rule::WindowSlotOutOfRange)
    );
    assert_eq!(bench.kernel.0.borrow().windows, before);
}

#[test]
fn a_vector_whose_handler_stays_is_never_given_out_again() {
    let mut bench = Bench::new(0, 4, &[64]);
    let lost = bench.alloc(device(1), 0, 1, 0).unwrap().first;
    bench.kernel.0.borrow_mut().refuse_reclaim = true;
    assert_eq!(bench.free(device(1)), Ok(1));
    bench.kernel.0.borrow_mut().refuse_reclaim = false;
    assert_eq!(bench.figures().free, 3);
    let mut given = Vec::new();
    while let Ok(reply) = bench.alloc(device(2), 0, 1, given.len() as u16 + 1) {
        given.push(reply.first);
    }
    assert_eq!(given.len(), 3);
    assert!(!given.contains(&lost));
    let told = bench.all();
    let row = told.iter().find(|row| row.vector == lost).unwrap();
    assert_eq!(row.purpose, VectorUse::Lost);
}

fn exhausted(free: u16, holder: u16, held: u16) -> Refusal {
    let holder = ClientId(holder);
    let about = Exhausted { free, holder, held };
    Refusal::new(Rule::VectorsExhausted, about.to_word())
}

#[test]
fn exhaustion_names_who_has_most() {
    // Processor vectors 0x31..0x41: the only aligned sixteen would need 0x40..0x50.
    let mut bench = Bench::new(1, 16, &[64, 64]);
    assert_eq!(bench.alloc(device(1), 0, 16, 0), Err(exhausted(16, 0, 0)));
    assert_eq!(bench.alloc(device(1), 0, 8, 0).unwrap().data, 0x38);
    assert_eq!(bench.alloc(device(2), 1, 4, 0).unwrap().data, 0x34);
    assert_eq!(bench.alloc(device(2), 1, 4, 8), Err(exhausted(4, 0, 8)));
    assert_eq!(bench.free(device(1)), Ok(8));
    assert_eq!(bench.alloc(device(2), 1, 4, 8).unwrap().data, 0x38);
    assert_eq!(bench.alloc(device(1), 0, 8, 0), Err(exhausted(8, 1, 8)));
}

#[test]
fn what_is_kept_for_a_client_nobody_else_gets() {
    // Client 1 has eight kept, of its quota of ten; nobody can take or split them.
    let mut bench = Bench::with(0, 16, &[(64, 0, 0), (10, 5, 0)]);
    let mut taken = 0;
    while bench.alloc(device(1), 0, 1, taken).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, 8);
    assert_eq!(bench.alloc(device(1), 0, 1, 30), Err(exhausted(8, 0, 8)));
    assert_eq!(bench.alloc(device(2), 1, 8, 0).unwrap().data % 8, 0);
    assert_eq!(bench.alloc(device(2), 1, 2, 20), Err(exhausted(0, 0, 8)));
    // Given back, they are still its own.
    assert_eq!(bench.free(device(2)), Ok(8));
    assert_eq!(bench.alloc(device(1), 0, 1, 30), Err(exhausted(8, 0, 8)));
    let client = ClientId(1);
    let share = bench.ask(BadgeKind::Inspect, 0, Request::ShareAt { client });
    let share = msi::ShareAtReply::decode(&share).unwrap();
    assert_eq!((share.quota, share.reserved, share.used), (10, 8, 0));
}

#[test]
fn vectors_of_a_device_that_does_not_obey_outlive_their_holder() {
    let mut bench = Bench::new(0, 16, &[64, 64]);
    bench.alloc(device(1), 0, 4, 0).unwrap();
    assert_eq!(bench.gone(0), 4);
    // Nobody is signalled by them, and nobody gets them, nor the device more.
    assert!(bench.kernel.0.borrow().windows.is_empty());
    assert_eq!(bench.figures().free, 12);
    let refused = bench.alloc(device(1), 1, 1, 0);
    assert_eq!(
        refused.map_err(|refusal| refusal.rule),
        Err(Rule::HeldByAnother)
    );
    assert!(
        bench
            .all()
            .iter()
            .take(4)
            .all(|row| row.purpose == VectorUse::Kept)
    );
    // Its shard has come to terms with it.
    assert_eq!(bench.free(device(1)), Ok(4));
    assert_eq!(bench.figures().free, 16);
}

#[test]
fn the_list_has_servers_and_lines_too() {
    let mut bench = Bench::new(0, 16, &[64]);
    bench.alloc(device(1), 0, 1, 0).unwrap();
    let all = bench.all();
    let of = |purpose| -> Vec<u16> {
        let rows = all.iter().filter(|row| row.purpose == purpose);
        rows.map(|row| row.vector).collect()
    };
    assert_eq!(of(VectorUse::Message), [0]);
    assert_eq!(of(VectorUse::Line), [100, 101, 102]);
    assert_eq!(of(VectorUse::Server), [107, 106]);
}

#[test]
fn what_nobody_was_bound_to_is_counted() {
    let mut bench = Bench::new(0, 16, &[64]);
    bench.shard.on_absorbed();
    bench.shard.on_absorbed();
    assert_eq!(bench.figures().absorbed, 2);
}
