//! Requests that wait are bounded client by client: who lets many wait is refused, and nobody else is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::scene::{at, booted_with};
use common::*;
use ipc_proto::{Badge, BadgeKind, Rule, pci};
use pci_core::shard::{MAX_PARKED, MAX_PARKED_OF_CLIENT};
use sim::config::Machine;
use system::model::MAX_CLIENTS;

const DEVICES: usize = MAX_PARKED_OF_CLIENT + 4;

fn address(number: usize) -> String {
    format!("0000:00:{:02x}.0", number + 1)
}

/// Devices with a reset that takes time, the last of them for client 1, the others held by client 0.
fn scene() -> Booted {
    let mut machine = Machine::new();
    for number in 0..DEVICES {
        let memory = 0x80_0000_0000 + number as u64 * 0x1_0000;
        machine.add(&address(number), devices::nvme(memory));
    }
    let booted = booted_with(machine);
    booted.world(|world| world.parking_limit = MAX_PARKED);
    for number in 0..DEVICES - 1 {
        booted.assigned(0, at(&address(number)), number as u16);
    }
    booted.assigned(1, at(&address(DEVICES - 1)), 0);
    booted
}

fn admin(client: u16) -> Badge {
    Badge::plain(BadgeKind::Admin, client)
}

fn refused(booted: &Booted, badge: Badge, request: pci::Request) {
    let before = booted.state();
    let reply = booted.send(badge, request).unwrap();
    assert_eq!(reply.label, Rule::TooManyParked as u64);
    assert_eq!(reply.words(), [MAX_PARKED_OF_CLIENT as u64]);
    assert_eq!(booted.state(), before, "something has begun");
}

#[test]
fn a_client_whose_requests_wait_is_refused_and_others_are_served() {
    let booted = scene();
    for number in 0..MAX_PARKED_OF_CLIENT as u16 {
        let request = if number % 2 == 0 {
            pci::Request::Reset {}
        } else {
            pci::Request::Release {}
        };
        assert_eq!(booted.send(booted.badge_in(0, number), request), None);
    }
    let next = booted.badge_in(0, MAX_PARKED_OF_CLIENT as u16);
    for _ in 0..100 {
        refused(&booted, next, pci::Request::Reset {});
        refused(&booted, next, pci::Request::Release {});
        refused(&booted, admin(0), pci::Request::Rescan {});
        let device = at(&address(MAX_PARKED_OF_CLIENT));
        refused(&booted, admin(0), pci::Request::Remove { device });
    }
    // What needs no time is not affected.
    assert!(
        booted
            .device(next)
            .config_read(0, ipc_proto::Width::Dword)
            .is_ok()
    );
    let other = booted.badge_in(1, 0);
    assert_eq!(booted.send(other, pci::Request::Reset {}), None);
    // On so small a machine this one is done at once.
    assert_eq!(booted.send(admin(1), pci::Request::Rescan {}), None);
    let parked = MAX_PARKED_OF_CLIENT as u64 + 1;
    assert_eq!(booted.supervisor().figures().unwrap().parked, parked);
    booted.settle();
    assert_eq!(booted.supervisor().figures().unwrap().parked, 0);
    booted.device(next).reset().unwrap();
    booted.world(|world| {
        assert!(world.parked.is_empty());
        assert!(world.answers.values().all(|answer| answer.label == 0));
        let refused = at(&address(MAX_PARKED_OF_CLIENT));
        assert_eq!(world.machine.resets(refused), 1);
    });
}

#[test]
fn a_capability_that_was_handed_on_counts_for_its_holder() {
    let booted = scene();
    for number in 0..MAX_PARKED_OF_CLIENT as u16 {
        // The shard sees badges: it makes no difference who uses the copy.
        let badge = booted.badge_in(0, number);
        assert_eq!(booted.send(badge, pci::Request::Reset {}), None);
    }
    refused(&booted, admin(0), pci::Request::Rescan {});
    assert_eq!(booted.send(admin(1), pci::Request::Rescan {}), None);
}

#[test]
fn there_is_room_for_the_bounds_of_all_clients() {
    assert_eq!(MAX_PARKED, MAX_CLIENTS * MAX_PARKED_OF_CLIENT);
}
