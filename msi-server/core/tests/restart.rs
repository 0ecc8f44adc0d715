//! The shard is killed at every effect, and at every word that it notes, of any operation, and starts again: who held what holds it,
//! what was being taken is undone, what was being given back is given back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{BadgeKind, ClientId, Messages, Rule, VectorUse};
use msi_core::LEDGER_WORDS;
use proptest::prelude::*;

mod common;
use common::*;

fn device(number: u8) -> Sbdf {
    Sbdf::from_parts(0, 3, number, 0).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Alloc(u8, u16, Messages),
    Free(u8),
    Gone(u16),
    Retarget(u8, Messages, u8),
}

/// A vector that devices have: number, device, client, message, core, purpose.
type Row = (u16, Sbdf, u16, u16, u8, VectorUse);

const CLIENTS: [(u16, u16, u8); 3] = [(40, 0, 1), (9, 5, 3), (4, 0, 0)];
const VECTORS: u16 = 40;

impl Bench {
    fn rows(&mut self) -> Vec<Row> {
        let all = self.all().into_iter();
        all.filter(|row| row.vector < 100)
            .map(|row| {
                let (client, purpose) = (row.client.0, row.purpose);
                (
                    row.vector,
                    row.device,
                    client,
                    row.message,
                    row.core,
                    purpose,
                )
            })
            .collect()
    }

    fn used(&mut self, client: u16) -> u16 {
        let client = ClientId(client);
        let share = self.ask(BadgeKind::Inspect, 0, Request::ShareAt { client });
        msi::ShareAtReply::decode(&share).unwrap().used
    }

    /// The first window slots that are free: a client that is not told of an assignment tries elsewhere, or the same again.
    fn slot(&self, client: u16, count: u16) -> Option<u16> {
        let kernel = self.kernel.0.borrow();
        let free = |slot: u16| slot < WINDOW && !kernel.windows.contains_key(&(client, slot));
        (0..WINDOW).find(|slot| (*slot..slot.saturating_add(count)).all(free))
    }

    fn does(&mut self, step: &Step) -> Result<(), Rule> {
        let result = match *step {
            Step::Alloc(number, client, messages) => {
                let slot = self.slot(client, messages.count).unwrap_or(WINDOW);
                self.alloc_by(0, device(number), client, messages, slot)
                    .map(drop)
            }
            Step::Free(number) => self.free(device(number)).map(drop),
            Step::Gone(client) => {
                self.gone(client);
                Ok(())
            }
            Step::Retarget(number, messages, core) => {
                self.retarget(device(number), messages, core).map(drop)
            }
        };
        result.map_err(|refusal| refusal.rule)
    }

    /// What clients have is what the shard says, and every other vector is its own.
    fn check(&mut self) {
        let rows = self.rows();
        let held = |row: &&Row| row.5 == VectorUse::Message;
        let held: Vec<_> = rows.iter().filter(held).map(|row| (row.0, row.2)).collect();
        let kernel = self.kernel.0.borrow().clone();
        let mut copies: Vec<_> = kernel
            .windows
            .iter()
            .map(|((client, _), vector)| (*vector, *client))
            .collect();
        copies.sort_unstable();
        assert_eq!(held, copies, "handlers that clients have");
        for vector in 0..VECTORS {
            let alone = held.iter().all(|(other, _)| *other != vector);
            assert_eq!(kernel.absorbing.contains(&vector), alone, "vector {vector}");
        }
        assert_eq!(self.figures().free, VECTORS - rows.len() as u16);
        for client in 0..CLIENTS.len() as u16 {
            let of = rows.iter().filter(|row| row.2 == client);
            assert_eq!(
                usize::from(self.used(client)),
                of.count(),
                "client {client}"
            );
        }
    }
}

fn messages() -> impl Strategy<Value = Messages> {
    (0u16..8, 0u16..5).prop_map(|(first, shift)| Messages {
        first,
        count: 1 << shift,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..4, 0u16..3, messages()).prop_map(|(device, client, messages)| Step::Alloc(device, client, messages)),
        3 => (0u8..4).prop_map(Step::Free),
        1 => (0u16..3).prop_map(Step::Gone),
        2 => (0u8..4, messages(), 0u8..CORES).prop_map(|(device, messages, core)| Step::Retarget(device, messages, core)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    #[test]
    fn killed_at_any_effect_it_is_as_before_or_done(steps in prop::collection::vec(step(), 1..14), again in 0usize..90) {
        let mut bench = Bench::with(0, VECTORS, &CLIENTS);
        for step in steps {
            let before = bench.rows();
            let mut killed = 0;
            loop {
                let mut other = bench.elsewhere();
                prop_assert_eq!(&other.rows(), &before, "a start changes nothing");
                other.kernel.0.borrow_mut().left = Some(killed);
                let result = other.does(&step);
                let whole = other.kernel.0.borrow().left != Some(0);
                // The next start may be cut short, too.
                other.die_starting(again);
                other.restart();
                other.check();
                let found = other.rows();
                let mut done = bench.elsewhere();
                prop_assert_eq!(done.does(&step).is_ok(), result.is_ok() || !whole && done.does(&step).is_ok());
                let after = done.rows();
                match step {
                    // All together, or not at all.
                    Step::Alloc(..) => prop_assert!(found == before || found == after, "{step:?} killed after {killed}: {before:?}, {found:?}"),
                    // What is not done the pci-server or the supervisor does again: it had no answer.
                    _ => prop_assert!(found.len() <= before.len() && found.len() >= after.len()),
                }
                if !matches!(step, Step::Alloc(..)) || found == before {
                    let _ = other.does(&step);
                    prop_assert_eq!(other.rows(), after, "{:?} again after {}", step, killed);
                }
                other.check();
                if whole {
                    break;
                }
                killed += 1;
            }
            let _ = bench.does(&step);
        }
        // All of it comes back.
        bench.restart();
        for number in 0..4 {
            bench.free(device(number)).unwrap();
        }
        prop_assert_eq!(bench.figures().free, VECTORS);
        bench.check();
        prop_assert!(bench.kernel.0.borrow().ledger[LEDGER_WORDS - 1..].iter().all(|word| *word == 0));
    }
}

#[test]
fn a_lost_vector_stays_lost_and_what_is_nobodys_stays_nobodys() {
    let mut bench = Bench::with(0, 16, &CLIENTS);
    bench.alloc(device(1), 0, 2, 0).unwrap();
    bench.alloc(device(2), 0, 1, 8).unwrap();
    bench.alloc(device(3), 1, 1, 0).unwrap();
    bench.kernel.0.borrow_mut().refuse_reclaim = true;
    assert_eq!(bench.free(device(2)), Ok(1));
    bench.gone(1);
    bench.kernel.0.borrow_mut().refuse_reclaim = false;
    let before = bench.all();
    bench.restart();
    assert_eq!(bench.all(), before);
    assert_eq!(bench.figures().free, 12);
    // What is kept was lost besides: it never comes back, and the rest does.
    for number in 1..4 {
        bench.free(device(number)).unwrap();
    }
    bench.restart();
    assert_eq!(bench.figures().free, 14);
    let mut given = 0;
    while bench.alloc(device(1), 0, 1, 20 + given).is_ok() {
        given += 1;
    }
    // Of the eight that are kept for client 1 none.
    assert_eq!(given, 7);
}

#[test]
fn a_handler_that_cannot_be_taken_back_at_a_start_is_lost() {
    let mut bench = Bench::with(0, 16, &CLIENTS);
    bench.alloc(device(1), 0, 2, 0).unwrap();
    bench.kernel.0.borrow_mut().refuse_reclaim = true;
    bench.restart();
    bench.kernel.0.borrow_mut().refuse_reclaim = false;
    assert_eq!(bench.figures().free, 0);
    assert_eq!(bench.free(device(1)), Ok(2));
    assert_eq!(bench.figures().free, 2);
}

#[test]
fn what_was_absorbed_is_still_counted() {
    let mut bench = Bench::with(0, 16, &CLIENTS);
    bench.shard.on_absorbed();
    bench.restart();
    bench.shard.on_absorbed();
    assert_eq!(bench.figures().absorbed, 2);
}

/// Words that may well be records, and any others.
fn garbage() -> impl Strategy<Value = Vec<(usize, u64)>> {
    let near = (0u64..1 << 10, 0u64..3, 0u64..40)
        .prop_map(|(bits, client, count)| bits | 0x300 << 3 | client << 32 | count << 48);
    let word = prop_oneof![4 => 0u64..12, 2 => near, 1 => any::<u64>()];
    prop::collection::vec((0..LEDGER_WORDS, word), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn no_ledger_stops_a_start_or_gives_a_vector_to_two(steps in prop::collection::vec(step(), 0..10), garbage in garbage()) {
        let mut bench = Bench::with(0, VECTORS, &CLIENTS);
        for step in &steps {
            let _ = bench.does(step);
        }
        for (at, word) in garbage {
            bench.kernel.0.borrow_mut().ledger[at] = word;
        }
        bench.restart();
        let rows = bench.rows();
        // Whose handlers clients have kept are not free; all others are the shard's own.
        let kernel = bench.kernel.0.borrow().clone();
        for vector in 0..VECTORS {
            let holders = kernel.windows.values().filter(|held| **held == vector).count();
            let held = rows.iter().any(|row| row.0 == vector && row.5 == VectorUse::Message);
            prop_assert!(holders <= usize::from(held));
            prop_assert!(held || kernel.absorbing.contains(&vector));
        }
        for client in 0..CLIENTS.len() as u16 {
            prop_assert!(bench.used(client) <= CLIENTS[usize::from(client)].0);
        }
        // A second start finds what the first has made of it.
        bench.restart();
        prop_assert_eq!(bench.rows(), rows.clone());
        // The kernel would notice a vector that is given out twice.
        for number in 0..31 {
            if let Some(slot) = bench.slot(0, 1) {
                let _ = bench.alloc(device(number), 0, 1, slot);
            }
        }
        for row in bench.rows() {
            let free = bench.free(row.1);
            prop_assert!(free.is_ok() || row.1.bus() > 0x7f || row.1.segment() > 0, "{free:?}");
        }
    }
}
