//! Buses on which nothing is left: others may come there, and a scan finds them.
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
use sim::config::{Bridge, Machine};

/// A bridge without a slot.
const BRIDGE: &str = "0000:00:1e.0";
const BEHIND: &str = "0000:01:01.0";
/// On a root bus of its own.
const ELSEWHERE: &str = "0000:08:02.0";

/// One function behind a bridge, and one on another root bus.
fn sparse() -> Booted {
    let mut machine = Machine::new();
    machine.add(
        BRIDGE,
        Bridge::new(0, 1, 1).memory(0xe030_0000, 0xe03f_ffff),
    );
    machine.add(BEHIND, edu(0xe030_0000));
    machine.add(ELSEWHERE, card());
    booted_on(machine)
}

fn buses(booted: &Booted) -> Vec<u8> {
    let shard = booted.shard.borrow();
    let buses = shard.devices().buses().map(|(_, bus, _)| bus);
    buses.collect()
}

fn added(booted: &Booted) -> u32 {
    let reply = booted.admin().rescan().unwrap();
    booted.rest();
    reply.added
}

#[test]
fn what_was_taken_away_alone_behind_a_bridge_or_on_a_root_bus_is_found_again() {
    let booted = sparse();
    for device in [BEHIND, ELSEWHERE] {
        let _ = booted.assigned(0, at(device), 1);
        assert_eq!(booted.admin().remove(at(device)).unwrap().functions, 1);
        assert!(!booted.knows(device));
        assert_eq!(added(&booted), 1, "{device}");
        booted.assigned(0, at(device), 1).release().unwrap();
    }
}

#[test]
fn what_comes_where_something_was_pulled_out_is_found() {
    let booted = sparse();
    for device in [BEHIND, ELSEWHERE] {
        let held = booted.assigned(0, at(device), 1);
        booted.world(|world| world.machine.remove(at(device)));
        assert_eq!(added(&booted), 0);
        assert!(held.info().is_err() && !booted.knows(device));
        booted.world(|world| world.machine.add(device, edu(0xe030_0000)));
        assert_eq!(added(&booted), 1, "{device}");
        booted.assigned(0, at(device), 1).release().unwrap();
    }
}

#[test]
fn a_bus_goes_with_the_bridge_to_it() {
    let booted = sparse();
    assert_eq!(buses(&booted), [0, 1, 8]);
    booted.world(|world| {
        world.machine.remove(at(BRIDGE));
        world.machine.remove(at(BEHIND));
    });
    assert_eq!(added(&booted), 0);
    assert_eq!(buses(&booted), [0, 8]);
    // In the other order, too: the function first, then the bridge.
    let booted = sparse();
    booted.world(|world| world.machine.remove(at(BEHIND)));
    assert_eq!(added(&booted), 0);
    assert_eq!(buses(&booted), [0, 1, 8]);
    booted.world(|world| world.machine.remove(at(BRIDGE)));
    assert_eq!(added(&booted), 0);
    assert_eq!(buses(&booted), [0, 8]);
}
