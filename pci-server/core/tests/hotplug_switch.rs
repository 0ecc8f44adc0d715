//! A switch that is plugged in: bus numbers, windows and BARs for all that is on it, as far as there are any; what
//! cannot work is told, and the rest goes on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::plug::*;
use common::scene::at;
use common::*;
use hw::header::BusNumbers;
use ipc_proto::{EventKind, Rule};
use pci_core::Withheld;
use sim::config::{BarShape, Bridge, Endpoint, ExpressShape, PortKind};

const UPSTREAM: &str = "0000:01:00.0";
const DOWNSTREAM: &str = "0000:02:00.0";
/// Another downstream port, for which there is no bus number left.
const TOO_MANY: &str = "0000:02:01.0";
const INNER: &str = "0000:03:00.0";
/// Beside it, with more than the port's window holds.
const TOO_LARGE: &str = "0000:03:01.0";

/// A port of the switch as it comes from the factory: no bus numbers, all windows closed.
fn port(kind: PortKind) -> Bridge {
    let express = ExpressShape {
        kind,
        flr: false,
        slot: None,
    };
    Bridge::new(0, 0, 0).with(|endpoint| endpoint.express(express))
}

fn inner() -> Endpoint {
    let wide = BarShape::Memory64 {
        size: 2 << 20,
        address: 0,
        prefetchable: false,
    };
    card().bar(0, memory32(1 << 16, 0)).bar(2, wide)
}

fn routed() -> Booted {
    let mut machine = machine(&[]);
    machine.route();
    booted_on(machine)
}

fn plug(booted: &Booted, more: bool) {
    let spaces = |at_: &str, bridge: Bridge| (at(at_), bridge.into());
    let mut card = vec![
        spaces(UPSTREAM, port(PortKind::Upstream)),
        spaces(DOWNSTREAM, port(PortKind::Downstream)),
        (at(INNER), space(inner())),
    ];
    if more {
        card.push(spaces(TOO_MANY, port(PortKind::Downstream)));
        let large = Endpoint::new(1, 9).bar(0, memory32(64 << 20, 0));
        card.push((at(TOO_LARGE), space(large)));
    }
    booted.world(|world| world.machine.plug(at(PORT), card));
    booted.rest();
}

fn buses(booted: &Booted, bridge: &str) -> (u8, u8, u8) {
    booted.world(|world| {
        let numbers = BusNumbers::read(&world.machine, at(bridge));
        (numbers.primary, numbers.secondary, numbers.subordinate)
    })
}

/// The memory BARs lie inside every window above them, and side by side.
fn check_inner(booted: &Booted) {
    let shard = booted.shard.borrow();
    let device = shard.devices().at(at(INNER)).unwrap();
    assert_eq!(device.withheld, None);
    let mut ends = Vec::new();
    for region in device.bars.iter().filter(|region| region.is_memory()) {
        let last = region.base + region.bytes - 1;
        assert!(
            region.served && region.base % region.bytes == 0,
            "{region:x?}"
        );
        for bridge in [DOWNSTREAM, UPSTREAM, PORT] {
            let windows = hw::header::Bridge::read(&shard.env().machine, at(bridge));
            let inside = [windows.memory, windows.prefetchable]
                .into_iter()
                .flatten()
                .any(|window| window.base <= region.base && last <= window.limit);
            assert!(inside, "{bridge}: {region:x?} in {windows:x?}");
        }
        ends.push((region.base, last));
    }
    ends.sort_unstable();
    assert_eq!(ends.len(), 2);
    assert!(ends[0].1 < ends[1].0, "{ends:x?}");
}

#[test]
fn all_that_is_on_it_is_taken_in() {
    let booted = routed();
    plug(&booted, false);
    assert_eq!(buses(&booted, UPSTREAM), (1, 2, 3));
    assert_eq!(buses(&booted, DOWNSTREAM), (2, 3, 3));
    check_inner(&booted);
    // Its bridges are the platform's, and nobody is told of them.
    assert_eq!(booted.news(0), [(EventKind::Added, at(INNER), 0)]);
    let device = booted.assigned(0, at(INNER), 1);
    device.bar_frames(2, 0, 1, 2).unwrap();
    // Bridges above forward, and let errors pass.
    for bridge in [UPSTREAM, DOWNSTREAM] {
        booted.world(|world| {
            let bytes = world.machine.snapshot(at(bridge));
            assert_eq!((bytes[4] & 6, bytes[0x3e] & 2), (6, 2), "{bridge}");
        });
    }
}

#[test]
fn what_cannot_work_is_told_and_the_rest_goes_on() {
    let booted = routed();
    plug(&booted, true);
    check_inner(&booted);
    // The switch does not keep the two apart: who gets one must be able to get the other.
    let refusal = booted.client(0).test_assign(at(INNER)).unwrap_err();
    let why = (refusal.rule, refusal.about);
    assert_eq!(why, (Rule::GroupNotGranted, at(TOO_LARGE).to_bits().into()));
    let log = booted.world(|world| world.log.join("\n"));
    let told = format!("{TOO_MANY} there are no bus numbers for it");
    assert!(log.contains(&told), "{log}");
    assert_eq!(buses(&booted, TOO_MANY), (0, 0, 0));
    let why = booted
        .shard
        .borrow()
        .devices()
        .at(at(TOO_LARGE))
        .unwrap()
        .withheld;
    assert!(matches!(why, Some(Withheld::Malformed(_))), "{why:?}");
    assert!(log.contains(TOO_LARGE), "{log}");
}

#[test]
fn it_is_pulled_with_all_that_is_on_it_and_another_works() {
    let booted = routed();
    for _ in 0..3 {
        plug(&booted, false);
        let device = booted.assigned(0, at(INNER), 1);
        device.bar_frames(0, 0, 1, 2).unwrap();
        let _ = booted.news(0);
        booted.pull(PORT);
        booted.rest();
        assert!(device.info().is_err());
        assert_eq!(booted.news(0), [(EventKind::Removed, at(INNER), 0)]);
        for gone in [UPSTREAM, DOWNSTREAM, INNER] {
            assert!(!booted.knows(gone), "{gone}");
        }
        assert!(booted.world(|world| world.attached.is_empty()));
    }
}

#[test]
fn a_scan_finds_what_came_behind_a_bridge_of_a_card() {
    let booted = routed();
    let card = vec![
        (at(UPSTREAM), port(PortKind::Upstream).into()),
        (at(DOWNSTREAM), port(PortKind::Downstream).into()),
    ];
    booted.world(|world| world.machine.plug(at(PORT), card));
    booted.rest();
    assert!(booted.knows(DOWNSTREAM) && !booted.knows(INNER));
    booted.world(|world| world.machine.insert(at(INNER), space(inner())));
    let reply = booted.admin().rescan().unwrap();
    assert_eq!((reply.added, reply.removed), (1, 0));
    check_inner(&booted);
    booted.assigned(0, at(INNER), 1);
    assert_eq!(booted.news(0), [(EventKind::Added, at(INNER), 0)]);
    // And nothing more the next time.
    assert_eq!(booted.admin().rescan().unwrap().added, 0);
}
