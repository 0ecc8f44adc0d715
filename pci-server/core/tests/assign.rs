//! Who gets a device and who does not; every rule has a test that breaks it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::kernel::{Object, Place};
use common::*;
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{
    Badge, BadgeKind, ClientId, ContextChoice, DeviceState, Refusal, ResetKind, Rule, Switch,
    VERSION, Width, pci,
};
use sim::config::{Endpoint, Machine};
use system::model::DeviceMatch;

const EDU: &str = "0000:00:03.0";
const NVME: &str = "0000:00:04.0";

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

/// edu for clients 0 and 1, nvme for client 1; the ISA bridge and an address without a device for client 0.
fn machine() -> (Machine, Vec<system::info::ClientEntry>) {
    let mut machine = Machine::new();
    machine.add(EDU, edu(0xe000_0000));
    machine.add(NVME, nvme(0x80_0000_0000));
    machine.add("00:1f.0", isa_bridge());
    let edu = DeviceMatch::Ids {
        vendor: 0x1234,
        device: 0x11e8,
    };
    let nvme = DeviceMatch::Class {
        class: 0x010802,
        mask: 0xff_ffff,
    };
    let address = |text: &str| DeviceMatch::Address(at(text).to_bits());
    (
        machine,
        vec![
            client("zero", &[edu, address("00:1f.0"), address("00:09.0")]),
            client("one", &[edu, nvme]),
        ],
    )
}

fn booted() -> Booted {
    let (machine, clients) = machine();
    Booted::new(machine, clients)
}

fn about(rule: Rule, device: &str) -> Refusal {
    Refusal::new(rule, at(device).to_bits().into())
}

fn command(booted: &Booted, device: &str) -> u16 {
    booted.world(|world| world.machine.read16(at(device), 4))
}

#[test]
fn a_client_sees_what_it_is_granted_and_nothing_else() {
    let booted = booted();
    let seen = |client: u16| -> Vec<String> {
        (0..)
            .map_while(|index| booted.client(client).device_at(index).ok())
            .map(|found| found.device.to_string())
            .collect()
    };
    assert_eq!(seen(0), [EDU, "0000:00:1f.0"]);
    assert_eq!(seen(1), [EDU, NVME]);
    assert_eq!(
        booted.client(0).device_at(2).unwrap_err().rule,
        Rule::EndOfList
    );
    let found = booted.client(1).query(at(NVME)).unwrap();
    assert_eq!(
        (found.ids, found.class, found.state),
        (0x0010_1b36, 0x010802, DeviceState::Quarantined)
    );
    assert_eq!(
        found.properties,
        ipc_proto::Properties {
            reset: Some(ResetKind::Flr),
            ..PROMISE
        }
    );
    // What exists and is not granted, and what does not exist, are refused alike.
    assert_eq!(
        booted.client(0).query(at(NVME)).unwrap_err(),
        about(Rule::NotGranted, NVME)
    );
    assert_eq!(
        booted.client(0).query(at("00:0a.0")).unwrap_err(),
        about(Rule::NotGranted, "00:0a.0")
    );
}

#[test]
fn hello_compares_versions() {
    let booted = booted();
    let hello = booted.client(0).hello(VERSION).unwrap();
    assert_eq!(
        (hello.segment, hello.first_bus, hello.last_bus),
        (0, 0, 0x3f)
    );
    assert_eq!(
        booted.client(0).hello(VERSION + 1).unwrap_err(),
        Refusal::new(Rule::VersionMismatch, VERSION)
    );
}

#[test]
fn assignment_attaches_places_the_capability_and_decodes_without_mastering() {
    let booted = booted();
    let reply = booted
        .client(0)
        .assign(at(EDU), 5, ContextChoice::Shared)
        .unwrap();
    assert_eq!(reply.properties, PROMISE);
    booted.world(|world| {
        assert_eq!(world.attached.get(&at(EDU)), Some(&ClientId(0)));
        let held = world.kernel.held_by_clients();
        assert!(
            matches!(
                held.as_slice(),
                [(Place::Window(0, 5), Object::Device { .. })]
            ),
            "{held:?}"
        );
    });
    assert_eq!(command(&booted, EDU) & 0x0407, 0x0402);
    let badge = booted.badge_in(0, 5);
    assert_eq!((badge.kind, badge.generation), (BadgeKind::Device, 1));
    let info = booted.device(badge).info().unwrap();
    assert_eq!((info.device, info.ids), (at(EDU), 0x11e8_1234));
    let holder = booted.supervisor().holder(0).unwrap();
    assert_eq!((holder.state, holder.holder), (DeviceState::Assigned, 1));
    assert_eq!(booted.supervisor().figures().unwrap().assigned, 1);
}

#[test]
fn each_broken_rule_has_its_own_error_and_changes_nothing() {
    let refused = |device: &str, slot, rule| {
        let booted = booted();
        booted.assigned(1, at(NVME), 0);
        let before = booted.state();
        let refusal = booted
            .client(0)
            .assign(at(device), slot, ContextChoice::Shared)
            .unwrap_err();
        assert_eq!(refusal.rule, rule, "{device}");
        assert_eq!(booted.state(), before, "{device}");
    };
    refused("0000:40:00.0", 0, Rule::OutsideShard);
    refused("0001:00:03.0", 0, Rule::OutsideShard);
    refused("0000:00:09.0", 0, Rule::NoSuchDevice);
    refused("0000:00:0a.0", 0, Rule::NotGranted);
    refused(NVME, 0, Rule::NotGranted);
    refused("0000:00:1f.0", 0, Rule::Withheld);
    refused(EDU, 256, Rule::WindowSlotOutOfRange);
    refused(EDU, 0xffff, Rule::WindowSlotOutOfRange);
}

#[test]
fn a_held_device_is_refused_to_others_and_to_its_holder() {
    let booted = booted();
    booted.assigned(0, at(EDU), 0);
    let before = booted.state();
    assert_eq!(
        booted
            .client(1)
            .assign(at(EDU), 0, ContextChoice::Shared)
            .unwrap_err(),
        about(Rule::HeldByAnother, EDU)
    );
    assert_eq!(
        booted
            .client(0)
            .assign(at(EDU), 1, ContextChoice::Shared)
            .unwrap_err(),
        about(Rule::AlreadyHeld, EDU)
    );
    assert_eq!(booted.state(), before);
}

#[test]
fn an_occupied_window_slot_is_refused_and_the_device_is_detached_again() {
    let booted = booted();
    booted.assigned(1, at(EDU), 7);
    let before = booted.state();
    assert_eq!(
        booted
            .client(1)
            .assign(at(NVME), 7, ContextChoice::Shared)
            .unwrap_err(),
        Refusal::new(Rule::WindowSlotOccupied, 7)
    );
    assert_eq!(booted.state(), before);
    booted
        .client(1)
        .assign(at(NVME), 8, ContextChoice::Shared)
        .unwrap();
}

#[test]
fn a_client_without_a_window_gets_nothing() {
    let (machine, mut clients) = machine();
    clients[0].window = 0;
    let booted = Booted::new(machine, clients);
    assert_eq!(
        booted
            .client(0)
            .assign(at(EDU), 0, ContextChoice::Shared)
            .unwrap_err()
            .rule,
        Rule::NoWindow
    );
}

#[test]
fn without_an_iommu_only_what_cannot_master_is_assigned() {
    let run = |unprotected: bool| {
        let (mut machine, mut clients) = machine();
        // Its Command has no bus mastering.
        let mut passive: sim::config::Space = Endpoint::new(0x1b36, 0x0011)
            .bar(0, memory32(4096, 0xe100_0000))
            .into();
        passive.allow(4, &[0x02, 0x04]);
        machine.insert(at("00:08.0"), passive);
        clients[0]
            .devices
            .push(DeviceMatch::Address(at("00:08.0").to_bits()))
            .unwrap();
        let mut info = pci_info();
        info.iommu_present = false;
        info.unprotected = unprotected;
        Booted::with(World::new(machine), info, clients)
    };
    let booted = run(false);
    let before = booted.state();
    assert_eq!(
        booted
            .client(0)
            .assign(at(EDU), 0, ContextChoice::Shared)
            .unwrap_err(),
        about(Rule::NoIommu, EDU)
    );
    // Not mastering when firmware handed over, but it could.
    assert_eq!(
        booted
            .client(1)
            .assign(at(NVME), 0, ContextChoice::Shared)
            .unwrap_err(),
        about(Rule::NoIommu, NVME)
    );
    assert_eq!(booted.state(), before);
    let reply = booted
        .client(0)
        .assign(at("00:08.0"), 0, ContextChoice::Shared)
        .unwrap();
    assert!(!reply.properties.dma_isolated);
    assert_eq!(command(&booted, NVME) & 4, 0);

    let booted = run(true);
    let reply = booted
        .client(0)
        .assign(at(EDU), 0, ContextChoice::Shared)
        .unwrap();
    assert_eq!(reply.properties, ipc_proto::Properties::default());
    assert!(booted.world(|world| world.attached.is_empty()));
    booted.device(booted.badge_in(0, 0)).release().unwrap();
}

#[test]
fn more_than_the_assignment_slots_are_refused() {
    let mut machine = Machine::new();
    for n in 0..=pci_core::MAX_ASSIGNMENTS as u8 {
        let device = Sbdf::from_parts(0, 1 + n / 32, n % 32, 0).unwrap();
        machine.insert(device, Endpoint::new(1, 2).into());
    }
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let booted = Booted::new(machine, vec![client("greedy", &[any])]);
    let device = |n| booted.client(0).device_at(n).unwrap().device;
    for n in 0..pci_core::MAX_ASSIGNMENTS as u16 {
        booted
            .client(0)
            .assign(device(n), n, ContextChoice::Shared)
            .unwrap();
    }
    let last = pci_core::MAX_ASSIGNMENTS as u16;
    let before = booted.state();
    let refusal = booted
        .client(0)
        .assign(device(last), last, ContextChoice::Shared)
        .unwrap_err();
    assert_eq!(
        refusal,
        Refusal::new(Rule::TooManyAssignments, pci_core::MAX_ASSIGNMENTS as u64)
    );
    assert_eq!(booted.state(), before);
    booted.device(booted.badge_in(0, 9)).release().unwrap();
    booted
        .client(0)
        .assign(device(last), last, ContextChoice::Shared)
        .unwrap();
}

#[test]
fn a_device_that_is_gone_or_exchanged_is_not_assigned() {
    let booted = booted();
    booted.world(|world| world.machine.remove(at(EDU)));
    assert_eq!(
        booted
            .client(0)
            .assign(at(EDU), 0, ContextChoice::Shared)
            .unwrap_err(),
        about(Rule::NoSuchDevice, EDU)
    );
    assert_eq!(
        booted.client(0).query(at(EDU)).unwrap().state,
        DeviceState::Absent
    );
    booted.world(|world| world.machine.add(NVME, Endpoint::new(1, 2)));
    assert_eq!(
        booted
            .client(1)
            .assign(at(NVME), 0, ContextChoice::Shared)
            .unwrap_err(),
        about(Rule::MalformedDevice, NVME)
    );
    assert_eq!(
        booted
            .client(1)
            .assign(at(NVME), 0, ContextChoice::Shared)
            .unwrap_err(),
        about(Rule::DeviceBroken, NVME)
    );
    assert!(booted.world(|world| world.attached.is_empty()));
}

#[test]
fn badges_that_were_never_given_out_are_refused() {
    let booted = booted();
    let device = booted.assigned(0, at(EDU), 0);
    device.info().unwrap();
    let badge = booted.badge_in(0, 0);
    let refused = |badge: Badge| booted.device(badge).info().unwrap_err().rule;
    assert_eq!(
        refused(Badge {
            generation: badge.generation + 1,
            ..badge
        }),
        Rule::StaleCapability
    );
    assert_eq!(
        refused(Badge {
            index: badge.index + 1,
            ..badge
        }),
        Rule::StaleCapability
    );
    assert_eq!(
        refused(Badge {
            index: 0xfff,
            ..badge
        }),
        Rule::StaleCapability
    );
    assert_eq!(
        refused(Badge {
            generation: 0,
            index: 1,
            ..badge
        }),
        Rule::StaleCapability
    );
    assert_eq!(
        refused(Badge {
            kind: BadgeKind::Buffer,
            ..badge
        }),
        Rule::WrongCapability
    );
    assert_eq!(
        refused(Badge {
            kind: BadgeKind::Client,
            ..badge
        }),
        Rule::WrongCapability
    );
    assert_eq!(
        booted
            .client(2)
            .assign(at(EDU), 0, ContextChoice::Shared)
            .unwrap_err()
            .rule,
        Rule::UnknownBadge
    );
    // A client cannot act as supervisor, nor the supervisor as client.
    assert_eq!(
        booted
            .device(Badge::plain(BadgeKind::Client, 0))
            .release()
            .unwrap_err()
            .rule,
        Rule::WrongCapability
    );
    let gone = pci::Request::ClientGone {
        client: ClientId(0),
    };
    let reply = booted
        .send(Badge::plain(BadgeKind::Client, 0), gone)
        .unwrap();
    assert_eq!(reply.label, Rule::WrongCapability as u64);
}

#[test]
fn a_capability_from_before_a_release_stays_stale() {
    let booted = booted();
    let old = booted.assigned(0, at(EDU), 0);
    old.release().unwrap();
    assert_eq!(old.info().unwrap_err().rule, Rule::StaleCapability);
    // The same slot and device again: another life.
    let new = booted.assigned(0, at(EDU), 0);
    new.info().unwrap();
    assert_eq!(old.info().unwrap_err().rule, Rule::StaleCapability);
    assert_eq!(
        old.bus_master(Switch::On).unwrap_err().rule,
        Rule::StaleCapability
    );
    assert_eq!(old.release().unwrap_err().rule, Rule::StaleCapability);
    assert_eq!(command(&booted, EDU) & 4, 0);
}

#[test]
fn generations_never_become_zero() {
    let booted = booted();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4100 {
        let device = booted.assigned(0, at(EDU), 0);
        let badge = booted.badge_in(0, 0);
        assert_ne!(badge.generation, 0);
        seen.insert(badge.generation);
        device.release().unwrap();
    }
    assert_eq!(seen.len(), 4095);
}

#[test]
fn bus_mastering_follows_its_operation() {
    let booted = booted();
    let device = booted.assigned(0, at(EDU), 0);
    device.bus_master(Switch::On).unwrap();
    assert_eq!(command(&booted, EDU) & 0x0407, 0x0406);
    device.bus_master(Switch::Off).unwrap();
    assert_eq!(command(&booted, EDU) & 0x0407, 0x0402);
    assert_eq!(
        device.config_read(4, Width::Word).unwrap().value & 0x0407,
        0x0402
    );
}
