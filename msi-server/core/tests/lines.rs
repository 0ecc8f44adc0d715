//! Interrupt lines: shared ones, silent clients, storms; and any course of events against an independent model.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::BTreeSet;

use ipc_proto::msi::{self, Request};
use ipc_proto::{BadgeKind, Refusal, Rule, Switch};
use msi_core::{PATIENCE_US, STORM, WINDOW_US};
use proptest::prelude::*;

mod common;
use common::lines::device;
use common::*;

#[test]
fn a_line_opens_when_all_who_share_it_have_looked() {
    let mut bench = Bench::new(0, 16, &[4, 4, 4]);
    bench.join(0, 0, 20).unwrap();
    bench.join(1, 1, 20).unwrap();
    bench.join(4, 2, 20).unwrap();
    bench.opened();
    bench.raise(1);
    assert_eq!(bench.told(), [0, 1, 2]);
    bench.look(1, 1).unwrap();
    bench.look(0, 0).unwrap();
    // Twice is once.
    bench.look(0, 0).unwrap();
    assert_eq!(bench.opened(), []);
    bench.look(2, 4).unwrap();
    assert_eq!(bench.opened(), [1]);
    // The others' lines are not touched.
    bench.raise(0);
    assert_eq!(bench.told(), []);
}

#[test]
fn a_silent_client_is_taken_off_and_the_others_go_on() {
    let mut bench = Bench::new(0, 16, &[4, 4]);
    bench.join(0, 0, 20).unwrap();
    bench.join(4, 1, 20).unwrap();
    bench.opened();
    bench.raise(1);
    bench.look(0, 0).unwrap();
    bench.pass(PATIENCE_US - 1);
    assert_eq!(bench.trouble(1), None);
    bench.pass(1);
    assert_eq!(bench.kernel.0.borrow().told_shards, [1]);
    assert_eq!(
        (bench.trouble(0), bench.trouble(1)),
        (None, Some((device(4), 0)))
    );
    assert_eq!(bench.trouble(1), None);
    // It may still hold the line: it is opened when the shard has switched it off.
    assert_eq!(bench.opened(), []);
    bench.look(1, 4).unwrap();
    assert_eq!(bench.opened(), []);
    bench.leave(4).unwrap();
    assert_eq!(bench.opened(), [1]);
    bench.raise(1);
    bench.look(0, 0).unwrap();
    assert_eq!(bench.opened(), [1]);
    assert_eq!(bench.look(1, 4).map_err(|it| it.rule), Err(Rule::NotOnLine));
}

#[test]
fn a_storm_ends_it_for_the_one_that_has_the_line_alone() {
    let mut bench = Bench::new(0, 16, &[4]);
    bench.join(0, 0, 20).unwrap();
    for _ in 0..STORM {
        bench.raise(1);
        bench.look(0, 0).unwrap();
    }
    assert_eq!(bench.trouble(0), None);
    bench.raise(1);
    assert_eq!(bench.trouble(0), Some((device(0), STORM + 1)));
}

#[test]
fn a_storm_on_a_shared_line_is_held_back() {
    let mut bench = Bench::new(0, 16, &[4, 4]);
    bench.join(0, 0, 20).unwrap();
    bench.join(1, 1, 20).unwrap();
    bench.opened();
    let mut times = 0;
    for _ in 0..20 * STORM {
        if bench.opened().is_empty() && times > 0 {
            break;
        }
        bench.raise(1);
        times += 1;
        bench.look(0, 0).unwrap();
        bench.look(1, 1).unwrap();
    }
    assert_eq!((times, bench.trouble(0)), (STORM + 1, None));
    bench.pass(WINDOW_US);
    assert_eq!(bench.opened(), [1]);
}

#[test]
fn what_a_slow_driver_may_do_is_no_storm() {
    let mut bench = Bench::new(0, 16, &[4]);
    bench.join(0, 0, 20).unwrap();
    for _ in 0..4 * STORM {
        bench.raise(1);
        bench.look(0, 0).unwrap();
        bench.pass(WINDOW_US / u64::from(STORM) + 1);
    }
    assert_eq!(bench.trouble(0), None);
}

#[test]
fn strangers_are_refused() {
    let mut bench = Bench::new(0, 16, &[4, 4]);
    bench.join(0, 0, 20).unwrap();
    let rule = |result: Result<(), Refusal>| result.map_err(|refusal| refusal.rule);
    assert_eq!(rule(bench.look(1, 0)), Err(Rule::NotOnLine));
    assert_eq!(rule(bench.look(0, 1)), Err(Rule::NotOnLine));
    assert_eq!(rule(bench.join(0, 0, 16)), Err(Rule::InterruptsEnabled));
    assert_eq!(rule(bench.join(1, 0, 17)), Err(Rule::NoInterruptRoute));
    assert_eq!(rule(bench.join(1, 9, 20)), Err(Rule::BadArgument));
    assert_eq!(rule(bench.leave(1)), Err(Rule::NotOnLine));
    let far = Request::LineLeave { device: device(0) };
    let reply = bench.ask(BadgeKind::Shard, 1, far);
    assert_eq!(
        rule(msi::LineLeaveReply::decode(&reply).map(|_| ())),
        Err(Rule::OutsideShard)
    );
}

#[test]
fn a_client_that_is_gone_is_not_waited_for_again() {
    let mut bench = Bench::new(0, 16, &[4, 4]);
    bench.join(0, 0, 20).unwrap();
    bench.gone(0);
    bench.raise(1);
    assert_eq!(bench.told(), []);
    let reply = bench.ask(BadgeKind::Inspect, 1, Request::LineAt { index: 0 });
    let row = msi::LineAtReply::decode(&reply).unwrap();
    assert_eq!((row.line, row.raised, row.waits), (20, 1, Switch::On));
    bench.leave(0).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Join(u8, usize),
    Leave(u8),
    Raise(usize),
    Look(u8),
    Pass(u64),
    /// The pci-server shards do what they are told.
    Obey,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..8, 0usize..3).prop_map(|(device, line)| Step::Join(device, line)),
        1 => (0u8..8).prop_map(Step::Leave),
        4 => (0usize..3).prop_map(Step::Raise),
        6 => (0u8..8).prop_map(Step::Look),
        2 => (1u64..PATIENCE_US).prop_map(Step::Pass),
        2 => Just(Step::Obey),
    ]
}

/// Lines as sets: who is on each, and who has still to look since it was raised.
#[derive(Default)]
struct Model {
    on: [BTreeSet<u8>; 3],
    waits: [BTreeSet<u8>; 3],
    open: [bool; 3],
    /// When patience with each ends.
    deadline: [u64; 3],
    /// Devices with which it has ended.
    late: BTreeSet<u8>,
}

impl Model {
    fn drop(&mut self, number: u8) -> bool {
        self.late.remove(&number);
        let sets = self.waits.iter_mut();
        sets.for_each(|waits| waits.retain(|other| *other != number));
        let known = self
            .on
            .iter_mut()
            .filter_map(|on| on.remove(&number).then_some(()));
        known.count() > 0
    }

    fn pass(&mut self, now: u64) {
        for (waits, deadline) in self.waits.iter().zip(self.deadline) {
            if now >= deadline {
                self.late.extend(waits);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_line_opens_too_early_or_stays_closed(steps in prop::collection::vec(step(), 0..80)) {
        // Client n has device n.
        let mut bench = Bench::new(0, 16, &[1; 8]);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Join(number, line) => {
                    let free = model.on.iter().all(|on| !on.contains(&number));
                    prop_assert_eq!(bench.join(number, number.into(), LINES[line]).is_ok(), free);
                    if free {
                        model.on[line].insert(number);
                    }
                }
                Step::Leave(number) => {
                    let known = model.drop(number);
                    prop_assert_eq!(bench.leave(number).is_ok(), known);
                }
                Step::Raise(line) => {
                    // The kernel raises what it has not masked.
                    if model.open[line] {
                        model.open[line] = false;
                        bench.raise(line);
                        model.waits[line] = model.on[line].clone();
                        model.deadline[line] = bench.kernel.0.borrow().now + PATIENCE_US;
                    }
                }
                Step::Look(number) => {
                    let known = model.on.iter().any(|on| on.contains(&number));
                    prop_assert_eq!(bench.look(number.into(), number).is_ok(), known);
                    // Whom the shard has been told of is waited for all the same.
                    if !model.late.contains(&number) {
                        let sets = model.waits.iter_mut();
                        sets.for_each(|waits| waits.retain(|other| *other != number));
                    }
                }
                Step::Pass(micros) => {
                    bench.pass(micros);
                    model.pass(bench.kernel.0.borrow().now);
                }
                Step::Obey => {
                    bench.pass(PATIENCE_US);
                    model.pass(bench.kernel.0.borrow().now);
                    for shard in 0..2 {
                        while let Some((at, count)) = bench.trouble(shard) {
                            prop_assert_eq!(count, 0);
                            let number = at.device();
                            // It really is one that did not look.
                            prop_assert!(model.late.contains(&number));
                            bench.leave(number).unwrap();
                            model.drop(number);
                        }
                    }
                    for (line, waits) in model.waits.iter().enumerate() {
                        prop_assert!(waits.is_empty(), "line {} waits for {:?}", line, waits);
                    }
                }
            }
            for line in bench.opened() {
                prop_assert!(model.waits[line].is_empty(), "line {} opened too early", line);
                prop_assert!(!model.open[line], "line {} opened twice", line);
                model.open[line] = true;
            }
            for line in 0..3 {
                // Closed only while somebody is waited for, or nobody is there.
                let idle = model.on[line].is_empty();
                let waits = !model.waits[line].is_empty();
                prop_assert!(model.open[line] || idle || waits, "line {} stays closed", line);
            }
        }
    }
}
