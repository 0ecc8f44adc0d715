//! Clients that look or administer, and what servers tell each other by signals and interrupts.

use super::*;
use crate::distribution;
use crate::facts::Ports;
use ipc_proto::{Badge, BadgeKind};

/// Two shards; client 0 looks, client 1 administers, client 2 does both and has no device, client 3 neither.
fn plan() -> Plan {
    let rule = |n| DeviceMatch::Address(n);
    let mut looks = client("looks", &[rule(0x18)]);
    looks.inspect = true;
    let mut administers = client("administers", &[]);
    administers.admin = true;
    let mut both = client("both", &[]);
    (both.inspect, both.admin) = (true, true);
    (both.dma_quota, both.vectors) = (0, 0);
    let plain = client("plain", &[rule(0x18)]);
    with(
        &q35(hosts()),
        &system(&[looks, administers, both, plain]),
        |inputs| {
            let plan = Plan::make(inputs).unwrap();
            for (id, expected) in [
                (0, (true, false)),
                (1, (false, true)),
                (2, (true, true)),
                (3, (false, false)),
            ] {
                let info = plan.info(inputs, plan.client(id).unwrap()).unwrap();
                let Role::Client(told) = &info.role else {
                    panic!()
                };
                assert_eq!((told.inspect, told.admin), expected, "client {id}");
                let known = told.clients.len();
                assert_eq!(known, if told.inspect { 4 } else { 0 }, "client {id}");
                // The rules of both others mean devices of the first shard alone.
                let shards = if told.inspect || told.admin { 2 } else { 1 };
                assert_eq!(told.pci.len(), shards, "client {id}");
            }
            plan
        },
    )
}

#[test]
fn who_looks_and_who_administers_has_exactly_the_slots_of_the_layout() {
    let plan = plan();
    assert_eq!(distribution::check(&plan), Ok(()));
    let (iommu, msi) = (3, 4);
    let call = |of, kind, id| {
        Some(Cap::Call {
            of,
            badge: Badge::plain(kind, id),
        })
    };
    for id in 0..4u16 {
        let number = plan.client(id).unwrap().number;
        let at = |slot| cap(&plan, number, slot);
        let looks = [0, 2].contains(&id);
        let administers = [1, 2].contains(&id);
        for shard in [0, 1] {
            let of = PCI0 + shard;
            let (inspect, admin) = (BadgeKind::Inspect, BadgeKind::Admin);
            let seen = if looks { call(of, inspect, id) } else { None };
            assert_eq!(at(slot::INSPECT_PCI + u64::from(shard)), seen);
            let led = if administers {
                call(of, admin, id)
            } else {
                None
            };
            assert_eq!(at(slot::ADMIN_PCI + u64::from(shard)), led);
        }
        let looked = |of| {
            if looks {
                call(of, BadgeKind::Inspect, id)
            } else {
                None
            }
        };
        assert_eq!(at(slot::INSPECT_IOMMU), looked(iommu));
        assert_eq!(at(slot::INSPECT_MSI), looked(msi));
        for beyond in [
            slot::INSPECT_PCI + 2,
            slot::INSPECT_IOMMU + 1,
            slot::INSPECT_MSI + 1,
            slot::ADMIN_PCI + 2,
        ] {
            assert_eq!(at(beyond), None);
        }
    }
}

#[test]
fn without_devices_a_privileged_client_reaches_the_shards_of_devices_only() {
    let plan = plan();
    let both = plan.client(2).unwrap();
    for grant in &both.grants {
        if let Cap::Call { of, badge } = grant.cap {
            let expected = match of {
                0 => [BadgeKind::Pd, BadgeKind::Fault].contains(&badge.kind),
                1 | 2 => badge.kind == BadgeKind::Pd,
                3 | 4 => badge.kind == BadgeKind::Inspect,
                _ => {
                    [BadgeKind::Inspect, BadgeKind::Admin, BadgeKind::Client].contains(&badge.kind)
                }
            };
            assert!(expected, "{badge:?} of PD {of}");
        }
    }
}

#[test]
fn shards_are_told_of_trouble_and_of_their_ports() {
    let plan = two_shards();
    let Role::Iommu(iommu) = &info(&plan, 3).role else {
        panic!()
    };
    assert_eq!(iommu.shard_signals.len(), 2);
    for (shard, signal) in (0..).zip(&iommu.shard_signals) {
        let expected = Cap::Signal {
            of: PCI0 + shard,
            flags: event::TROUBLE,
        };
        assert_eq!(cap(&plan, 3, (*signal).into()), Some(expected));
    }
    let mut vectors = BTreeSet::new();
    for shard in [0u16, 1] {
        let Role::Pci(pci) = &info(&plan, PCI0 + shard).role else {
            panic!()
        };
        let ports = pci.port_interrupt.unwrap();
        let Some(Cap::Irq(index)) = cap(&plan, PCI0 + shard, ports.handler.into()) else {
            panic!()
        };
        let irq = plan.irqs[index];
        assert_eq!((irq.pd, irq.source), (PCI0 + shard, IrqSource::Message));
        assert_eq!((irq.flags, irq.binding), (event::INTERRUPT, Binding::Root));
        assert_eq!(ports.address, 0xfee0_0000);
        assert_eq!(ports.data, u32::from(irq.vector) + 0x30);
        assert!(vectors.insert(irq.vector));
    }
    assert!(
        vectors
            .iter()
            .all(|vector| u16::from(*vector) >= plan.vectors_of(1, 0).1)
    );
}

#[test]
fn a_shard_without_ports_takes_no_vector() {
    let mut hosts = hosts();
    hosts[1].ports = Ports::None;
    with(&q35(hosts), &system(&clients()), |inputs| {
        let plan = Plan::make(inputs).unwrap();
        let has = |pd| plan.irqs.iter().any(|irq| irq.pd == pd);
        assert!(has(PCI0) && !has(PCI0 + 1));
        let info = plan.info(inputs, plan.pd(PCI0 + 1).unwrap()).unwrap();
        let Role::Pci(pci) = &info.role else { panic!() };
        assert_eq!(pci.port_interrupt, None);
    });
}
