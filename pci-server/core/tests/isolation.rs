//! Isolation groups as clients meet them: who gets a device of a group, who does not, and why; and that
//! a test assignment says the same as an assignment.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::*;
use hw::{ConfigSpace, Sbdf};
use ipc_proto::iommu::ReservedAtReply;
use ipc_proto::{
    ClientId, ContextChoice, DeviceState, GroupTie, Refusal, Rule, Switch, WithheldCode,
};
use pci_core::Withheld;
use proptest::prelude::*;
use sim::config::{Bridge, Endpoint, ExpressShape, Machine, Misbehaviour, PortKind, Space};
use system::model::DeviceMatch;

const NVME: &str = "0000:01:00.0";
const LEFT: &str = "0000:03:01.0";
const RIGHT: &str = "0000:03:02.0";
const FIRST: &str = "0000:00:03.0";
const SECOND: &str = "0000:00:03.1";
const DISK: &str = "0000:00:1f.2";

/// ACS Control of a function whose first extended capability is access control.
const ACS_CONTROL: u16 = 0x106;

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn express(kind: PortKind) -> ExpressShape {
    ExpressShape {
        kind,
        flr: false,
        slot: None,
    }
}

/// All services but egress control, none of them on.
fn access_control(space: impl Into<Space>) -> Space {
    let mut space = space.into();
    space.allow(ACS_CONTROL, &[0x5f, 0x00]);
    space
}

fn services(endpoint: Endpoint) -> Endpoint {
    endpoint.extended(0x0d, 1, &[0x5f, 0x00, 0x00, 0x00])
}

fn port(first: u8, last: u8) -> Space {
    access_control(
        Bridge::new(0, first, last)
            .with(|port| services(port.express(express(PortKind::RootPort)))),
    )
}

fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.add("00:00.0", host_bridge());
    machine.add("00:01.0", port(1, 1));
    machine.add(NVME, nvme(0x80_0000_0000));
    // Behind a bridge to a conventional bus.
    machine.add("00:02.0", port(2, 3));
    let bridge = Bridge::new(2, 3, 3).with(|port| port.express(express(PortKind::ToPci)));
    machine.add("02:00.0", bridge);
    machine.add(LEFT, conventional(0xe010_0000));
    machine.add(RIGHT, conventional(0xe011_0000));
    // One device of two functions, without access control.
    machine.add(FIRST, edu(0xe020_0000).multi_function());
    machine.add(SECOND, edu(0xe030_0000).multi_function());
    // A chipset.
    machine.add("00:1f.0", isa_bridge().multi_function());
    machine.add(DISK, power_cycled(0xe040_0000).multi_function());
    machine
}

fn smbus() -> Endpoint {
    Endpoint::new(0x8086, 0x2930)
        .class(0x0c, 0x05, 0x00)
        .multi_function()
}

fn address(text: &str) -> DeviceMatch {
    DeviceMatch::Address(at(text).to_bits())
}

/// Client 0 may have everything, client 1 as well, client 2 one of each group.
fn booted_with(machine: Machine) -> Booted {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    Booted::new(
        machine,
        vec![
            client("zero", &[any]),
            client("one", &[any]),
            client("half", &[address(LEFT), address(FIRST), address(NVME)]),
        ],
    )
}

fn booted() -> Booted {
    booted_with(machine())
}

fn assign(booted: &Booted, client: u16, device: &str, slot: u16) -> Result<(), Refusal> {
    booted
        .client(client)
        .assign(at(device), slot, ContextChoice::Shared)
        .map(drop)
}

fn about(rule: Rule, device: &str) -> Refusal {
    Refusal::new(rule, at(device).to_bits().into())
}

#[test]
fn access_control_of_ports_is_switched_on_and_holds_after_a_reset() {
    let booted = booted();
    booted.world(|world| {
        for port in ["0000:00:01.0", "0000:00:02.0"] {
            // Validation, both redirections, forwarding; not translation blocking.
            assert_eq!(world.machine.read16(at(port), ACS_CONTROL), 0x1d);
        }
    });
    // Without an IOMMU there is nothing to send requests up to.
    let mut info = pci_info();
    info.iommu_present = false;
    let booted = Booted::with(World::new(machine()), info, vec![]);
    booted.world(|world| assert_eq!(world.machine.read16(at("00:01.0"), ACS_CONTROL), 0));
}

#[test]
fn functions_with_access_control_are_apart_and_get_it_back_after_a_reset() {
    let function = |address: u64| {
        let shape = ExpressShape {
            kind: PortKind::Endpoint,
            flr: true,
            slot: None,
        };
        let endpoint = Endpoint::new(0x1b36, 0x0010)
            .class(0x01, 0x08, 0x02)
            .bar(0, memory32(1 << 14, address as u32))
            .express(shape)
            .multi_function();
        access_control(services(endpoint))
    };
    let mut machine = Machine::new();
    machine.add("00:03.0", function(0xe000_0000));
    machine.add("00:03.1", function(0xe001_0000));
    let booted = booted_with(machine);
    let device = booted.assigned(0, at(FIRST), 0);
    booted.assigned(1, at(SECOND), 0);
    device.reset().unwrap();
    booted.world(|world| {
        assert_eq!(world.machine.resets(at(FIRST)), 1);
        assert_eq!(world.machine.read16(at(FIRST), ACS_CONTROL), 0x1d);
    });
}

#[test]
fn phantom_functions_are_switched_off() {
    let mut machine = Machine::new();
    let shape = ExpressShape {
        kind: PortKind::Endpoint,
        flr: true,
        slot: None,
    };
    // Device Control of the first capability, at 40h.
    let endpoint = Endpoint::new(0x1234, 1).class(2, 0, 0).express(shape);
    let device = machine.add("00:03.0", endpoint);
    machine.poke(device, 0x44, &[0x08]);
    machine.poke(device, 0x48, &[0x10, 0x02]);
    let booted = booted_with(machine);
    booted.world(|world| {
        assert_eq!(world.machine.read16(device, 0x48), 0x0010);
    });
}

#[test]
fn one_client_has_the_whole_group_and_then_another() {
    let booted = booted();
    assign(&booted, 0, LEFT, 0).unwrap();
    let before = booted.state();
    assert_eq!(
        assign(&booted, 1, RIGHT, 0).unwrap_err(),
        about(Rule::GroupHeld, LEFT)
    );
    assert_eq!(booted.state(), before);
    // The member that nobody has stays blocked, without decoding or mastering.
    booted.world(|world| {
        assert!(!world.attached.contains_key(&at(RIGHT)));
        assert_eq!(world.machine.read16(at(RIGHT), 4) & 0b111, 0);
    });
    assign(&booted, 0, RIGHT, 1).unwrap();
    booted.device(booted.badge_in(0, 0)).release().unwrap();
    // Still reserved through the other.
    assert_eq!(
        assign(&booted, 1, LEFT, 0).unwrap_err(),
        about(Rule::GroupHeld, RIGHT)
    );
    booted.device(booted.badge_in(0, 1)).release().unwrap();
    assign(&booted, 1, LEFT, 0).unwrap();
    // A client's death frees its groups as well.
    booted.supervisor().client_gone(ClientId(1)).unwrap();
    assert_eq!(
        assign(&booted, 0, RIGHT, 5).unwrap_err(),
        about(Rule::GroupHeld, LEFT)
    );
    booted.settle();
    assign(&booted, 0, RIGHT, 5).unwrap();
}

#[test]
fn a_grant_of_one_of_two_functions_behind_a_bridge_is_refused_with_the_other() {
    let booted = booted();
    let before = booted.state();
    assert_eq!(
        assign(&booted, 2, LEFT, 0).unwrap_err(),
        about(Rule::GroupNotGranted, RIGHT)
    );
    assert_eq!(
        booted.client(2).test_assign(at(LEFT)).unwrap_err(),
        about(Rule::GroupNotGranted, RIGHT)
    );
    assert_eq!(
        assign(&booted, 2, FIRST, 0).unwrap_err(),
        about(Rule::GroupNotGranted, SECOND)
    );
    assert_eq!(booted.state(), before);
    assign(&booted, 2, NVME, 0).unwrap();
}

#[test]
fn members_are_listed_and_what_is_not_granted_tells_its_address_only() {
    let booted = booted();
    let list = |client: u16, device: &str| -> Vec<(String, GroupTie, Switch)> {
        (0..)
            .map_while(|index| booted.client(client).group_at(at(device), index).ok())
            .map(|reply| (reply.member.to_string(), reply.tie, reply.granted))
            .collect()
    };
    assert_eq!(
        list(0, NVME),
        [(NVME.to_string(), GroupTie::Alone, Switch::On)]
    );
    let row = |device: &str, tie, granted| (device.to_string(), tie, granted);
    assert_eq!(
        list(0, LEFT),
        [
            row(LEFT, GroupTie::ConventionalBus, Switch::On),
            row(RIGHT, GroupTie::ConventionalBus, Switch::On),
            row("0000:02:00.0", GroupTie::Alone, Switch::Off),
        ]
    );
    assert_eq!(
        list(2, FIRST),
        [
            row(FIRST, GroupTie::MultiFunction, Switch::On),
            row(SECOND, GroupTie::Alone, Switch::Off),
        ]
    );
    assert_eq!(
        booted.client(2).group_at(at(RIGHT), 0).unwrap_err(),
        about(Rule::NotGranted, RIGHT)
    );
}

#[test]
fn bridges_do_not_bar_a_group_and_other_withheld_functions_do() {
    let booted = booted();
    assign(&booted, 0, DISK, 0).unwrap();
    let mut machine = machine();
    machine.add("00:1f.3", smbus());
    let booted = booted_with(machine);
    assert_eq!(
        assign(&booted, 0, DISK, 0).unwrap_err(),
        about(Rule::GroupNotGranted, "0000:00:1f.3")
    );
    let codes = [
        (Withheld::HostBridge, WithheldCode::HostBridge, false),
        (Withheld::Bridge, WithheldCode::Bridge, false),
        (Withheld::Platform, WithheldCode::Platform, false),
        (Withheld::Chipset, WithheldCode::Chipset, true),
        (Withheld::Iommu, WithheldCode::Iommu, true),
        (Withheld::Description, WithheldCode::Description, true),
        (Withheld::Console, WithheldCode::Console, true),
    ];
    for (why, code, bars) in codes {
        assert_eq!((why.code(), why.bars_group()), (code, bars));
    }
}

#[test]
fn without_an_iommu_nothing_is_apart_and_groups_mean_nothing() {
    let mut info = pci_info();
    info.iommu_present = false;
    info.unprotected = true;
    let clients = vec![
        client("zero", &[address(LEFT)]),
        client("one", &[address(RIGHT)]),
    ];
    let booted = Booted::with(World::new(machine()), info, clients);
    assign(&booted, 0, LEFT, 0).unwrap();
    assign(&booted, 1, RIGHT, 0).unwrap();
}

#[test]
fn the_iommu_is_told_of_every_id_before_it_attaches() {
    let booted = booted();
    assign(&booted, 0, NVME, 0).unwrap();
    booted.world(|world| assert!(world.aliases.is_empty()));
    assign(&booted, 0, RIGHT, 1).unwrap();
    booted.world(|world| {
        // What the bridge puts in the place of its devices' ids.
        let expected = [(at(RIGHT), at("0000:03:00.0"))];
        assert!(world.aliases.iter().copied().eq(expected));
    });
}

#[test]
fn an_alias_that_is_refused_is_an_assignment_refused() {
    let booted = booted();
    let before = booted.state();
    booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls));
    assert_eq!(
        assign(&booted, 0, RIGHT, 1).unwrap_err().rule,
        Rule::Downstream
    );
    booted.world(|world| world.kernel.fail_at = None);
    assert_eq!(booted.state(), before);
    assign(&booted, 0, RIGHT, 1).unwrap();
}

#[test]
fn reserved_memory_that_is_not_allowed_is_refused_by_both() {
    let booted = booted();
    let region = |allowed| ReservedAtReply {
        base: 0x7f00_0000,
        bytes: 0x10_0000,
        allowed,
    };
    booted.world(|world| {
        let regions = vec![region(Switch::On), region(Switch::Off)];
        world.reserved.insert(at(NVME), regions);
    });
    let refusal = about(Rule::ReservedRegion, NVME);
    assert_eq!(booted.client(0).test_assign(at(NVME)).unwrap_err(), refusal);
    assert_eq!(assign(&booted, 0, NVME, 0).unwrap_err(), refusal);
    booted.world(|world| {
        world.reserved.insert(at(NVME), vec![region(Switch::On)]);
    });
    booted.client(0).test_assign(at(NVME)).unwrap();
    assign(&booted, 0, NVME, 0).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Assign(u16, usize),
    Release(u16, usize),
    Gone(u16),
    Tick,
    /// The device stops answering.
    Vanish(usize),
    /// A reset of the device is asked for, which takes its time.
    Reset(u16, usize),
}

const DEVICES: [&str; 8] = [
    NVME,
    LEFT,
    RIGHT,
    FIRST,
    SECOND,
    DISK,
    "0000:00:1f.0",
    "0000:05:00.0",
];

fn step() -> impl Strategy<Value = Step> {
    let device = 0..DEVICES.len();
    prop_oneof![
        6 => (0u16..3, device.clone()).prop_map(|(client, device)| Step::Assign(client, device)),
        3 => (0u16..3, device.clone()).prop_map(|(client, device)| Step::Release(client, device)),
        1 => (0u16..3).prop_map(Step::Gone),
        3 => Just(Step::Tick),
        1 => device.clone().prop_map(Step::Vanish),
        2 => (0u16..3, device).prop_map(|(client, device)| Step::Reset(client, device)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 3))]
    #[test]
    fn a_test_assignment_says_what_an_assignment_does_and_changes_nothing(
        steps in prop::collection::vec((step(), 0u16..3, 0..DEVICES.len()), 0..25),
    ) {
        let booted = booted();
        // A window slot for each device, and one that stays free.
        let slot = |device: usize| device as u16;
        let holds = |client: u16, device: usize| {
            booted.world(|world| world.kernel.object(common::kernel::Place::Window(client, slot(device)))).is_some()
        };
        for (step, client, device) in steps {
            match step {
                Step::Assign(client, device) => drop(assign(&booted, client, DEVICES[device], slot(device))),
                Step::Release(client, device) if holds(client, device) => {
                    booted.send(booted.badge_in(client, slot(device)), ipc_proto::pci::Request::Release {});
                }
                Step::Reset(client, device) if holds(client, device) => {
                    booted.send(booted.badge_in(client, slot(device)), ipc_proto::pci::Request::Reset {});
                }
                Step::Release(..) | Step::Reset(..) => {}
                Step::Gone(client) => drop(booted.supervisor().client_gone(ClientId(client)).unwrap()),
                Step::Tick => drop(booted.tick().then_some(())),
                Step::Vanish(device) => booted.world(|world| {
                    if let Some(mut space) = world.machine.remove(at(DEVICES[device])) {
                        space.misbehave(Misbehaviour::AllOnes);
                        world.machine.insert(at(DEVICES[device]), space);
                    }
                }),
            }
            if holds(client, device) {
                continue;
            }
                let before = format!("{:?}", booted.state());
                let test = booted.client(client).test_assign(at(DEVICES[device]));
                prop_assert_eq!(format!("{:?}", booted.state()), before);
                let truth = booted.client(client).assign(at(DEVICES[device]), slot(device), ContextChoice::Shared);
                match (test, truth) {
                    (Ok(test), Ok(truth)) => {
                        prop_assert_eq!(test.properties, truth.properties);
                        // Back again, at once or in a while.
                        booted.device(booted.badge_in(client, slot(device))).release().ok();
                        let state = booted.client(client).query(at(DEVICES[device])).map(|reply| reply.state);
                        prop_assert_eq!(state, Ok(DeviceState::Quarantined));
                    }
                    (test, truth) => prop_assert_eq!(test.map(drop), truth.map(drop)),
                }
        }
    }
}
