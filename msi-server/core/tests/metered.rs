//! Metered vectors: what is counted, what is passed on, and when it ends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::*;
use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{BadgeKind, ClientId, Delivery, Messages, Refusal, Rule, Switch};
use msi_core::rate::{AHEAD_US, Bucket, Rate};
use msi_core::{ConfigError, Shard};
use proptest::prelude::*;

/// Of the metered client.
const RATE: u32 = 1_000;
/// Metered vectors that the tests' shard has room for: it has three lines.
const ROOM: u16 = 19;

fn at(bus: u8, device: u8) -> Sbdf {
    Sbdf::from_parts(0, bus, device, 0).unwrap()
}

fn one(message: u16) -> Messages {
    Messages {
        first: message,
        count: 1,
    }
}

/// Client 0 is metered, client 1 is not.
fn bench() -> Bench {
    let clients = [metered(client((32, 0, 1)), RATE), client((32, 0, 2))];
    Bench::of(8, 64, &clients)
}

impl Bench {
    fn name(&mut self, shard: u16, device: Sbdf, message: u16, flags: u64) -> Result<(), Refusal> {
        let request = Request::Bind {
            device,
            message,
            flags,
        };
        msi::BindReply::decode(&self.ask(BadgeKind::Shard, shard, request)).map(|_| ())
    }

    fn resume(&mut self, device: Sbdf, messages: Messages) -> Result<u16, Refusal> {
        let request = Request::Resume { device, messages };
        msi::ResumeReply::decode(&self.ask(BadgeKind::Shard, 0, request)).map(|reply| reply.left)
    }

    fn storm(&mut self, shard: u16) -> Option<(Sbdf, u16, u32)> {
        let reply = self.ask(BadgeKind::Shard, shard, Request::MessageTrouble {});
        match msi::MessageTroubleReply::decode(&reply) {
            Ok(reply) => Some((reply.device, reply.message, reply.count)),
            Err(refusal) => {
                assert_eq!(refusal.rule, Rule::EndOfList);
                None
            }
        }
    }

    /// The device raises a vector, as the kernel counts.
    fn arrive(&mut self, vector: u16) {
        let (meter, hushed) = {
            let kernel = self.kernel.0.borrow();
            let hushed = kernel.hushed.contains(&vector);
            (kernel.metered.get(&vector).copied(), hushed)
        };
        match meter {
            Some(_) if hushed => {}
            Some(meter) => self.shard.on_message(meter),
            None => self.shard.on_absorbed(),
        }
    }

    fn passed(&self) -> Vec<(u16, u64)> {
        std::mem::take(&mut self.kernel.0.borrow_mut().passed)
    }

    fn pass_time(&self, micros: u64) {
        self.kernel.0.borrow_mut().now += micros;
    }
}

#[test]
fn a_metered_vector_is_passed_on_and_the_client_gets_no_handler() {
    let mut bench = bench();
    let first = bench.alloc(at(1, 0), 0, 4, 0).unwrap().first;
    assert!(bench.kernel.0.borrow().windows.is_empty());
    // Nobody has said what to signal.
    bench.arrive(first);
    assert_eq!(bench.figures().absorbed, 1);
    for (message, flags) in [(0, 0x1_0000), (1, 0x2_0000), (3, 0x1_0000)] {
        bench.name(0, at(1, 0), message, flags).unwrap();
    }
    for message in [0, 1, 3, 0] {
        bench.arrive(first + message);
    }
    let expected = [0x1_0000, 0x2_0000, 0x1_0000, 0x1_0000].map(|flags| (0, flags));
    assert_eq!(bench.passed(), expected);
    // Named anew, it signals that alone.
    bench.name(0, at(1, 0), 0, 0x8_0000).unwrap();
    bench.arrive(first);
    assert_eq!(bench.passed(), [(0, 0x8_0000)]);
    let rows = bench.all();
    let row = rows.iter().find(|row| row.vector == first).unwrap();
    assert_eq!(
        (row.delivery, row.raised, row.passed, row.flags),
        (Delivery::Metered, 4, Switch::On, 0x8_0000)
    );
    // Nobody has named the third.
    let rows = bench.all();
    let row = rows.iter().find(|row| row.vector == first + 2).unwrap();
    assert_eq!(row.flags, 0);
    // Another client's is its own.
    let direct = bench.alloc(at(2, 0), 1, 1, 7).unwrap().first;
    assert_eq!(bench.kernel.0.borrow().windows[&(1, 7)], direct);
    let rows = bench.all();
    let row = rows.iter().find(|row| row.vector == direct).unwrap();
    assert_eq!(row.delivery, Delivery::Direct);
    assert_eq!(
        bench.name(0, at(2, 0), 0, 1).unwrap_err(),
        Refusal::new(Rule::NotMetered, 0)
    );
    assert_eq!(bench.free(at(1, 0)), Ok(4));
    let kernel = bench.kernel.0.borrow();
    assert!(kernel.metered.is_empty() && kernel.named.is_empty());
}

#[test]
fn a_storm_is_silenced_at_once_told_once_and_let_come_again_by_its_holder() {
    let mut bench = bench();
    let first = bench.alloc(at(1, 0), 0, 2, 0).unwrap().first;
    bench.name(0, at(1, 0), 0, 1).unwrap();
    bench.name(0, at(1, 0), 1, 2).unwrap();
    let burst = u64::from(RATE) * AHEAD_US / 1_000_000 + 1;
    for _ in 0..burst {
        bench.arrive(first);
    }
    assert_eq!(bench.passed().len() as u64, burst);
    assert!(bench.kernel.0.borrow().hushed.is_empty());
    assert_eq!(bench.storm(0), None);
    for _ in 0..1_000 {
        bench.arrive(first);
    }
    assert_eq!(bench.passed(), []);
    assert_eq!(bench.kernel.0.borrow().told_shards, [0]);
    // The other message goes on.
    bench.arrive(first + 1);
    assert_eq!(bench.passed(), [(0, 2)]);
    assert_eq!(bench.storm(1), None, "another shard's");
    assert_eq!(bench.storm(0), Some((at(1, 0), 0, burst as u32 + 1)));
    assert_eq!(bench.storm(0), None);
    let rows = bench.all();
    let row = rows.iter().find(|row| row.vector == first).unwrap();
    assert_eq!((row.passed, row.raised), (Switch::Off, burst + 1));
    assert_eq!(bench.resume(at(1, 0), one(1)), Ok(1));
    assert_eq!(bench.kernel.0.borrow().hushed.len(), 1);
    // Once for what may have come meanwhile. The rate counts on.
    assert_eq!(bench.resume(at(1, 0), one(0)), Ok(0));
    assert_eq!(bench.passed(), [(0, 1)]);
    bench.arrive(first);
    assert_eq!(bench.passed(), []);
    assert_eq!(bench.storm(0), Some((at(1, 0), 0, 1)));
    assert_eq!(bench.resume(at(1, 0), one(0)), Ok(0));
    bench.pass_time(1_000);
    bench.passed();
    bench.arrive(first);
    assert_eq!(bench.passed(), [(0, 1)]);
    // Of what is passed on already, nothing is said.
    assert_eq!(bench.resume(at(1, 0), one(0)), Ok(0));
    assert_eq!(bench.passed(), []);
}

#[test]
fn flags_end_and_come_back_and_refusals_leave_nothing() {
    let mut bench = bench();
    bench.alloc(at(1, 0), 0, 16, 0).unwrap();
    let full = Refusal::new(Rule::MeteredExhausted, ROOM.into());
    assert_eq!(bench.alloc(at(1, 1), 0, 4, 20).unwrap_err(), full);
    assert_eq!(bench.kernel.0.borrow().metered.len(), 16);
    assert_eq!(bench.figures().free, 48);
    bench.alloc(at(1, 1), 0, 2, 20).unwrap();
    // Where the kernel refuses, too.
    for step in 0..4 {
        bench.kernel.0.borrow_mut().refuse_in = Some(step);
        let taken = bench.alloc(at(1, 2), 0, 1, 40);
        assert_eq!(taken.is_err(), step == 0);
        bench.kernel.0.borrow_mut().refuse_in = None;
        bench.free(at(1, 2)).unwrap();
        assert_eq!(bench.kernel.0.borrow().metered.len(), 18);
    }
    bench.name(0, at(1, 1), 0, 5).unwrap();
    bench.kernel.0.borrow_mut().refuse_in = Some(0);
    bench.name(0, at(1, 1), 0, 6).unwrap_err();
    let vector = bench
        .all()
        .iter()
        .find(|row| row.device == at(1, 1))
        .unwrap()
        .vector;
    bench.arrive(vector);
    assert_eq!(bench.passed(), [], "neither the old flags nor the new ones");
    // Only the shard of the device speaks for it.
    for (device, shard) in [(at(1, 1), 1), (at(0x81, 0), 0)] {
        let outside = Refusal::new(Rule::OutsideShard, device.to_bits().into());
        assert_eq!(bench.name(shard, device, 0, 1).unwrap_err(), outside);
    }
    // A client that is gone leaves no flag and no signal.
    bench.gone(0);
    let kernel = bench.kernel.0.borrow();
    assert!(kernel.metered.is_empty() && kernel.named.is_empty());
}

#[test]
fn a_signal_that_was_on_its_way_when_its_vector_went_is_counted_only() {
    let mut bench = bench();
    bench.alloc(at(1, 0), 0, 1, 0).unwrap();
    bench.name(0, at(1, 0), 0, 1).unwrap();
    bench.free(at(1, 0)).unwrap();
    bench.shard.on_message(0);
    bench.shard.on_message(usize::MAX);
    assert_eq!(bench.passed(), []);
    assert_eq!(bench.figures().absorbed, 2);
}

#[test]
fn what_is_kept_for_metered_clients_can_be_metered() {
    let clients = |count| [metered(client((count, count, 0)), 1)];
    let shard = Shard::new(&info(0, 100), &clients(ROOM), Shared::default());
    assert!(shard.is_ok());
    let shard = Shard::new(&info(0, 100), &clients(ROOM + 1), Shared::default());
    let (wanted, room) = (usize::from(ROOM) + 1, usize::from(ROOM));
    assert_eq!(shard.unwrap_err(), ConfigError::Metered { wanted, room });
}

#[test]
fn a_client_is_told_what_it_can_have() {
    let mut bench = Bench::with(8, 64, &[(12, 5, 0), (64, 0, 0)]);
    let promise = |bench: &mut Bench, client| {
        let request = Request::Promise {
            client: ClientId(client),
        };
        let reply = bench.ask(BadgeKind::Shard, 0, request);
        msi::PromiseReply::decode(&reply).map(|reply| (reply.kept, reply.common, reply.left))
    };
    // Kept in a block of a power of two.
    assert_eq!(promise(&mut bench, 0), Ok((8, 56, 12)));
    bench.alloc(at(1, 0), 0, 4, 0).unwrap();
    bench.alloc(at(1, 1), 1, 16, 0).unwrap();
    assert_eq!(promise(&mut bench, 0), Ok((4, 40, 8)));
    assert_eq!(promise(&mut bench, 1), Ok((0, 40, 48)));
    assert_eq!(
        promise(&mut bench, 2).unwrap_err(),
        Refusal::new(Rule::BadArgument, 1)
    );
}

#[test]
fn a_restart_meters_as_before_and_passes_each_on_once() {
    let mut bench = bench();
    let first = bench.alloc(at(1, 0), 0, 2, 0).unwrap().first;
    let direct = bench.alloc(at(2, 0), 1, 1, 7).unwrap().first;
    bench.name(0, at(1, 0), 0, 4).unwrap();
    bench.name(0, at(1, 0), 1, 8).unwrap();
    for _ in 0..1_000 {
        bench.arrive(first + 1);
    }
    bench.passed();
    bench.restart();
    let rows = bench.all();
    let delivery = |vector| {
        rows.iter()
            .find(|row| row.vector == vector)
            .unwrap()
            .delivery
    };
    assert_eq!(delivery(first), Delivery::Metered);
    assert_eq!(delivery(first + 1), Delivery::Metered);
    assert_eq!(delivery(direct), Delivery::Direct);
    let told: Vec<u64> = bench.all().iter().take(2).map(|row| row.flags).collect();
    assert_eq!(told, [4, 8]);
    // A signal may have died with the server.
    assert_eq!(bench.passed(), [(0, 4), (0, 8)]);
    bench.arrive(first);
    bench.arrive(first + 1);
    assert_eq!(bench.passed(), [(0, 4), (0, 8)]);
    assert_eq!(bench.free(at(1, 0)), Ok(2));
    let kernel = bench.kernel.0.borrow();
    assert!(kernel.metered.is_empty() && kernel.named.is_empty());
}

/// What was metered for a client before, wherever the server died, is signalled to nobody else after it.
#[test]
fn a_death_at_any_effect_leaves_no_signal_to_another_client() {
    let both = [
        metered(client((32, 0, 1)), RATE),
        metered(client((32, 0, 2)), RATE),
    ];
    let operations: [fn(&mut Bench); 4] = [
        |bench| {
            let _ = bench.alloc(at(1, 1), 0, 2, 4);
        },
        |bench| {
            let _ = bench.name(0, at(1, 0), 0, 16);
        },
        |bench| {
            let _ = bench.free(at(1, 0));
        },
        |bench| {
            let _ = bench.gone(0);
        },
    ];
    for operation in operations {
        for left in 0..64 {
            let mut bench = Bench::of(8, 8, &both);
            let first = bench.alloc(at(1, 0), 0, 2, 0).unwrap().first;
            bench.name(0, at(1, 0), 0, 4).unwrap();
            bench.name(0, at(1, 0), 1, 8).unwrap();
            bench.kernel.0.borrow_mut().left = Some(left);
            operation(&mut bench);
            bench.restart();
            let held = |bench: &mut Bench| bench.all().iter().any(|row| row.device == at(1, 0));
            bench.passed();
            bench.arrive(first + 1);
            let expected: &[_] = match bench.all().iter().find(|row| row.device == at(1, 0)) {
                Some(row) if row.delivery == Delivery::Metered => &[(0, 8)],
                _ => &[],
            };
            assert_eq!(bench.passed(), expected, "after {left}");
            // The operation again, which finishes it; then another client has every vector.
            operation(&mut bench);
            bench.free(at(1, 0)).unwrap();
            bench.free(at(1, 1)).unwrap();
            assert!(!held(&mut bench));
            bench.passed();
            let first = bench.alloc(at(2, 0), 1, 8, 0).unwrap().first;
            (first..first + 8).for_each(|vector| bench.arrive(vector));
            assert_eq!(bench.passed(), [], "after {left}");
            bench.name(0, at(2, 0), 3, 1).unwrap();
            (first..first + 8).for_each(|vector| bench.arrive(vector));
            assert_eq!(bench.passed(), [(1, 1)], "after {left}");
        }
    }
}

/// The rule in words, over all that passed so far: from each of them on, what has passed and this one with it take as long as
/// the rate says, less what may come ahead. Written without the state that the code keeps.
fn allowed(passed: &[u64], now: u64, rate: u32) -> bool {
    let interval = 1_000_000_000 / u128::from(rate);
    passed.iter().enumerate().all(|(at, since)| {
        let intervals = (passed.len() - at) as u128;
        let took = u128::from(now - since) * 1_000;
        intervals * interval <= took + u128::from(AHEAD_US) * 1_000
    })
}

proptest! {
    #[test]
    fn the_rate_is_what_the_rule_says(
        rate in prop_oneof![1u32..=100, 100u32..=20_000, Just(1_000_000)],
        gaps in prop::collection::vec(prop_oneof![0u64..=3, 0u64..=200, 0u64..=20_000, 0u64..=2_000_000], 1..400),
        start in 0u64..=u64::from(u32::MAX),
    ) {
        let mut bucket = Bucket::default();
        let mut passed = Vec::new();
        let mut now = start;
        for gap in gaps {
            now += gap;
            let expected = allowed(&passed, now, rate);
            prop_assert_eq!(bucket.pass(Rate::per_second(rate).unwrap(), now), expected);
            if expected {
                passed.push(now);
            }
        }
    }

    #[test]
    fn whoever_keeps_to_the_rate_is_never_refused(rate in 1u32..=1_000_000, count in 1usize..2_000) {
        let mut bucket = Bucket::default();
        let interval = 1_000_000u64.div_ceil(rate.into());
        for n in 0..count as u64 {
            prop_assert!(bucket.pass(Rate::per_second(rate).unwrap(), n * interval));
        }
    }
}
