//! What clients are told about devices, and what they miss when they do not read it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::scene::*;
use common::*;
use ipc_proto::{ClientId, ContextChoice, EventKind, Mechanism, Refusal, Rule};
use pci_core::shard::MAX_EVENTS;
use sim::config::Machine;
use system::model::DeviceMatch;

fn end_of_list() -> Refusal {
    Rule::EndOfList.into()
}

/// Client 0 holds the network card, and is refused vectors `times` times.
fn refused_vectors(booted: &Booted, times: u32) {
    let device = booted.assigned(0, at(NET), 0);
    for n in 0..times {
        booted.world(|world| world.vector_quota = 0);
        let refusal = device.msi_enable(Mechanism::Msi, 0, 2, 1).unwrap_err();
        assert_eq!(refusal.rule, Rule::VectorQuota, "{n}");
    }
}

#[test]
fn a_client_is_told_in_order_and_only_of_its_own_devices() {
    let booted = booted();
    assert_eq!(booted.client(0).event_next().unwrap_err(), end_of_list());
    booted.world(|world| world.vector_quota = 3);
    let device = booted.assigned(0, at(NET), 0);
    let refusal = device.msi_enable(Mechanism::Msi, 0, 4, 1).unwrap_err();
    assert_eq!(refusal, Refusal::new(Rule::VectorQuota, 3));
    booted.world(|world| {
        assert_eq!(world.did.last(), Some(&Did::ToldClient(ClientId(0))));
    });
    let event = booted.client(0).event_next().unwrap();
    assert_eq!(
        (event.event, event.device, event.detail, event.lost),
        (EventKind::Quota, at(NET), 3, 0)
    );
    assert_eq!(booted.client(0).event_next().unwrap_err(), end_of_list());
    assert_eq!(booted.client(1).event_next().unwrap_err(), end_of_list());
}

#[test]
fn a_device_that_does_not_come_back_is_reported_with_the_rule() {
    let mut machine = machine();
    machine.add(NVME, nvme(0x80_0000_0000).quiet_after_reset(1_000_000));
    let booted = booted_with(machine);
    let device = booted.assigned(1, at(NVME), 0);
    let refusal = device.reset().unwrap_err();
    assert_eq!(refusal.rule, Rule::ResetTimeout);
    let event = booted.client(1).event_next().unwrap();
    assert_eq!(
        (event.event, event.device, event.detail),
        (EventKind::Broken, at(NVME), Rule::ResetTimeout as u64)
    );
    assert_eq!(booted.client(0).event_next().unwrap_err(), end_of_list());
}

#[test]
fn what_does_not_fit_is_counted_where_it_is_missing() {
    let booted = booted();
    refused_vectors(&booted, MAX_EVENTS as u32 + 7);
    let mut read = Vec::new();
    while let Ok(event) = booted.client(0).event_next() {
        read.push(event.lost);
    }
    assert_eq!(read.len(), MAX_EVENTS);
    assert_eq!(read[0], 7);
    assert!(read[1..].iter().all(|lost| *lost == 0));
    // Told once: what comes next misses nothing.
    let device = booted.device(booted.badge_in(0, 0));
    device.msi_enable(Mechanism::Msi, 0, 2, 1).unwrap_err();
    assert_eq!(booted.client(0).event_next().unwrap().lost, 0);
}

#[test]
fn a_flood_for_one_client_takes_nothing_from_another() {
    let booted = booted();
    booted.world(|world| world.vector_quota = 1);
    let other = booted.assigned(1, at(NVME), 0);
    other.msi_enable(Mechanism::MsiX, 0, 2, 1).unwrap_err();
    refused_vectors(&booted, 100);
    let event = booted.client(1).event_next().unwrap();
    assert_eq!((event.device, event.lost), (at(NVME), 0));
}

#[test]
fn the_bound_on_assignments_is_reported() {
    let mut machine = Machine::new();
    let devices: Vec<_> = (0..=pci_core::MAX_ASSIGNMENTS)
        .map(|n| {
            let address = format!("{:02x}:{:02x}.0", n / 32, n % 32);
            machine.add(&address, power_cycled(0xe000_0000 + ((n as u32) << 14)))
        })
        .collect();
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let booted = Booted::new(machine, vec![client("zero", &[any])]);
    let (last, rest) = devices.split_last().unwrap();
    for (slot, at) in (0..).zip(rest) {
        booted.assigned(0, *at, slot);
    }
    let refusal = booted
        .client(0)
        .assign(*last, 100, ContextChoice::Shared)
        .unwrap_err();
    assert_eq!(refusal, Refusal::new(Rule::TooManyAssignments, 64));
    let event = booted.client(0).event_next().unwrap();
    assert_eq!(
        (event.event, event.device, event.detail),
        (EventKind::Quota, *last, 64)
    );
}

#[test]
fn a_client_that_is_gone_is_told_nothing() {
    let booted = booted();
    refused_vectors(&booted, 2);
    booted.supervisor().client_gone(ClientId(0)).unwrap();
    booted.settle();
    assert_eq!(
        booted.client(0).event_next().unwrap_err().rule,
        Rule::ClientGone
    );
}
