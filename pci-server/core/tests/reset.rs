//! Resets and other waits: how long, what comes back, and that nobody else waits.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::scene::*;
use common::*;
use hw::ConfigSpace;
use ipc_proto::{
    ClientId, ContextChoice, DeviceState, Mechanism, ResetKind, Rule, Switch, Width, pci,
};

#[test]
fn a_reset_waits_long_enough_and_brings_everything_back() {
    for (device, kind, mechanism, least) in [
        (NVME, ResetKind::Flr, Some(Mechanism::MsiX), 100_000),
        (NET, ResetKind::AfFlr, Some(Mechanism::Msi), 100_000),
        (SOUND, ResetKind::PowerCycle, None, 20_000),
    ] {
        let booted = booted();
        let stub = booted.assigned(0, at(device), 0);
        if let Some(mechanism) = mechanism {
            stub.msi_enable(mechanism, 0, 4, 1).unwrap();
        }
        stub.bus_master(Switch::On).unwrap();
        let (before, table, start) = booted.world(|world| {
            let table = world.memory.clone();
            // A reset masks and clears the table.
            world.memory.clear();
            (world.machine.snapshot(at(device)), table, world.clock_us())
        });
        assert_eq!(stub.reset().unwrap().kind, kind);
        booted.world(|world| {
            assert_eq!(world.machine.snapshot(at(device)), before, "{device}");
            assert_eq!(world.memory, table, "{device}");
            assert!(world.clock_us() - start >= least, "{device}");
        });
        assert_eq!(stub.info().unwrap().device, at(device));
    }
}

#[test]
fn d3hot_and_d0_are_ten_milliseconds_apart() {
    let booted = booted();
    let stub = booted.assigned(0, at(SOUND), 0);
    booted.world(|world| world.did.clear());
    assert_eq!(
        booted.send(booted.badge_in(0, 0), pci::Request::Reset {}),
        None
    );
    let states = || {
        booted.world(|world| {
            world
                .did
                .iter()
                .filter_map(|did| match did {
                    Did::Wrote {
                        offset: 0x44,
                        value,
                        ..
                    } => Some(value & 3),
                    _ => None,
                })
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(states(), [3]);
    let start = booted.world(|world| world.clock_us());
    booted.tick();
    assert_eq!(states(), [3, 0]);
    assert!(booted.world(|world| world.clock_us()) >= start + 10_000);
    booted.settle();
    stub.info().unwrap();
}

#[test]
fn a_device_without_a_reset_says_so() {
    let booted = booted();
    let stub = booted.assigned(0, at(EDU), 0);
    assert_eq!(stub.reset().unwrap_err().rule, Rule::NoReset);
    assert_eq!(
        booted.client(0).query(at(EDU)).unwrap().state,
        DeviceState::Assigned
    );
}

#[test]
fn a_device_that_comes_back_late_is_waited_for_and_one_that_does_not_is_broken() {
    // Each look reads once: 46 looks fit the second.
    for (reads, comes_back) in [(5, true), (40, true), (1_000_000, false)] {
        let mut machine = machine();
        machine.add(NVME, nvme(0x80_0000_0000).quiet_after_reset(reads));
        let booted = booted_with(machine);
        let stub = take_everything(&booted, 0, NVME, Mechanism::MsiX, 0);
        let start = booted.world(|world| world.clock_us());
        let result = stub.reset();
        let took = booted.world(|world| world.clock_us()) - start;
        if comes_back {
            assert_eq!(result.unwrap().kind, ResetKind::Flr);
            stub.info().unwrap();
            continue;
        }
        assert_eq!(result.unwrap_err().rule, Rule::ResetTimeout);
        assert!((1_000_000..1_300_000).contains(&took), "{took}");
        // Taken from its holder, who is told; in the usual order; for good.
        assert_eq!(
            order(&booted, NVME),
            [
                "interrupts off",
                "mastering off",
                "reset",
                "capability revoked",
                "detached",
                "vectors given back",
                "frames revoked",
                "answered",
            ]
        );
        assert!(booted.world(|world| world.did.contains(&Did::ToldClient(ClientId(0)))));
        assert_eq!(stub.info().unwrap_err().rule, Rule::StaleCapability);
        assert_eq!(
            booted.client(0).query(at(NVME)).unwrap().state,
            DeviceState::Broken
        );
        assert_eq!(
            booted
                .client(1)
                .assign(at(NVME), 0, ContextChoice::Shared)
                .unwrap_err()
                .rule,
            Rule::DeviceBroken
        );
        booted.world(|world| {
            assert_eq!(world.kernel.held_by_clients(), []);
            assert!(world.attached.is_empty());
            assert!(
                world
                    .log
                    .iter()
                    .any(|line| line.contains("did not come back from its reset"))
            );
        });
    }
}

#[test]
fn a_reset_of_one_device_does_not_stop_operations_on_another() {
    let booted = booted();
    booted.assigned(0, at(NVME), 0);
    let other = booted.assigned(1, at(EDU), 0);
    let badge = booted.badge_in(0, 0);
    assert_eq!(booted.send(badge, pci::Request::Reset {}), None);
    let start = booted.world(|world| world.clock_us());
    // No time passes for the others.
    assert_eq!(
        other.config_read(0, Width::Dword).unwrap().value,
        0x11e8_1234
    );
    other.bus_master(Switch::On).unwrap();
    other.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    other.release().unwrap();
    booted
        .client(1)
        .assign(at(EDU), 0, ContextChoice::Shared)
        .unwrap();
    assert_eq!(booted.world(|world| world.clock_us()), start);
    // The device itself is busy meanwhile, for its holder and for others.
    let device = booted.device(badge);
    assert_eq!(
        device.config_read(0, Width::Dword).unwrap_err().rule,
        Rule::DeviceBusy
    );
    assert_eq!(device.release().unwrap_err().rule, Rule::DeviceBusy);
    assert_eq!(device.reset().unwrap_err().rule, Rule::DeviceBusy);
    assert_eq!(
        booted
            .client(1)
            .assign(at(NVME), 5, ContextChoice::Shared)
            .unwrap_err()
            .rule,
        Rule::HeldByAnother
    );
    assert_eq!(
        booted.client(1).query(at(NVME)).unwrap().state,
        DeviceState::Resetting
    );
    booted.settle();
    assert_eq!(booted.world(|world| world.answers.len()), 1);
    device.info().unwrap();
}

#[test]
fn pending_transactions_are_waited_for_within_a_bound() {
    // Express without a reset: the status register says when it is quiet.
    let quiet = || {
        use sim::config::{ExpressShape, PortKind};
        sim::config::Endpoint::new(1, 9)
            .bar(0, memory32(4096, 0xe030_0000))
            .express(ExpressShape {
                kind: PortKind::Integrated,
                flr: false,
                slot: None,
            })
    };
    for becomes_quiet in [true, false] {
        let mut machine = machine();
        let device = machine.add("00:07.0", quiet());
        let booted = booted_with(machine);
        booted.assigned(0, device, 0);
        booted.world(|world| world.machine.poke(device, 0x4a, &[0x20]));
        let start = booted.world(|world| world.clock_us());
        assert_eq!(
            booted.send(booted.badge_in(0, 0), pci::Request::Release {}),
            None
        );
        booted.tick();
        if becomes_quiet {
            booted.world(|world| world.machine.poke(device, 0x4a, &[0]));
        }
        booted.settle();
        let took = booted.world(|world| world.clock_us()) - start;
        assert!(took <= 110_000, "{took}");
        let state = booted.client(0).query(device).unwrap().state;
        assert_eq!(state == DeviceState::Quarantined, becomes_quiet);
        assert_eq!(state == DeviceState::Broken, !becomes_quiet);
        booted.world(|world| {
            assert!(world.attached.is_empty());
            assert_eq!(world.kernel.held_by_clients(), []);
            // Either way the client gets its answer.
            assert!(world.answers.values().all(|answer| answer.label == 0));
        });
    }
}

#[test]
fn when_no_request_can_be_parked_nothing_has_begun() {
    let booted = booted();
    let device = take_everything(&booted, 0, NVME, Mechanism::MsiX, 0);
    booted.world(|world| world.parking_limit = 0);
    let before = booted.state();
    assert_eq!(device.release().unwrap_err().rule, Rule::TooManyParked);
    assert_eq!(device.reset().unwrap_err().rule, Rule::TooManyParked);
    assert_eq!(booted.state(), before);
    // What needs no time is not affected.
    let other = booted.assigned(0, at(EDU), 10);
    other.release().unwrap();
    booted.world(|world| world.parking_limit = 1);
    device.release().unwrap();
}

#[test]
fn a_flood_of_slow_requests_parks_at_most_one_a_device() {
    let booted = booted();
    booted.assigned(0, at(NVME), 0);
    let badge = booted.badge_in(0, 0);
    assert_eq!(booted.send(badge, pci::Request::Reset {}), None);
    for _ in 0..1000 {
        let reply = booted.send(badge, pci::Request::Reset {}).unwrap();
        assert_eq!(reply.label, Rule::DeviceBusy as u64);
    }
    assert_eq!(booted.supervisor().figures().unwrap().parked, 1);
    booted.settle();
    booted.world(|world| assert_eq!(world.machine.resets(at(NVME)), 1));
}

#[test]
fn the_resets_do_not_disturb_other_functions() {
    let booted = booted();
    let stub = booted.assigned(0, at(NVME), 0);
    let before: Vec<_> = [EDU, NET, SOUND]
        .iter()
        .map(|other| booted.world(|world| world.machine.snapshot(at(other))))
        .collect();
    stub.reset().unwrap();
    let after: Vec<_> = [EDU, NET, SOUND]
        .iter()
        .map(|other| booted.world(|world| world.machine.snapshot(at(other))))
        .collect();
    assert_eq!(before, after);
    booted.world(|world| assert_eq!(world.read32(at(NVME), 0), 0x0010_1b36));
}
