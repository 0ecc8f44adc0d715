//! Enumeration over simulated machines: which functions are found, behind
//! which host bridge, at what cost, and what hostile bridges cannot do.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use hw::enumeration::{Fault, Found, HostBridge, Inventory, InventoryError, enumerate};
use hw::header::{Bridge as BridgeRegisters, HeaderError, Layout, Window};
use hw::{BusRange, Sbdf};
use portcullis_hw as hw;
use proptest::prelude::*;
use sim::config::{Bridge, Endpoint, Machine, Misbehaviour};

type Found64 = Inventory<64, 4>;

fn scan(machine: &Machine) -> Found64 {
    let mut found = Found64::default();
    found.fill(machine, 0, BusRange::ALL).unwrap();
    found
}

fn device() -> Endpoint {
    Endpoint::new(0x1234, 0x11e8)
}

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

/// q35 with a root port, a switch of two ports, and a second root bus at 80h with a port of its own.
fn workstation() -> Machine {
    let mut machine = Machine::new();
    machine.add("00:00.0", Endpoint::new(0x8086, 0x29c0).class(6, 0, 0));
    machine.add("00:03.0", Bridge::new(0, 1, 4));
    machine.add("01:00.0", Bridge::new(1, 2, 4));
    machine.add("02:00.0", Bridge::new(2, 3, 3));
    machine.add("02:01.0", Bridge::new(2, 4, 4));
    machine.add("03:00.0", device().multi_function());
    machine.add("03:00.5", device());
    machine.add("04:00.0", device());
    machine.add("00:1f.0", device().multi_function());
    machine.add("00:1f.2", device());
    // Nothing names this bus; the first of its devices is not device 0.
    machine.add("80:07.0", Bridge::new(0x80, 0x81, 0x85));
    machine.add("81:00.0", device());
    machine
}

#[test]
fn all_functions_are_found_with_their_bridges_and_hosts() {
    let machine = workstation();
    let found = scan(&machine);
    let addresses: Vec<_> = found.functions.iter().map(|function| function.at).collect();
    assert_eq!(addresses, machine.addresses().collect::<Vec<_>>());
    let parent = |text: &str| found.get(at(text)).unwrap().parent;
    assert_eq!(parent("00:03.0"), None);
    assert_eq!(parent("03:00.5"), Some(at("02:00.0")));
    assert_eq!(parent("04:00.0"), Some(at("02:01.0")));
    assert_eq!(parent("80:07.0"), None);
    assert_eq!(parent("81:00.0"), Some(at("80:07.0")));
    let host = |first, last, last_used| HostBridge {
        segment: 0,
        buses: BusRange::new(first, last).unwrap(),
        last_used,
    };
    assert_eq!(found.hosts, [host(0, 0x7f, 4), host(0x80, 0xff, 0x85)]);
    for function in &found.functions {
        let host = if function.at.bus() < 0x80 { 0 } else { 0x80 };
        assert_eq!(function.host, host);
    }
    assert!(found.faults.is_empty());
    assert_eq!(
        found.get(at("00:03.0")).unwrap().header.layout,
        Layout::Bridge
    );
}

#[test]
fn the_scan_only_reads_and_costs_little() {
    let machine = workstation();
    scan(&machine);
    assert_eq!(machine.writes(), 0);
    // Buses 82h to 85h are claimed and unreachable: they cost nothing.
    let absent = (256 - 4) * 32;
    assert!(
        machine.reads() < absent + 12 * 12,
        "{} reads",
        machine.reads()
    );
    // A range where everything is claimed.
    let before = machine.reads();
    let mut found = Found64::default();
    found
        .fill(&machine, 0, BusRange::new(0x80, 0x85).unwrap())
        .unwrap();
    assert_eq!(found.functions.len(), 2);
    assert!(machine.reads() - before < 2 * 32 + 10);
}

#[test]
fn other_segments_are_other_machines() {
    let mut machine = Machine::new();
    machine.add("0001:00:02.0", device());
    assert!(scan(&machine).functions.is_empty());
    let mut found = Found64::default();
    found.fill(&machine, 1, BusRange::ALL).unwrap();
    assert_eq!(found.functions[0].at, at("0001:00:02.0"));
    assert_eq!(found.hosts[0].segment, 1);
}

#[test]
fn functions_of_a_single_function_device_are_not_looked_for() {
    let mut machine = Machine::new();
    machine.add("00:02.0", device());
    machine.add("00:02.1", device());
    assert_eq!(scan(&machine).functions.len(), 1);
}

fn faults(machine: &Machine) -> Vec<(Sbdf, Fault)> {
    scan(machine).faults.to_vec()
}

#[test]
fn bridges_that_could_loop_are_reported_and_not_followed() {
    let range = |secondary, subordinate| Fault::BadRange {
        secondary,
        subordinate,
    };
    let cases = [
        (Bridge::new(5, 5, 5), range(5, 5)),
        (Bridge::new(5, 3, 9), range(3, 9)),
        (Bridge::new(5, 7, 6), range(7, 6)),
        (Bridge::new(5, 6, 0x41), range(6, 0x41)),
        (Bridge::new(5, 0, 0), Fault::BridgeNotSetUp),
        (Bridge::new(9, 6, 7), Fault::WrongPrimary { primary: 9 }),
    ];
    for (bridge, fault) in cases {
        let mut machine = Machine::new();
        machine.add("00:01.0", Bridge::new(0, 5, 0x40));
        machine.add("05:00.0", bridge);
        machine.add("06:00.0", device());
        assert_eq!(faults(&machine), [(at("05:00.0"), fault)]);
        assert_eq!(scan(&machine).functions.len(), 2, "{fault:?}");
    }
}

#[test]
fn siblings_do_not_share_buses() {
    let mut machine = Machine::new();
    machine.add("00:01.0", Bridge::new(0, 1, 5));
    machine.add("00:02.0", Bridge::new(0, 5, 9));
    machine.add("00:03.0", Bridge::new(0, 6, 9));
    machine.add("06:00.0", device());
    let fault = Fault::Overlap {
        secondary: 5,
        subordinate: 9,
    };
    let found = scan(&machine);
    assert_eq!(found.faults, [(at("00:02.0"), fault)]);
    assert_eq!(
        found.get(at("06:00.0")).unwrap().parent,
        Some(at("00:03.0"))
    );
}

#[test]
fn a_primary_bus_hardwired_to_zero_is_tolerated() {
    let mut machine = Machine::new();
    machine.add("00:01.0", Bridge::new(0, 1, 2));
    machine.add("01:00.0", Bridge::new(0, 2, 2));
    machine.add("02:00.0", device());
    assert_eq!(scan(&machine).functions.len(), 3);
}

#[test]
fn a_root_bus_between_the_buses_of_a_host_belongs_to_it() {
    let mut machine = Machine::new();
    machine.add("00:01.0", Bridge::new(0, 0x20, 0x2f));
    machine.add("10:00.0", device());
    machine.add("30:00.0", device());
    let found = scan(&machine);
    assert_eq!(found.get(at("10:00.0")).unwrap().host, 0);
    assert_eq!(found.get(at("30:00.0")).unwrap().host, 0x30);
    let ranges: Vec<_> = found.hosts.iter().map(|host| host.buses).collect();
    let expected = [(0, 0x2f), (0x30, 0xff)].map(|(a, b)| BusRange::new(a, b).unwrap());
    assert_eq!(ranges, expected);
}

#[test]
fn functions_without_a_header_are_reported() {
    let mut machine = Machine::new();
    machine.add("00:01.0", device().raw(0x0e, &[0x42]));
    machine.add("00:02.0", Endpoint::new(0, 0x1234));
    machine.add("00:03.0", Endpoint::new(1, 0xffff));
    machine.add(
        "00:04.0",
        device().misbehave(Misbehaviour::VanishesAfter { accesses: 2 }),
    );
    machine.add("00:05.0", device().misbehave(Misbehaviour::AllOnes));
    // Absent functions as some boards show them.
    machine.add("00:06.0", Endpoint::new(0, 0));
    machine.add("00:07.0", Endpoint::new(0, 0xffff));
    machine.add("00:08.0", device());
    let found = scan(&machine);
    let faults: Vec<_> = found
        .faults
        .iter()
        .map(|(at, fault)| (at.device(), *fault))
        .collect();
    let header = Fault::Header;
    let expected = [
        (1, header(HeaderError::UnknownLayout(0x42))),
        (2, header(HeaderError::VendorZero)),
        (3, header(HeaderError::NotReady)),
        (4, header(HeaderError::Vanished)),
    ];
    assert_eq!(faults, expected);
    assert_eq!(found.functions.len(), 1);
}

#[test]
fn a_full_inventory_says_so_and_keeps_what_it_has() {
    let machine = workstation();
    let mut small = Inventory::<3, 4>::default();
    let next = at("00:1f.2");
    let full = InventoryError::Functions { limit: 3, next };
    assert_eq!(small.fill(&machine, 0, BusRange::ALL), Err(full));
    assert_eq!(small.functions.len(), 3);
    let mut one_host = Inventory::<64, 1>::default();
    let full = InventoryError::Hosts {
        limit: 1,
        next: 0x80,
    };
    assert_eq!(one_host.fill(&machine, 0, BusRange::ALL), Err(full));
}

#[test]
fn the_visitor_can_break_off() {
    let machine = workstation();
    let mut seen = 0;
    let end = enumerate(&machine, 0, BusRange::ALL, |found| {
        seen += 1;
        match found {
            Found::Function(function) if function.at.bus() == 2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    assert!(end.is_break());
    assert_eq!(seen, 6);
}

#[test]
fn windows_of_a_bridge_are_decoded() {
    let mut machine = Machine::new();
    let open = Bridge::new(0, 1, 1)
        .memory(0xfe80_0000, 0xfe9f_ffff)
        .prefetchable(0x80_0000_0000, 0x80_3fff_ffff)
        .io(0xc000, 0xdfff);
    let open = machine.add("00:01.0", open);
    let closed = machine.add("00:02.0", Bridge::new(0, 2, 2));
    let bridge = BridgeRegisters::read(&machine, open);
    let window = |base, limit| Some(Window { base, limit });
    assert_eq!(bridge.memory, window(0xfe80_0000, 0xfe9f_ffff));
    assert_eq!(bridge.prefetchable, window(0x80_0000_0000, 0x80_3fff_ffff));
    assert_eq!(bridge.io, window(0xc000, 0xdfff));
    assert_eq!(bridge.buses.behind(), BusRange::new(1, 1));
    let bridge = BridgeRegisters::read(&machine, closed);
    assert_eq!(
        (bridge.memory, bridge.prefetchable, bridge.io),
        (None, None, None)
    );
}

#[test]
fn a_secondary_bus_reset_reaches_what_is_behind_the_bridge() {
    use hw::ConfigSpace as _;
    use hw::header::{BridgeControl, register};
    let mut machine = workstation();
    let control = BridgeControl::SECONDARY_BUS_RESET.bits();
    machine.write16(at("02:00.0"), register::BRIDGE_CONTROL, control);
    assert_eq!(machine.resets(at("03:00.0")), 1);
    assert_eq!(machine.resets(at("03:00.5")), 1);
    assert_eq!(machine.resets(at("04:00.0")), 0);
}

proptest! {
    #[test]
    fn whatever_bridges_say_the_scan_ends_and_finds_nothing_twice(
        bridges in prop::collection::vec((any::<u8>(), 0u8..32, any::<[u8; 3]>()), 0..40),
        changing: Option<u64>,
    ) {
        let mut machine = Machine::new();
        for (bus, device, [primary, secondary, subordinate]) in bridges {
            let primary = if primary < 0xc0 { bus } else { primary };
            let mut bridge: sim::config::Space =
                Bridge::new(primary, secondary, subordinate).into();
            if let Some(seed) = changing {
                bridge.misbehave(Misbehaviour::Changing { bytes: 0x18..0x1b, seed });
            }
            machine.insert(Sbdf::from_parts(0, bus, device, 0).unwrap(), bridge);
        }
        let present: BTreeSet<_> = machine.addresses().collect();
        let mut seen = BTreeSet::new();
        let mut hosts: Vec<HostBridge> = Vec::new();
        let end = enumerate(&machine, 0, BusRange::ALL, |found| {
            match found {
                Found::Function(function) => {
                    assert!(seen.insert(function.at), "{} twice", function.at);
                    assert!(present.contains(&function.at));
                    let parent = function.parent.map(Sbdf::bus);
                    assert!(parent.is_none_or(|parent| parent < function.at.bus()));
                }
                Found::Host(host) => hosts.push(host),
                Found::Fault { .. } => {}
            }
            ControlFlow::Continue(())
        });
        prop_assert!(end.is_continue());
        prop_assert!(machine.reads() <= 256 * 32 + 40 * 4);
        // Host bridges share no bus and have every function.
        prop_assert!(hosts.windows(2).all(|pair| pair[0].buses.last() < pair[1].buses.first()));
        for at in seen {
            let owners = hosts.iter().filter(|host| host.buses.contains(at.bus()));
            prop_assert_eq!(owners.count(), 1);
        }
    }
}
