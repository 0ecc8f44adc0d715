//! Requests as clients and pci-server shards send them.

use ipc_proto::{
    ANY_IOVA, Access, Badge, BadgeKind, Message, PagePreference, Rule, VERSION, iommu,
};
use sim::vtd::{Dma, Model, Reason};

use super::kernel::Object;
use super::machine::{CLIENTS, QUOTA, WINDOW_BITS, World, client_badge, device, rule, shard_badge};
use crate::MAX_PAGES;

const EDU: u32 = 0x18;

#[test]
fn a_buffer_goes_from_allocation_to_dma_and_back_to_nothing() {
    let mut world = World::new(Model::QEMU);
    let before = (world.figures(), world.kernel.shape());
    world.attach(device(EDU), 0).unwrap();
    let shape = world.alloc(0, 0x3000, PagePreference::Small, 7).unwrap();
    assert_eq!((shape.page_bits, shape.pages), (12, 3));
    let buffer = world.buffer_badge(0, 7);
    assert_eq!(world.frames(buffer, 0, 3, 8), Ok(3));
    let iova = world.map_any(buffer).unwrap();
    assert_eq!(iova, 0x10_0000);
    for page in 0..3u64 {
        let Some(Object::Frame { base, bits: 12 }) = world.kernel.cap_in_window(0, 8 + page as u16)
        else {
            panic!("no frame");
        };
        let reached = world.dma(device(EDU), iova + page * 0x1000 + 5, Dma::Write);
        assert_eq!(reached, Ok(base + 5));
    }
    assert!(world.dma(device(EDU), iova + 0x3000, Dma::Write).is_err());
    let info = world.info(buffer).unwrap();
    assert_eq!((info.bytes, info.page_bits, info.iova), (0x3000, 12, iova));
    world.unmap(buffer).unwrap();
    assert_eq!(world.info(buffer).unwrap().iova, ANY_IOVA);
    assert!(world.dma(device(EDU), iova, Dma::Read).is_err());
    world.map_any(buffer).unwrap();
    world.free(buffer).unwrap();
    assert!(world.dma(device(EDU), iova, Dma::Read).is_err());
    for slot in 7..11 {
        assert_eq!(world.kernel.cap_in_window(0, slot), None);
    }
    assert_eq!(rule(world.map_any(buffer)), Rule::StaleCapability);
    world.detach(device(EDU)).unwrap();
    assert_eq!(world.client_gone(0), Ok(0));
    assert_eq!((world.figures(), world.kernel.shape()), before);
}

#[test]
fn large_buffers_have_large_frames_and_leaves() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(EDU), 0).unwrap();
    let shape = world.alloc(0, 2 << 20, PagePreference::Large, 0).unwrap();
    assert_eq!((shape.page_bits, shape.pages), (21, 1));
    let buffer = world.buffer_badge(0, 0);
    world.frames(buffer, 0, 1, 1).unwrap();
    let Some(Object::Frame { base, bits: 21 }) = world.kernel.cap_in_window(0, 1) else {
        panic!("no large frame");
    };
    let iova = world.map_any(buffer).unwrap();
    assert!(iova.is_multiple_of(2 << 20));
    let reached = world.dma(device(EDU), iova + 0x1f_fff0, Dma::Read);
    assert_eq!(reached, Ok(base + 0x1f_fff0));
    assert_eq!(
        world.figures().tables_used,
        2 + 1 - 1,
        "no table of small leaves"
    );
    // What is no multiple of 2 MiB has small pages all the same.
    let shape = world.alloc(1, 0x1000, PagePreference::Large, 0).unwrap();
    assert_eq!((shape.page_bits, shape.pages), (12, 1));
}

#[test]
fn odd_sizes_are_made_of_few_blocks() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(EDU), 0).unwrap();
    for pages in [3u64, 7, 255, 341, 511, 683] {
        world
            .alloc(0, pages << 12, PagePreference::Small, 0)
            .unwrap();
        let buffer = world.buffer_badge(0, 0);
        world.frames(buffer, 0, pages as u16, 1).unwrap();
        let iova = world.map_any(buffer).unwrap();
        for page in 0..pages {
            let Some(Object::Frame { base, .. }) = world.kernel.cap_in_window(0, 1 + page as u16)
            else {
                panic!("page {page} of {pages}");
            };
            let reached = world.dma(device(EDU), iova + (page << 12), Dma::Read);
            assert_eq!(reached, Ok(base), "page {page} of {pages}");
        }
        assert!(
            world
                .dma(device(EDU), iova + (pages << 12), Dma::Read)
                .is_err()
        );
        world.free(buffer).unwrap();
    }
}

#[test]
fn sizes_quota_and_pool_are_limits() {
    let mut world = World::new(Model::QEMU);
    let refused = |world: &mut World, bytes, preference| rule(world.alloc(0, bytes, preference, 0));
    for bytes in [
        0,
        1,
        0xfff,
        0x1001,
        u64::MAX,
        (u64::from(MAX_PAGES) + 1) << 12,
    ] {
        let found = refused(&mut world, bytes, PagePreference::Small);
        assert_eq!(found, Rule::BadBufferSize, "{bytes:#x}");
    }
    let too_much = refused(&mut world, QUOTA + 0x1000, PagePreference::Small);
    assert_eq!(too_much, Rule::DmaQuota);
    world.alloc(0, QUOTA, PagePreference::Small, 0).unwrap();
    let hello = world.hello(0, VERSION).unwrap();
    assert_eq!((hello.quota, hello.used), (QUOTA, QUOTA));
    assert_eq!(rule(world.hello(0, VERSION + 1)), Rule::VersionMismatch);
    let refusal = world
        .alloc(0, 0x1000, PagePreference::Small, 1)
        .unwrap_err();
    assert_eq!((refusal.rule, refusal.about), (Rule::DmaQuota, 0));
    // Others have theirs: 6 MiB and 64 KiB hold two quotas, not three.
    world.alloc(1, QUOTA, PagePreference::Small, 0).unwrap();
    let before = (world.figures(), world.kernel.shape());
    let exhausted = rule(world.alloc(2, QUOTA, PagePreference::Small, 0));
    assert_eq!(exhausted, Rule::DmaPoolExhausted);
    let after = (world.figures(), world.kernel.shape());
    assert_eq!(after.0.pool_free, before.0.pool_free);
    assert_eq!(after.0.buffers, before.0.buffers);
    let buffer = world.buffer_badge(0, 0);
    world.free(buffer).unwrap();
    world.alloc(2, QUOTA, PagePreference::Small, 0).unwrap();
}

#[test]
fn windows_are_bounded_and_never_overwritten() {
    let mut world = World::new(Model::QEMU);
    world.alloc(0, 0x4000, PagePreference::Small, 0).unwrap();
    let buffer = world.buffer_badge(0, 0);
    let end = 1u16 << WINDOW_BITS;
    let out = Rule::WindowSlotOutOfRange;
    assert_eq!(
        rule(world.alloc(0, 0x1000, PagePreference::Small, end)),
        out
    );
    assert_eq!(rule(world.frames(buffer, 0, 2, end - 1)), out);
    assert_eq!(rule(world.frames(buffer, 0, 2, u16::MAX)), out);
    assert_eq!(rule(world.import(1, buffer, end)), out);
    let range = Rule::PageOutOfRange;
    assert_eq!(rule(world.frames(buffer, 0, 5, 1)), range);
    assert_eq!(rule(world.frames(buffer, 4, 1, 1)), range);
    assert_eq!(rule(world.frames(buffer, u32::MAX, 2, 1)), range);
    let before = (world.figures(), world.kernel.shape());
    let occupied = world
        .alloc(0, 0x1000, PagePreference::Small, 0)
        .unwrap_err();
    assert_eq!(
        (occupied.rule, occupied.about),
        (Rule::WindowSlotOccupied, 0)
    );
    // The third of four slots is occupied: the two before are emptied again.
    world.frames(buffer, 0, 1, 12).unwrap();
    let occupied = world.frames(buffer, 0, 4, 10).unwrap_err();
    assert_eq!(
        (occupied.rule, occupied.about),
        (Rule::WindowSlotOccupied, 12)
    );
    world.kernel.drop_from_window(0, 12);
    let after = (world.figures(), world.kernel.shape());
    assert_eq!(after.0.pool_free, before.0.pool_free);
    assert_eq!(
        after.1.len(),
        before.1.len() + untyped_growth(&before.1, &after.1)
    );
    assert_eq!(world.frames(buffer, 0, 4, 10), Ok(4));
}

/// Untypeds that stay split.
fn untyped_growth(
    before: &std::collections::BTreeMap<super::kernel::Place, Object>,
    after: &std::collections::BTreeMap<super::kernel::Place, Object>,
) -> usize {
    let count = |caps: &std::collections::BTreeMap<_, Object>| {
        let untyped = |object: &&Object| matches!(object, Object::Untyped { .. });
        caps.values().filter(untyped).count()
    };
    count(after) - count(before)
}

#[test]
fn mapping_has_its_rules() {
    let mut world = World::new(Model::QEMU);
    world.alloc(0, 0x2000, PagePreference::Small, 0).unwrap();
    world.alloc(0, 0x2000, PagePreference::Small, 1).unwrap();
    let (one, other) = (world.buffer_badge(0, 0), world.buffer_badge(0, 1));
    assert_eq!(rule(world.unmap(one)), Rule::NotMapped);
    let any = Access::ReadWrite;
    for iova in [
        1,
        0xfff,
        0xfee0_0000,
        0xfedf_f000,
        1 << 39,
        u64::MAX - 0xfff,
    ] {
        assert_eq!(rule(world.map(one, iova, any)), Rule::BadIova, "{iova:#x}");
    }
    assert_eq!(world.figures().domains_used, 0, "undone");
    assert_eq!(world.map(one, 0, any), Ok(0));
    assert_eq!(rule(world.map(one, 0x10_0000, any)), Rule::AlreadyMapped);
    assert_eq!(rule(world.map(other, 0x1000, any)), Rule::BadIova);
    assert_eq!(world.map(other, 0x2000, any), Ok(0x2000));
    // A context without a device: made for the mapping, gone with it.
    assert_eq!(world.figures().domains_used, 1);
    world.attach(device(EDU), 0).unwrap();
    assert!(world.dma(device(EDU), 0, Dma::Read).is_ok());
    world.detach(device(EDU)).unwrap();
    world.unmap(one).unwrap();
    world.unmap(other).unwrap();
    let figures = world.figures();
    assert_eq!((figures.domains_used, figures.tables_used), (0, 0));
}

#[test]
fn a_shared_buffer_is_reached_by_both_and_ends_with_its_owner() {
    let mut world = World::new(Model::QEMU);
    let before = world.figures();
    world.attach(device(EDU), 0).unwrap();
    world.attach(device(0x20), 1).unwrap();
    world.alloc(0, 0x2000, PagePreference::Small, 0).unwrap();
    let owners = world.buffer_badge(0, 0);
    let shape = world.import(1, owners, 5).unwrap();
    assert_eq!((shape.page_bits, shape.pages), (12, 2));
    let share = world.buffer_badge(1, 5);
    assert_ne!(share, owners);
    // A share of a share is one of the buffer.
    world.import(2, share, 5).unwrap();
    let third = world.buffer_badge(2, 5);
    let at_owner = world.map_any(owners).unwrap();
    let at_share = world.map(share, 0x77_0000, Access::Read).unwrap();
    world.frames(share, 0, 2, 6).unwrap();
    let reached = world.dma(device(EDU), at_owner, Dma::Write);
    assert_eq!(world.dma(device(0x20), at_share, Dma::Read), reached);
    assert_eq!(
        world.dma(device(0x20), at_share, Dma::Write),
        Err(Reason::Write)
    );
    let Some(Object::Frame { base, .. }) = world.kernel.cap_in_window(1, 6) else {
        panic!("no frame");
    };
    assert_eq!(reached, Ok(base));
    // Giving a share back leaves the buffer.
    world.free(third).unwrap();
    assert_eq!(world.kernel.cap_in_window(2, 5), None);
    assert!(world.dma(device(EDU), at_owner, Dma::Write).is_ok());
    assert_eq!(world.hello(1, VERSION).unwrap().used, 0);
    // The owner's end is the shares' end.
    world.free(owners).unwrap();
    assert!(world.dma(device(0x20), at_share, Dma::Read).is_err());
    assert_eq!(world.kernel.cap_in_window(1, 5), None);
    assert_eq!(world.kernel.cap_in_window(1, 6), None);
    assert_eq!(rule(world.unmap(share)), Rule::StaleCapability);
    assert_eq!(rule(world.import(2, owners, 5)), Rule::StaleCapability);
    world.detach(device(EDU)).unwrap();
    world.detach(device(0x20)).unwrap();
    world.client_gone(0).unwrap();
    assert_eq!(world.figures(), before);
}

#[test]
fn what_is_imported_must_be_a_buffer_of_now() {
    let mut world = World::new(Model::QEMU);
    world.alloc(0, 0x1000, PagePreference::Small, 0).unwrap();
    let buffer = world.buffer_badge(0, 0);
    let foreign = Badge::plain(BadgeKind::Client, 0);
    assert_eq!(rule(world.import(1, foreign, 0)), Rule::WrongCapability);
    for badge in [
        Badge::new(BadgeKind::Buffer, buffer.generation + 1, buffer.index),
        Badge::new(BadgeKind::Buffer, buffer.generation, buffer.index + 1),
        Badge::new(BadgeKind::Buffer, 0, 0xfff),
    ] {
        assert_eq!(rule(world.import(1, badge, 0)), Rule::StaleCapability);
        assert_eq!(rule(world.info(badge)), Rule::StaleCapability);
    }
}

#[test]
fn a_place_used_again_does_not_answer_to_its_old_badge() {
    let mut world = World::new(Model::QEMU);
    let mut badges = std::vec::Vec::new();
    for _ in 0..50 {
        world.alloc(0, 0x1000, PagePreference::Small, 0).unwrap();
        let badge = world.buffer_badge(0, 0);
        assert!(!badges.contains(&badge));
        for old in &badges {
            assert_eq!(rule(world.info(*old)), Rule::StaleCapability);
        }
        world.free(badge).unwrap();
        badges.push(badge);
    }
}

#[test]
fn devices_belong_to_the_shard_of_their_bus() {
    let mut world = World::new(Model::QEMU);
    let attach = |world: &mut World, badge: Badge, device| {
        let request = iommu::Request::Attach {
            context: ipc_proto::ContextChoice::Shared,
            ats_queue: 0,
            device,
            client: ipc_proto::ClientId(0),
        };
        let reply = world.send(badge, &request.encode());
        iommu::AttachReply::decode(&reply)
    };
    let (here, there, elsewhere) = (device(EDU), device(0x8018), device(0x1_0018));
    let shard = |number| Badge::plain(BadgeKind::Shard, number);
    assert_eq!(
        rule(attach(&mut world, shard(0), there)),
        Rule::OutsideShard
    );
    assert_eq!(rule(attach(&mut world, shard(1), here)), Rule::OutsideShard);
    assert_eq!(
        rule(attach(&mut world, shard(0), elsewhere)),
        Rule::OutsideShard
    );
    assert_eq!(rule(attach(&mut world, shard(2), here)), Rule::UnknownBadge);
    let reply = attach(&mut world, shard(0), here).unwrap();
    assert!(reply.properties.dma_isolated && reply.properties.faults_reported);
    assert_eq!(
        rule(attach(&mut world, shard(0), here)),
        Rule::AlreadyAttached
    );
    let detach = iommu::Request::Detach { device: here }.encode();
    let refused = iommu::DetachReply::decode(&world.send(shard(1), &detach));
    assert_eq!(rule(refused), Rule::OutsideShard);
    assert_eq!(rule(world.detach(device(0x20))), Rule::NotAttached);
    let attached = world.attached_at(0).unwrap();
    assert_eq!(attached.device, here);
    assert_eq!((attached.client.0, attached.domain), (0, 1));
    assert_eq!(rule(world.attached_at(1)), Rule::EndOfList);
    world.detach(here).unwrap();
    let promise = iommu::Request::Promise { device: here }.encode();
    let promise = iommu::PromiseReply::decode(&world.send(shard(0), &promise)).unwrap();
    assert_eq!(promise.properties, reply.properties);
}

#[test]
fn clients_that_are_not_and_words_that_make_no_sense_are_refused() {
    let mut world = World::new(Model::QEMU);
    let before = world.kernel.caps();
    assert_eq!(
        rule(world.alloc(CLIENTS, 0x1000, PagePreference::Small, 0)),
        Rule::UnknownBadge
    );
    assert_eq!(rule(world.attach(device(EDU), CLIENTS)), Rule::UnknownBadge);
    assert_eq!(rule(world.client_gone(0xfff)), Rule::UnknownBadge);
    for label in 0..0x400 {
        for badge in [
            client_badge(0),
            shard_badge(device(0)),
            Badge::plain(BadgeKind::Supervisor, 0),
            Badge::new(BadgeKind::Buffer, 1, 0),
        ] {
            for words in [&[][..], &[u64::MAX], &[u64::MAX; 3], &[u64::MAX; 16]] {
                let message = Message::with_words(label, words).unwrap();
                let reply = world.send(badge, &message);
                let harmless = [50, 51, 53].contains(&(label & 0xff));
                assert!(reply.label != 0 || harmless, "{badge:?} {label:#x}");
            }
        }
    }
    assert_eq!(world.kernel.caps(), before);
}

/// Each operation about a device, asked by the shard of other buses.
#[test]
fn no_shard_speaks_for_the_devices_of_another() {
    use iommu::Request;
    let mut world = World::new(Model::QEMU.device_tlb());
    let here = device(EDU);
    world
        .attach_as(here, 0, ipc_proto::ContextChoice::Shared, 8)
        .unwrap();
    let messages = ipc_proto::Messages { first: 0, count: 1 };
    let requests = [
        Request::Cache {
            device: here,
            ats_queue: 0,
        },
        Request::Promise { device: here },
        Request::Remap {
            device: here,
            address: 0xfee0_0000,
            data: 0x40,
            count: 1,
        },
        Request::Reroute {
            device: here,
            remapped: 0,
            messages,
            address: 0xfee0_1000,
        },
        Request::Unremap { device: here },
        Request::Alias {
            device: here,
            alias: device(0x20),
        },
        Request::ReservedAt {
            device: here,
            index: 0,
        },
        Request::Detach { device: here },
    ];
    for request in requests {
        let reply = world.send(Badge::plain(BadgeKind::Shard, 1), &request.encode());
        assert_eq!(reply.label, Rule::OutsideShard as u64, "{request:?}");
    }
    // It hears of none of their troubles, either.
    world.dma(here, 0x1234_5000, Dma::Write).unwrap_err();
    world.shard.on_interrupt(0);
    assert_eq!(rule(world.trouble_next(1)), Rule::EndOfList);
    assert_eq!(world.trouble_next(0).unwrap().device, here);
}

/// However small they are.
#[test]
fn a_client_has_a_bound_of_buffers() {
    let mut world = World::new(Model::QEMU);
    let bound = crate::buffers::MAX_BUFFERS as u16 / CLIENTS;
    for slot in 0..bound {
        world.alloc(0, 0x1000, PagePreference::Small, slot).unwrap();
    }
    let more = world.alloc(0, 0x1000, PagePreference::Small, bound);
    assert_eq!(rule(more), Rule::TooManyBuffers);
    let first = world.buffer_badge(0, 0);
    // A share is one of the importer's.
    assert_eq!(rule(world.import(0, first, bound)), Rule::TooManyBuffers);
    world.import(1, first, 0).unwrap();
    world.free(first).unwrap();
    world.alloc(0, 0x1000, PagePreference::Small, 0).unwrap();
}
