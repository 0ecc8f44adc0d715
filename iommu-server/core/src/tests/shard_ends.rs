//! How things end: dead clients, units that do not let go, a machine without
//! units, a description that does not fit.

use ipc_proto::{ANY_IOVA, Access, Badge, Message, PagePreference, Rule, iommu};
use sim::vtd::{Ailment, Dma, Model, Reason};

use super::kernel::{Kernel, Object, forever};
use super::machine::{
    POOL, QUOTA, SLOTS, WINDOW_BITS, World, client_badge, device, rule, shard_badge,
};
use crate::{ClientLimits, Note, Physical, Setup, SetupError, Shard, Storage};

const EDU: u32 = 0x18;

#[test]
fn a_dead_clients_things_all_come_back() {
    let mut world = World::new(Model::QEMU);
    let before = (world.figures(), world.kernel.shape());
    world.attach(device(EDU), 0).unwrap();
    world.attach(device(0x20), 0).unwrap();
    world.attach(device(0x28), 1).unwrap();
    let mut addresses = std::vec::Vec::new();
    for slot in 0..20u16 {
        let pages = 1 + u64::from(slot) % 5;
        world
            .alloc(0, pages << 12, PagePreference::Small, slot * 10)
            .unwrap();
        let buffer = world.buffer_badge(0, slot * 10);
        world
            .frames(buffer, 0, pages as u16, slot * 10 + 1)
            .unwrap();
        if slot % 2 == 0 {
            addresses.push(world.map_any(buffer).unwrap());
        }
    }
    let buffer = world.buffer_badge(0, 0);
    world.import(1, buffer, 0).unwrap();
    let share = world.buffer_badge(1, 0);
    let at_share = world.map_any(share).unwrap();
    assert!(world.dma(device(0x28), at_share, Dma::Read).is_ok());
    // The supervisor should have its devices detached first; if not, they are.
    let bytes: u64 = (0..20).map(|slot| (1 + slot % 5) << 12).sum();
    assert_eq!(world.client_gone(0), Ok(bytes));
    for address in addresses {
        assert_eq!(
            world.dma(device(EDU), address, Dma::Read),
            Err(Reason::ContextNotPresent)
        );
    }
    assert!(world.dma(device(0x28), at_share, Dma::Read).is_err());
    world.detach(device(0x28)).unwrap();
    world.client_gone(1).unwrap();
    assert_eq!((world.figures(), world.kernel.shape()), before);
}

#[test]
fn memory_a_unit_did_not_let_go_of_is_not_used_again() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(EDU), 0).unwrap();
    world.alloc(0, 0x10_0000, PagePreference::Small, 0).unwrap();
    world.alloc(0, 0x1000, PagePreference::Small, 1).unwrap();
    let (stuck, unmapped) = (world.buffer_badge(0, 0), world.buffer_badge(0, 1));
    let iova = world.map_any(stuck).unwrap();
    let reached = world.dma(device(EDU), iova, Dma::Write).unwrap();
    world.unit.set_ailment(Ailment::QueueStuck);
    let timeout = Rule::InvalidationTimeout;
    assert_eq!(rule(world.unmap(stuck)), timeout);
    world.unit.set_ailment(Ailment::Healthy);
    assert_eq!(rule(world.unmap(stuck)), timeout);
    assert_eq!(rule(world.free(stuck)), timeout);
    assert_eq!(rule(world.detach(device(EDU))), timeout);
    assert_eq!(rule(world.attach(device(0x20), 1)), Rule::NoIommu);
    world.free(unmapped).unwrap();
    // The device still reaches it: that is why.
    assert_eq!(world.dma(device(EDU), iova, Dma::Write), Ok(reached));
    let _ = world.kernel.take_notes();
    assert_eq!(rule(world.client_gone(0)), timeout);
    assert_eq!(
        world.kernel.take_notes(),
        [Note::MemoryLost { bytes: 0x10_0000 }]
    );
    let figures = world.figures();
    assert_eq!(figures.pool_bytes - figures.pool_free, 0x10_0000);
    assert_eq!((figures.attached, figures.buffers), (1, 0));
    assert_eq!(figures.domains_used, 1);
    // Everything else is allocated to the last page, and none of it is what the device reaches.
    let mut pages = 0;
    for client in 1..4u16 {
        let mut slot = 0;
        while world
            .alloc(client, 0x4_0000, PagePreference::Small, slot)
            .is_ok()
        {
            let buffer = world.buffer_badge(client, slot);
            world.frames(buffer, 0, 64, slot + 1).unwrap();
            for frame in 0..64 {
                let Some(Object::Frame { base, .. }) =
                    world.kernel.cap_in_window(client, slot + 1 + frame)
                else {
                    panic!("no frame");
                };
                assert!(!(reached..reached + 0x10_0000).contains(&base));
                pages += 1;
            }
            slot += 100;
        }
    }
    assert!(pages > 1000, "{pages}");
}

#[test]
fn a_lost_share_keeps_the_owners_memory_out_too() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(0x20), 1).unwrap();
    world.alloc(0, 0x1000, PagePreference::Small, 0).unwrap();
    let owners = world.buffer_badge(0, 0);
    world.import(1, owners, 0).unwrap();
    let share = world.buffer_badge(1, 0);
    let iova = world.map_any(share).unwrap();
    assert!(world.dma(device(0x20), iova, Dma::Write).is_ok());
    world.unit.set_ailment(Ailment::QueueStuck);
    assert_eq!(rule(world.client_gone(1)), Rule::InvalidationTimeout);
    let free = world.figures().pool_free;
    world.free(owners).unwrap();
    assert_eq!(world.figures().pool_free, free);
    assert!(
        world
            .kernel
            .take_notes()
            .contains(&Note::MemoryLost { bytes: 0x1000 })
    );
}

#[test]
fn without_a_unit_addresses_are_physical_and_nothing_is_promised() {
    let kernel = Kernel::with_untypeds(&POOL);
    let limits = ClientLimits {
        quota: QUOTA,
        largest: u64::MAX,
        window_bits: WINDOW_BITS,
    };
    let setup = Setup {
        clients: &[limits],
        buses: &[(0, 0, 0xff)],
        slots: SLOTS,
        pool: &POOL,
        reserved: &[],
        aliases: &[],
        reserved_allowed: &[],
        fault_bound: crate::FAULT_BOUND,
    };
    let shard = Shard::new(forever(Storage::new()), kernel.clone(), Physical, &setup);
    let mut shard = shard.unwrap();
    let mut call = |badge: Badge, request: iommu::Request| {
        let send = Message::clone;
        shard
            .serve(badge.to_word(), &request.encode(), send)
            .unwrap()
    };
    let attach = iommu::Request::Attach {
        context: ipc_proto::ContextChoice::Shared,
        ats_queue: 0,
        device: device(EDU),
        client: ipc_proto::ClientId(0),
    };
    let reply = iommu::AttachReply::decode(&call(shard_badge(device(EDU)), attach)).unwrap();
    assert_eq!(reply.properties, ipc_proto::Properties::default());
    let alloc = iommu::Request::Alloc {
        bytes: 0x5000,
        pages: PagePreference::Small,
        slot: 0,
    };
    iommu::AllocReply::decode(&call(client_badge(0), alloc)).unwrap();
    let Some(Object::Endpoint { badge }) = kernel.cap_in_window(0, 0) else {
        panic!("no buffer");
    };
    let frames = iommu::Request::Frames {
        first: 0,
        count: 5,
        slot: 1,
    };
    iommu::FramesReply::decode(&call(badge, frames)).unwrap();
    let map = |iova| iommu::Request::Map {
        context: 0,
        iova,
        access: Access::ReadWrite,
    };
    let iova = iommu::MapReply::decode(&call(badge, map(ANY_IOVA)))
        .unwrap()
        .iova;
    for page in 0..5 {
        let Some(Object::Frame { base, .. }) = kernel.cap_in_window(0, 1 + page) else {
            panic!("no frame");
        };
        assert_eq!(base, iova + u64::from(page) * 0x1000);
    }
    let unmap = iommu::Request::Unmap {};
    iommu::UnmapReply::decode(&call(badge, unmap)).unwrap();
    let elsewhere = iommu::MapReply::decode(&call(badge, map(0x10_0000)));
    assert_eq!(rule(elsewhere), Rule::BadIova);
    iommu::MapReply::decode(&call(badge, map(iova))).unwrap();
    iommu::FreeReply::decode(&call(badge, iommu::Request::Free {})).unwrap();
    let detach = iommu::Request::Detach {
        device: device(EDU),
    };
    iommu::DetachReply::decode(&call(shard_badge(device(EDU)), detach)).unwrap();
}

#[test]
fn a_description_that_does_not_fit_stops_the_start() {
    let limits = ClientLimits {
        quota: QUOTA,
        largest: u64::MAX,
        window_bits: WINDOW_BITS,
    };
    let start = |setup: &Setup<'_>| {
        Shard::new(forever(Storage::new()), Kernel::default(), Physical, setup).err()
    };
    let good = Setup {
        clients: &[limits; 32],
        buses: &[(0, 0, 0xff)],
        slots: SLOTS,
        pool: &POOL,
        reserved: &[],
        aliases: &[],
        reserved_allowed: &[],
        fault_bound: crate::FAULT_BOUND,
    };
    assert_eq!(start(&good), None);
    let clients = &[limits; 33];
    assert_eq!(start(&Setup { clients, ..good }), Some(SetupError::TooMany));
    let buses = &[(0, 0, 0); 17];
    assert_eq!(start(&Setup { buses, ..good }), Some(SetupError::TooMany));
    let slots = system::info::Slots {
        first: 0,
        count: 70_000,
    };
    assert_eq!(start(&Setup { slots, ..good }), Some(SetupError::TooMany));
    let mut pool = POOL;
    pool[1].bits = 11;
    let pool = &pool;
    assert_eq!(start(&Setup { pool, ..good }), Some(SetupError::Piece(1)));
}
