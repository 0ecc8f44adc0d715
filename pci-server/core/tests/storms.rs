//! Metered messages that come too often, lines in trouble, and messages that are moved: what the device's registers say after it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::scene::*;
use common::*;
use hw::ConfigSpace;
use ipc_proto::{
    Badge, BadgeKind, Delivery, EventKind, Mechanism, Messages, Refusal, Rule, Switch, pci,
};
use system::info::ClientEntry;
use system::model::DeviceMatch;

/// The first client is metered.
fn booted_metered() -> Booted {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let metered = ClientEntry {
        interrupt_rate: 1_000,
        ..client("zero", &[any])
    };
    Booted::new(machine(), vec![metered, client("one", &[any])])
}

fn storm(booted: &Booted, device: &str, message: u16) {
    booted.world(|world| world.storms.push_back((at(device), message, 77)));
    booted.shard.borrow_mut().on_line_trouble();
}

fn told(booted: &Booted, client: u16) -> Option<(EventKind, u64)> {
    let event = booted.client(client).event_next().ok()?;
    Some((event.event, event.detail))
}

fn looked_at(booted: &Booted, device: &str, message: u16) -> pci::MessageAtReply {
    let inspector = booted.stub(Badge::plain(BadgeKind::Inspect, 0));
    inspector.message_at(at(device), message).unwrap()
}

fn one(message: u16) -> Messages {
    Messages {
        first: message,
        count: 1,
    }
}

#[test]
fn a_message_is_bound_where_the_client_is_metered() {
    let booted = booted_metered();
    let device = booted.assigned(0, at(NVME), 0);
    let reply = device.msi_enable(Mechanism::MsiX, 3, 5, 1).unwrap();
    assert_eq!(reply.delivery, Delivery::Metered);
    device.msi_bind(4, 0x1_0000).unwrap();
    let bound = Did::Bound(at(NVME), 4, 0x1_0000);
    booted.world(|world| assert!(world.did.contains(&bound)));
    let direct = booted.assigned(1, at(NET), 0);
    let reply = direct.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    assert_eq!(reply.delivery, Delivery::Direct);
}

#[test]
fn an_entry_that_storms_is_masked_alone_and_comes_again_when_it_is_unmasked() {
    let booted = booted_metered();
    let device = booted.assigned(0, at(NVME), 0);
    device.msi_enable(Mechanism::MsiX, 3, 5, 1).unwrap();
    let masked = || (3..8).map(|entry| looked_at(&booted, NVME, entry).masked == Switch::On);
    storm(&booted, NVME, 5);
    assert_eq!(
        masked().collect::<Vec<_>>(),
        [false, false, true, false, false]
    );
    assert_eq!(
        told(&booted, 0),
        Some((EventKind::MessageOff, 77 << 32 | 5))
    );
    assert_eq!(told(&booted, 0), None);
    // Also over a reset.
    booted.world(|world| world.memory.clear());
    device.reset().unwrap();
    assert_eq!(
        masked().collect::<Vec<_>>(),
        [false, false, true, false, false]
    );
    booted.world(|world| world.did.clear());
    device.msi_mask(5, 1, Switch::Off).unwrap();
    assert!(masked().all(|masked| !masked));
    // Passed on first, then sent.
    let first = booted.world(|world| world.did.first().cloned());
    assert_eq!(first, Some(Did::Resumed(at(NVME), one(5))));
    booted.world(|world| world.did.clear());
    device.msi_mask(5, 1, Switch::On).unwrap();
    device.msi_mask(5, 1, Switch::Off).unwrap();
    let asked = booted.world(|world| world.did.contains(&Did::Resumed(at(NVME), one(5))));
    assert!(!asked, "nothing was switched off");
}

#[test]
fn a_device_without_masks_sends_nothing_until_its_storm_is_let_come_again() {
    let booted = booted_metered();
    let edu = booted.assigned(0, at(EDU), 0);
    edu.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    assert_eq!(looked_at(&booted, EDU, 0).masked, Switch::Off);
    storm(&booted, EDU, 0);
    assert_eq!(looked_at(&booted, EDU, 0).masked, Switch::On);
    assert_eq!(told(&booted, 0), Some((EventKind::MessageOff, 77 << 32)));
    edu.msi_mask(0, 1, Switch::Off).unwrap();
    assert_eq!(looked_at(&booted, EDU, 0).masked, Switch::Off);
    // A report that comes when the messages are gone changes nothing.
    edu.msi_disable().unwrap();
    storm(&booted, EDU, 0);
    assert_eq!(told(&booted, 0), None);
    edu.release().unwrap();
    storm(&booted, EDU, 0);
    assert_eq!(told(&booted, 0), None);
}

#[test]
fn what_is_programmed_is_read_back() {
    let booted = booted_metered();
    let device = booted.assigned(1, at(NVME), 0);
    device.msi_enable(Mechanism::MsiX, 3, 2, 1).unwrap();
    let (first, second) = (looked_at(&booted, NVME, 3), looked_at(&booted, NVME, 4));
    assert_eq!((first.address, second.address), (0xfee0_0000, 0xfee0_0000));
    assert_eq!(second.data, first.data + 1);
    assert_eq!((first.masked, first.pending), (Switch::Off, Switch::Off));
    // Bit 4 of the pending bits, which are in the fourth page.
    booted.world(|world| world.memory.insert(0x80_0000_3000, 1 << 4));
    assert_eq!(looked_at(&booted, NVME, 4).pending, Switch::On);
    let inspector = booted.stub(Badge::plain(BadgeKind::Inspect, 0));
    for (device, message, refusal) in [
        (NVME, 5, Refusal::new(Rule::MessageNotEnabled, 5)),
        (NET, 0, Refusal::new(Rule::MessageNotEnabled, 0)),
    ] {
        let found = inspector.message_at(at(device), message).unwrap_err();
        assert_eq!(found, refusal);
    }
    // Moved, it is sent elsewhere.
    device.msi_affinity(4, 1, 2).unwrap();
    assert_eq!(looked_at(&booted, NVME, 3).address, 0xfee0_0000);
    assert_eq!(looked_at(&booted, NVME, 4).address, 0xfee0_2000);
    assert_eq!(looked_at(&booted, NVME, 4).masked, Switch::Off);
    for (first, count, core, rule) in [
        (2, 1, 1, Rule::MessageNotEnabled),
        (3, 0, 1, Rule::BadMessageCount),
        (4, 2, 1, Rule::MessageNotEnabled),
        (3, 2, 4, Rule::NoSuchCore),
    ] {
        let refusal = device.msi_affinity(first, count, core).unwrap_err();
        assert_eq!(refusal.rule, rule);
    }
    assert_eq!(looked_at(&booted, NVME, 3).address, 0xfee0_0000);
}

#[test]
fn vectors_that_are_kept_are_promised_and_an_assignment_without_any_is_refused() {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let kept = ClientEntry {
        vectors: 8,
        reserved_vectors: 4,
        ..client("zero", &[any])
    };
    let booted = Booted::new(machine(), vec![kept, client("one", &[any])]);
    let promised = |client: u16| booted.client(client).test_assign(at(NVME));
    assert_eq!(promised(0).unwrap().properties.vectors, 4);
    assert_eq!(promised(1).unwrap().properties.vectors, 0);
    for (left, expected) in [(2, Ok(2)), (0, Err(Refusal::new(Rule::VectorQuota, 8)))] {
        booted.world(|world| world.prospect.left = left);
        let found = promised(0).map(|reply| reply.properties.vectors);
        assert_eq!(found, expected);
    }
    booted.world(|world| {
        world.prospect.left = 5;
        world.prospect.kept = 0;
    });
    // Those for all will do.
    assert_eq!(promised(0).unwrap().properties.vectors, 0);
    booted.world(|world| world.prospect.common = 0);
    assert_eq!(promised(0).unwrap_err().rule, Rule::VectorsExhausted);
    let context = ipc_proto::ContextChoice::Shared;
    let before = booted.state();
    let refusal = booted.client(0).assign(at(NVME), 0, context).unwrap_err();
    assert_eq!(refusal.rule, Rule::VectorsExhausted);
    assert!(booted.state() == before, "nothing is left of it");
    booted.client(1).assign(at(NVME), 0, context).unwrap();
}

#[test]
fn a_pin_in_trouble_is_switched_off_and_its_holder_told() {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let route = system::model::IntxRoute {
        segment: 0,
        bus: 0,
        first: 0,
        last: 31,
        lines: [20, 21, 22, 23],
        rotated: true,
    };
    let mut info = pci_info();
    info.intx.push(route).unwrap();
    let machine = machine();
    machine.poke(at(EDU), 0x3d, &[1]);
    let clients = vec![client("zero", &[any]), client("one", &[any])];
    let booted = Booted::with(World::new(machine), info, clients);
    let device = booted.assigned(0, at(EDU), 0);
    // Pin A of device 3.
    assert_eq!(device.intx_enable().unwrap().line, 23);
    let disabled = || booted.world(|world| world.machine.read16(at(EDU), 4)) & 1 << 10 != 0;
    assert!(!disabled());
    booted.world(|world| world.line_trouble.push_back((at(EDU), 5_001)));
    booted.shard.borrow_mut().on_line_trouble();
    assert!(disabled());
    assert_eq!(told(&booted, 0), Some((EventKind::LineOff, 5_001)));
    booted.world(|world| assert!(world.lines.is_empty()));
    let refusal = device.intx_disable().unwrap_err();
    assert_eq!(refusal.rule, Rule::InterruptsDisabled);
    // It may be switched on again.
    device.intx_enable().unwrap();
    assert!(!disabled());
}
