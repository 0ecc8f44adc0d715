//! Interrupt pins behind bridges: each bridge turns them by the number of the device behind it (PCI-to-PCI Bridge 1.2,
//! table 9-1; PCIe 5.0, 2.2.8.1), up to the root bus, where the description says how they are wired.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::*;
use hw::Sbdf;
use ipc_proto::{Refusal, Rule};
use sim::config::{Bridge, Endpoint, ExpressShape, Machine, PortKind};
use system::model::{DeviceMatch, IntxRoute};

const A: u8 = 1;
const B: u8 = 2;
const C: u8 = 3;
const D: u8 = 4;

/// Functions, the pin of each, and the line that it is wired to where pin p of device d of the root bus has line
/// 20 + (d + p) mod 4: worked out by hand from the specifications' tables.
const WIRED: [(&str, u8, u16); 19] = [
    // On the root bus.
    ("00:03.0", A, 23),
    ("00:03.1", B, 20),
    // Behind a root port, device 4.
    ("01:00.0", A, 20),
    ("01:00.1", B, 21),
    ("01:00.2", C, 22),
    ("01:00.3", D, 23),
    // Function 16 of the same device (ARI), which has no device number.
    ("01:02.0", B, 21),
    // Behind a switch below root port 5: its downstream ports are devices 0, 1 and 3.
    ("04:00.0", A, 21),
    ("05:00.0", A, 22),
    ("05:00.1", C, 20),
    ("06:00.0", D, 23),
    // Behind a conventional bridge, device 30.
    ("07:00.0", A, 22),
    ("07:01.0", A, 23),
    ("07:05.0", B, 20),
    ("07:1f.0", D, 20),
    // Behind a bridge behind it, which is device 2 there.
    ("08:03.0", A, 23),
    // Behind a bridge from PCI Express to conventional PCI, below root port 6.
    ("0a:01.0", A, 23),
    ("0a:02.0", C, 22),
    ("0a:03.0", B, 22),
];

fn port(kind: PortKind, buses: [u8; 3]) -> Bridge {
    let [primary, secondary, subordinate] = buses;
    Bridge::new(primary, secondary, subordinate).with(|endpoint| {
        endpoint.express(ExpressShape {
            kind,
            flr: false,
            slot: None,
        })
    })
}

fn machine() -> Machine {
    let mut machine = Machine::new();
    let express = [
        ("00:04.0", PortKind::RootPort, [0, 1, 1]),
        ("00:05.0", PortKind::RootPort, [0, 2, 6]),
        ("02:00.0", PortKind::Upstream, [2, 3, 6]),
        ("03:00.0", PortKind::Downstream, [3, 4, 4]),
        ("03:01.0", PortKind::Downstream, [3, 5, 5]),
        ("03:03.0", PortKind::Downstream, [3, 6, 6]),
        ("00:06.0", PortKind::RootPort, [0, 9, 10]),
        ("09:00.0", PortKind::ToPci, [9, 10, 10]),
    ];
    for (at, kind, buses) in express {
        machine.add(at, port(kind, buses));
    }
    machine.add("00:1e.0", Bridge::new(0, 7, 8));
    machine.add("07:02.0", Bridge::new(7, 8, 8));
    for (at, pin, _) in WIRED {
        let function = Endpoint::new(0x1234, 0x11e8)
            .class(0xff, 0, 0)
            .multi_function()
            .interrupt(pin, 0xff);
        machine.add(at, function);
    }
    machine
}

fn booted(machine: Machine, routes: &[IntxRoute]) -> Booted {
    let mut info = pci_info();
    for route in routes {
        info.intx.push(*route).unwrap();
    }
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    Booted::with(World::new(machine), info, vec![client("zero", &[any])])
}

const ROUTE: IntxRoute = IntxRoute {
    segment: 0,
    bus: 0,
    first: 0,
    last: 31,
    lines: [20, 21, 22, 23],
    rotated: true,
};

/// The line that a function's pin raises, by switching it on.
fn line(booted: &Booted, at: &str) -> Result<u16, Refusal> {
    let at: Sbdf = at.parse().unwrap();
    let device = booted.assigned(0, at, 0);
    let line = device.intx_enable().map(|reply| reply.line);
    if let Ok(line) = line {
        let joined = booted.world(|world| world.lines.get(&at).map(|(_, line)| *line));
        assert_eq!(joined, Some(line));
    }
    device.release().unwrap();
    booted.world(|world| assert!(world.lines.is_empty()));
    line
}

#[test]
fn each_bridge_turns_the_pins_by_the_number_of_the_device_behind_it() {
    let booted = booted(machine(), &[ROUTE]);
    for (at, pin, wanted) in WIRED {
        assert_eq!(line(&booted, at), Ok(wanted), "pin {pin} of {at}");
    }
}

#[test]
fn where_the_root_bus_does_not_turn_only_the_bridges_do() {
    let straight = IntxRoute {
        rotated: false,
        ..ROUTE
    };
    let booted = booted(machine(), &[straight]);
    let wanted = [
        ("00:03.0", 20),
        ("01:00.2", 22),
        ("05:00.0", 21),
        ("08:03.0", 21),
        ("0a:02.0", 20),
    ];
    for (at, wanted) in wanted {
        assert_eq!(line(&booted, at), Ok(wanted), "{at}");
    }
}

#[test]
fn what_has_no_pin_or_no_wire_is_refused() {
    let mut machine = machine();
    let plain = || Endpoint::new(0x1234, 0x11e8).class(0xff, 0, 0);
    machine.add("00:07.0", plain());
    machine.add("00:08.0", plain().interrupt(5, 0xff));
    // Only what is behind the conventional bridge is wired.
    let only = IntxRoute {
        first: 30,
        last: 30,
        ..ROUTE
    };
    let booted = booted(machine, &[only]);
    let refused = |at: &str| line(&booted, at).unwrap_err().rule;
    assert_eq!(refused("00:07.0"), Rule::NoInterruptPin);
    assert_eq!(refused("00:08.0"), Rule::NoInterruptPin);
    assert_eq!(refused("00:03.0"), Rule::NoInterruptRoute);
    assert_eq!(refused("05:00.0"), Rule::NoInterruptRoute);
    assert_eq!(line(&booted, "07:05.0"), Ok(20));
    assert_eq!(line(&booted, "08:03.0"), Ok(23));
}
