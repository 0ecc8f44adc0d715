//! What a client may ask about a device that is granted to it, held or not: where it is (`Topology`), which
//! capabilities it has (`CapabilityAt`), which memory firmware reserved for it (`ReservedAt`). What is not granted is
//! not told, nor that it exists.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use common::devices::*;
use common::plug::{CARD, OTHER_PORT, PORT, card, machine, plain};
use common::scene::at;
use common::*;
use ipc_proto::iommu::ReservedAtReply;
use ipc_proto::pci::{self, CapabilityAtReply, TopologyReply};
use ipc_proto::{BadgeKind, CapabilityListKind, DeviceState, NO_PROXIMITY, Refusal, Rule, Switch};
use proptest::prelude::*;
use sim::config::{Machine, Misbehaviour};
use system::info::{ClientEntry, PciInfo};
use system::model::DeviceMatch;

/// A function of a root bus.
const EDU: &str = "0000:00:03.0";
/// One that only client 0 may have.
const FOREIGN: &str = "0000:00:04.0";

fn topology_machine() -> Machine {
    let mut machine = machine(&[(CARD, card())]);
    machine.add(EDU, edu(0xe000_0000));
    machine.add(FOREIGN, nvme(0x80_0000_0000));
    machine
}

/// Client 0 may have everything, client 1 the card and the function of the root bus.
fn clients() -> Vec<ClientEntry> {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let one = [CARD, EDU].map(|text| DeviceMatch::Address(at(text).to_bits()));
    vec![client("zero", &[any]), client("one", &one)]
}

fn booted_with(machine: Machine, change: impl FnOnce(&mut PciInfo)) -> Booted {
    let mut info = pci_info();
    change(&mut info);
    Booted::with(World::new(machine), info, clients())
}

fn booted() -> Booted {
    booted_with(topology_machine(), |_| {})
}

fn refusal(rule: Rule, device: &str) -> Refusal {
    Refusal::new(rule, at(device).to_bits().into())
}

/// A question about a device, whatever its answer.
type Question = fn(&pci::Stub<Caller<'_>>, hw::Sbdf) -> Result<(), Refusal>;
const QUESTIONS: [(&str, Question); 3] = [
    ("Topology", |stub, at| stub.topology(at).map(drop)),
    ("CapabilityAt", |stub, at| {
        stub.capability_at(at, 0).map(drop)
    }),
    ("ReservedAt", |stub, at| stub.reserved_at(at, 0).map(drop)),
];

#[test]
fn what_is_not_granted_is_not_told_nor_that_it_exists() {
    let booted = booted();
    let before = booted.state();
    for (name, ask) in QUESTIONS {
        // One that is there and not its own, one that is not, a port: all the same.
        for device in [FOREIGN, "0000:00:05.0", PORT] {
            let answer = ask(&booted.client(1), at(device));
            assert_eq!(
                answer,
                Err(refusal(Rule::NotGranted, device)),
                "{name} {device}"
            );
        }
        // Beyond the shard's buses, and in another segment.
        for device in ["0000:40:00.0", "0001:00:03.0", "ffff:ff:1f.7"] {
            let answer = ask(&booted.client(0), at(device));
            assert_eq!(
                answer,
                Err(refusal(Rule::OutsideShard, device)),
                "{name} {device}"
            );
        }
        // Nobody's badge, and a client's that has been taken down.
        let unknown = booted.stub(ipc_proto::Badge::plain(BadgeKind::Client, 2));
        let answer = ask(&unknown, at(EDU));
        assert_eq!(answer.unwrap_err().rule, Rule::UnknownBadge, "{name}");
    }
    assert_eq!(booted.state(), before);
    booted
        .supervisor()
        .client_gone(ipc_proto::ClientId(1))
        .unwrap();
    for (name, ask) in QUESTIONS {
        let answer = ask(&booted.client(1), at(EDU));
        assert_eq!(answer.unwrap_err().rule, Rule::ClientGone, "{name}");
    }
}

#[test]
fn a_device_behind_a_port_tells_its_slot_and_its_proximity() {
    let booted = booted_with(topology_machine(), |info| {
        // Bus 0, and the buses behind the port.
        info.proximity.push((0, 0, 7)).unwrap();
        info.proximity.push((1, 3, 2)).unwrap();
    });
    let ask = |device: &str| booted.client(1).topology(at(device)).unwrap();
    let card = TopologyReply {
        proximity: 2,
        port: at(PORT),
        slot: 5,
        hotplug: Switch::On,
    };
    assert_eq!(ask(CARD), card);
    let root = TopologyReply {
        proximity: 7,
        port: at(EDU),
        slot: 0,
        hotplug: Switch::Off,
    };
    assert_eq!(ask(EDU), root);
    // The ports themselves are on the root bus.
    assert_eq!(
        booted.client(0).topology(at(OTHER_PORT)).unwrap().port,
        at(OTHER_PORT)
    );
    // Where firmware names no domain none is told.
    let reply = self::booted().client(1).topology(at(EDU)).unwrap();
    assert_eq!(reply.proximity, NO_PROXIMITY);
}

#[test]
fn a_port_that_stops_answering_has_no_slot_and_does_no_harm() {
    let booted = booted();
    booted.world(|world| {
        let mut port = world.machine.space(at(PORT)).unwrap();
        port.misbehave(Misbehaviour::AllOnes);
        world.machine.insert(at(PORT), port);
    });
    let reply = booted.client(1).topology(at(CARD)).unwrap();
    assert_eq!(
        (reply.port, reply.slot, reply.hotplug),
        (at(PORT), 0, Switch::Off)
    );
}

/// All capabilities of a device, as a client reads them.
fn capabilities(booted: &Booted, client: u16, device: &str) -> Vec<CapabilityAtReply> {
    let all = (0u16..).map(|index| booted.client(client).capability_at(at(device), index));
    let mut list = Vec::new();
    for entry in all {
        match entry {
            Ok(entry) => list.push(entry),
            Err(refusal) => {
                assert_eq!(refusal.rule, Rule::EndOfList);
                return list;
            }
        }
        assert!(list.len() <= 1024, "a list without end");
    }
    list
}

fn standard(id: u16, offset: u16) -> CapabilityAtReply {
    CapabilityAtReply {
        list: CapabilityListKind::Standard,
        id,
        version: 0,
        offset,
    }
}

fn extended(id: u16, version: u8, offset: u16) -> CapabilityAtReply {
    CapabilityAtReply {
        list: CapabilityListKind::Extended,
        id,
        version,
        offset,
    }
}

#[test]
fn capabilities_are_listed_in_order_standard_ones_first() {
    let booted = booted();
    // MSI, Express; error reporting, access control.
    let expected = [
        standard(0x05, 0x40),
        standard(0x10, 0x50),
        extended(0x01, 2, 0x100),
        extended(0x0d, 1, 0x12c),
    ];
    assert_eq!(capabilities(&booted, 1, CARD), expected);
    assert_eq!(capabilities(&booted, 1, EDU), [standard(0x05, 0x40)]);
    // Held by another or not, they are the same.
    booted.assigned(0, at(CARD), 0);
    assert_eq!(capabilities(&booted, 1, CARD), expected);
    for index in [4, 5, 0x100, u16::MAX] {
        let past = booted.client(1).capability_at(at(CARD), index);
        assert_eq!(past.unwrap_err(), Rule::EndOfList.into(), "{index}");
    }
}

#[test]
fn a_list_that_has_become_a_ring_ends() {
    let booted = booted();
    booted.world(|world| {
        // Its only capability names itself as the next.
        world.machine.poke(at(EDU), 0x41, &[0x40]);
        // An extended list that goes back to its start.
        world.machine.poke(at(CARD), 0x12e, &[0x01, 0x10]);
    });
    assert_eq!(capabilities(&booted, 1, EDU), [standard(0x05, 0x40)]);
    let list = capabilities(&booted, 1, CARD);
    assert_eq!(list.len(), 4, "{list:?}");
}

#[test]
fn a_device_that_is_gone_or_being_reset_is_not_asked() {
    let booted = booted();
    let held = booted.assigned(1, at(CARD), 0);
    let badge = booted.badge_in(1, 0);
    // A reset is under way: the request is parked.
    assert_eq!(booted.send(badge, pci::Request::Reset {}), None);
    let answer = booted.client(1).capability_at(at(CARD), 0);
    assert_eq!(answer.unwrap_err(), refusal(Rule::DeviceBusy, CARD));
    booted.settle();
    assert_eq!(capabilities(&booted, 1, CARD).len(), 4);
    held.release().unwrap();
    // Gone: an assignment finds it out.
    booted.world(|world| world.machine.remove(at(EDU)));
    let assigned = booted
        .client(1)
        .assign(at(EDU), 1, ipc_proto::ContextChoice::Shared);
    assert_eq!(assigned.unwrap_err().rule, Rule::NoSuchDevice);
    assert_eq!(
        booted.client(1).query(at(EDU)).unwrap().state,
        DeviceState::Absent
    );
    let answer = booted.client(1).capability_at(at(EDU), 0);
    assert_eq!(answer.unwrap_err(), refusal(Rule::NoSuchDevice, EDU));
}

fn region(base: u64, allowed: Switch) -> ReservedAtReply {
    ReservedAtReply {
        base,
        bytes: 0x1000,
        allowed,
    }
}

#[test]
fn reserved_regions_are_those_that_the_iommu_server_knows() {
    let booted = booted();
    let regions = [
        region(0x7000_0000, Switch::On),
        region(0x7f00_0000, Switch::Off),
    ];
    booted.world(|world| {
        world.reserved.insert(at(EDU), regions.to_vec());
    });
    let ask = |index| booted.client(1).reserved_at(at(EDU), index);
    for (index, expected) in (0..).zip(regions) {
        let reply = ask(index).unwrap();
        assert_eq!(
            (reply.base, reply.bytes, reply.allowed),
            (expected.base, expected.bytes, expected.allowed)
        );
    }
    for index in [2, 3, u16::MAX] {
        assert_eq!(ask(index).unwrap_err(), Rule::EndOfList.into(), "{index}");
    }
    // Another device has none.
    let other = booted.client(1).reserved_at(at(CARD), 0);
    assert_eq!(other.unwrap_err(), Rule::EndOfList.into());
    // What the server below says of itself is named as coming from below.
    booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls));
    assert_eq!(
        ask(0).unwrap_err(),
        Refusal::new(Rule::Downstream, Rule::KernelRefused as u64)
    );
}

#[test]
fn without_an_iommu_nothing_is_reserved() {
    let booted = booted_with(topology_machine(), |info| info.iommu_present = false);
    booted.world(|world| {
        let regions = vec![region(0x7000_0000, Switch::On)];
        world.reserved.insert(at(EDU), regions);
    });
    let answer = booted.client(1).reserved_at(at(EDU), 0);
    assert_eq!(answer.unwrap_err(), Rule::EndOfList.into());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    /// Any address and any number: an answer or a refusal, and nothing is changed.
    #[test]
    fn no_question_changes_anything(questions in prop::collection::vec((any::<u32>(), any::<u16>(), 0u8..3), 1..20)) {
        let mut machine = topology_machine();
        machine.add("0000:00:06.0", plain());
        let booted = booted_with(machine, |_| {});
        let before = booted.state();
        for (bits, index, which) in questions {
            // Half of them near what is there.
            let device = match bits % 2 {
                0 => hw::Sbdf::from_bits(bits),
                _ => hw::Sbdf::from_requester_id(0, (bits >> 16) as u16 & 0x3ff),
            };
            let client = booted.client(index % 2);
            let _ = match which {
                0 => client.topology(device).map(drop),
                1 => client.capability_at(device, index).map(drop),
                _ => client.reserved_at(device, index).map(drop),
            };
        }
        prop_assert_eq!(booted.state(), before);
    }
}
