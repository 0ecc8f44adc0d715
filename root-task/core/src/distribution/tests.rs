//! A plan with one capability or mapping too many: each is found.

use super::*;
use crate::plan::Grant;
use crate::plan::tests::{PCI0, two_shards};
use alloc::collections::BTreeSet;
use system::layout::slot;

/// The plan with one more capability in PD `pd`.
fn with(pd: u16, cap: Cap) -> Result<(), Violation> {
    let mut plan = two_shards();
    let pd = &mut plan.pds[usize::from(pd) - 1];
    pd.grants.push(Grant {
        slot: pd.first_free,
        cap,
    });
    pd.first_free += 1;
    check(&plan)
}

#[test]
fn the_plan_keeps_every_rule() {
    assert_eq!(check(&two_shards()), Ok(()));
}

#[test]
fn calls_form_no_cycle_and_nobody_reaches_upwards() {
    let plan = two_shards();
    let calls: BTreeSet<(u16, u16)> = plan
        .pds
        .iter()
        .flat_map(|pd| pd.grants.iter().map(move |grant| (pd, grant.cap)))
        .filter_map(|(pd, cap)| match cap {
            Cap::Call { of, .. } => Some((pd.number, of)),
            _ => None,
        })
        .collect();
    // Independent of layers: take away PDs that call nobody left, until none remains.
    let mut left: BTreeSet<u16> = calls.iter().flat_map(|(a, b)| [*a, *b]).collect();
    loop {
        let leaves: Vec<u16> = left
            .iter()
            .copied()
            .filter(|pd| {
                !calls
                    .iter()
                    .any(|(from, to)| from == pd && left.contains(to))
            })
            .collect();
        if leaves.is_empty() {
            break;
        }
        leaves.iter().for_each(|leaf| {
            left.remove(leaf);
        });
    }
    assert!(left.is_empty(), "a cycle through {left:?}");
}

#[test]
fn each_wrong_capability_is_found() {
    let plan = two_shards();
    let number = |is: fn(Kind) -> bool| plan.of(is).next().unwrap().number;
    let client = number(|kind| kind == Kind::Client(0));
    let other = number(|kind| kind == Kind::Client(1));
    let (pci, msi, iommu) = (
        PCI0,
        number(|k| matches!(k, Kind::Msi(_))),
        number(|k| matches!(k, Kind::Iommu(_))),
    );
    let call = |of, badge| Cap::Call { of, badge };
    let upwards = |caller, callee| Err(Violation::Upwards { caller, callee });
    assert_eq!(
        with(iommu, call(pci, Badge::plain(BadgeKind::Shard, 0))),
        upwards(iommu, pci)
    );
    assert_eq!(
        with(pci, call(pci + 1, Badge::plain(BadgeKind::Shard, 0))),
        upwards(pci, pci + 1)
    );
    assert_eq!(
        with(client, call(other, Badge::plain(BadgeKind::Client, 0))),
        upwards(client, other)
    );
    for badge in [
        Badge::plain(BadgeKind::Client, 1),
        Badge::plain(BadgeKind::Supervisor, 0),
        Badge::plain(BadgeKind::Shard, 0),
        Badge::new(BadgeKind::Client, 1, 0),
        Badge::plain(BadgeKind::Inspect, 0),
        Badge::plain(BadgeKind::Admin, 0),
    ] {
        let found = with(client, call(pci, badge));
        assert_eq!(
            found,
            Err(Violation::ForeignBadge {
                caller: client,
                callee: pci,
                badge: badge.to_word()
            })
        );
    }
    let fault = Badge::plain(BadgeKind::Fault, other);
    assert!(matches!(
        with(client, call(pd::ROOT, fault)),
        Err(Violation::ForeignBadge { .. })
    ));
    let forbidden = [
        (client, Cap::Window { of: other }),
        (client, Cap::Notification { of: other }),
        // Nobody is metered.
        (4, Cap::Notification { of: client }),
        (
            client,
            Cap::Signal {
                of: other,
                flags: 1,
            },
        ),
        (client, Cap::Vector(3)),
        (client, Cap::OwnEndpoint),
        (
            client,
            Cap::Ports {
                first: 0xcf8,
                last: 0xcff,
            },
        ),
        (
            client,
            Cap::Untyped {
                slot: 9,
                region: Region::new(0, 4096).unwrap(),
            },
        ),
        (client, Cap::Irq(0)),
        (pci, Cap::Vector(3)),
        (iommu, Cap::Line(0)),
        // A unit's own.
        (msi, Cap::Vector(107)),
        // It has it already.
        (msi, Cap::Vector(3)),
        (pci, Cap::IoSpace),
        (client, Cap::IoSpace),
        (
            msi,
            Cap::Untyped {
                slot: 9,
                region: Region::new(0, 4096).unwrap(),
            },
        ),
        (pci, Cap::Window { of: iommu }),
        (
            pci,
            Cap::Signal {
                of: pci + 1,
                flags: event::TROUBLE,
            },
        ),
        (
            iommu,
            Cap::Signal {
                of: pci,
                flags: event::INTERRUPT,
            },
        ),
        (
            iommu,
            Cap::Signal {
                of: msi,
                flags: event::TROUBLE,
            },
        ),
        (pci, Cap::OwnUntyped),
        (msi, Cap::Alarm),
        (client, Cap::Alarm),
        (
            pci,
            Cap::Ports {
                first: 0xcf8,
                last: 0xcff,
            },
        ),
        (
            pd::CONSOLE,
            Cap::Ports {
                first: 0x3f8,
                last: 0xcff,
            },
        ),
        (
            pd::TIMER,
            Cap::Ports {
                first: 0x3f8,
                last: 0x3ff,
            },
        ),
    ];
    for (pd, cap) in forbidden {
        assert!(
            matches!(with(pd, cap), Err(Violation::Forbidden { pd: found, .. }) if found == pd),
            "{cap:?} in PD {pd} was not found"
        );
    }
}

#[test]
fn privileges_end_where_the_description_does() {
    let wrong = |inspect, admin, of: u16, badge: Badge| {
        let mut plan = two_shards();
        let client = plan.client(0).unwrap().number;
        let pd = &mut plan.pds[usize::from(client) - 1];
        pd.privileges = Privileges { inspect, admin };
        pd.grants.push(Grant {
            slot: pd.first_free,
            cap: Cap::Call { of, badge },
        });
        pd.first_free += 1;
        check(&plan)
    };
    let (iommu, msi) = (3, 4);
    let (inspect, admin) = (
        Badge::plain(BadgeKind::Inspect, 0),
        Badge::plain(BadgeKind::Admin, 0),
    );
    for of in [PCI0, PCI0 + 1, iommu, msi] {
        assert_eq!(wrong(true, false, of, inspect), Ok(()));
    }
    assert_eq!(wrong(false, true, PCI0, admin), Ok(()));
    for (looks, leads, of, badge) in [
        (false, true, PCI0, inspect),
        (true, false, PCI0, admin),
        (true, true, iommu, admin),
        (true, true, msi, admin),
        (true, true, pd::TIMER, inspect),
        (true, true, pd::ROOT, inspect),
        (true, true, PCI0, Badge::plain(BadgeKind::Inspect, 1)),
        (true, true, PCI0, Badge::plain(BadgeKind::Admin, 1)),
    ] {
        let found = wrong(looks, leads, of, badge);
        assert!(
            matches!(found, Err(Violation::ForeignBadge { .. })),
            "{badge:?} of PD {of}: {found:?}"
        );
    }
}

#[test]
fn shared_memory_and_foreign_mappings_are_found() {
    let piece = two_shards().pds[usize::from(PCI0) - 1]
        .grants
        .iter()
        .find_map(|grant| match grant.cap {
            Cap::Untyped { slot, region } => Some(Cap::Untyped { slot, region }),
            _ => None,
        })
        .unwrap();
    assert!(matches!(
        with(PCI0 + 1, piece),
        Err(Violation::SharedMemory { first: PCI0, .. })
    ));
    let mapping = |pd: u16, change: &dyn Fn(&Plan) -> Foreign| {
        let mut plan = two_shards();
        let frames = change(&plan);
        plan.pds[usize::from(pd) - 1]
            .mappings
            .push(crate::plan::Mapping {
                vaddr: 0x5000_0000,
                bytes: 4096,
                frames,
            });
        check(&plan)
    };
    let ecam_of_0 = |plan: &Plan| plan.pd(PCI0).unwrap().mappings[1].frames;
    assert!(matches!(
        mapping(PCI0 + 1, &ecam_of_0),
        Err(Violation::SharedMemory { .. })
    ));
    let client = two_shards().client(0).unwrap().number;
    assert!(matches!(
        mapping(client, &ecam_of_0),
        Err(Violation::ForeignMapping { .. })
    ));
    assert!(matches!(
        mapping(client, &|_| Foreign::Ring(1)),
        Err(Violation::ForeignMapping { .. })
    ));
    assert!(matches!(
        mapping(PCI0, &|_| Foreign::IommuTables),
        Err(Violation::ForeignMapping { .. })
    ));
}

#[test]
fn a_slot_is_given_once() {
    let mut plan = two_shards();
    let pd = &mut plan.pds[0];
    pd.grants.push(Grant {
        slot: slot::EVENTS as u32,
        cap: Cap::OwnEvents,
    });
    assert_eq!(
        check(&plan),
        Err(Violation::Slot {
            pd: 1,
            slot: slot::EVENTS as u32
        })
    );
}
