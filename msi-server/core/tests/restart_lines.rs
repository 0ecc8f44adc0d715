//! The shard is killed at every effect of what happens on lines: no line opens before all who share it have looked since it was
//! raised, none stays closed, and nobody who looks is switched off.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::BTreeSet;

use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{BadgeKind, Rule};
use ledger::Words;
use msi_core::{LEDGER_WORDS, PATIENCE_US};
use proptest::prelude::*;

mod common;
use common::lines::device;
use common::*;

#[derive(Clone, Debug)]
enum Step {
    Join(u8, usize),
    Leave(u8),
    Raise(usize),
    /// A client that was told looks at its device.
    Look(u8),
    Pass(u64),
    /// The pci-server shards do what they are told.
    Obey,
    Gone(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..8, 0usize..2).prop_map(|(device, line)| Step::Join(device, line)),
        1 => (0u8..8).prop_map(Step::Leave),
        4 => (0usize..2).prop_map(Step::Raise),
        4 => (0u8..8).prop_map(Step::Look),
        1 => (1u64..PATIENCE_US).prop_map(Step::Pass),
        1 => Just(Step::Obey),
        1 => (0u8..8).prop_map(Step::Gone),
    ]
}

/// The machine's and the clients' side: client n has device n.
#[derive(Clone, Debug, Default)]
struct Outside {
    on: [BTreeSet<u8>; 2],
    /// The kernel has masked it.
    masked: [bool; 2],
    /// Who has not looked since it was raised, and may raise it still.
    owed: [BTreeSet<u8>; 2],
    gone: BTreeSet<u8>,
    late: BTreeSet<u8>,
}

impl Outside {
    fn new() -> Self {
        Self {
            masked: [true; 2],
            ..Self::default()
        }
    }

    /// What the kernel was asked: a line that opens owes nothing.
    fn follow(&mut self, bench: &mut Bench) {
        for line in bench.opened() {
            assert!(
                self.owed[line].is_empty(),
                "line {line} opens and {:?} have not looked",
                self.owed[line]
            );
            self.masked[line] = false;
        }
    }

    fn off(&mut self, number: u8) {
        self.late.remove(&number);
        for sets in [&mut self.on, &mut self.owed] {
            sets.iter_mut().for_each(|set| {
                set.remove(&number);
            });
        }
    }

    fn does(&mut self, bench: &mut Bench, step: &Step) {
        match *step {
            Step::Join(number, line) => {
                // The pci-server knows who is on a line, and repeats what was not answered.
                let elsewhere = self.on.iter().any(|on| on.contains(&number));
                if !elsewhere && !self.gone.contains(&number) {
                    let joined = bench.join(number, number.into(), LINES[line]);
                    assert!(joined.is_ok(), "{joined:?}");
                    self.on[line].insert(number);
                }
            }
            Step::Leave(number) => {
                // Its pin is off.
                self.owed.iter_mut().for_each(|owed| {
                    owed.remove(&number);
                });
                let left = bench.leave(number).map_err(|refusal| refusal.rule);
                assert!(matches!(left, Ok(()) | Err(Rule::NotOnLine)));
                self.off(number);
            }
            Step::Raise(line) => {
                if !self.masked[line] && !self.on[line].is_empty() {
                    self.masked[line] = true;
                    self.owed[line] = self.on[line].clone();
                    bench.raise(line);
                }
            }
            Step::Look(number) => {
                if !self.gone.contains(&number) && bench.told().contains(&number.into()) {
                    self.look(bench, number);
                }
            }
            Step::Pass(micros) => bench.pass(micros),
            Step::Obey => self.obey(bench),
            Step::Gone(number) => {
                self.gone.insert(number);
                bench.gone(number.into());
            }
        }
    }

    fn look(&mut self, bench: &mut Bench, number: u8) {
        self.owed.iter_mut().for_each(|owed| {
            owed.remove(&number);
        });
        let _ = bench.look(number.into(), number);
    }

    fn obey(&mut self, bench: &mut Bench) {
        for shard in 0..2 {
            while let Some((at, _)) = bench.trouble(shard) {
                let number = at.device();
                self.owed.iter_mut().for_each(|owed| {
                    owed.remove(&number);
                });
                let left = bench.leave(number).map_err(|refusal| refusal.rule);
                assert!(matches!(left, Ok(()) | Err(Rule::NotOnLine)));
                self.off(number);
            }
        }
    }

    /// All clients look, as often as they are told; what does not obey is taken away. Then every line is open.
    fn settle(&mut self, bench: &mut Bench) {
        for round in 0.. {
            assert!(round < 20, "it never comes to rest");
            let told = bench.told();
            for number in told.iter().map(|client| *client as u8) {
                if !self.gone.contains(&number) {
                    self.look(bench, number);
                }
            }
            self.obey(bench);
            self.follow(bench);
            if told.is_empty() {
                break;
            }
        }
        for number in self.gone.clone() {
            let _ = bench.leave(number);
            self.off(number);
        }
        self.follow(bench);
        for line in 0..2 {
            assert!(
                !self.masked[line] || self.on[line].is_empty(),
                "line {line} stays closed"
            );
        }
    }
}

impl Bench {
    fn users(&mut self) -> Vec<(u16, Sbdf)> {
        let mut users: Vec<_> = (0..99)
            .map_while(|index| {
                let reply = self.ask(BadgeKind::Inspect, 1, Request::LineAt { index });
                let row = msi::LineAtReply::decode(&reply).ok()?;
                Some((row.line, row.device))
            })
            .collect();
        users.sort_unstable();
        users
    }
}

/// The shard on which all this has happened, and the machine.
fn after(steps: &[Step]) -> (Bench, Outside) {
    let mut bench = Bench::new(0, 16, &[1; 8]);
    let mut outside = Outside::new();
    for step in steps {
        outside.does(&mut bench, step);
        outside.follow(&mut bench);
    }
    (bench, outside)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 3))]

    #[test]
    fn killed_at_any_effect_no_line_opens_too_early_or_stays_closed(steps in prop::collection::vec(step(), 1..24), pace in 1usize..4) {
        for (at, step) in steps.iter().enumerate() {
            let mut killed = 0;
            loop {
                let (mut other, mut beside) = after(&steps[..at]);
                beside.follow(&mut other);
                let users = other.users();
                other.kernel.0.borrow_mut().left = Some(killed);
                beside.does(&mut other, step);
                let whole = other.kernel.0.borrow().left != Some(0);
                other.restart();
                if !whole {
                    // Those who called have had no answer.
                    if let Step::Join(number, line) = *step {
                        let joined = other.users().contains(&(LINES[line], device(number)));
                        if !joined && beside.on[line].contains(&number) {
                            other.join(number, number.into(), LINES[line]).unwrap();
                        }
                    } else if matches!(step, Step::Leave(_) | Step::Gone(_)) {
                        beside.does(&mut other, step);
                    }
                } else if !matches!(step, Step::Join(..) | Step::Leave(_) | Step::Obey) {
                    prop_assert_eq!(other.users(), users);
                }
                beside.follow(&mut other);
                beside.settle(&mut other);
                if whole {
                    break;
                }
                killed += pace;
            }
        }
    }

    #[test]
    fn no_ledger_stops_a_start(words in prop::collection::vec((0..LEDGER_WORDS, prop_oneof![0u64..16, any::<u64>()]), 0..300)) {
        let mut bench = Bench::new(0, 16, &[1; 8]);
        for number in 0..8 {
            bench.join(number, number.into(), LINES[usize::from(number % 2)]).unwrap();
        }
        for (at, word) in words {
            bench.kernel.store(at, word);
        }
        bench.restart();
        let users = bench.users();
        let devices: BTreeSet<_> = users.iter().map(|(_, device)| *device).collect();
        prop_assert_eq!(devices.len(), users.len(), "a device is on one line");
        bench.raise(0);
        bench.pass(PATIENCE_US);
        bench.restart();
        prop_assert_eq!(bench.users(), users);
    }
}

#[test]
fn a_line_that_was_raised_when_nobody_was_told_is_not_lost() {
    let mut bench = Bench::new(0, 16, &[4, 4]);
    bench.join(0, 0, 20).unwrap();
    bench.join(4, 1, 20).unwrap();
    bench.opened();
    // The signal came, and with it the end.
    bench.restart();
    assert_eq!(bench.told(), [0, 1]);
    bench.look(0, 0).unwrap();
    assert_eq!(bench.opened(), []);
    bench.look(1, 4).unwrap();
    assert_eq!(bench.opened(), [1]);
}

#[test]
fn patience_with_a_silent_client_begins_anew_and_ends() {
    let mut bench = Bench::new(0, 16, &[4]);
    bench.join(0, 0, 20).unwrap();
    bench.raise(1);
    bench.pass(PATIENCE_US - 1);
    bench.restart();
    bench.pass(PATIENCE_US - 1);
    assert_eq!(bench.trouble(0), None);
    bench.pass(1);
    // Whoever was told of it, and perhaps did not hear, is told again.
    assert_eq!(bench.trouble(0), Some((device(0), 0)));
    bench.restart();
    assert_eq!(bench.kernel.0.borrow().told_shards, [0, 0]);
    assert_eq!(bench.trouble(0), Some((device(0), 0)));
    assert_eq!(bench.trouble(0), None);
}

#[test]
fn nobody_is_told_of_a_device_whose_client_is_gone() {
    let mut bench = Bench::new(0, 16, &[4]);
    bench.join(0, 0, 20).unwrap();
    bench.opened();
    bench.gone(0);
    bench.restart();
    assert_eq!(
        (bench.told(), bench.opened(), bench.trouble(0)),
        (vec![], vec![], None)
    );
    bench.pass(2 * PATIENCE_US);
    assert_eq!(bench.trouble(0), None);
    bench.leave(0).unwrap();
}
