//! The shard against an independent model, on a kernel that can refuse any step.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{Badge, BadgeKind, Message, Refusal, Rule, VERSION};
use msi_core::{ConfigError, Shard};
use proptest::prelude::*;
use system::info::MsiInfo;

mod common;
use common::*;

fn device(number: u8) -> Sbdf {
    Sbdf::from_parts(0, 3, number, 0).unwrap()
}

/// The vectors, as a plain list of who holds each.
#[derive(Clone, Debug)]
struct Model {
    first: u16,
    holders: Vec<Option<(Sbdf, u16)>>,
    quotas: Vec<u16>,
}

impl Model {
    fn alloc(&mut self, device: Sbdf, client: u16, count: u16) -> Result<u16, Rule> {
        if !matches!(count, 1 | 2 | 4 | 8 | 16 | 32) {
            return Err(Rule::BadMessageCount);
        }
        let used = self
            .holders
            .iter()
            .flatten()
            .filter(|(_, holder)| *holder == client)
            .count() as u16;
        if used + count > self.quotas[usize::from(client)] {
            return Err(Rule::VectorQuota);
        }
        if self
            .holders
            .iter()
            .flatten()
            .any(|(held, holder)| *held == device && *holder != client)
        {
            return Err(Rule::HeldByAnother);
        }
        let count = usize::from(count);
        let free_from = |start: usize| {
            start + count <= self.holders.len()
                && self.holders[start..start + count]
                    .iter()
                    .all(Option::is_none)
        };
        let start = (0..self.holders.len())
            .find(|start| {
                (usize::from(self.first) + start + 0x30).is_multiple_of(count) && free_from(*start)
            })
            .ok_or(Rule::VectorsExhausted)?;
        self.holders[start..start + count].fill(Some((device, client)));
        Ok(self.first + start as u16)
    }

    fn free(&mut self, which: impl Fn(Sbdf, u16) -> bool) -> u16 {
        let mut freed = 0;
        for holder in &mut self.holders {
            if holder.is_some_and(|(device, client)| which(device, client)) {
                *holder = None;
                freed += 1;
            }
        }
        freed
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alloc { device: u8, client: u16, count: u16 },
    Free { device: u8 },
    Gone { client: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6, 0u16..3, prop_oneof![4 => (0u16..6).prop_map(|shift| 1 << shift), 1 => 0u16..70])
            .prop_map(|(device, client, count)| Step::Alloc { device, client, count }),
        2 => (0u8..6).prop_map(|device| Step::Free { device }),
        1 => (0u16..3).prop_map(|client| Step::Gone { client }),
    ]
}

proptest! {
    #[test]
    fn the_shard_does_what_the_model_does(first in 0u16..40, vectors in 0u16..68, steps in prop::collection::vec(step(), 0..60)) {
        let quotas = [40, 7, 0];
        let mut bench = Bench::new(first, vectors, &quotas);
        let mut model = Model { first, holders: vec![None; vectors.into()], quotas: quotas.to_vec() };
        for step in steps {
            match step {
                Step::Alloc { device: number, client, count } => {
                    // An empty place in the window, if there is one; else the model would have to know windows.
                    let taken = bench.kernel.0.borrow().windows.clone();
                    let slot = (0..WINDOW).find(|slot| (*slot..slot.saturating_add(count)).all(|slot| slot < WINDOW && !taken.contains_key(&(client, slot))));
                    let Some(slot) = slot else { continue };
                    let ours = bench.alloc(device(number), client, count, slot);
                    let theirs = model.alloc(device(number), client, count);
                    prop_assert_eq!(ours.map(|reply| reply.first).map_err(|refusal| refusal.rule), theirs);
                    if let Ok(reply) = ours {
                        prop_assert_eq!(reply.address, 0xfee0_2000);
                        prop_assert_eq!(reply.data, u32::from(reply.first) + 0x30);
                        prop_assert_eq!(reply.data % u32::from(count), 0);
                        for number in 0..count {
                            let placed = bench.kernel.0.borrow().windows.get(&(client, slot + number)).copied();
prop_assert_eq!(placed, Some(reply.first + number));
                        }
                    }
                }
                Step::Free { device: number } => {
                    prop_assert_eq!(bench.free(device(number)), Ok(model.free(|held, _| held == device(number))));
                }
                Step::Gone { client } => {
                    prop_assert_eq!(bench.gone(client), model.free(|_, holder| holder == client));
                }
            }
            let held: Vec<_> = bench.held().iter().map(|row| (row.vector, row.device, row.client.0, row.data)).collect();
            let wanted: Vec<_> = (first..).zip(&model.holders)
                .filter_map(|(vector, holder)| holder.map(|(device, client)| (vector, device, client, u32::from(vector) + 0x30)))
                .collect();
            prop_assert_eq!(&held, &wanted);
            // The kernel has the handlers of exactly these vectors, and each lies in one window slot of its holder.
            let kernel = bench.kernel.0.borrow().clone();
            prop_assert_eq!(kernel.handlers.keys().copied().collect::<Vec<_>>(), wanted.iter().map(|row| row.0).collect::<Vec<_>>());
            prop_assert_eq!(kernel.windows.len(), wanted.len());
            for ((client, _), vector) in &kernel.windows {
                prop_assert!(wanted.iter().any(|row| row.0 == *vector && row.2 == *client));
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
    for failing in 0..16 {
        let mut bench = Bench::new(0, 64, &[64]);
        bench.alloc(device(9), 0, 1, 40).unwrap();
        let before = bench.kernel.0.borrow().clone();
        bench.kernel.0.borrow_mut().refuse_in = Some(failing);
        assert_eq!(
            bench.alloc(device(1), 0, 8, 0),
            Err(Refusal::new(Rule::KernelRefused, 10)),
            "step {failing}"
        );
        assert_eq!(*bench.kernel.0.borrow(), before, "step {failing}");
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
    let before = bench.kernel.0.borrow().clone();
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
    assert_eq!(*bench.kernel.0.borrow(), before);
}

#[test]
fn a_vector_whose_handler_stays_is_never_given_out_again() {
    let mut bench = Bench::new(0, 4, &[64]);
    let lost = bench.alloc(device(1), 0, 1, 0).unwrap().first;
    bench.kernel.0.borrow_mut().refuse_retire = true;
    assert_eq!(bench.free(device(1)), Ok(1));
    bench.kernel.0.borrow_mut().refuse_retire = false;
    assert_eq!(bench.figures().free, 3);
    let mut given = Vec::new();
    while let Ok(reply) = bench.alloc(device(2), 0, 1, given.len() as u16 + 1) {
        given.push(reply.first);
    }
    assert_eq!(given.len(), 3);
    assert!(!given.contains(&lost));
}

#[test]
fn exhaustion_and_fragments_are_told() {
    // Processor vectors 0x31..0x41: the only aligned sixteen would need 0x40..0x50.
    let mut bench = Bench::new(1, 16, &[64, 64]);
    assert_eq!(
        bench.alloc(device(1), 0, 16, 0),
        Err(Refusal::new(Rule::VectorsExhausted, 16))
    );
    assert_eq!(bench.alloc(device(1), 0, 8, 0).unwrap().data, 0x38);
    assert_eq!(bench.alloc(device(2), 1, 4, 0).unwrap().data, 0x34);
    assert_eq!(
        bench.alloc(device(2), 1, 4, 8),
        Err(Refusal::new(Rule::VectorsExhausted, 4))
    );
    assert_eq!(bench.gone(0), 8);
    assert_eq!(bench.alloc(device(2), 1, 4, 8).unwrap().data, 0x38);
}

#[test]
fn a_pci_shard_speaks_for_its_own_buses_only() {
    let mut bench = Bench::new(0, 64, &[64]);
    let far = Sbdf::from_parts(0, 0x80, 1, 0).unwrap();
    let other_segment = Sbdf::from_parts(1, 3, 1, 0).unwrap();
    let outside = |device: Sbdf| Err(Refusal::new(Rule::OutsideShard, device.to_bits().into()));
    assert_eq!(bench.alloc_by(0, far, 0, 1, 0), outside(far));
    assert_eq!(
        bench.alloc_by(0, other_segment, 0, 1, 0),
        outside(other_segment)
    );
    assert_eq!(bench.alloc_by(3, device(1), 0, 1, 0), outside(device(1)));
    assert_eq!(
        bench.free(far),
        Err(Refusal::new(Rule::OutsideShard, far.to_bits().into()))
    );
    assert!(bench.alloc_by(1, far, 0, 1, 0).is_ok());
    assert!(bench.alloc_by(2, other_segment, 0, 1, 1).is_ok());
}

#[test]
fn a_device_is_never_shared_and_a_stranger_has_no_quota() {
    let mut bench = Bench::new(0, 64, &[8, 8]);
    bench.alloc(device(1), 0, 2, 0).unwrap();
    assert_eq!(
        bench.alloc(device(1), 1, 2, 0),
        Err(Refusal::new(Rule::HeldByAnother, 0))
    );
    // More messages of the same device for the same client are fine (MSI-X), up to the quota.
    bench.alloc(device(1), 0, 2, 2).unwrap();
    assert_eq!(
        bench.alloc(device(1), 0, 8, 4),
        Err(Refusal::new(Rule::VectorQuota, 8))
    );
    assert_eq!(
        bench.alloc(device(2), 2, 1, 4),
        Err(Refusal::new(Rule::BadArgument, 1))
    );
    assert_eq!(bench.free(device(1)), Ok(4));
    assert_eq!(bench.free(device(1)), Ok(0));
}

#[test]
fn hello_compares_versions_and_tells_the_quota() {
    let mut bench = Bench::new(0, 64, &[8, 3]);
    bench.alloc(device(1), 1, 2, 0).unwrap();
    let mut hello = |client, version| {
        msi::HelloReply::decode(&bench.ask(BadgeKind::Client, client, Request::Hello { version }))
    };
    assert_eq!(
        hello(1, VERSION),
        Ok(msi::HelloReply {
            version: VERSION,
            quota: 3,
            used: 2
        })
    );
    assert_eq!(
        hello(1, VERSION + 1),
        Err(Refusal::new(Rule::VersionMismatch, VERSION))
    );
    assert_eq!(
        hello(2, VERSION).map_err(|refusal| refusal.rule),
        Err(Rule::UnknownBadge)
    );
}

#[test]
fn figures_count_operations_and_refusals() {
    let mut bench = Bench::new(0, 64, &[8]);
    bench.alloc(device(1), 0, 2, 0).unwrap();
    bench.alloc(device(1), 0, 3, 0).unwrap_err();
    let figures = bench.figures();
    assert_eq!(
        (figures.operations, figures.refused, figures.slots_used),
        (2, 1, 2)
    );
}

#[test]
fn a_range_outside_the_processors_vectors_is_refused() {
    let make = |first, count, base| {
        Shard::new(
            &MsiInfo {
                cpu_vector_base: base,
                ..info(first, count)
            },
            [1].into_iter(),
            Shared::default(),
        )
        .map(|_| ())
    };
    assert_eq!(make(0, 208, 0x30), Ok(()));
    assert_eq!(
        make(0, 209, 0x30),
        Err(ConfigError::Vectors {
            first: 0x30,
            count: 209
        })
    );
    assert_eq!(
        make(0, 8, 0x1f),
        Err(ConfigError::Vectors {
            first: 0x1f,
            count: 8
        })
    );
    assert_eq!(
        make(u16::MAX, u16::MAX, 0xff),
        Err(ConfigError::Vectors {
            first: 65790,
            count: 65535
        })
    );
}
