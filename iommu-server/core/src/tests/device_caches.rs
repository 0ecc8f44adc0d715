//! Devices that keep translations (ATS): what is unmapped is gone from them
//! too, and one that does not answer loses everything.

use ipc_proto::{Badge, ContextChoice, PagePreference, Rule, Switch, Trouble};
use sim::vtd::{Ailment, Dma, Model, Reason};

use super::machine::{World, device, rule};
use crate::vtd::MAX_CACHING;

const ONE: u32 = 0x18;
const OTHER: u32 = 0x20;
const ID: u16 = ONE as u16;

fn attach(world: &mut World, bits: u32, client: u16) -> bool {
    let reply = world
        .attach_as(device(bits), client, ContextChoice::Shared, 8)
        .unwrap();
    reply.properties.translation_cached
}

fn mapped(world: &mut World, client: u16, slot: u16, bytes: u64) -> (Badge, u64) {
    world
        .alloc(client, bytes, PagePreference::Small, slot)
        .unwrap();
    let buffer = world.buffer_badge(client, slot);
    let at = world.map_any(buffer).unwrap();
    (buffer, at)
}

#[test]
fn unmapping_reaches_into_the_device() {
    for model in [
        Model::QEMU.device_tlb(),
        Model::QEMU.device_tlb().caching(),
        Model::QEMU.device_tlb().whole_domains(),
    ] {
        for pages in [1, 2, 3, 16, 64, 600] {
            let mut world = World::new(model);
            assert!(attach(&mut world, ONE, 1));
            let (kept, kept_at) = mapped(&mut world, 1, 1, 0x1000);
            let (buffer, at) = mapped(&mut world, 1, 0, pages << 12);
            for page in 0..pages {
                world.unit.ask(ID, at + (page << 12), Dma::Read).unwrap();
            }
            world.unit.ask(ID, kept_at, Dma::Read).unwrap();
            assert!(world.unit.translated(ID, at).unwrap().is_ok());
            world.unmap(buffer).unwrap();
            for page in 0..pages {
                let still = world.unit.translated(ID, at + (page << 12));
                assert_eq!(still, None, "page {page} of {pages}");
            }
            world.unmap(kept).unwrap();
            assert_eq!(world.unit.translated(ID, kept_at), None);
        }
    }
}

#[test]
fn detaching_empties_the_device() {
    let mut world = World::new(Model::QEMU.device_tlb());
    attach(&mut world, ONE, 1);
    let (_, at) = mapped(&mut world, 1, 0, 0x3000);
    for page in 0..3 {
        world.unit.ask(ID, at + (page << 12), Dma::Write).unwrap();
    }
    world.detach(device(ONE)).unwrap();
    for page in 0..3 {
        assert_eq!(world.unit.translated(ID, at + (page << 12)), None);
    }
}

#[test]
fn nothing_is_kept_unless_it_is_asked_for_and_the_unit_can() {
    let mut world = World::new(Model::QEMU);
    assert!(!attach(&mut world, ONE, 1));
    let (_, at) = mapped(&mut world, 1, 0, 0x1000);
    assert_eq!(world.unit.ask(ID, at, Dma::Read), Err(Reason::Translated));
    let mut world = World::new(Model::QEMU.device_tlb());
    world.attach(device(ONE), 1).unwrap();
    let (buffer, at) = mapped(&mut world, 1, 0, 0x1000);
    assert_eq!(world.unit.ask(ID, at, Dma::Read), Err(Reason::Translated));
    // And costs nothing then: two descriptors.
    let before = world.unit.descriptors();
    world.unmap(buffer).unwrap();
    assert_eq!(world.unit.descriptors() - before, 2);
    let refused = world.attach_as(device(OTHER), 1, ContextChoice::Shared, 33);
    assert_eq!(rule(refused), Rule::BadArgument);
}

#[test]
fn a_device_with_several_requester_ids_keeps_nothing() {
    let mut world = World::new(Model::QEMU.device_tlb());
    world.alias(device(ONE), device(0x1c)).unwrap();
    assert!(!attach(&mut world, ONE, 1));
}

#[test]
fn devices_that_keep_translations_are_bounded_a_domain() {
    let mut world = World::new(Model::QEMU.device_tlb());
    let kept = (0..MAX_CACHING as u32 + 2)
        .filter(|number| attach(&mut world, ONE + number * 8, 1))
        .count();
    assert_eq!(kept, MAX_CACHING);
    world.detach(device(ONE)).unwrap();
    assert!(attach(&mut world, ONE, 1));
}

#[test]
fn a_device_that_does_not_answer_is_blocked_and_told() {
    for model in [Model::QEMU.device_tlb(), Model::QEMU.device_tlb().caching()] {
        let mut world = World::new(model);
        attach(&mut world, ONE, 1);
        attach(&mut world, OTHER, 1);
        let (buffer, at) = mapped(&mut world, 1, 0, 0x1000);
        let (healthy, healthy_at) = mapped(&mut world, 1, 1, 0x1000);
        world.unit.ask(ID, at, Dma::Read).unwrap();
        world.unit.ask(ID, healthy_at, Dma::Read).unwrap();
        world.unit.ask(OTHER as u16, at, Dma::Read).unwrap();
        world.unit.set_ailment(Ailment::DeviceMute(ID));
        let free = world.figures().pool_free;
        assert_eq!(rule(world.unmap(buffer)), Rule::DeviceTlbTimeout);
        // It keeps the translation, but the unit lets it use none.
        assert_eq!(
            world.unit.translated(ID, at),
            Some(Err(Reason::ContextNotPresent))
        );
        assert!(world.dma(device(ONE), healthy_at, Dma::Read).is_err());
        assert_eq!(world.unit.translated(OTHER as u16, at), None);
        assert_eq!(world.kernel.take_shard_signals(), [0]);
        let trouble = world.trouble_next(0).unwrap();
        assert_eq!(trouble.device, device(ONE));
        assert_eq!(trouble.trouble, Trouble::DeviceTlbTimeout);
        assert_eq!(rule(world.trouble_next(0)), Rule::EndOfList);
        // The memory stays out of circulation; the unit and the other device work on.
        assert_eq!(rule(world.free(buffer)), Rule::InvalidationTimeout);
        assert!(world.dma(device(OTHER), healthy_at, Dma::Read).is_ok());
        world.unmap(healthy).unwrap();
        world.detach(device(OTHER)).unwrap();
        // It says nothing still, and need not: it was blocked and is not asked.
        world.detach(device(ONE)).unwrap();
        let outcome = world.client_gone(1);
        assert_eq!(rule(outcome), Rule::InvalidationTimeout);
        assert_eq!(world.figures().pool_free, free - 0x1000 + 0x2000);
    }
}

#[test]
fn a_device_that_does_not_answer_its_end_stays_listed_and_blocked() {
    let mut world = World::new(Model::QEMU.device_tlb());
    attach(&mut world, ONE, 1);
    let (buffer, at) = mapped(&mut world, 1, 0, 0x1000);
    world.unit.ask(ID, at, Dma::Read).unwrap();
    world.unit.set_ailment(Ailment::DeviceMute(ID));
    assert_eq!(rule(world.detach(device(ONE))), Rule::DeviceTlbTimeout);
    assert_eq!(
        world.unit.translated(ID, at),
        Some(Err(Reason::ContextNotPresent))
    );
    let trouble = world.trouble_next(0).unwrap().trouble;
    assert_eq!(trouble, Trouble::DeviceTlbTimeout);
    world.unit.set_ailment(Ailment::Healthy);
    assert_eq!(
        rule(world.attach(device(ONE), 2)),
        Rule::InvalidationTimeout
    );
    assert_eq!(world.figures().attached, 1);
    // Others go on.
    world.attach(device(OTHER), 1).unwrap();
    assert!(world.dma(device(OTHER), at, Dma::Read).is_ok());
    world.unmap(buffer).unwrap();
}

#[test]
fn a_slow_answer_is_tried_twice() {
    let mut world = World::new(Model::QEMU.device_tlb());
    attach(&mut world, ONE, 1);
    let (buffer, at) = mapped(&mut world, 1, 0, 0x1000);
    world.unit.ask(ID, at, Dma::Read).unwrap();
    world.unit.set_ailment(Ailment::DeviceSilent(1));
    world.unmap(buffer).unwrap();
    assert_eq!(world.unit.translated(ID, at), None);
    assert_eq!(rule(world.trouble_next(0)), Rule::EndOfList);
}

#[test]
fn a_storm_takes_what_the_device_keeps_out_of_use() {
    let mut world = World::new(Model::QEMU.device_tlb());
    attach(&mut world, ONE, 1);
    let (buffer, at) = mapped(&mut world, 1, 0, 0x1000);
    world.unit.ask(ID, at, Dma::Read).unwrap();
    for page in 0..100u64 {
        let _ = world.dma(device(ONE), 0x7000_0000 + (page << 12), Dma::Read);
        world.shard.on_interrupt(0);
    }
    assert_eq!(
        world.unit.translated(ID, at),
        Some(Err(Reason::ContextNotPresent))
    );
    // It is not asked any more, and cannot hold the memory up.
    world.unit.set_ailment(Ailment::DeviceMute(ID));
    world.unmap(buffer).unwrap();
    world.free(buffer).unwrap();
}

#[test]
fn a_device_in_its_reset_holds_nobody_up() {
    for model in [Model::QEMU.device_tlb(), Model::QEMU.device_tlb().caching()] {
        let mut world = World::new(model);
        attach(&mut world, ONE, 1);
        let (buffer, at) = mapped(&mut world, 1, 0, 0x1000);
        let (_, other) = mapped(&mut world, 1, 1, 0x1000);
        for address in [at, other] {
            world.unit.ask(ID, address, Dma::Read).unwrap();
        }
        assert_eq!(world.cache(device(ONE), 0), Ok(Switch::Off));
        assert_eq!(world.unit.translated(ID, at), None);
        assert_eq!(world.unit.ask(ID, at, Dma::Read), Err(Reason::Translated));
        // It reaches memory as any other does, and what it would have to answer is not waited for.
        assert!(world.dma(device(ONE), at, Dma::Read).is_ok());
        world.unit.set_ailment(Ailment::DeviceMute(ID));
        let before = world.unit.descriptors();
        world.unmap(buffer).unwrap();
        assert_eq!(world.unit.descriptors() - before, 2);
        assert!(world.dma(device(ONE), at, Dma::Read).is_err());
        assert_eq!(world.cache(device(ONE), 0), Ok(Switch::Off), "said again");
        // Back.
        world.unit.set_ailment(Ailment::Healthy);
        assert_eq!(world.cache(device(ONE), 8), Ok(Switch::On));
        world.unit.ask(ID, other, Dma::Read).unwrap();
        assert!(world.unit.translated(ID, other).unwrap().is_ok());
        assert_eq!(world.cache(device(ONE), 8), Ok(Switch::On), "said again");
        world.detach(device(ONE)).unwrap();
        assert_eq!(world.unit.translated(ID, other), None);
        assert_eq!(rule(world.cache(device(ONE), 8)), Rule::NotAttached);
    }
}

#[test]
fn a_device_that_does_not_answer_before_its_reset_is_blocked_and_told() {
    let mut world = World::new(Model::QEMU.device_tlb());
    attach(&mut world, ONE, 1);
    let (buffer, at) = mapped(&mut world, 1, 0, 0x1000);
    world.unit.ask(ID, at, Dma::Read).unwrap();
    world.unit.set_ailment(Ailment::DeviceMute(ID));
    assert_eq!(rule(world.cache(device(ONE), 0)), Rule::DeviceTlbTimeout);
    assert_eq!(
        world.unit.translated(ID, at),
        Some(Err(Reason::ContextNotPresent))
    );
    assert!(world.dma(device(ONE), at, Dma::Read).is_err());
    let trouble = world.trouble_next(0).unwrap().trouble;
    assert_eq!(trouble, Trouble::DeviceTlbTimeout);
    // It is let through again by nothing but an attachment.
    assert_eq!(world.cache(device(ONE), 8), Ok(Switch::Off));
    assert!(world.dma(device(ONE), at, Dma::Read).is_err());
    world.unmap(buffer).unwrap();
    world.detach(device(ONE)).unwrap();
    world.attach(device(ONE), 1).unwrap();
}

#[test]
fn where_nothing_can_be_kept_nothing_is() {
    let mut world = World::new(Model::QEMU);
    attach(&mut world, ONE, 1);
    assert_eq!(world.cache(device(ONE), 8), Ok(Switch::Off));
    assert_eq!(rule(world.cache(device(ONE), 33)), Rule::BadArgument);
    let mut world = World::new(Model::QEMU.device_tlb());
    world.alias(device(ONE), device(0x1c)).unwrap();
    attach(&mut world, ONE, 1);
    assert_eq!(world.cache(device(ONE), 8), Ok(Switch::Off));
}

#[test]
fn page_requests_are_refused() {
    let mut world = World::new(Model::QEMU.device_tlb());
    attach(&mut world, ONE, 1);
    assert!(!world.unit.page_request());
}
