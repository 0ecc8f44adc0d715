//! Bus numbers, windows and BARs that firmware has not set up, or wrongly.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::*;
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{BarKind, DeviceState};
use pci_core::space::Range;
use pci_core::{Malformed, Withheld};
use proptest::prelude::*;
use sim::config::{BarShape, Bridge, Endpoint, Machine, Misbehaviour};
use system::model::DeviceMatch;

const ANY: DeviceMatch = DeviceMatch::Class { class: 0, mask: 0 };

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn boot(machine: Machine) -> Booted {
    Booted::new(machine, vec![client("any", &[ANY])])
}

fn base(booted: &Booted, text: &str, bar: usize) -> u64 {
    let shard = booted.shard.borrow();
    let device = shard.devices().at(at(text)).unwrap();
    assert_eq!(device.withheld, None, "{text}");
    assert_eq!(device.state, DeviceState::Quarantined, "{text}");
    device.bars[bar].base
}

fn withheld(booted: &Booted, text: &str) -> Option<Withheld> {
    booted
        .shard
        .borrow()
        .devices()
        .at(at(text))
        .unwrap()
        .withheld
}

/// What a type 1 header forwards: (secondary, subordinate, memory, prefetchable).
fn forwards(booted: &Booted, text: &str) -> (u8, u8, Option<Range>, Option<Range>) {
    booted.world(|world| {
        let bridge = hw::header::Bridge::read(&world.machine, at(text));
        let range = |window: hw::header::Window| Range {
            first: window.base,
            last: window.limit,
        };
        (
            bridge.buses.secondary,
            bridge.buses.subordinate,
            bridge.memory.map(range),
            bridge.prefetchable.map(range),
        )
    })
}

fn wide(size: u64, address: u64) -> BarShape {
    BarShape::Memory64 {
        size,
        address,
        prefetchable: true,
    }
}

/// Every function that may be given out has its BARs in the shard's memory, aligned, in every window
/// above it, and nowhere else is anything of it: what the hardware needs, computed anew.
fn check(booted: &Booted) {
    let shard = booted.shard.borrow();
    let memory = |range: &Range| {
        MEMORY
            .iter()
            .any(|(_, base, bits)| Range::new(*base, 1 << bits).unwrap().covers(range))
    };
    let mut all: Vec<(Range, Sbdf)> = Vec::new();
    for (_, device) in shard.devices().iter() {
        if device.withheld.is_some() {
            continue;
        }
        for region in device.bars.iter().filter(|region| region.is_memory()) {
            let range = Range::new(region.base, region.bytes).unwrap();
            assert!(memory(&range), "{} {range:x?}", device.at);
            assert_eq!(range.first % region.bytes, 0);
            assert!(region.kind == BarKind::Memory64 || range.last < 1 << 32);
            let mut bus = device.at.bus();
            while let Some(bridge) = shard.devices().bridge_to(device.at.segment(), bus) {
                let (.., memory, prefetchable) = {
                    let bridge = hw::header::Bridge::read(&shard.env().machine, bridge);
                    (bridge.memory, bridge.prefetchable)
                };
                let inside = [memory, prefetchable]
                    .into_iter()
                    .flatten()
                    .any(|window| window.base <= range.first && range.last <= window.limit);
                assert!(inside, "{} {range:x?} below {bridge}", device.at);
                bus = bridge.bus();
            }
            all.push((range, device.at));
        }
    }
    all.sort_by_key(|(range, _)| range.first);
    for pair in all.windows(2) {
        assert!(pair[0].0.last < pair[1].0.first, "{pair:x?}");
    }
}

#[test]
fn a_bar_without_an_address_gets_one_that_nothing_else_uses() {
    let mut machine = Machine::new();
    machine.add("00:02.0", edu(0xe010_0000));
    machine.add("00:03.0", Endpoint::new(1, 3).bar(0, memory32(4096, 0)));
    machine.add(
        "00:04.0",
        Endpoint::new(1, 4)
            .bar(0, memory32(4 << 20, 0))
            .bar(2, wide(1 << 30, 0)),
    );
    let booted = boot(machine);
    // Beside what firmware has placed.
    assert_eq!(base(&booted, "00:02.0", 0), 0xe010_0000);
    assert_eq!(base(&booted, "00:03.0", 0), 0xe020_0000);
    assert_eq!(base(&booted, "00:04.0", 0), 0xe040_0000);
    assert_eq!(base(&booted, "00:04.0", 2), 0x80_0000_0000);
    check(&booted);
    // The device has them, and a reset brings them back.
    booted.world(|world| {
        assert_eq!(world.machine.read32(at("00:03.0"), 0x10), 0xe020_0000);
        assert_eq!(world.machine.read32(at("00:04.0"), 0x1c), 0x80);
    });
}

#[test]
fn a_bar_for_which_there_is_no_room_is_reported_and_the_rest_goes_on() {
    let mut machine = Machine::new();
    machine.add(
        "00:03.0",
        Endpoint::new(1, 3).bar(0, memory32(512 << 20, 0)),
    );
    machine.add("00:04.0", Endpoint::new(1, 4).bar(0, memory32(4096, 0)));
    let booted = boot(machine);
    let why = Withheld::Malformed(Malformed::Unplaced(0));
    assert_eq!(withheld(&booted, "00:03.0"), Some(why));
    base(&booted, "00:04.0", 0);
    check(&booted);
}

#[test]
fn bridges_without_bus_numbers_get_some() {
    let mut machine = Machine::new();
    machine.add(
        "00:01.0",
        Bridge::new(0, 1, 1).memory(0xe000_0000, 0xe00f_ffff),
    );
    machine.add("01:00.0", edu(0xe000_0000));
    // Firmware has forgotten these two.
    machine.add("00:02.0", Bridge::new(0, 0, 0));
    machine.add("00:03.0", Bridge::new(0, 0, 0));
    // A host bridge of its own.
    machine.add("20:00.0", edu(0xe080_0000));
    let booted = boot(machine);
    assert_eq!(forwards(&booted, "00:01.0").1, 1);
    // Thirty numbers are free below the other host bridge: fifteen for each.
    let buses = |text: &str| (forwards(&booted, text).0, forwards(&booted, text).1);
    assert_eq!(buses("00:02.0"), (2, 16));
    assert_eq!(buses("00:03.0"), (17, 31));
    base(&booted, "20:00.0", 0);
    check(&booted);
}

#[test]
fn closed_windows_are_opened_for_all_that_waits_behind_them() {
    let mut machine = Machine::new();
    machine.add("00:01.0", Bridge::new(0, 1, 3));
    machine.add("01:00.0", Bridge::new(1, 2, 3));
    machine.add("02:02.0", Bridge::new(2, 3, 3));
    machine.add("02:03.0", Endpoint::new(1, 1).bar(0, memory32(1 << 20, 0)));
    machine.add(
        "03:00.0",
        Endpoint::new(1, 2)
            .bar(0, wide(2 << 20, 0))
            .bar(2, memory32(1 << 16, 0)),
    );
    let booted = boot(machine);
    check(&booted);
    let bytes = |window: Option<Range>| window.map(|window| window.last - window.first + 1);
    let (.., memory, prefetchable) = forwards(&booted, "02:02.0");
    assert_eq!(
        (bytes(memory), bytes(prefetchable)),
        (Some(1 << 20), Some(2 << 20))
    );
    let (.., memory, prefetchable) = forwards(&booted, "00:01.0");
    assert_eq!(
        (bytes(memory), bytes(prefetchable)),
        (Some(2 << 20), Some(2 << 20))
    );
    // They forward.
    booted.world(|world| assert_eq!(world.machine.read16(at("01:00.0"), 4) & 6, 6));
}

#[test]
fn bridges_that_claim_what_others_have_get_numbers_of_their_own() {
    let mut machine = Machine::new();
    machine.add("00:01.0", Bridge::new(0, 1, 4));
    machine.add("00:02.0", Bridge::new(0, 3, 6));
    machine.add("00:03.0", Bridge::new(0, 9, 8));
    machine.add("01:00.0", Bridge::new(1, 2, 9));
    let booted = boot(machine);
    let buses = |text: &str| (forwards(&booted, text).0, forwards(&booted, text).1);
    assert_eq!(buses("00:01.0"), (1, 4));
    assert_eq!(buses("00:02.0").0, 5);
    assert!(buses("00:03.0").0 > buses("00:02.0").1);
    assert_eq!(buses("01:00.0"), (2, 4), "inside what is above it");
    // Each is told of.
    let log = booted.world(|world| world.log.join("\n"));
    for told in [
        "00:02.0 bridge claims",
        "00:03.0 bridge claims",
        "01:00.0 bridge claims",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
}

#[test]
fn bridges_beyond_the_last_bus_number_lead_nowhere_and_harm_nobody() {
    let mut machine = Machine::new();
    for device in 0..0x20 {
        for function in 0..3 {
            let place = format!("00:{device:02x}.{function}");
            machine.add(
                &place,
                Bridge::new(0, 0, 0)
                    .with(Endpoint::multi_function)
                    .raw_type(),
            );
        }
    }
    machine.add("00:1f.7", edu(0xe000_0000));
    let booted = boot(machine);
    let shard = booted.shard.borrow();
    let with = |found: bool| {
        let devices = shard.devices().iter();
        devices
            .filter(|(_, device)| {
                device
                    .bridge
                    .is_some_and(|bridge| bridge.buses.is_some() == found)
            })
            .count()
    };
    // Buses 1 to 3fh.
    assert_eq!(with(true) + with(false), 96);
    assert_eq!(with(true), 63);
    drop(shard);
    base(&booted, "00:1f.7", 0);
}

/// The header type that [`Endpoint::multi_function`] overwrites.
trait RawType {
    fn raw_type(self) -> Self;
}

impl RawType for Bridge {
    fn raw_type(self) -> Self {
        self.with(|endpoint| endpoint.raw(0x0e, &[0x81]))
    }
}

#[test]
fn a_bar_outside_its_bridge_s_window_is_moved_into_it() {
    let mut machine = Machine::new();
    machine.add(
        "00:01.0",
        Bridge::new(0, 1, 1).memory(0xe040_0000, 0xe05f_ffff),
    );
    machine.add("01:00.0", edu(0xe080_0000));
    machine.add("01:01.0", edu(0xe040_0000));
    let booted = boot(machine);
    assert_eq!(base(&booted, "01:00.0", 0), 0xe050_0000);
    assert_eq!(base(&booted, "01:01.0", 0), 0xe040_0000);
    check(&booted);
}

#[test]
fn a_device_of_large_pages_has_them_alone() {
    let mut machine = Machine::new();
    machine.add("00:02.0", edu(0xe000_0000));
    machine.add("00:03.0", edu(0xe010_0000));
    machine.add("00:04.0", Endpoint::new(1, 4).bar(0, memory32(4096, 0)));
    let mut info = pci_info();
    info.large_bars.push(DeviceMatch::Address(0x18)).unwrap();
    let booted = Booted::with(World::new(machine), info, vec![client("any", &[ANY])]);
    assert_eq!(base(&booted, "00:02.0", 0), 0xe000_0000);
    assert_eq!(base(&booted, "00:03.0", 0), 0xe020_0000);
    // Not in the rest of the large page.
    assert_eq!(base(&booted, "00:04.0", 0), 0xe010_0000);
    let shard = booted.shard.borrow();
    let region = shard.devices().at(at("00:03.0")).unwrap().bars[0];
    assert_eq!(region.memory().unwrap().bytes, 2 << 20);
}

proptest! {
    /// Trees of bridges and devices of which firmware has set up anything, or nothing; devices that
    /// vanish in the middle. Whatever is given out is where it should be.
    #[test]
    fn whatever_is_given_out_is_reached_and_alone(
        functions in prop::collection::vec(
            (0u8..8, 0u8..4, 0u8..8, any::<u32>(), 12u32..24, any::<bool>(), prop::option::of(0u32..80)),
            1..20,
        ),
    ) {
        let mut machine = Machine::new();
        for (bus, device, numbers, address, bits, wide_one, vanishes) in functions {
            let place = format!("{bus:02x}:{device:02x}.0");
            let size = 1u32 << bits;
            let address = 0xe000_0000 + address % (64 << 20) / size * size;
            let address = if numbers & 1 != 0 { address } else { 0 };
            if numbers > 4 {
                // Somewhere, nowhere, or wrong.
                let secondary = [0, bus + 1, numbers][usize::from(device) % 3];
                machine.add(&place, Bridge::new(bus, secondary, secondary + numbers - 5));
                continue;
            }
            let shape = if wide_one { wide(size.into(), address.into()) } else { memory32(size, address) };
            let mut function = Endpoint::new(1, bits as u16).bar(0, shape);
            if let Some(accesses) = vanishes {
                function = function.misbehave(Misbehaviour::VanishesAfter { accesses });
            }
            machine.add(&place, function);
        }
        let booted = boot(machine);
        check(&booted);
    }
}

#[test]
fn windows_that_cannot_work_are_told_with_both_names() {
    let mut machine = Machine::new();
    let bridge =
        |bus, secondary, last, base, limit| Bridge::new(bus, secondary, last).memory(base, limit);
    machine.add("00:01.0", bridge(0, 1, 3, 0xe000_0000, 0xe01f_ffff));
    // Inside, and beyond.
    machine.add("01:00.0", bridge(1, 2, 2, 0xe010_0000, 0xe01f_ffff));
    machine.add("01:01.0", bridge(1, 3, 3, 0xe080_0000, 0xe08f_ffff));
    // Over the first one; beside it.
    machine.add("00:02.0", bridge(0, 4, 4, 0xe010_0000, 0xe02f_ffff));
    machine.add("00:03.0", bridge(0, 5, 5, 0xe030_0000, 0xe03f_ffff));
    machine.add("02:00.0", edu(0xe010_0000));
    machine.add("05:00.0", edu(0xe030_0000));
    let booted = boot(machine);
    let log = booted.world(|world| world.log.clone());
    let told: Vec<_> = log.iter().filter(|line| line.contains("window")).collect();
    assert_eq!(
        told,
        [
            "0000:00:02.0 window 0xe0100000 to 0xe02fffff overlaps one of 0000:00:01.0",
            "0000:01:01.0 window 0xe0800000 to 0xe08fffff leaves what 0000:00:01.0 forwards",
        ]
    );
    // The rest goes on.
    base(&booted, "02:00.0", 0);
    base(&booted, "05:00.0", 0);
}

#[test]
fn an_expansion_rom_is_listed_and_stays_off() {
    let mut machine = Machine::new();
    // Where firmware left it, and on; nowhere; under one that the platform keeps.
    machine.add(
        "00:02.0",
        edu(0xe000_0000).rom(64 << 10, 0xe010_0000).raw(0x30, &[1]),
    );
    machine.add("00:03.0", edu(0xe020_0000).rom(1 << 20, 0));
    machine.add("00:04.0", edu(0xe030_0000));
    machine.add("00:1f.0", isa_bridge().rom(2048, 0xe040_0000));
    let booted = boot(machine);
    let rom = |index| {
        let reply = booted.supervisor().holder_bar(index, 6).unwrap();
        (reply.kind, reply.base, reply.bytes)
    };
    assert_eq!(rom(0), (BarKind::Memory32, 0xe010_0000, 64 << 10));
    assert_eq!(rom(1), (BarKind::Memory32, 0, 1 << 20));
    assert_eq!(rom(2), (BarKind::None, 0, 0));
    assert_eq!(rom(3), (BarKind::Memory32, 0xe040_0000, 0));
    assert_eq!(
        booted.supervisor().holder_bar(0, 7).unwrap_err().rule,
        ipc_proto::Rule::NoSuchBar
    );
    let register = |text: &str| booted.world(|world| world.machine.read32(at(text), 0x30));
    assert_eq!(register("00:02.0"), 0xe010_0000);
    assert_eq!(register("00:03.0"), 0);
    // Nor does a holder have it.
    let held = booted.assigned(0, at("00:03.0"), 0);
    assert_eq!(register("00:03.0"), 0);
    assert_eq!(held.bar(6).unwrap_err().rule, ipc_proto::Rule::NoSuchBar);
    assert_eq!(
        held.bar_frames(6, 0, 1, 1).unwrap_err().rule,
        ipc_proto::Rule::NoSuchBar
    );
}
