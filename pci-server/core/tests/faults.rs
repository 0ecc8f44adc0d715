//! Fault injection: every call to the surroundings fails once at every place
//! where it is made, and what was half done is undone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::kernel::{Object, Place};
use common::*;
use hw::Sbdf;
use ipc_proto::{ConfigRight, ContextChoice, DeviceState, Mechanism, Refusal, Rule, Switch, Width};
use sim::config::{Machine, Misbehaviour};
use system::model::DeviceMatch;

fn booted() -> (Booted, [Sbdf; 2]) {
    let mut machine = Machine::new();
    let edu = machine.add("00:03.0", edu(0xe000_0000));
    let nvme = machine.add("00:04.0", nvme(0x80_0000_0000));
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    (
        Booted::new(machine, vec![client("zero", &[any]), client("one", &[any])]),
        [edu, nvme],
    )
}

/// Makes the n-th call from now fail.
fn fail_at(booted: &Booted, n: usize) {
    booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls + n));
}

fn calls_since(booted: &Booted, start: usize) -> usize {
    booted.world(|world| world.kernel.calls - start)
}

/// Runs `operation` with each of its calls failing in turn, on a fresh world prepared by `prepare`.
/// After each failure the state must be what it was; afterwards the operation must work. Gives how
/// many failures there were.
fn each_failure_is_undone<P>(
    prepare: impl Fn(&Booted, [Sbdf; 2]) -> P,
    operation: impl Fn(&Booted, [Sbdf; 2], &P) -> Result<(), Refusal>,
) -> usize {
    for n in 0.. {
        let (booted, devices) = booted();
        let prepared = prepare(&booted, devices);
        let before = booted.state();
        fail_at(&booted, n);
        let start = booted.world(|world| world.kernel.calls);
        let result = operation(&booted, devices, &prepared);
        if calls_since(&booted, start) <= n {
            result.unwrap();
            return n;
        }
        let refusal = result.unwrap_err();
        assert!(
            matches!(refusal.rule, Rule::KernelRefused | Rule::Downstream),
            "{refusal:?}"
        );
        booted.world(|world| world.kernel.fail_at = None);
        let after = booted.state();
        assert_eq!(
            format!("{after:#?}"),
            format!("{before:#?}"),
            "call {n} failed"
        );
        operation(&booted, devices, &prepared).unwrap();
    }
    unreachable!()
}

#[test]
fn assignment_is_rolled_back_whole() {
    let failures = each_failure_is_undone(
        |_, _| (),
        |booted, [edu, _], ()| {
            booted
                .client(0)
                .assign(edu, 3, ContextChoice::Shared)
                .map(drop)
        },
    );
    assert_eq!(failures, 2, "attach, place the capability");
}

#[test]
fn enabling_msi_is_rolled_back_whole() {
    let failures = each_failure_is_undone(
        |booted, [edu, _]| {
            booted
                .client(0)
                .assign(edu, 0, ContextChoice::Shared)
                .unwrap();
            booted.badge_in(0, 0)
        },
        |booted, _, badge| {
            booted
                .device(*badge)
                .msi_enable(Mechanism::Msi, 0, 1, 1)
                .map(drop)
        },
    );
    assert_eq!(failures, 1, "vectors");
}

#[test]
fn frames_are_all_placed_or_none() {
    let failures = each_failure_is_undone(
        |booted, [edu, _]| {
            booted
                .client(0)
                .assign(edu, 0, ContextChoice::Shared)
                .unwrap();
            // The region is split already, and one frame of it is out.
            booted
                .device(booted.badge_in(0, 0))
                .bar_frames(0, 0, 1, 1)
                .unwrap();
            booted
                .device(booted.badge_in(0, 0))
                .bar_frames(0, 64, 1, 2)
                .unwrap();
            booted.badge_in(0, 0)
        },
        |booted, _, badge| booted.device(*badge).bar_frames(0, 60, 8, 10).map(drop),
    );
    assert_eq!(failures, 9, "one a frame, and a split");
}

#[test]
fn an_occupied_slot_takes_the_frames_before_it_back() {
    let (booted, [edu, _]) = booted();
    let device = booted.assigned(0, edu, 0);
    device.bar_frames(0, 0, 1, 5).unwrap();
    let before = booted.state();
    assert_eq!(
        device.bar_frames(0, 0, 5, 1).unwrap_err(),
        Refusal::new(Rule::WindowSlotOccupied, 5)
    );
    assert_eq!(booted.state(), before);
}

#[test]
fn msi_x_that_fails_half_way_leaves_no_vector_and_no_message() {
    for n in 0.. {
        let (booted, [_, nvme]) = booted();
        let device = booted.assigned(0, nvme, 0);
        let before = booted.world(|world| {
            (
                world.vectors.clone(),
                world.machine.snapshot(nvme),
                world.kernel.held_by_clients(),
            )
        });
        fail_at(&booted, n);
        let start = booted.world(|world| world.kernel.calls);
        // Five entries: two blocks of vectors.
        let result = device.msi_enable(Mechanism::MsiX, 2, 5, 1);
        if calls_since(&booted, start) <= n {
            result.unwrap();
            assert_eq!(
                n, 8,
                "two blocks, five splits to the table's frames, their mapping"
            );
            break;
        }
        result.unwrap_err();
        booted.world(|world| {
            world.kernel.fail_at = None;
            let after = (
                world.vectors.clone(),
                world.machine.snapshot(nvme),
                world.kernel.held_by_clients(),
            );
            assert_eq!(after, before, "call {n} failed");
        });
        device.msi_enable(Mechanism::MsiX, 2, 5, 1).unwrap();
        device.release().unwrap();
        assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
    }
}

#[test]
fn vectors_that_cannot_be_given_back_are_given_back_with_the_device() {
    let (booted, [edu, _]) = booted();
    let device = booted.assigned(0, edu, 0);
    device.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    fail_at(&booted, 0);
    assert_eq!(device.msi_disable().unwrap_err().rule, Rule::Downstream);
    booted.world(|world| {
        assert_eq!(
            world.machine.snapshot(edu)[0x42] & 1,
            0,
            "disabled all the same"
        );
        world.kernel.fail_at = None;
    });
    device.release().unwrap();
    assert!(booted.world(|world| world.vectors.is_empty()));
}

#[test]
fn a_release_that_fails_anywhere_leaves_no_way_to_the_device_open_to_another() {
    for n in 0.. {
        let (booted, [edu, _]) = booted();
        let device = booted.assigned(0, edu, 0);
        device.bar_frames(0, 0, 2, 1).unwrap();
        device.msi_enable(Mechanism::Msi, 0, 1, 3).unwrap();
        device.bus_master(Switch::On).unwrap();
        fail_at(&booted, n);
        let start = booted.world(|world| world.kernel.calls);
        let result = device.release();
        if calls_since(&booted, start) <= n {
            result.unwrap();
            assert_eq!(n, 4, "capability, detach, vectors, frames");
            return;
        }
        result.unwrap_err();
        booted.world(|world| world.kernel.fail_at = None);
        // Whatever could not be taken back, the device is out of circulation, quiet, and the
        // old capability is dead.
        assert_eq!(
            booted.client(1).query(edu).unwrap().state,
            DeviceState::Broken,
            "call {n} failed"
        );
        assert_eq!(
            booted
                .client(1)
                .assign(edu, 0, ContextChoice::Shared)
                .unwrap_err()
                .rule,
            Rule::DeviceBroken
        );
        assert_eq!(device.info().unwrap_err().rule, Rule::StaleCapability);
        booted.world(|world| {
            assert_eq!(world.machine.snapshot(edu)[4] & 0x06, 0);
            assert_eq!(world.machine.snapshot(edu)[0x42] & 1, 0);
            // Every other step was done all the same.
            let held = world.kernel.held_by_clients();
            let capability = held
                .iter()
                .any(|(_, object)| matches!(object, Object::Device { .. }));
            let frames = held
                .iter()
                .any(|(_, object)| matches!(object, Object::Frame { .. }));
            assert_eq!(
                (capability, world.attached.contains_key(&edu), frames),
                (n == 0, n == 1, n == 3),
                "call {n} failed"
            );
            // Vectors stay while the device may reach memory.
            assert_eq!(
                world.vectors.contains_key(&edu),
                n == 1 || n == 2,
                "call {n} failed"
            );
        });
    }
}

#[test]
fn a_device_that_vanishes_while_it_is_assigned_is_not_assigned() {
    for accesses in 0.. {
        let (booted, [edu, _]) = booted();
        booted.world(|world| {
            let mut space = world.machine.remove(edu).unwrap();
            space.misbehave(Misbehaviour::VanishesAfter { accesses });
            world.machine.insert(edu, space);
        });
        let refusal = match booted.client(0).assign(edu, 0, ContextChoice::Shared) {
            Err(refusal) => refusal,
            Ok(_) => {
                assert!(accesses >= 3);
                return;
            }
        };
        assert!(
            matches!(refusal.rule, Rule::NoSuchDevice | Rule::MalformedDevice),
            "{refusal:?}"
        );
        booted.world(|world| {
            assert_eq!(world.kernel.held_by_clients(), []);
            assert!(world.attached.is_empty());
        });
        assert_eq!(
            booted.client(0).query(edu).unwrap().state,
            DeviceState::Absent,
            "after {accesses}"
        );
        assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
    }
}

#[test]
fn when_undoing_fails_the_device_is_broken() {
    let (booted, [edu, _]) = booted();
    // The slot is occupied, so that placing fails; then detaching does.
    booted.world(|world| {
        world
            .kernel
            .insert(
                Place::Window(0, 0),
                Object::Frame { base: 0, bits: 12 },
                None,
            )
            .unwrap();
        world.kernel.fail_at = Some(world.kernel.calls + 2);
    });
    assert_eq!(
        booted
            .client(0)
            .assign(edu, 0, ContextChoice::Shared)
            .unwrap_err(),
        Refusal::new(Rule::WindowSlotOccupied, 0)
    );
    assert_eq!(
        booted.client(0).query(edu).unwrap().state,
        DeviceState::Broken
    );
}

/// The kernel does not take a device capability back: neither it nor its badge ever means another device.
#[test]
fn a_capability_that_is_not_revoked_costs_nobody_else_an_assignment() {
    for narrowed in [false, true] {
        let (booted, [edu, nvme]) = booted();
        let device = booted.assigned(0, edu, 0);
        if narrowed {
            device
                .narrow(ConfigRight::Read, 0, 0, Switch::Off, 1)
                .unwrap();
        }
        let view = narrowed.then(|| booted.device(booted.badge_in(0, 1)));
        fail_at(&booted, usize::from(narrowed));
        device.release().unwrap_err();
        booted.world(|world| world.kernel.fail_at = None);
        // Every number of a life comes round again.
        for _ in 0..2 * u32::from(ipc_proto::MAX_GENERATION) {
            let other = booted.assigned(1, nvme, 2);
            let taken = other.narrow(ConfigRight::Write, 0, 0, Switch::Off, 3);
            assert_eq!(taken.map(drop), Ok(()));
            assert_eq!(device.info().unwrap_err().rule, Rule::StaleCapability);
            if let Some(view) = view {
                assert_eq!(view.info().unwrap_err().rule, Rule::StaleCapability);
            }
            other.release().unwrap();
        }
    }
}

/// The same where the device did not come back from a reset.
#[test]
fn a_capability_that_is_not_revoked_after_a_reset_in_vain_is_out_of_circulation() {
    let (booted, [edu, nvme]) = booted();
    let device = booted.assigned(0, nvme, 0);
    let master = booted.badge_in(0, 0);
    booted.world(|world| {
        let mut space = world.machine.remove(nvme).unwrap();
        space.misbehave(Misbehaviour::AllOnes);
        world.machine.insert(nvme, space);
    });
    // After putting the caller aside.
    fail_at(&booted, 1);
    device.reset().unwrap_err();
    booted.world(|world| {
        world.kernel.fail_at = None;
        assert!(world.kernel.object(Place::Window(0, 0)).is_some());
    });
    assert_eq!(
        booted.client(0).query(nvme).unwrap().state,
        DeviceState::Broken
    );
    let other = booted.assigned(1, edu, 2);
    assert_ne!(booted.badge_in(1, 2).index, master.index);
    other.release().unwrap();
    assert_eq!(device.info().unwrap_err().rule, Rule::StaleCapability);
}

/// Registers are the shortest way of all: it asks for the life of the capability, too.
#[test]
fn a_register_is_not_reached_by_a_capability_of_before() {
    let (booted, [edu, _]) = booted();
    let before = booted.assigned(0, edu, 0);
    before.release().unwrap();
    let now = booted.assigned(1, edu, 0);
    let command = now.config_read(4, Width::Word).unwrap().value;
    for width in [Width::Byte, Width::Word, Width::Dword] {
        let read = before.config_read(0, width);
        assert_eq!(read.unwrap_err().rule, Rule::StaleCapability);
    }
    let written = before.config_write(4, Width::Word, command ^ 1 << 6);
    assert_eq!(written.unwrap_err().rule, Rule::StaleCapability);
    assert_eq!(now.config_read(4, Width::Word).unwrap().value, command);
}

/// A way to the device is left: that it is pulled out and put in again does not make it anybody's.
#[test]
fn a_device_that_was_not_taken_back_stays_out_of_circulation_when_it_comes_again() {
    let (booted, [edu, _]) = booted();
    let device = booted.assigned(0, edu, 0);
    fail_at(&booted, 0);
    device.release().unwrap_err();
    let space = booted.world(|world| {
        world.kernel.fail_at = None;
        world.machine.remove(edu).unwrap()
    });
    booted.admin().rescan().unwrap();
    booted.world(|world| world.machine.insert(edu, space));
    booted.admin().rescan().unwrap();
    let again = booted.client(1).assign(edu, 0, ContextChoice::Shared);
    assert_eq!(again.unwrap_err().rule, Rule::DeviceBroken);
}
