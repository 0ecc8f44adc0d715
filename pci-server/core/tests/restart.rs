//! A shard that is killed at any moment and started again: who holds a device keeps it whole, what was half done is
//! undone or finished, and nothing is left over.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::kernel::Object;
use common::scene::*;
use common::*;
use hw::ConfigSpace;
use ipc_proto::{ContextChoice, Mechanism, Refusal, Rule, Switch, Width};

/// What a test compares, in lines: everything that somebody may have, and what devices are set to.
fn seen(booted: &Booted) -> Vec<String> {
    let figures = booted.supervisor().figures().unwrap();
    let mut lines = vec![format!(
        "{} functions, {} held, {} slots, {:#x} bytes",
        figures.devices, figures.assigned, figures.slots_used, figures.untyped_used
    )];
    while let Ok(holder) = booted.supervisor().holder(lines.len() as u32 - 1) {
        lines.push(format!("{holder:?}"));
    }
    booted.world(|world| {
        lines.push(format!("attached {:?}", world.attached));
        lines.push(format!("vectors {:?} {:?}", world.vectors, world.remapped));
        lines.push(format!("lines {:?}", world.lines));
        for (place, object) in world.kernel.held_by_clients() {
            let object = match object {
                // An attempt that came to nothing may use a generation up.
                Object::Device { badge } => Object::Device {
                    badge: badge & !0xff_f000,
                },
                other => other,
            };
            lines.push(format!("{place:?} {object:?}"));
        }
        for at in world.machine.addresses() {
            let mut space = world.machine.snapshot(at);
            // What a message would be is of no account where none is sent.
            let messages = space.get(0x34).map_or(0, |first| usize::from(*first));
            if space[messages] == 5 && space[messages + 2] & 1 == 0 {
                space[messages + 4..messages + 16].fill(0);
            }
            for (row, bytes) in space.chunks(16).enumerate() {
                if bytes.iter().any(|byte| *byte != 0) {
                    lines.push(format!("{at} {row:02x}0 {bytes:02x?}"));
                }
            }
        }
        let is_sent = world.machine.read16(at(NVME), 0x4a) >> 15 != 0;
        for (at, value) in (world.memory.iter()).filter(|(_, value)| is_sent && **value != 0) {
            lines.push(format!("{at:#x}: {value:#x}"));
        }
    });
    lines
}

/// Nothing lies in a slot that the shard thinks is free.
fn check(booted: &Booted) {
    booted.world(|world| assert_eq!(world.kernel.forgotten(), []));
}

/// Runs `operation` and kills the shard after each of its effects in turn. After the restart all is as before the
/// operation, or as after it; then it works when it is asked for again, and everything can be given back. Gives the
/// number of effects.
fn killed_at_every_effect<P>(
    prepare: impl Fn(&Booted) -> P,
    operation: impl Fn(&Booted, &P) -> Result<(), Refusal>,
    again: impl Fn(Result<(), Refusal>),
    give_back: impl Fn(&Booted, &P),
) -> u64 {
    let make = || {
        let booted = booted();
        let prepared = prepare(&booted);
        booted.world(|world| world.did.clear());
        (booted, prepared)
    };
    let (booted, prepared) = make();
    let idle = {
        let booted = common::scene::booted();
        seen(&booted)
    };
    let before = seen(&booted);
    operation(&booted, &prepared).unwrap();
    booted.settle();
    let after = seen(&booted);
    for n in 0.. {
        let (booted, prepared) = make();
        booted.kill_after(n);
        let result = operation(&booted, &prepared);
        while booted.tick() {}
        let over = !booted.is_dead();
        if over {
            result.unwrap();
        }
        let booted = booted.restarted();
        booted.settle();
        check(&booted);
        let now = seen(&booted);
        assert!(
            now == before || now == after,
            "killed after {n} effects:\n{}",
            differences(&now, &before, &after)
        );
        if over {
            assert!(now == after, "{}", differences(&now, &after, &after));
        } else {
            again(operation(&booted, &prepared));
            booted.settle();
            let now = seen(&booted);
            assert!(
                now == after,
                "asked again after {n} effects:\n{}",
                differences(&now, &after, &after)
            );
        }
        give_back(&booted, &prepared);
        booted.settle();
        check(&booted);
        let now = seen(&booted);
        assert!(
            now == idle,
            "given back after {n} effects:\n{}",
            differences(&now, &idle, &idle)
        );
        if over {
            return n;
        }
    }
    unreachable!()
}

fn differences(now: &[String], before: &[String], after: &[String]) -> String {
    let lines = |one: &[String], other: &[String]| -> String {
        let only = |one: &[String], other: &[String], mark: &str| -> String {
            let differ = one.iter().filter(|line| !other.contains(line));
            differ
                .take(12)
                .map(|line| format!("  {mark} {line}\n"))
                .collect()
        };
        only(one, other, "now") + &only(other, one, "was")
    };
    format!(
        "to before:\n{}to after:\n{}",
        lines(now, before),
        lines(now, after)
    )
}

fn release(badge: ipc_proto::Badge, booted: &Booted) {
    booted.device(badge).release().unwrap();
}

fn worked(result: Result<(), Refusal>) {
    result.unwrap();
}

#[test]
fn a_held_device_stays_as_it_is() {
    let booted = booted();
    take_everything(&booted, 0, EDU, Mechanism::Msi, 0);
    take_everything(&booted, 1, NVME, Mechanism::MsiX, 10);
    let before = seen(&booted);
    let booted = booted.restarted();
    assert_eq!(seen(&booted), before);
    check(&booted);
    booted.world(|world| {
        let touched = world.did.iter().find(|did| {
            matches!(did, Did::Wrote { at: device, .. } if [at(EDU), at(NVME)].contains(device))
        });
        assert_eq!(touched, None, "a held device is written to");
    });
    // The capabilities work, and so does everything else.
    let device = booted.device(booted.badge_in(0, 0));
    assert_eq!(
        device.config_read(0, Width::Dword).unwrap().value,
        0x11e8_1234
    );
    device.bar_frames(0, 1, 1, 5).unwrap();
    device.msi_disable().unwrap();
    device.msi_enable(Mechanism::Msi, 0, 1, 6).unwrap();
    device.bus_master(Switch::Off).unwrap();
    device.release().unwrap();
    booted.device(booted.badge_in(1, 10)).release().unwrap();
    assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
    assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
    let again = booted.client(0).assign(at(EDU), 20, ContextChoice::Shared);
    again.unwrap();
    assert_eq!(booted.badge_in(0, 20).generation, 2, "no generation twice");
}

#[test]
fn an_assignment_is_undone_or_done() {
    for device in [EDU, NVME] {
        let effects = killed_at_every_effect(
            |_| (),
            |booted, ()| {
                booted
                    .client(0)
                    .assign(at(device), 3, ContextChoice::Shared)
                    .map(drop)
            },
            |result| match result {
                Err(refusal) if refusal.rule == Rule::AlreadyHeld => {}
                result => result.unwrap(),
            },
            |booted, ()| release(booted.badge_in(0, 3), booted),
        );
        assert!(effects > 15, "{effects}");
    }
}

#[test]
fn messages_are_enabled_or_not() {
    for (device, mechanism, count) in [(EDU, Mechanism::Msi, 1), (NVME, Mechanism::MsiX, 5)] {
        killed_at_every_effect(
            |booted| {
                booted.assigned(0, at(device), 0);
                booted.badge_in(0, 0)
            },
            |booted, badge| {
                booted
                    .device(*badge)
                    .msi_enable(mechanism, 0, count, 1)
                    .map(drop)
            },
            |result| match result {
                Err(refusal) if refusal.rule == Rule::InterruptsEnabled => {}
                result => result.unwrap(),
            },
            |booted, badge| release(*badge, booted),
        );
    }
}

/// It is taken back then, with what the attempt had taken, of which nothing is noted.
#[test]
fn messages_that_were_being_enabled_go_with_their_device() {
    for n in 0.. {
        let booted = booted();
        let stub = booted.assigned(0, at(EDU), 0);
        booted.kill_after(n);
        let enabled = stub.msi_enable(Mechanism::Msi, 0, 1, 1);
        if !booted.is_dead() {
            enabled.unwrap();
            assert!(n > 3, "{n} effects");
            return;
        }
        booted.world(|world| world.machine.remove(at(EDU)));
        let booted = booted.restarted();
        booted.settle();
        check(&booted);
        booted.world(|world| {
            assert!(
                world.vectors.is_empty(),
                "vectors are left after {n} effects"
            );
            assert!(world.attached.is_empty());
            assert_eq!(world.kernel.held_by_clients(), []);
        });
    }
}

#[test]
fn messages_are_disabled_in_the_end() {
    for (device, mechanism, count) in [(EDU, Mechanism::Msi, 1), (NVME, Mechanism::MsiX, 5)] {
        killed_at_every_effect(
            |booted| {
                let stub = booted.assigned(0, at(device), 0);
                stub.msi_enable(mechanism, 0, count, 1).unwrap();
                booted.badge_in(0, 0)
            },
            |booted, badge| booted.device(*badge).msi_disable().map(drop),
            |result| match result {
                Err(refusal) if refusal.rule == Rule::InterruptsDisabled => {}
                result => result.unwrap(),
            },
            |booted, badge| release(*badge, booted),
        );
    }
}

#[test]
fn frames_are_placed_or_not() {
    killed_at_every_effect(
        |booted| {
            let stub = booted.assigned(0, at(EDU), 0);
            stub.bar_frames(0, 0, 2, 1).unwrap();
            booted.badge_in(0, 0)
        },
        |booted, badge| {
            let device = booted.device(*badge);
            device.bar_frames(0, 30, 5, 10).map(drop)
        },
        |result| match result {
            Err(refusal) if refusal.rule == Rule::WindowSlotOccupied => {}
            result => worked(result),
        },
        |booted, badge| release(*badge, booted),
    );
}

/// A device with everything that a holder can have of it.
fn in_use(booted: &Booted, device: &str, mechanism: Mechanism) -> ipc_proto::Badge {
    let stub = booted.assigned(0, at(device), 0);
    stub.bar_frames(0, 0, 1, 1).unwrap();
    stub.msi_enable(mechanism, 0, 1, 2).unwrap();
    stub.bus_master(Switch::On).unwrap();
    booted.badge_in(0, 0)
}

/// The capability may be gone: that is what was asked for.
fn may_be_gone(result: Result<(), Refusal>) {
    match result {
        Err(refusal) if refusal.rule == Rule::StaleCapability => {}
        Err(refusal) if refusal.rule == Rule::NoSuchDevice => {}
        result => result.unwrap(),
    }
}

#[test]
fn a_release_is_finished() {
    let devices = [
        (EDU, Mechanism::Msi),
        (NVME, Mechanism::MsiX),
        (NET, Mechanism::Msi),
    ];
    for (device, mechanism) in devices {
        killed_at_every_effect(
            |booted| in_use(booted, device, mechanism),
            |booted, badge| booted.device(*badge).release().map(drop),
            may_be_gone,
            |_, _| (),
        );
    }
}

#[test]
fn a_client_that_is_gone_holds_nothing_in_the_end_and_the_supervisor_hears_of_it() {
    killed_at_every_effect(
        |booted| {
            in_use(booted, EDU, Mechanism::Msi);
            let second = booted.assigned(0, at(NVME), 10);
            second.msi_enable(Mechanism::MsiX, 3, 2, 11).unwrap();
        },
        |booted, ()| {
            let supervisor = booted.supervisor();
            let gone = supervisor.client_gone(ipc_proto::ClientId(0)).map(drop);
            while booted.tick() {}
            if !booted.is_dead() && gone.is_ok() {
                assert!(booted.world(|world| world.told_supervisor()) > 0);
                assert_eq!(supervisor.pending().unwrap().count, 0);
            }
            gone
        },
        worked,
        |_, ()| (),
    );
}

#[test]
fn a_reset_is_finished_and_everything_is_as_before() {
    let devices = [(NVME, Mechanism::MsiX), (NET, Mechanism::Msi)];
    for (device, mechanism) in devices {
        killed_at_every_effect(
            |booted| in_use(booted, device, mechanism),
            |booted, badge| booted.device(*badge).reset().map(drop),
            worked,
            |booted, badge| release(*badge, booted),
        );
    }
    // By way of its power state; it has no messages.
    killed_at_every_effect(
        |booted| {
            booted
                .assigned(0, at(SOUND), 0)
                .bus_master(Switch::On)
                .unwrap();
            booted.badge_in(0, 0)
        },
        |booted, badge| booted.device(*badge).reset().map(drop),
        worked,
        |booted, badge| release(*badge, booted),
    );
}

#[test]
fn masks_stay_also_over_a_reset() {
    for (device, mechanism) in [(NVME, Mechanism::MsiX), (NET, Mechanism::Msi)] {
        killed_at_every_effect(
            |booted| {
                let stub = booted.assigned(0, at(device), 0);
                stub.msi_enable(mechanism, 0, 4, 2).unwrap();
                stub.msi_mask(1, 2, Switch::On).unwrap();
                booted.badge_in(0, 0)
            },
            |booted, badge| booted.device(*badge).reset().map(drop),
            worked,
            |booted, badge| release(*badge, booted),
        );
    }
}

#[test]
fn narrowed_capabilities_stay_or_were_never_there() {
    use ipc_proto::ConfigRight;
    killed_at_every_effect(
        |booted| {
            let stub = booted.assigned(0, at(EDU), 0);
            stub.narrow(ConfigRight::Read, 1, 0, Switch::Off, 1)
                .unwrap();
            booted.badge_in(0, 0)
        },
        |booted, badge| {
            let seen = booted.device(booted.badge_in(0, 1));
            if !booted.is_dead() {
                seen.config_read(0, Width::Dword).unwrap();
                seen.config_write(4, Width::Word, 0).unwrap_err();
            }
            let stub = booted.device(*badge);
            stub.narrow(ConfigRight::None, 0, 1, Switch::On, 2)
                .map(drop)
        },
        |result| match result {
            Err(refusal) if refusal.rule == Rule::WindowSlotOccupied => {}
            result => result.unwrap(),
        },
        |booted, badge| release(*badge, booted),
    );
}

#[test]
fn a_first_start_that_is_killed_begins_again() {
    let idle = seen(&booted());
    for n in (0..).step_by(3) {
        let mut world = World::new(machine());
        world.kernel.killed_at = Some(n);
        let any = system::model::DeviceMatch::Class { class: 0, mask: 0 };
        let clients = vec![client("zero", &[any]), client("one", &[any])];
        let booted = Booted::with(world, pci_info(), clients);
        let over = !booted.is_dead();
        let booted = booted.restarted();
        check(&booted);
        let now = seen(&booted);
        assert!(
            now == idle,
            "killed after {n} effects:\n{}",
            differences(&now, &idle, &idle)
        );
        if over {
            return;
        }
    }
}
