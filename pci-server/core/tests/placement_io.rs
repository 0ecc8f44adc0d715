//! I/O BARs and I/O windows of bridges that firmware left without addresses. Nothing decodes them; what cannot be
//! placed is told, and the device can be had all the same.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::*;
use hw::Sbdf;
use ipc_proto::BarKind;
use sim::config::{BarShape, Bridge, Machine};
use system::model::DeviceMatch;

const ANY: DeviceMatch = DeviceMatch::Class { class: 0, mask: 0 };
/// What firmware declares.
const IO: [(u16, u16); 2] = [(0, 0x0cf7), (0x0d00, 0xffff)];

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn boot_with(machine: Machine, io: &[(u16, u16)]) -> Booted {
    let mut info = pci_info();
    info.io = io.iter().copied().collect();
    Booted::with(World::new(machine), info, vec![client("any", &[ANY])])
}

fn boot(machine: Machine) -> Booted {
    boot_with(machine, &IO)
}

fn io(size: u32, address: u32) -> BarShape {
    BarShape::Io {
        size,
        address,
        bits: 32,
    }
}

/// An I/O BAR as the table has it, which must be what the register has and what is forwarded to it.
fn base(booted: &Booted, text: &str, bar: usize) -> u64 {
    let shard = booted.shard.borrow();
    let device = shard.devices().at(at(text)).unwrap();
    assert_eq!(device.withheld, None, "{text}");
    let region = device.bars[bar];
    assert_eq!(region.kind, BarKind::Io);
    let machine = &shard.env().machine;
    let bytes = machine.snapshot(at(text));
    let register = u32::from_le_bytes(bytes[0x10 + 4 * bar..][..4].try_into().unwrap());
    assert_eq!(u64::from(register & !3), region.base, "{text}");
    assert_eq!(bytes[4] & 1, 0, "{text} decodes no I/O");
    let mut bus = device.at.bus();
    while let Some(bridge) = shard
        .devices()
        .bridge_to(0, bus)
        .filter(|_| region.base != 0)
    {
        let window = hw::header::Bridge::read(machine, bridge).io.unwrap();
        let last = region.base + region.bytes - 1;
        assert!(
            window.base <= region.base && last <= window.limit,
            "{text} below {bridge}: {window:x?}"
        );
        bus = bridge.bus();
    }
    region.base
}

fn told(booted: &Booted, text: &str, bar: u8) -> bool {
    let line = format!("{} BAR {bar} has no I/O address", at(text));
    booted.world(|world| world.log.iter().any(|said| said.contains(&line)))
}

#[test]
fn a_bar_without_an_address_gets_one_that_nothing_else_uses() {
    let mut machine = Machine::new();
    machine.add("00:02.0", edu(0xe000_0000).bar(2, io(32, 0x1000)));
    machine.add(
        "00:03.0",
        edu(0xe010_0000).bar(2, io(32, 0)).bar(3, io(4, 0)),
    );
    machine.add("00:04.0", edu(0xe020_0000).bar(2, io(256, 0)));
    let booted = boot(machine);
    // Firmware's stays; nothing is placed where the board's devices are.
    assert_eq!(base(&booted, "00:02.0", 2), 0x1000);
    assert_eq!(base(&booted, "00:03.0", 2), 0x1020);
    assert_eq!(base(&booted, "00:03.0", 3), 0x1040);
    assert_eq!(base(&booted, "00:04.0", 2), 0x1100);
    // A holder reads what is there.
    let device = booted.assigned(0, at("00:04.0"), 1);
    let value = device
        .config_read(0x18, ipc_proto::Width::Dword)
        .unwrap()
        .value;
    assert_eq!(value, 0x1101);
}

#[test]
fn closed_windows_of_bridges_are_opened_one_inside_the_other() {
    let mut machine = Machine::new();
    machine.add("00:01.0", Bridge::new(0, 1, 3).io(0x2000, 0x2fff));
    machine.add("01:00.0", edu(0).bar(2, io(32, 0x2000)));
    machine.add("00:02.0", Bridge::new(0, 4, 6));
    machine.add("04:00.0", Bridge::new(4, 5, 6));
    machine.add("05:00.0", edu(0).bar(2, io(2048, 0)));
    machine.add("05:01.0", edu(0).bar(2, io(256, 0)));
    machine.add("05:02.0", edu(0).bar(2, io(4096, 0)));
    let booted = boot(machine);
    assert_eq!(base(&booted, "01:00.0", 2), 0x2000);
    let places = ["05:00.0", "05:01.0", "05:02.0"].map(|text| base(&booted, text, 2));
    assert!(places.iter().all(|place| *place >= 0x1000), "{places:x?}");
    let mut ends = [
        (places[0], 2048),
        (places[1], 256),
        (places[2], 4096),
        (0x2000, 0x1000),
    ];
    ends.sort_unstable();
    assert!(
        ends.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0),
        "{ends:x?}"
    );
}

#[test]
fn what_has_no_room_is_told_and_can_be_had_all_the_same() {
    let mut machine = Machine::new();
    machine.add("00:02.0", edu(0xe000_0000).bar(2, io(256, 0)));
    machine.add("00:03.0", edu(0xe010_0000).bar(2, io(256, 0)));
    // This one has no I/O window; that one keeps its closed.
    machine.add(
        "00:04.0",
        Bridge::new(0, 1, 1).with(|bridge| bridge.raw(0x1c, &[0, 0]).allow(0x1c, &[0, 0])),
    );
    machine.add("01:00.0", edu(0).bar(2, io(32, 0)));
    machine.add(
        "00:05.0",
        Bridge::new(0, 2, 2).with(|bridge| bridge.allow(0x1c, &[0, 0])),
    );
    machine.add("02:00.0", edu(0).bar(2, io(32, 0x3000)));
    let booted = boot_with(machine, &[(0xd000, 0xd0ff)]);
    assert_eq!(base(&booted, "00:02.0", 2), 0xd000);
    for left in ["00:03.0", "01:00.0", "02:00.0"] {
        assert_eq!(base(&booted, left, 2), 0, "{left}");
        assert!(told(&booted, left, 2), "{left}");
    }
    assert!(!told(&booted, "00:02.0", 2));
    for (slot, text) in (1..).zip(["00:03.0", "01:00.0", "02:00.0"]) {
        booted.assigned(0, at(text), slot);
    }
}

#[test]
fn where_firmware_says_nothing_only_what_it_placed_has_an_address() {
    let mut machine = Machine::new();
    machine.add("00:02.0", edu(0xe000_0000).bar(2, io(32, 0xc000)));
    machine.add("00:03.0", edu(0xe010_0000).bar(2, io(32, 0)));
    let booted = boot_with(machine, &[]);
    assert_eq!(base(&booted, "00:02.0", 2), 0xc000);
    assert_eq!(base(&booted, "00:03.0", 2), 0);
    assert!(told(&booted, "00:03.0", 2) && !told(&booted, "00:02.0", 2));
}

#[test]
fn bridges_without_bound_are_followed_as_far_as_the_bound() {
    let mut machine = Machine::new();
    // Twenty bridges one behind the other, all windows closed.
    for bus in 0..20 {
        machine.add(&format!("{bus:02x}:00.0"), Bridge::new(bus, bus + 1, 20));
    }
    machine.add("14:00.0", edu(0).bar(2, io(32, 0)));
    machine.add("00:03.0", edu(0xe010_0000).bar(2, io(32, 0)));
    let booted = boot(machine);
    assert!(told(&booted, "14:00.0", 2));
    assert_eq!(base(&booted, "00:03.0", 2), 0x1000);
}

#[test]
fn a_function_that_comes_later_gets_an_address_too() {
    let mut machine = Machine::new();
    machine.add("00:02.0", edu(0xe000_0000).bar(2, io(32, 0x1000)));
    let booted = boot(machine);
    booted.world(|world| {
        // It comes with an address that is another's.
        world.machine.add("00:03.0", edu(0).bar(2, io(32, 0x1000)));
    });
    let admin: ipc_proto::pci::Stub<_> =
        booted.stub(ipc_proto::Badge::plain(ipc_proto::BadgeKind::Admin, 0));
    assert_eq!(admin.rescan().unwrap().added, 1);
    assert_eq!(base(&booted, "00:03.0", 2), 0x1020);
    assert_eq!(base(&booted, "00:02.0", 2), 0x1000);
}
