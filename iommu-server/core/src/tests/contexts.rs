//! Contexts of a client: shared and private ones, requester ids besides a
//! device's own, and regions that firmware reserved.

use std::vec::Vec;

use hw::Sbdf;
use ipc_proto::{ANY_IOVA, Access, Badge, BadgeKind, ContextChoice, PagePreference, Rule, Switch};
use sim::vtd::{Ailment, Dma, Model};
use system::info::{AliasRange, Reserved, ReservedUse, Scope};
use system::model::DeviceMatch;

use super::machine::{World, device, rule};

const ONE: u32 = 0x18;
const OTHER: u32 = 0x20;
const THIRD: u32 = 0x28;

fn private(world: &mut World, bits: u32, client: u16) -> u16 {
    let reply = world
        .attach_as(device(bits), client, ContextChoice::Private, 0)
        .unwrap();
    assert_ne!(reply.context, 0);
    reply.context
}

fn buffer(world: &mut World, client: u16, slot: u16) -> Badge {
    world
        .alloc(client, 0x1000, PagePreference::Small, slot)
        .unwrap();
    world.buffer_badge(client, slot)
}

#[test]
fn a_private_context_is_reached_by_its_device_alone() {
    for model in [Model::QEMU, Model::QEMU.caching()] {
        let mut world = World::new(model);
        let clean = world.figures();
        world.attach(device(ONE), 1).unwrap();
        let first = private(&mut world, OTHER, 1);
        let second = private(&mut world, THIRD, 1);
        assert_ne!(first, second);
        let (shared, own) = (buffer(&mut world, 1, 0), buffer(&mut world, 1, 1));
        let at = world
            .map_in(shared, ANY_IOVA, Access::ReadWrite, 0)
            .unwrap();
        // The same address means another thing in another context.
        world.map_in(own, at, Access::ReadWrite, first).unwrap();
        let reached = |bits| world.dma(device(bits), at, Dma::Write);
        let (one, other) = (reached(ONE).unwrap(), reached(OTHER).unwrap());
        assert_ne!(one, other);
        assert!(reached(THIRD).is_err());
        world.unmap(own).unwrap();
        assert!(world.dma(device(OTHER), at, Dma::Write).is_err());
        assert_eq!(world.dma(device(ONE), at, Dma::Write), Ok(one));
        for bits in [ONE, OTHER, THIRD] {
            world.detach(device(bits)).unwrap();
        }
        assert_eq!(
            rule(world.map_in(own, at, Access::Read, first)),
            Rule::NoSuchContext
        );
        world.client_gone(1).unwrap();
        assert_eq!(world.figures(), clean);
    }
}

#[test]
fn a_context_number_is_good_for_its_owner_alone() {
    let mut world = World::new(Model::QEMU);
    let context = private(&mut world, ONE, 1);
    let mine = buffer(&mut world, 1, 0);
    let theirs = buffer(&mut world, 2, 0);
    for number in [context, context + 1, 32, 33, u16::MAX] {
        assert_eq!(
            rule(world.map_in(theirs, ANY_IOVA, Access::Read, number)),
            Rule::NoSuchContext
        );
    }
    assert_eq!(
        rule(world.map_in(mine, ANY_IOVA, Access::Read, context + 1)),
        Rule::NoSuchContext
    );
    assert!(world.map_in(mine, ANY_IOVA, Access::Read, context).is_ok());
}

#[test]
fn private_contexts_are_bounded_a_client_and_all_come_back() {
    let mut world = World::new(Model::QEMU);
    let clean = world.figures();
    let mut made = 0;
    // 32 over 4 clients; tables are the client's own share, however many contexts there are.
    let refusal = loop {
        let bits = ONE + made * 8;
        match world.attach_as(device(bits), 1, ContextChoice::Private, 0) {
            Ok(_) => made += 1,
            Err(refusal) => break refusal.rule,
        }
    };
    assert!((2..=8).contains(&made), "{made}");
    assert!(
        [Rule::DomainsExhausted, Rule::TablesExhausted].contains(&refusal),
        "{refusal:?}"
    );
    assert!(
        world
            .attach_as(device(0x500), 2, ContextChoice::Private, 0)
            .is_ok()
    );
    for number in 0..made {
        world.detach(device(ONE + number * 8)).unwrap();
    }
    world.detach(device(0x500)).unwrap();
    assert_eq!(world.figures(), clean);
}

#[test]
fn a_mapping_outlives_the_device_of_its_private_context() {
    let mut world = World::new(Model::QEMU);
    let context = private(&mut world, ONE, 1);
    let mine = buffer(&mut world, 1, 0);
    let at = world.map_in(mine, ANY_IOVA, Access::Read, context).unwrap();
    world.detach(device(ONE)).unwrap();
    // A new private context does not get the number that is still in use, nor what is mapped there.
    let next = private(&mut world, ONE, 1);
    assert_ne!(next, context);
    assert!(world.dma(device(ONE), at, Dma::Read).is_err());
    world.unmap(mine).unwrap();
    assert_eq!(
        rule(world.map_in(mine, at, Access::Read, context)),
        Rule::NoSuchContext
    );
}

#[test]
fn every_requester_id_of_a_device_comes_and_goes_with_it() {
    for model in [Model::QEMU, Model::QEMU.caching()] {
        let mut world = World::new(model);
        let ids = [device(0x208), device(0x200), device(0x20f)];
        for alias in &ids[1..] {
            world.alias(ids[0], *alias).unwrap();
            // Saying it again changes nothing.
            world.alias(ids[0], *alias).unwrap();
        }
        world.attach(ids[0], 1).unwrap();
        let mine = buffer(&mut world, 1, 0);
        let at = world.map_any(mine).unwrap();
        let physical = world.dma(ids[0], at, Dma::Read).unwrap();
        for id in ids {
            assert_eq!(world.dma(id, at, Dma::Read), Ok(physical));
        }
        assert_eq!(
            rule(world.alias(ids[0], device(0x210))),
            Rule::AlreadyAttached
        );
        world.detach(ids[0]).unwrap();
        for id in ids {
            assert!(world.dma(id, at, Dma::Read).is_err(), "{id}");
        }
        // They are known still; taking all away is naming the device itself.
        world.attach(ids[0], 1).unwrap();
        assert_eq!(world.dma(ids[2], at, Dma::Read), Ok(physical));
        world.detach(ids[0]).unwrap();
        world.alias(ids[0], ids[0]).unwrap();
        world.attach(ids[0], 1).unwrap();
        assert!(world.dma(ids[2], at, Dma::Read).is_err());
        assert_eq!(world.dma(ids[0], at, Dma::Read), Ok(physical));
    }
}

#[test]
fn devices_behind_one_bridge_share_its_id_until_the_last_is_gone() {
    let mut world = World::new(Model::QEMU);
    let (bridge, one, other) = (device(0x200), device(0x208), device(0x210));
    world.alias(one, bridge).unwrap();
    world.alias(other, bridge).unwrap();
    world.attach(one, 1).unwrap();
    // Another client, or another context, would share the bridge's id.
    assert_eq!(rule(world.attach(other, 2)), Rule::AlreadyAttached);
    assert!(world.dma(other, 0x10_0000, Dma::Read).is_err());
    let refused = world.attach_as(other, 1, ContextChoice::Private, 0);
    assert_eq!(rule(refused), Rule::AlreadyAttached);
    world.attach(other, 1).unwrap();
    let mine = buffer(&mut world, 1, 0);
    let at = world.map_any(mine).unwrap();
    world.detach(one).unwrap();
    assert!(world.dma(one, at, Dma::Read).is_err());
    assert!(world.dma(bridge, at, Dma::Read).is_ok());
    world.detach(other).unwrap();
    assert!(world.dma(bridge, at, Dma::Read).is_err());
    world.attach(other, 2).unwrap();
}

#[test]
fn aliases_are_bounded_and_checked() {
    let mut world = World::new(Model::QEMU);
    let alias = |number: u32| device(0x300 + number);
    for number in 0..crate::MAX_ALIASES as u32 {
        world.alias(device(ONE), alias(number)).unwrap();
    }
    assert_eq!(
        rule(world.alias(device(ONE), alias(99))),
        Rule::TooManyAssignments
    );
    // One of another shard's buses is not this caller's to give away.
    assert_eq!(
        rule(world.alias(device(OTHER), device(0x8000))),
        Rule::OutsideShard
    );
    assert_eq!(
        rule(world.alias(device(OTHER), device(0x1_0020))),
        Rule::OutsideShard
    );
}

#[test]
fn an_alias_that_cannot_be_attached_undoes_the_rest() {
    let mut world = World::new(Model::QEMU);
    let held = device(0x300);
    world.attach(held, 2).unwrap();
    let clean = world.figures();
    world.alias(device(ONE), device(0x308)).unwrap();
    world.alias(device(ONE), held).unwrap();
    assert_eq!(rule(world.attach(device(ONE), 1)), Rule::AlreadyAttached);
    assert_eq!(world.figures(), clean);
    let mine = buffer(&mut world, 1, 0);
    let at = world.map_any(mine).unwrap();
    for id in [device(ONE), device(0x308), held] {
        assert!(world.dma(id, at, Dma::Read).is_err());
    }
}

fn region(base: u64, last: u64, scopes: &[Scope]) -> Reserved {
    Reserved {
        segment: 0,
        base,
        last,
        used: ReservedUse::ReadWrite,
        scopes: scopes.iter().copied().collect(),
    }
}

const BASE: u64 = 0x7f80_0000;
const LAST: u64 = 0x7f80_3fff;

fn reserving(allowed: &[u32]) -> World {
    let reserved = [
        region(
            BASE,
            LAST,
            &[Scope::Function(ONE as u16), Scope::Function(OTHER as u16)],
        ),
        region(0x8000_0000, 0x801f_ffff, &[Scope::Function(ONE as u16)]),
        region(0x9000_0000, 0x9000_0fff, &[Scope::Buses(3, 4)]),
    ];
    let allowed: Vec<_> = allowed
        .iter()
        .map(|bits| DeviceMatch::Address(*bits))
        .collect();
    World::with(Model::QEMU, |setup| {
        // Tests leak what a server has for ever.
        setup.reserved = super::kernel::forever(reserved);
        setup.reserved_allowed = super::kernel::forever(allowed);
    })
}

#[test]
fn a_device_with_a_reserved_region_is_refused_unless_the_description_allows_it() {
    let mut world = reserving(&[OTHER]);
    let clean = world.figures();
    let refusal = world.attach(device(ONE), 1).unwrap_err();
    assert_eq!((refusal.rule, refusal.about), (Rule::ReservedRegion, BASE));
    assert_eq!(rule(world.attach(device(0x400), 1)), Rule::ReservedRegion);
    assert_eq!(world.figures(), clean);
    assert!(world.dma(device(ONE), BASE, Dma::Read).is_err());
    world.attach(device(OTHER), 1).unwrap();
    for address in [BASE, LAST] {
        assert_eq!(world.dma(device(OTHER), address, Dma::Write), Ok(address));
    }
    assert!(world.dma(device(OTHER), LAST + 1, Dma::Write).is_err());
    // Its addresses are taken.
    let mine = buffer(&mut world, 1, 0);
    assert_eq!(rule(world.map(mine, BASE, Access::Read)), Rule::BadIova);
    world.free(mine).unwrap();
    world.detach(device(OTHER)).unwrap();
    assert!(world.dma(device(OTHER), BASE, Dma::Write).is_err());
    world.client_gone(1).unwrap();
    assert_eq!(world.figures(), clean);
}

#[test]
fn regions_are_told() {
    let mut world = reserving(&[ONE]);
    let first = world.reserved_at(device(ONE), 0).unwrap();
    assert_eq!((first.base, first.bytes), (BASE, 0x4000));
    assert_eq!(first.allowed, Switch::On);
    let second = world.reserved_at(device(ONE), 1).unwrap();
    assert_eq!((second.base, second.bytes), (0x8000_0000, 0x20_0000));
    assert_eq!(rule(world.reserved_at(device(ONE), 2)), Rule::EndOfList);
    let other = world.reserved_at(device(OTHER), 0).unwrap();
    assert_eq!((other.base, other.allowed), (BASE, Switch::Off));
    assert_eq!(rule(world.reserved_at(device(THIRD), 0)), Rule::EndOfList);
    assert_eq!(
        world.reserved_at(device(0x300), 0).unwrap().base,
        0x9000_0000
    );
    assert_eq!(rule(world.reserved_at(device(0x8000), 0)), Rule::EndOfList);
}

#[test]
fn devices_that_share_a_context_share_a_region() {
    let mut world = reserving(&[ONE, OTHER]);
    let clean = world.figures();
    world.attach(device(ONE), 1).unwrap();
    world.attach(device(OTHER), 1).unwrap();
    world.detach(device(ONE)).unwrap();
    assert_eq!(world.dma(device(OTHER), BASE, Dma::Write), Ok(BASE));
    assert!(world.dma(device(OTHER), 0x8000_0000, Dma::Write).is_err());
    world.detach(device(OTHER)).unwrap();
    assert_eq!(world.figures(), clean);
    // In a private context it is the device's alone.
    private(&mut world, ONE, 1);
    world.attach(device(THIRD), 1).unwrap();
    assert_eq!(world.dma(device(ONE), BASE, Dma::Write), Ok(BASE));
    assert!(world.dma(device(THIRD), BASE, Dma::Write).is_err());
}

#[test]
fn a_region_whose_addresses_are_taken_is_refused_whole() {
    let mut world = reserving(&[ONE]);
    world.attach(device(THIRD), 1).unwrap();
    let mine = buffer(&mut world, 1, 0);
    world.map(mine, 0x8010_0000, Access::Read).unwrap();
    let before = world.figures();
    let refusal = world.attach(device(ONE), 1).unwrap_err();
    assert_eq!(
        (refusal.rule, refusal.about),
        (Rule::ReservedRegion, 0x8000_0000)
    );
    // The first region, which fitted, was taken out again (its table stays until it is needed).
    let after = world.figures();
    assert_eq!(after.attached, before.attached);
    assert!(world.dma(device(THIRD), BASE, Dma::Read).is_err());
    let elsewhere = buffer(&mut world, 1, 1);
    world.map(elsewhere, BASE, Access::Read).unwrap();
}

#[test]
fn who_may_look_may_not_change() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(ONE), 1).unwrap();
    let look = Badge::plain(BadgeKind::Inspect, 2);
    let ask = |world: &mut World, request: ipc_proto::iommu::Request| {
        world.send(look, &request.encode()).label
    };
    assert_eq!(ask(&mut world, ipc_proto::iommu::Request::Figures {}), 0);
    let at = ipc_proto::iommu::Request::AttachedAt { index: 0 };
    assert_eq!(ask(&mut world, at), 0);
    for request in [
        ipc_proto::iommu::Request::Detach {
            device: device(ONE),
        },
        ipc_proto::iommu::Request::Unremap {
            device: device(ONE),
        },
        ipc_proto::iommu::Request::ClientGone {
            client: ipc_proto::ClientId(1),
        },
        ipc_proto::iommu::Request::TroubleNext {},
        ipc_proto::iommu::Request::Hello { version: 1 },
    ] {
        let label = ask(&mut world, request);
        assert_eq!(label, Rule::WrongCapability as u64, "{request:?}");
    }
}

#[test]
fn a_unit_that_fails_on_an_alias_leaves_the_device_in_doubt() {
    let mut world = World::new(Model::QEMU.caching());
    let ids = [device(0x208), device(0x200)];
    world.alias(ids[0], ids[1]).unwrap();
    world.unit.set_ailment(Ailment::QueueStuck);
    assert_eq!(rule(world.attach(ids[0], 1)), Rule::InvalidationTimeout);
    world.unit.set_ailment(Ailment::Healthy);
    assert_eq!(world.figures().attached, 1);
    assert_eq!(rule(world.detach(ids[0])), Rule::InvalidationTimeout);
    assert_eq!(rule(world.attach(ids[0], 1)), Rule::NoIommu);
    let elsewhere: Sbdf = ids[1];
    assert!(world.dma(elsewhere, 0, Dma::Read).is_err());
}

#[test]
fn a_region_is_mapped_with_the_rights_that_firmware_says() {
    let mut only_read = region(BASE, LAST, &[Scope::Function(ONE as u16)]);
    only_read.used = ReservedUse::Read;
    let mut world = World::with(Model::QEMU, |setup| {
        setup.reserved = super::kernel::forever([only_read]);
        setup.reserved_allowed = super::kernel::forever([DeviceMatch::Address(ONE)]);
    });
    world.attach(device(ONE), 1).unwrap();
    assert_eq!(world.dma(device(ONE), BASE, Dma::Read), Ok(BASE));
    assert!(world.dma(device(ONE), BASE, Dma::Write).is_err());
}

#[test]
fn what_firmware_calls_by_another_name_is_attached_under_both() {
    let id = ONE as u16;
    let alias = AliasRange {
        segment: 0,
        first: id & !7,
        last: id | 7,
        alias: 0x308,
    };
    let mut world = World::with(Model::QEMU, |setup| {
        setup.aliases = super::kernel::forever([alias]);
    });
    world.attach(device(ONE), 1).unwrap();
    let mine = buffer(&mut world, 1, 0);
    let at = world.map_any(mine).unwrap();
    for id in [ONE, 0x308] {
        assert!(world.dma(device(id), at, Dma::Write).is_ok(), "{id:#x}");
    }
    // Another of the range may not be somebody else's: it is the same requester.
    assert_eq!(
        rule(world.attach(device(ONE | 1), 2)),
        Rule::AlreadyAttached
    );
    world.detach(device(ONE)).unwrap();
    for id in [ONE, 0x308] {
        assert!(world.dma(device(id), at, Dma::Write).is_err(), "{id:#x}");
    }
}
