//! What an inspector may ask about every function: why nobody gets it (`Why`), and its registers (`RawConfig`). And the
//! rule that keeps the serial line of the console from everybody.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use common::devices::*;
use common::scene::at;
use common::*;
use ipc_proto::pci::{self, RawConfigReply};
use ipc_proto::{Badge, BadgeKind, ContextChoice, DeviceState, Refusal, Rule, WithheldCode};
use pci_core::Withheld;
use proptest::prelude::*;
use sim::config::{BarShape, Bridge, Endpoint, Machine, Misbehaviour, Space};
use system::model::DeviceMatch;

const EDU: &str = "0000:00:03.0";
const NVME: &str = "0000:00:04.0";
/// Withheld by the description.
const LISTED: &str = "0000:00:05.0";
const MALFORMED: &str = "0000:00:06.0";
const VIRTIO: &str = "0000:00:08.0";

fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.add("00:00.0", host_bridge());
    machine.add("00:01.0", Bridge::new(0, 1, 1));
    machine.add("00:02.0", Endpoint::new(0x8086, 1).class(0x08, 0x06, 0x00));
    machine.add(EDU, edu(0xe000_0000));
    machine.add(NVME, nvme(0x80_0000_0000));
    machine.add(LISTED, power_cycled(0xe020_0000));
    // Its second BAR has a type that is reserved.
    let reserved = BarShape::Raw {
        value: 0xe031_0006,
        writable: 0xffff_f000,
    };
    let endpoint = Endpoint::new(0x1234, 2)
        .bar(0, memory32(1 << 12, 0xe030_0000))
        .bar(1, reserved);
    machine.add(MALFORMED, endpoint);
    machine.add("00:1e.0", Endpoint::new(0x8086, 3).class(0x0c, 0x05, 0x00));
    // Its window into its BARs: reading it acts on the device.
    let mut body = vec![20, 5];
    body.resize(18, 0x5a);
    let virtio = Endpoint::new(0x1af4, 0x1041)
        .bar(0, memory32(4096, 0xe040_0000))
        .capability(9, &body, &[]);
    machine.add(VIRTIO, virtio);
    machine
}

fn booted_with(machine: Machine) -> Booted {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let mut info = pci_info();
    let listed = DeviceMatch::Address(at(LISTED).to_bits());
    info.withheld.push(listed).unwrap();
    Booted::with(World::new(machine), info, vec![client("zero", &[any])])
}

fn booted() -> Booted {
    booted_with(machine())
}

fn inspector(booted: &Booted) -> pci::Stub<Caller<'_>> {
    booted.stub(Badge::plain(BadgeKind::Inspect, 0))
}

fn refusal(rule: Rule, device: &str) -> Refusal {
    Refusal::new(rule, at(device).to_bits().into())
}

#[test]
fn every_withheld_function_says_why() {
    let booted = booted();
    let why = |device: &str| {
        let reply = inspector(&booted).why(at(device)).unwrap();
        (reply.code, reply.bar)
    };
    assert_eq!(why("00:00.0"), (WithheldCode::HostBridge, 0));
    assert_eq!(why("00:01.0"), (WithheldCode::Bridge, 0));
    assert_eq!(why("00:02.0"), (WithheldCode::Iommu, 0));
    assert_eq!(why("00:1e.0"), (WithheldCode::Chipset, 0));
    assert_eq!(why(LISTED), (WithheldCode::Description, 0));
    assert_eq!(why(MALFORMED).0, WithheldCode::Malformed);
    for device in [EDU, NVME, VIRTIO] {
        assert_eq!(why(device), (WithheldCode::No, 0), "{device}");
    }
    // Held, it is still not withheld.
    booted.assigned(0, at(EDU), 0);
    assert_eq!(why(EDU), (WithheldCode::No, 0));
}

#[test]
fn two_that_overlap_say_which_bar_it_is() {
    let mut machine = machine();
    let endpoint = Endpoint::new(0x1234, 2)
        .bar(0, memory32(1 << 12, 0xe050_0000))
        .bar(2, memory32(1 << 12, 0xe000_1000));
    machine.add("00:09.0", endpoint);
    let booted = booted_with(machine);
    // The first of them was there before: it overlaps the other's third BAR.
    let why = |device: &str| inspector(&booted).why(at(device)).unwrap();
    let codes = [EDU, "00:09.0"].map(|device| why(device).code);
    assert_eq!(codes, [WithheldCode::Malformed; 2]);
    assert_eq!((why(EDU).bar, why("00:09.0").bar), (0, 2));
}

fn bytes(reply: RawConfigReply) -> Vec<u8> {
    let RawConfigReply {
        w0,
        w1,
        w2,
        w3,
        w4,
        w5,
        w6,
        w7,
    } = reply;
    [w0, w1, w2, w3, w4, w5, w6, w7]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

#[test]
fn registers_are_shown_as_they_are() {
    let booted = booted();
    for (device, length) in [(EDU, 256), (NVME, 4096), ("00:00.0", 256), ("00:01.0", 256)] {
        let snapshot = booted.world(|world| world.machine.snapshot(at(device)));
        let shown: Vec<u8> = (0..length)
            .step_by(64)
            .flat_map(|offset| bytes(inspector(&booted).raw_config(at(device), offset).unwrap()))
            .collect();
        assert_eq!(shown, snapshot[..usize::from(length)], "{device}");
        // Beyond it.
        let beyond = inspector(&booted).raw_config(at(device), length);
        let expected = Refusal::new(Rule::OutsideShard, length.into());
        assert_eq!(beyond.unwrap_err(), expected, "{device}");
    }
}

#[test]
fn what_reading_would_act_on_is_not_read() {
    let booted = booted();
    let snapshot = booted.world(|world| world.machine.snapshot(at(VIRTIO)));
    let shown = bytes(inspector(&booted).raw_config(at(VIRTIO), 0x40).unwrap());
    // The capability is at 40h, its window at 50h: the only bytes that are not shown.
    assert_ne!(snapshot[0x50..0x54], [0; 4]);
    assert_eq!(shown[0x10..0x14], [0; 4]);
    assert_eq!(shown[..0x10], snapshot[0x40..0x50]);
    assert_eq!(shown[0x14..], snapshot[0x54..0x80]);
}

#[test]
fn wrong_places_and_devices_that_must_rest_are_refused() {
    let booted = booted();
    let ask = |device: &str, offset: u16| inspector(&booted).raw_config(at(device), offset);
    for offset in [1, 4, 63, 65, 0xfff, u16::MAX] {
        let expected = Refusal::new(Rule::BadAccess, offset.into());
        assert_eq!(ask(NVME, offset).unwrap_err(), expected, "{offset}");
    }
    for offset in [0x1000, 0x8000, 0xffc0] {
        let expected = Refusal::new(Rule::OutsideShard, offset.into());
        assert_eq!(ask(NVME, offset).unwrap_err(), expected, "{offset}");
    }
    for device in [
        "0000:00:07.0",
        "0000:3f:1f.7",
        "0001:00:03.0",
        "ffff:ff:1f.7",
    ] {
        let expected = refusal(Rule::NoSuchDevice, device);
        assert_eq!(ask(device, 0).unwrap_err(), expected);
        let why = inspector(&booted).why(at(device));
        assert_eq!(why.unwrap_err(), expected);
    }
    // While it is being reset nobody touches it.
    booted.assigned(0, at(NVME), 0);
    let badge = booted.badge_in(0, 0);
    assert_eq!(booted.send(badge, pci::Request::Reset {}), None);
    let expected = refusal(Rule::DeviceBusy, NVME);
    assert_eq!(ask(NVME, 0).unwrap_err(), expected);
    booted.settle();
    ask(NVME, 0).unwrap();
}

#[test]
fn only_inspectors_ask() {
    let booted = booted();
    let device = at(EDU);
    booted.assigned(0, device, 0);
    let badges = [
        Badge::plain(BadgeKind::Client, 0),
        Badge::plain(BadgeKind::Supervisor, 0),
        Badge::plain(BadgeKind::Admin, 0),
        Badge::plain(BadgeKind::Pd, 0),
        booted.badge_in(0, 0),
    ];
    for badge in badges {
        let stub = booted.stub(badge);
        let why = stub.why(device).unwrap_err();
        assert_eq!(why.rule, Rule::WrongCapability, "{badge:?}");
        let raw = stub.raw_config(device, 0).unwrap_err();
        assert_eq!(raw.rule, Rule::WrongCapability, "{badge:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn no_inspection_changes_anything(asked in prop::collection::vec((any::<u32>(), any::<u16>()), 1..30)) {
        let booted = booted();
        let before = booted.state();
        for (bits, offset) in asked {
            let device = match bits % 2 {
                0 => hw::Sbdf::from_bits(bits),
                _ => hw::Sbdf::from_requester_id(0, (bits >> 16) as u16 & 0xff),
            };
            let offset = if bits & 4 == 0 { offset } else { offset & 0xfc0 };
            let _ = inspector(&booted).raw_config(device, offset);
            let _ = inspector(&booted).why(device);
        }
        prop_assert_eq!(booted.state(), before);
    }
}

/// A serial controller with registers at these ports.
fn serial(bar: u8, address: u32) -> Endpoint {
    let ports = BarShape::Io {
        size: 8,
        address,
        bits: 16,
    };
    Endpoint::new(0x1b36, 0x0002)
        .class(0x07, 0x00, 0x02)
        .command(0x0001)
        .bar(bar, ports)
}

fn state_of(function: impl Into<Space>) -> (DeviceState, Option<Withheld>) {
    let mut machine = Machine::new();
    machine.add(EDU, function);
    let booted = booted_with(machine);
    let shard = booted.shard.borrow();
    let device = shard.devices().at(at(EDU)).unwrap();
    (device.state, device.withheld)
}

const FREE: (DeviceState, Option<Withheld>) = (DeviceState::Quarantined, None);
const CONSOLE: (DeviceState, Option<Withheld>) = (DeviceState::Withheld, Some(Withheld::Console));

#[test]
fn the_serial_line_of_the_console_is_nobody_s() {
    let mut machine = machine();
    machine.add("00:0a.0", serial(0, 0x3f8));
    let booted = booted_with(machine);
    let why = inspector(&booted).why(at("00:0a.0")).unwrap();
    assert_eq!(why.code, WithheldCode::Console);
    let assigned = booted
        .client(0)
        .assign(at("00:0a.0"), 0, ContextChoice::Shared);
    assert_eq!(
        assigned.unwrap_err(),
        refusal(Rule::Withheld, "0000:00:0a.0")
    );
    // It goes on to answer: the console writes to it.
    let command = booted.world(|world| world.machine.snapshot(at("00:0a.0"))[4]);
    assert_eq!(command & 1, 1);
}

#[test]
fn only_a_serial_controller_at_the_console_s_ports_is_kept() {
    // In whichever BAR.
    for bar in 0..6 {
        assert_eq!(state_of(serial(bar, 0x3f8)), CONSOLE, "BAR {bar}");
    }
    // Other ports: a second serial line, and one that only ends like it.
    for address in [0x2f8, 0xc3f8, 0x3f0, 0x400] {
        assert_eq!(state_of(serial(0, address)), FREE, "{address:#x}");
    }
    // Memory at that address is none of the console's, and other classes have no serial line.
    let memory = BarShape::Raw {
        value: 0x3f8,
        writable: 0xffff_fff0,
    };
    let other = Endpoint::new(0x1b36, 2).class(0x07, 0x00, 0x02);
    assert_ne!(state_of(other.bar(0, memory)), CONSOLE);
    for (base, sub) in [(0x07, 0x80), (0x02, 0x00), (0x00, 0x00)] {
        let other = serial(0, 0x3f8).class(base, sub, 0x02);
        assert_eq!(state_of(other), FREE, "{base:02x}{sub:02x}");
    }
}

#[test]
fn a_serial_controller_that_lies_is_kept_too() {
    // Its registers give something else each time: what it decodes nobody knows.
    let changing = serial(0, 0x3f8).misbehave(Misbehaviour::Changing {
        bytes: 0x10..0x14,
        seed: 1,
    });
    assert_eq!(state_of(changing).0, DeviceState::Withheld);
    // It vanishes while it is looked at.
    for accesses in 3..12 {
        let vanishing = serial(0, 0x3f8).misbehave(Misbehaviour::VanishesAfter { accesses });
        assert_eq!(state_of(vanishing).0, DeviceState::Withheld, "{accesses}");
    }
}
