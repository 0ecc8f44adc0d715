//! Release, client death and resets: their order, their waits, and that nothing is left.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::kernel::Place;
use common::*;
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{ClientId, DeviceState, Mechanism, ResetKind, Rule, Switch, Width, pci};
use sim::config::{Machine, Misbehaviour};
use system::model::DeviceMatch;

const EDU: &str = "0000:00:03.0";
const NVME: &str = "0000:00:04.0";
const NET: &str = "0000:00:05.0";
const SOUND: &str = "0000:00:06.0";

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.add(EDU, edu(0xe000_0000));
    machine.add(NVME, nvme(0x80_0000_0000));
    machine.add(NET, conventional(0xe010_0000));
    machine.add(SOUND, power_cycled(0xe020_0000));
    for device in [NVME, NET, SOUND] {
        // What firmware sets up and a reset takes away: cache line size, interrupt line.
        machine.poke(at(device), 0x0c, &[0x10]);
        machine.poke(at(device), 0x3c, &[0x0b]);
    }
    // Device Control: payload and request sizes; Device Control 2 cannot be written here.
    machine.poke(at(NVME), 0x5c, &[0x20, 0x20]);
    machine
}

fn booted_with(machine: Machine) -> Booted {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    Booted::new(machine, vec![client("zero", &[any]), client("one", &[any])])
}

fn booted() -> Booted {
    booted_with(machine())
}

/// Everything that a client can have of a device.
fn take_everything<'b>(
    booted: &'b Booted,
    client: u16,
    device: &str,
    mechanism: Mechanism,
    slot: u16,
) -> pci::Stub<Caller<'b>> {
    let stub = booted.assigned(client, at(device), slot);
    stub.bar_frames(0, 0, 1, slot + 1).unwrap();
    stub.msi_enable(mechanism, 0, 1, slot + 2).unwrap();
    stub.bus_master(Switch::On).unwrap();
    booted.world(|world| {
        // Copied on, as a client may.
        world.kernel.client_copies(Place::Window(client, slot));
        world.kernel.client_copies(Place::Window(client, slot + 1));
        world.did.clear();
    });
    stub
}

/// What happened, in the words of the order that is fixed.
fn order(booted: &Booted, device: &str) -> Vec<&'static str> {
    let device = at(device);
    let words = booted.world(|world| {
        let mut words = Vec::new();
        for did in &world.did {
            words.push(match did {
                Did::RevokedDevice(_) => "capability revoked",
                Did::Wrote {
                    at,
                    offset: 0x42 | 0x4a,
                    ..
                } if *at == device => "interrupts off",
                Did::Wrote {
                    at,
                    offset: 0x04,
                    value,
                    ..
                } if *at == device && value & 4 == 0 => "mastering off",
                Did::Wrote {
                    at,
                    offset: 0x5c,
                    value,
                    ..
                } if *at == device && value >> 15 != 0 => "reset",
                Did::Detached(_) => "detached",
                Did::GaveVectorsBack(_) => "vectors given back",
                Did::RevokedFrames => "frames revoked",
                Did::Answered(_) => "answered",
                Did::ToldSupervisor => "supervisor told",
                _ => continue,
            });
        }
        words
    });
    let mut words = words;
    words.dedup();
    words
}

#[test]
fn a_release_takes_everything_back_in_the_fixed_order() {
    let booted = booted();
    let before = booted.state();
    let device = take_everything(&booted, 0, EDU, Mechanism::Msi, 0);
    device.release().unwrap();
    assert_eq!(
        order(&booted, EDU),
        [
            "capability revoked",
            "interrupts off",
            "mastering off",
            "detached",
            "vectors given back",
            "frames revoked"
        ]
    );
    assert_eq!(booted.world(|world| world.kernel.held_by_clients()), []);
    // Registers, slots, untypeds, vectors, states: as before the assignment. The message stays in
    // the disabled capability.
    booted.world(|world| world.machine.poke(at(EDU), 0x44, &[0; 10]));
    assert_eq!(booted.state(), before);
}

#[test]
fn a_release_with_a_reset_comes_in_the_same_order() {
    let booted = booted();
    let before = booted.state();
    let device = take_everything(&booted, 0, NVME, Mechanism::MsiX, 0);
    device.release().unwrap();
    assert_eq!(
        order(&booted, NVME),
        [
            "capability revoked",
            "interrupts off",
            "mastering off",
            "reset",
            "mastering off",
            "detached",
            "vectors given back",
            "frames revoked",
            "answered",
        ]
    );
    booted.world(|world| assert_eq!(world.machine.resets(at(NVME)), 1));
    assert_eq!(booted.state(), before);
    assert_eq!(booted.supervisor().figures().unwrap().parked, 0);
}

#[test]
fn client_death_is_answered_at_once_and_takes_everything_in_the_same_order() {
    let booted = booted();
    let before = booted.state();
    take_everything(&booted, 0, EDU, Mechanism::Msi, 0);
    let gone = booted.supervisor().client_gone(ClientId(0)).unwrap();
    assert_eq!(gone.devices, 1);
    assert_eq!(
        order(&booted, EDU),
        [""; 0],
        "nothing happens before the answer"
    );
    assert_eq!(booted.supervisor().pending().unwrap().count, 1);
    booted.settle();
    assert_eq!(
        order(&booted, EDU),
        [
            "capability revoked",
            "interrupts off",
            "mastering off",
            "detached",
            "vectors given back",
            "frames revoked",
            "supervisor told",
        ]
    );
    assert_eq!(booted.supervisor().pending().unwrap().count, 0);
    booted.world(|world| world.machine.poke(at(EDU), 0x44, &[0; 10]));
    assert_eq!(booted.state(), before);
    // The client's own capability, copied on, is of no use any more.
    assert_eq!(
        booted.client(0).assign(at(EDU), 0).unwrap_err().rule,
        Rule::ClientGone
    );
    booted.client(1).assign(at(EDU), 0).unwrap();
}

#[test]
fn the_supervisor_is_told_once_when_the_last_device_is_back() {
    let booted = booted();
    for (slot, device) in [EDU, NVME, NET, SOUND].iter().enumerate() {
        booted.assigned(0, at(device), slot as u16);
    }
    assert_eq!(
        booted
            .supervisor()
            .client_gone(ClientId(0))
            .unwrap()
            .devices,
        4
    );
    // Asked again before anything is done: still owed once.
    assert_eq!(
        booted
            .supervisor()
            .client_gone(ClientId(0))
            .unwrap()
            .devices,
        4
    );
    assert_eq!(booted.supervisor().pending().unwrap().count, 4);
    booted.settle();
    assert_eq!(booted.world(|world| world.told_supervisor()), 1);
    assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
    // A client without devices is no work.
    assert_eq!(
        booted
            .supervisor()
            .client_gone(ClientId(1))
            .unwrap()
            .devices,
        0
    );
    assert_eq!(booted.world(|world| world.told_supervisor()), 2);
    assert_eq!(
        booted
            .supervisor()
            .client_gone(ClientId(2))
            .unwrap_err()
            .rule,
        Rule::BadArgument
    );
}

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
            booted.client(1).assign(at(NVME), 0).unwrap_err().rule,
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
    booted.client(1).assign(at(EDU), 0).unwrap();
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
        booted.client(1).assign(at(NVME), 5).unwrap_err().rule,
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
fn a_device_being_taken_back_is_busy_for_everybody() {
    let booted = booted();
    booted.assigned(0, at(NVME), 0);
    let badge = booted.badge_in(0, 0);
    assert_eq!(booted.send(badge, pci::Request::Release {}), None);
    assert_eq!(
        booted.client(1).assign(at(NVME), 0).unwrap_err().rule,
        Rule::DeviceBusy
    );
    assert_eq!(
        booted.client(0).assign(at(NVME), 1).unwrap_err().rule,
        Rule::DeviceBusy
    );
    assert_eq!(
        booted.device(badge).info().unwrap_err().rule,
        Rule::StaleCapability
    );
    booted.settle();
    booted.client(1).assign(at(NVME), 0).unwrap();
}

#[test]
fn death_in_the_middle_of_a_reset_or_release_ends_in_one_revocation() {
    for request in [pci::Request::Reset {}, pci::Request::Release {}] {
        for ticks in 0..3 {
            let mut machine = machine();
            machine.add(NVME, nvme(0x80_0000_0000).quiet_after_reset(5));
            let booted = booted_with(machine);
            let before = booted.state();
            take_everything(&booted, 0, NVME, Mechanism::MsiX, 0);
            assert_eq!(booted.send(booted.badge_in(0, 0), request), None);
            (0..ticks).for_each(|_| assert!(booted.tick()));
            booted.supervisor().client_gone(ClientId(0)).unwrap();
            booted.settle();
            assert_eq!(booted.supervisor().pending().unwrap().count, 0);
            let told = order(&booted, NVME)
                .iter()
                .filter(|word| **word == "supervisor told")
                .count();
            assert_eq!(told, 1, "{request:?} after {ticks}");
            let revoked = order(&booted, NVME)
                .iter()
                .filter(|word| **word == "capability revoked")
                .count();
            assert_eq!(revoked, 1);
            booted.world(|world| assert_eq!(world.machine.resets(at(NVME)), 1));
            assert_eq!(booted.state(), before, "{request:?} after {ticks}");
        }
    }
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
fn a_device_that_vanishes_at_any_access_leaves_nothing_behind() {
    let mut reached = 0;
    for accesses in 0..400 {
        let booted = booted();
        take_everything(&booted, 0, NVME, Mechanism::MsiX, 0);
        booted.world(|world| {
            let mut space = world.machine.remove(at(NVME)).unwrap();
            space.misbehave(Misbehaviour::VanishesAfter { accesses });
            world.machine.insert(at(NVME), space);
        });
        let result = booted.device(booted.badge_in(0, 0)).release();
        let state = booted.client(0).query(at(NVME)).unwrap().state;
        booted.world(|world| {
            assert_eq!(world.kernel.held_by_clients(), [], "after {accesses}");
            assert!(world.attached.is_empty(), "after {accesses}");
            assert!(world.vectors.is_empty(), "after {accesses}");
            assert_eq!(world.bank.split_bytes(), 0, "after {accesses}");
        });
        assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
        if state == DeviceState::Quarantined {
            result.unwrap();
            reached = accesses;
            break;
        }
        assert!(
            matches!(state, DeviceState::Absent | DeviceState::Broken),
            "{state:?} after {accesses}"
        );
    }
    assert!(reached > 10, "the device is never accessed long enough");
}

#[test]
fn mastering_that_stays_on_keeps_the_vectors_out_of_circulation() {
    let booted = booted();
    let device = take_everything(&booted, 0, EDU, Mechanism::Msi, 0);
    booted.world(|world| {
        let mut space = world.machine.remove(at(EDU)).unwrap();
        space.misbehave(Misbehaviour::KeepsOnes { bytes: 4..5 });
        world.machine.insert(at(EDU), space);
    });
    assert_eq!(device.release().unwrap_err().rule, Rule::DeviceBroken);
    assert_eq!(
        booted.client(0).query(at(EDU)).unwrap().state,
        DeviceState::Broken
    );
    booted.world(|world| {
        assert!(world.attached.is_empty());
        assert!(world.vectors.contains_key(&at(EDU)));
        assert_eq!(world.kernel.held_by_clients(), []);
    });
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
fn what_a_holder_changed_is_not_left_for_the_next() {
    let booted = booted();
    let device = booted.assigned(0, at(NVME), 0);
    // Relaxed ordering and no snoop off, parity response on.
    let before = booted.world(|world| world.machine.snapshot(at(NVME)));
    device.config_write(0x5c, Width::Word, 0x2830).unwrap();
    device.config_write(0x04, Width::Word, 0x0442).unwrap();
    assert_ne!(
        booted.world(|world| world.machine.snapshot(at(NVME))),
        before
    );
    device.release().unwrap();
    booted.client(1).assign(at(NVME), 0).unwrap();
    assert_eq!(
        booted.world(|world| world.machine.snapshot(at(NVME))),
        before
    );
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
