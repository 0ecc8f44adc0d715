//! Devices and bridges that lie about memory: fixed regions, resizable BARs, windows, bus numbers, registers that
//! change, functions that vanish. They are left out; nobody else notices, and the work stays bounded.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::*;
use hw::Sbdf;
use ipc_proto::DeviceState;
use pci_core::{Malformed, Withheld};
use sim::config::{
    BarShape, Bridge, Endpoint, ExpressShape, FixedShape, Machine, Misbehaviour, PortKind,
};
use system::model::DeviceMatch;

const ANY: DeviceMatch = DeviceMatch::Class { class: 0, mask: 0 };
/// The one that lies.
const LIAR: &str = "00:05.0";
/// Configuration accesses that one function may cost on top of a boot without it.
const MOST: usize = 6_000;

/// Honest ones: before and behind the liar, placed by firmware and not, below a bridge.
const HONEST: [(&str, u64); 4] = [
    ("00:04.0", 0xe000_0000),
    ("00:06.0", 0xe010_0000),
    ("01:00.0", 0xe040_0000),
    ("00:1e.0", 0xe020_0000),
];

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.add(
        "00:01.0",
        Bridge::new(0, 1, 1).memory(0xe040_0000, 0xe04f_ffff),
    );
    for (place, address) in HONEST {
        machine.add(place, edu(address as u32));
    }
    machine
}

fn boot(machine: Machine) -> Booted {
    Booted::new(machine, vec![client("any", &[ANY])])
}

fn accesses(booted: &Booted) -> usize {
    booted.world(|world| world.machine.reads() + world.machine.writes())
}

/// The honest ones are where they were, and can be had; nothing of them differs from a boot without the liar.
fn check_others(booted: &Booted, what: &str) {
    let alone = boot(machine());
    assert!(
        accesses(booted) <= accesses(&alone) + MOST,
        "{what}: {} accesses, {} without it",
        accesses(booted),
        accesses(&alone)
    );
    for (n, (place, base)) in (0..).zip(HONEST) {
        let registers = |booted: &Booted| booted.world(|world| world.machine.snapshot(at(place)));
        assert_eq!(registers(booted), registers(&alone), "{what}: {place}");
        {
            let shard = booted.shard.borrow();
            let device = shard.devices().at(at(place)).unwrap();
            assert_eq!(device.withheld, None, "{what}: {place}");
            assert_eq!(device.bars[0].base, base, "{what}: {place}");
        }
        let held = booted.assigned(0, at(place), 4 * n);
        held.bar_frames(0, 0, 1, 4 * n + 1).unwrap();
        held.release().unwrap();
    }
}

fn withheld(booted: &Booted, place: &str) -> Option<Withheld> {
    let shard = booted.shard.borrow();
    shard
        .devices()
        .at(at(place))
        .and_then(|device| device.withheld)
}

fn is_malformed(why: Option<Withheld>) -> bool {
    matches!(why, Some(Withheld::Malformed(_)))
}

fn with_liar(liar: Endpoint) -> Booted {
    let mut machine = machine();
    machine.add(LIAR, liar);
    boot(machine)
}

/// With extended capabilities.
fn express() -> Endpoint {
    Endpoint::new(1, 5).express(ExpressShape {
        kind: PortKind::Integrated,
        flr: true,
        slot: None,
    })
}

fn fixed(stands_for: u8, address: u64, size: u64) -> FixedShape {
    FixedShape {
        stands_for,
        property: 0,
        address,
        size,
    }
}

#[test]
fn fixed_regions_that_cannot_be_are_refused() {
    let plain = || Endpoint::new(1, 5);
    let overlapping = [
        fixed(0, 0x80_0000_0000, 0x2000),
        fixed(1, 0x80_0000_1000, 0x1000),
    ];
    let cases = [
        (
            "outside",
            plain().fixed(&[fixed(0, 0x1000, 0x1000)]),
            Malformed::OutsideMemory(0),
        ),
        (
            "half outside",
            plain().fixed(&[fixed(0, 0xefff_f000, 0x2000)]),
            Malformed::OutsideMemory(0),
        ),
        (
            "beyond 64 bits",
            plain().fixed(&[fixed(0, !0xfff, 0x2000)]),
            Malformed::BarTooLarge(0),
        ),
        (
            "absurd",
            plain().fixed(&[fixed(0, 0x80_0000_0000, 1 << 60)]),
            Malformed::BarTooLarge(0),
        ),
        (
            "all there is",
            plain().fixed(&[fixed(0, 0, 1 << 63)]),
            Malformed::BarTooLarge(0),
        ),
        (
            "twice",
            plain().fixed(&[
                fixed(0, 0x80_0000_0000, 4096),
                fixed(0, 0x80_0000_2000, 4096),
            ]),
            Malformed::BarTooLarge(0),
        ),
        (
            "a BAR too",
            plain()
                .bar(0, memory32(4096, 0xe050_0000))
                .fixed(&[fixed(0, 0x80_0000_0000, 4096)]),
            Malformed::BarTooLarge(0),
        ),
        (
            "over itself",
            plain().fixed(&overlapping),
            Malformed::Overlap {
                bar: 1,
                other: at(LIAR),
            },
        ),
    ];
    for (what, liar, malformed) in cases {
        let booted = with_liar(liar);
        assert_eq!(
            withheld(&booted, LIAR),
            Some(Withheld::Malformed(malformed)),
            "{what}"
        );
        check_others(&booted, what);
    }
    // Honest, and it is had where it is.
    let booted = with_liar(plain().fixed(&[fixed(0, 0x80_0000_0000, 0x3000)]));
    assert_eq!(withheld(&booted, LIAR), None);
    check_others(&booted, "honest");
}

#[test]
fn entries_of_fixed_regions_with_any_word_never_stop_the_rest() {
    // Number of entries, then words: what the capability says of its own length is wrong in all ways.
    for count in [1, 3, 63] {
        for first in [
            0u32,
            7,
            0x8000_0007,
            u32::MAX,
            0x80ff_0004,
            0x80ff_0002,
            0x80ff_0081,
        ] {
            for word in [0, 3, 0xffff_ffff, 0xe000_0002, 0xffff_fffe] {
                let mut body = vec![count, 0];
                body.extend(first.to_le_bytes());
                (0..9).for_each(|_| body.extend(u32::to_le_bytes(word)));
                let booted = with_liar(Endpoint::new(1, 5).capability(0x14, &body, &[]));
                let shard = booted.shard.borrow();
                let device = shard.devices().at(at(LIAR)).unwrap();
                for region in device.bars.iter().filter(|_| device.withheld.is_none()) {
                    assert!(
                        !region.is_memory() || region.served,
                        "{count} {first:x} {word:x}"
                    );
                }
            }
        }
    }
}

#[test]
fn resizable_bars_that_lie_are_left_out() {
    // More than there is below 4 GiB: it has to become smaller.
    let big = || express().bar(0, memory32(512 << 20, 0));
    let capability = |sizes: u32, control: u32| {
        let mut body = sizes.to_le_bytes().to_vec();
        body.extend(control.to_le_bytes());
        body
    };
    let says = 1 << 5 | 9 << 8;
    let cases = [
        (
            "ignores the write",
            big().extended(0x15, 1, &capability(0x3ff << 4, says)),
        ),
        // The size register takes it, the BAR stays.
        (
            "takes it and stays",
            big()
                .extended(0x15, 1, &capability(0x3ff << 4, says))
                .allow(0x109, &[0x3f]),
        ),
        (
            "has no sizes",
            big()
                .extended(0x15, 1, &capability(0, says))
                .allow(0x109, &[0x3f]),
        ),
        (
            "has sizes that are larger",
            big()
                .extended(0x15, 1, &capability(0xffff_fc00 << 4, says))
                .allow(0x109, &[0x3f]),
        ),
        (
            "is for another BAR",
            big()
                .extended(0x15, 1, &capability(0x3ff << 4, says | 3))
                .allow(0x109, &[0x3f]),
        ),
        (
            "is for no BAR",
            big()
                .extended(0x15, 1, &capability(0x3ff << 4, says | 7))
                .allow(0x109, &[0x3f]),
        ),
        (
            "has too many BARs",
            big()
                .extended(0x15, 1, &capability(0x3ff << 4, says | 7 << 5))
                .allow(0x109, &[0x3f]),
        ),
        (
            "changes its mind",
            big()
                .resizable(0, 0x3ff, 9)
                .misbehave(Misbehaviour::Changing {
                    bytes: 0x108..0x10c,
                    seed: 5,
                }),
        ),
        (
            "keeps the size",
            big()
                .resizable(0, 0x3ff, 9)
                .misbehave(Misbehaviour::KeepsOnes {
                    bytes: 0x109..0x10a,
                }),
        ),
    ];
    for (what, liar) in cases {
        let booted = with_liar(liar);
        let why = withheld(&booted, LIAR);
        assert!(is_malformed(why), "{what}: {why:?}");
        check_others(&booted, what);
    }
    // Honest: it gets the largest size for which there is room.
    let booted = with_liar(big().resizable(0, 0x3ff, 9));
    assert_eq!(withheld(&booted, LIAR), None);
    let region = booted.shard.borrow().devices().at(at(LIAR)).unwrap().bars[0];
    assert_eq!((region.base, region.bytes), (0xe800_0000, 128 << 20));
    check_others(&booted, "honest");
}

#[test]
fn windows_that_do_not_hold_leave_what_is_behind_them_out() {
    type Lie = fn(Endpoint) -> Endpoint;
    let lies: [(&str, Lie); 5] = [
        ("no window can be written", |bridge| {
            bridge.allow(0x20, &[0; 16])
        }),
        ("limits cannot be written", |bridge| {
            bridge.allow(0x22, &[0; 2]).allow(0x26, &[0; 2])
        }),
        ("low bits are lost", |bridge| {
            bridge
                .allow(0x20, &[0, 0x0f, 0, 0x0f])
                .allow(0x24, &[0, 0x0f, 0, 0x0f])
        }),
        ("ones stay", |bridge| {
            bridge.misbehave(Misbehaviour::KeepsOnes { bytes: 0x20..0x30 })
        }),
        ("they change", |bridge| {
            bridge.misbehave(Misbehaviour::Changing {
                bytes: 0x20..0x30,
                seed: 9,
            })
        }),
    ];
    for (what, lie) in lies {
        let mut machine = machine();
        machine.add(LIAR, Bridge::new(0, 2, 2).with(lie));
        machine.add("02:00.0", Endpoint::new(1, 6).bar(0, memory32(1 << 20, 0)));
        let booted = boot(machine);
        let why = withheld(&booted, "02:00.0");
        assert!(is_malformed(why), "{what}: {why:?}");
        check_others(&booted, what);
    }
}

#[test]
fn bus_numbers_that_do_not_hold_lead_nowhere() {
    type Lie = fn(Endpoint) -> Endpoint;
    let lies: [(&str, Lie); 4] = [
        ("none can be written", |bridge| bridge.allow(0x18, &[0; 3])),
        ("the last cannot be written", |bridge| {
            bridge.allow(0x1a, &[0])
        }),
        ("ones stay", |bridge| {
            bridge
                .raw(0x18, &[0, 0xff, 0])
                .misbehave(Misbehaviour::KeepsOnes { bytes: 0x18..0x1b })
        }),
        ("they change", |bridge| {
            bridge.misbehave(Misbehaviour::Changing {
                bytes: 0x18..0x1b,
                seed: 3,
            })
        }),
    ];
    for (what, lie) in lies {
        let mut machine = machine();
        machine.add(LIAR, Bridge::new(0, 0, 0).with(lie));
        let booted = boot(machine);
        let buses = {
            let shard = booted.shard.borrow();
            let device = shard.devices().at(at(LIAR)).unwrap();
            device.bridge.and_then(|bridge| bridge.buses)
        };
        // Whatever it was believed to lead to is nobody else's.
        assert!(
            buses.is_none_or(|buses| !buses.contains(0) && !buses.contains(1)),
            "{what}: {buses:?}"
        );
        check_others(&booted, what);
    }
}

#[test]
fn bars_that_change_between_reads_are_malformed() {
    for seed in 1..17 {
        for bytes in [0x10..0x14, 0x12..0x13, 0x10..0x28, 0x13..0x18] {
            let wide = BarShape::Memory64 {
                size: 1 << 20,
                address: 0x80_0000_0000,
                prefetchable: true,
            };
            let what = format!("{bytes:x?} {seed}");
            let liar = Endpoint::new(1, 5).bar(0, wide);
            let booted = with_liar(liar.misbehave(Misbehaviour::Changing { bytes, seed }));
            let why = withheld(&booted, LIAR);
            assert!(is_malformed(why), "{what}: {why:?}");
            if seed == 16 {
                check_others(&booted, &what);
            }
        }
    }
}

#[test]
fn a_device_that_vanishes_at_any_step_of_its_placement_is_left_out() {
    for accesses in 0..2_000 {
        let liar = express()
            .bar(0, memory32(512 << 20, 0))
            .bar(2, memory32(1 << 20, 0))
            .resizable(0, 0x3ff, 9)
            .misbehave(Misbehaviour::VanishesAfter { accesses });
        let booted = with_liar(liar);
        let what = format!("gone after {accesses} accesses");
        check_others(&booted, &what);
        let shard = booted.shard.borrow();
        match shard.devices().at(at(LIAR)) {
            Some(device) if device.state == DeviceState::Quarantined => {
                assert!(accesses > 50, "{accesses}");
                return;
            }
            Some(device) => assert!(is_malformed(device.withheld), "{what}"),
            None => assert!(accesses < 8, "{what}"),
        }
    }
    panic!("it is never whole");
}

#[test]
fn a_bridge_that_vanishes_while_its_windows_are_opened_takes_nobody_along() {
    for accesses in (0..60).chain([80, 120]) {
        let mut machine = machine();
        let vanishing = Misbehaviour::VanishesAfter { accesses };
        machine.add(
            LIAR,
            Bridge::new(0, 0, 0).with(|bridge| bridge.misbehave(vanishing)),
        );
        machine.add("02:00.0", Endpoint::new(1, 6).bar(0, memory32(1 << 20, 0)));
        let booted = boot(machine);
        check_others(&booted, &format!("gone after {accesses} accesses"));
    }
}
