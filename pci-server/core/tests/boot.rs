//! Enumeration and what it makes of honest, malformed and overlapping functions.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::*;
use hw::Sbdf;
use ipc_proto::{ContextChoice, DeviceState, ResetKind, Rule};
use pci_core::{Malformed, Withheld};
use sim::config::{BarShape, Bridge, Endpoint, Machine, Misbehaviour, MsixShape};
use system::model::DeviceMatch;

const ANY: DeviceMatch = DeviceMatch::Class { class: 0, mask: 0 };

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn boot(machine: Machine) -> Booted {
    Booted::new(machine, vec![client("any", &[ANY])])
}

fn withheld(booted: &Booted, text: &str) -> Option<Withheld> {
    let shard = booted.shard.borrow();
    let device = shard.devices().at(at(text));
    device
        .unwrap_or_else(|| panic!("{text} is not in the table"))
        .withheld
}

fn command(booted: &Booted, text: &str) -> u16 {
    booted.world(|world| {
        let bytes = world.machine.snapshot(at(text));
        u16::from_le_bytes([bytes[4], bytes[5]])
    })
}

#[test]
fn every_function_is_found_and_brought_to_rest() {
    let mut machine = Machine::new();
    machine.add("00:00.0", host_bridge());
    machine.add("00:1f.0", isa_bridge());
    machine.add("00:02.0", Bridge::new(0, 1, 1));
    machine.add("00:03.0", edu(0xe000_0000));
    machine.add("01:00.0", nvme(0x80_0000_0000));
    machine.add("01:01.0", power_cycled(0xe020_0000));
    machine.add("20:00.0", conventional(0xe010_0000));
    machine.poke(at("01:00.0"), 0x06, &[0x10, 0]);
    let booted = boot(machine);
    {
        let shard = booted.shard.borrow();
        let found: Vec<_> = shard
            .devices()
            .iter()
            .map(|(_, device)| (device.at.to_string(), device.state))
            .collect();
        use DeviceState::{Quarantined, Withheld};
        let expected = [
            ("0000:00:00.0", Withheld),
            ("0000:00:02.0", Withheld),
            ("0000:00:03.0", Quarantined),
            ("0000:00:1f.0", Withheld),
            ("0000:01:00.0", Quarantined),
            ("0000:01:01.0", Quarantined),
            ("0000:20:00.0", Quarantined),
        ];
        assert_eq!(found, expected.map(|(at, state)| (at.to_owned(), state)));
        let resets: Vec<_> = shard
            .devices()
            .iter()
            .filter_map(|(_, device)| device.reset)
            .collect();
        assert_eq!(
            resets,
            [ResetKind::Flr, ResetKind::PowerCycle, ResetKind::AfFlr]
        );
    }
    // Without decoding, mastering and INTx; the platform's own untouched.
    for device in ["00:03.0", "01:00.0", "01:01.0", "20:00.0"] {
        assert_eq!(command(&booted, device) & 0x0507, 0x0400, "{device}");
    }
    assert_eq!(command(&booted, "00:00.0"), 0x0006);
    assert_eq!(command(&booted, "00:1f.0"), 0x0107);
    assert_eq!(withheld(&booted, "00:00.0"), Some(Withheld::HostBridge));
    assert_eq!(withheld(&booted, "00:02.0"), Some(Withheld::Bridge));
    // The same through the interface, with sizes.
    let bar = booted.supervisor().holder_bar(2, 0).unwrap();
    assert_eq!((bar.base, bar.bytes), (0xe000_0000, 1 << 20));
    assert_eq!(booted.world(|world| world.log.len()), 7);
}

#[test]
fn interrupts_that_firmware_left_on_are_off() {
    let mut machine = Machine::new();
    let edu = machine.add("00:03.0", edu(0xe000_0000));
    let nvme = machine.add("00:04.0", nvme(0x80_0000_0000));
    // MSI capability first in the list; MSI-X after power management.
    machine.poke(edu, 0x42, &[0x01]);
    machine.poke(nvme, 0x4b, &[0xc0]);
    let booted = boot(machine);
    booted.world(|world| {
        assert_eq!(world.machine.snapshot(edu)[0x42] & 1, 0);
        assert_eq!(world.machine.snapshot(nvme)[0x4b] & 0xc0, 0);
    });
}

#[test]
fn the_platform_s_functions_are_only_read() {
    let mut machine = Machine::new();
    machine.add("00:00.0", host_bridge());
    machine.add("00:1f.0", isa_bridge());
    machine.add("00:02.0", Bridge::new(0, 1, 1));
    machine.add(
        "00:1f.3",
        Endpoint::new(0x8086, 0x2930)
            .class(0x0c, 0x05, 0x00)
            .command(0x0003),
    );
    machine.add(
        "00:05.0",
        Endpoint::new(0x1022, 0x1419)
            .class(0x08, 0x06, 0x00)
            .command(0x0006),
    );
    let before: Vec<_> = machine
        .addresses()
        .collect::<Vec<_>>()
        .iter()
        .map(|at| machine.snapshot(*at))
        .collect();
    let booted = boot(machine);
    booted.world(|world| {
        assert_eq!(world.machine.writes(), 0);
        let after: Vec<_> = world
            .machine
            .addresses()
            .collect::<Vec<_>>()
            .iter()
            .map(|at| world.machine.snapshot(*at))
            .collect();
        assert_eq!(before, after);
    });
    assert_eq!(withheld(&booted, "00:05.0"), Some(Withheld::Iommu));
}

#[test]
fn what_the_description_withholds_is_not_touched() {
    let mut machine = Machine::new();
    let serial = machine.add(
        "00:06.0",
        Endpoint::new(0x1b36, 0x0002)
            .class(0x07, 0x00, 0x02)
            .command(0x0103)
            .bar(0, memory32(4096, 0xe000_0000)),
    );
    let before = machine.snapshot(serial);
    let mut info = pci_info();
    info.withheld
        .push(DeviceMatch::Ids {
            vendor: 0x1b36,
            device: 0x0002,
        })
        .unwrap();
    let booted = Booted::with(World::new(machine), info, vec![client("any", &[ANY])]);
    assert_eq!(withheld(&booted, "00:06.0"), Some(Withheld::Description));
    assert_eq!(booted.world(|world| world.machine.snapshot(serial)), before);
    assert_eq!(
        booted
            .client(0)
            .assign(serial, 0, ContextChoice::Shared)
            .unwrap_err()
            .rule,
        Rule::Withheld
    );
}

#[test]
fn malformed_functions_are_withheld_with_the_reason_and_the_rest_goes_on() {
    let shape = |size| memory32(size, 0xe100_0000);
    let mut machine = Machine::new();
    machine.add(
        "00:01.0",
        Endpoint::new(0x1111, 1)
            .bar(0, shape(4096))
            .capability(9, &[4], &[])
            .link_last_to(0x40),
    );
    machine.add(
        "00:02.0",
        Endpoint::new(0x1111, 2)
            .capability(9, &[4], &[])
            .link_last_to(0x20),
    );
    machine.add(
        "00:04.0",
        Endpoint::new(0x1111, 4).bar(
            0,
            BarShape::Raw {
                value: 0x8,
                writable: 0,
            },
        ),
    );
    machine.add(
        "00:05.0",
        Endpoint::new(0x1111, 5).bar(
            5,
            BarShape::Raw {
                value: 0x4,
                writable: 0xffff_f000,
            },
        ),
    );
    machine.add(
        "00:06.0",
        Endpoint::new(0x1111, 6).bar(
            0,
            BarShape::Raw {
                value: 0x2,
                writable: 0xffff_f000,
            },
        ),
    );
    machine.add(
        "00:07.0",
        Endpoint::new(0x1111, 7).bar(
            0,
            BarShape::Memory64 {
                size: 1 << 48,
                address: 1 << 50,
                prefetchable: true,
            },
        ),
    );
    machine.add(
        "00:08.0",
        Endpoint::new(0x1111, 8)
            .bar(0, shape(4096))
            .msix(MsixShape {
                entries: 2048,
                table: (0, 0),
                pending: (0, 0),
            }),
    );
    machine.add(
        "00:09.0",
        Endpoint::new(0x1111, 9).misbehave(Misbehaviour::VanishesAfter { accesses: 8 }),
    );
    machine.add("00:0a.0", Endpoint::new(0x1111, 10).raw(0x0e, &[0x05]));
    machine.add(
        "00:0b.0",
        Endpoint::new(0x1111, 11)
            .command(0x0004)
            .misbehave(Misbehaviour::KeepsOnes { bytes: 4..6 }),
    );
    machine.add(
        "00:0d.0",
        Endpoint::new(0x1111, 13).bar(0, memory32(4096, 0x1000_0000)),
    );
    machine.add(
        "00:0e.0",
        Endpoint::new(0x1111, 14).misbehave(Misbehaviour::AllOnes),
    );
    machine.add("00:0f.0", Endpoint::new(0, 15));
    machine.add(
        "00:10.0",
        Endpoint::new(0x1111, 16).bar(
            0,
            BarShape::Raw {
                value: u32::MAX,
                writable: 0,
            },
        ),
    );
    machine.add(
        "00:11.0",
        Endpoint::new(0x1111, 17).misbehave(Misbehaviour::Changing {
            bytes: 0x10..0x28,
            seed: 4,
        }),
    );
    machine.add("00:1e.0", edu(0xe000_0000));
    let booted = boot(machine);
    let reasons: Vec<_> = [
        "01", "02", "04", "05", "06", "07", "08", "09", "0a", "0b", "0d", "0f", "10", "11",
    ]
    .iter()
    .map(
        |device| match withheld(&booted, &format!("00:{device}.0")) {
            Some(Withheld::Malformed(why)) => {
                let word = format!("{why:?}");
                word.split(['(', ' ', '{']).next().unwrap().to_owned()
            }
            other => panic!("{device}: {other:?}"),
        },
    )
    .collect();
    let expected = [
        "List",
        "List",
        "Bar",
        "Bar",
        "Bar",
        "BarTooLarge",
        "Msix",
        "Vanished",
        "Header",
        "ControlStuck",
        "OutsideMemory",
        "Header",
        "Bar",
        "Bar",
    ];
    assert_eq!(reasons, expected);
    // One that never answers is not there at all.
    assert!(
        booted
            .shard
            .borrow()
            .devices()
            .iter()
            .all(|(_, device)| device.at != at("00:0e.0"))
    );
    // The honest one is served.
    booted
        .client(0)
        .assign(at("00:1e.0"), 0, ContextChoice::Shared)
        .unwrap();
    assert_eq!(
        booted
            .client(0)
            .assign(at("00:01.0"), 1, ContextChoice::Shared)
            .unwrap_err()
            .rule,
        Rule::MalformedDevice
    );
    // Each is told in a line.
    let log = booted.world(|world| world.log.join("\n"));
    assert!(
        log.contains("0000:00:01.0 1111:0001 class 000000 withheld: malformed: "),
        "{log}"
    );
    assert!(log.contains("cycle"), "{log}");
}

#[test]
fn overlapping_memory_is_given_to_nobody() {
    let mut machine = Machine::new();
    machine.add(
        "00:01.0",
        Endpoint::new(1, 1).bar(0, memory32(1 << 20, 0xe000_0000)),
    );
    machine.add(
        "00:02.0",
        Endpoint::new(1, 2).bar(0, memory32(1 << 12, 0xe000_8000)),
    );
    machine.add(
        "00:03.0",
        Endpoint::new(1, 3).bar(0, memory32(1 << 12, 0xe010_0000)),
    );
    // Behind the second, still inside the first.
    machine.add(
        "00:05.0",
        Endpoint::new(1, 5).bar(0, memory32(1 << 12, 0xe000_c000)),
    );
    // A function of the platform, whose size nobody knows, inside another's BAR.
    machine.add(
        "00:04.0",
        Endpoint::new(1, 4).bar(0, memory32(1 << 16, 0xe020_0000)),
    );
    machine.add(
        "00:1f.0",
        isa_bridge().bar(0, memory32(1 << 12, 0xe020_4000)),
    );
    let booted = boot(machine);
    let overlap = |other: &str| {
        Some(Withheld::Malformed(Malformed::Overlap {
            bar: 0,
            other: at(other),
        }))
    };
    assert_eq!(withheld(&booted, "00:01.0"), overlap("00:02.0"));
    assert_eq!(withheld(&booted, "00:02.0"), overlap("00:01.0"));
    assert_eq!(withheld(&booted, "00:05.0"), overlap("00:01.0"));
    assert_eq!(withheld(&booted, "00:03.0"), None);
    assert_eq!(withheld(&booted, "00:04.0"), overlap("00:1f.0"));
    assert_eq!(withheld(&booted, "00:1f.0"), Some(Withheld::Bridge));
}

#[test]
fn pages_shared_by_two_functions_are_withheld() {
    let mut machine = Machine::new();
    let one = machine.add(
        "00:01.0",
        Endpoint::new(1, 1)
            .bar(0, memory32(256, 0xe000_0000))
            .bar(1, memory32(256, 0xe000_0100)),
    );
    let two = machine.add(
        "00:02.0",
        Endpoint::new(1, 2)
            .bar(0, memory32(256, 0xe000_0200))
            .bar(1, memory32(256, 0xe000_1000)),
    );
    let three = machine.add(
        "00:03.0",
        Endpoint::new(1, 3)
            .bar(0, memory32(1024, 0xe000_2000))
            .bar(2, memory32(1024, 0xe000_2400)),
    );
    let booted = boot(machine);
    let first = booted.assigned(0, one, 0);
    for bar in 0..2 {
        assert_eq!(
            first.bar_frames(bar, 0, 1, 10).unwrap_err().rule,
            Rule::PageWithheld
        );
        assert_eq!(first.bar(bar).unwrap().withheld_count, 1);
    }
    let second = booted.assigned(0, two, 1);
    assert_eq!(
        second.bar_frames(0, 0, 1, 10).unwrap_err().rule,
        Rule::PageWithheld
    );
    second.bar_frames(1, 0, 1, 10).unwrap();
    // Two BARs of the same function may share.
    let third = booted.assigned(0, three, 2);
    third.bar_frames(0, 0, 1, 11).unwrap();
    third.bar_frames(2, 0, 1, 12).unwrap();
}

#[test]
fn functions_beyond_the_bound_are_counted_and_nothing_else_happens() {
    let mut machine = Machine::new();
    for n in 0..pci_core::MAX_FUNCTIONS + 10 {
        let (bus, device, function) = ((n / 256) as u8, (n / 8 % 32) as u8, (n % 8) as u8);
        let function_at = Sbdf::from_parts(0, bus, device, function).unwrap();
        machine.insert(function_at, Endpoint::new(1, 1).multi_function().into());
    }
    let booted = boot(machine);
    assert_eq!(
        booted.shard.borrow().devices().len() as usize,
        pci_core::MAX_FUNCTIONS
    );
    let first_line = booted.world(|world| world.log[0].clone());
    assert!(
        first_line.starts_with("10 functions that nobody gets: more than 1024"),
        "{first_line}"
    );
}
