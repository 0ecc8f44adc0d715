//! What a shard is killed in.

use ipc_proto::{ANY_IOVA, Access, Badge, ContextChoice, PagePreference, iommu};

use super::stage::{ALIASED, APART, BRIDGE, CACHING, FAR, HELD, NEW, PRIVATE};
use crate::tests::machine::{client_badge, device, shard_badge};
use crate::tests::mortal::MortalWorld;

/// An operation.
pub struct Operation {
    pub name: &'static str,
    pub parts: Parts,
    pub run: fn(&mut MortalWorld<'_>),
}

/// Whether it may be half done after a restart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// No: it is done or undone.
    One,
    /// Yes, it is several requests, or takes several things back: whoever asked for it asks again, and then it is done.
    Several,
}

const SMALL: PagePreference = PagePreference::Small;

/// The buffer in a window slot, if it is there.
fn buffer(world: &MortalWorld<'_>, client: u16, slot: u16) -> Option<Badge> {
    let there = world.kernel.cap_in_window(client, slot);
    there.map(|_| world.buffer_badge(client, slot))
}

fn map_at(world: &mut MortalWorld<'_>, (client, slot): (u16, u16), iova: u64) {
    if let Some(badge) = buffer(world, client, slot) {
        let _ = world.map(badge, iova, Access::ReadWrite);
    }
}

fn unmap(world: &mut MortalWorld<'_>, client: u16, slot: u16) {
    if let Some(badge) = buffer(world, client, slot) {
        let _ = world.unmap(badge);
    }
}

fn free(world: &mut MortalWorld<'_>, client: u16, slot: u16) {
    if let Some(badge) = buffer(world, client, slot) {
        let _ = world.free(badge);
    }
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "alloc",
        parts: Parts::One,
        run: |world| {
            let _ = world.alloc(0, 7 << 12, SMALL, 40);
        },
    },
    Operation {
        name: "alloc, large",
        parts: Parts::One,
        run: |world| {
            let _ = world.alloc(2, 2 << 20, PagePreference::Large, 40);
        },
    },
    Operation {
        name: "alloc, private",
        parts: Parts::One,
        run: |world| {
            let _ = world.alloc_private(0, 7 << 12, 40);
        },
    },
    Operation {
        name: "map of a private buffer",
        parts: Parts::One,
        run: |world| map_at(world, (2, 10), ANY_IOVA),
    },
    Operation {
        name: "free of a private buffer that is mapped",
        parts: Parts::One,
        run: |world| free(world, 0, 60),
    },
    Operation {
        name: "import",
        parts: Parts::One,
        run: |world| {
            let shared = world.buffer_badge(0, 0);
            let _ = world.import(1, shared, 40);
        },
    },
    Operation {
        name: "frames",
        parts: Parts::One,
        run: |world| {
            let badge = world.buffer_badge(0, 0);
            let _ = world.frames(badge, 0, 5, 100);
        },
    },
    Operation {
        name: "map",
        parts: Parts::One,
        run: |world| map_at(world, (0, 3), ANY_IOVA),
    },
    Operation {
        name: "map far away",
        parts: Parts::One,
        run: |world| map_at(world, (0, 3), FAR),
    },
    Operation {
        name: "map of a client without a context",
        parts: Parts::One,
        run: |world| map_at(world, (2, 0), ANY_IOVA),
    },
    Operation {
        name: "map of a large buffer over empty tables",
        parts: Parts::One,
        run: |world| map_at(world, (1, 5), 0x20_0000),
    },
    Operation {
        name: "map of a share",
        parts: Parts::One,
        run: |world| map_at(world, (1, 2), ANY_IOVA),
    },
    Operation {
        name: "unmap",
        parts: Parts::One,
        run: |world| unmap(world, 0, 0),
    },
    Operation {
        name: "unmap of a share",
        parts: Parts::One,
        run: |world| unmap(world, 1, 1),
    },
    Operation {
        name: "free",
        parts: Parts::One,
        run: |world| free(world, 0, 3),
    },
    Operation {
        name: "free of a mapped buffer that others share",
        parts: Parts::One,
        run: |world| free(world, 0, 0),
    },
    Operation {
        name: "free of a share",
        parts: Parts::One,
        run: |world| free(world, 1, 1),
    },
    Operation {
        name: "attach",
        parts: Parts::One,
        run: |world| {
            let _ = world.attach(device(NEW), 0);
        },
    },
    Operation {
        name: "attach of the first device, with a cache",
        parts: Parts::One,
        run: |world| {
            let _ = world.attach_as(device(NEW), 2, ContextChoice::Shared, 4);
        },
    },
    Operation {
        name: "attach of the first on its bus",
        parts: Parts::One,
        run: |world| {
            let _ = world.attach(device(APART), 0);
        },
    },
    Operation {
        name: "attach alone",
        parts: Parts::One,
        run: |world| {
            let _ = world.attach_as(device(NEW), 1, ContextChoice::Private, 0);
        },
    },
    Operation {
        name: "attach behind a bridge",
        parts: Parts::One,
        run: |world| {
            let _ = world.alias(device(ALIASED + 8), device(BRIDGE));
            let _ = world.attach(device(ALIASED + 8), 1);
        },
    },
    Operation {
        name: "detach",
        parts: Parts::One,
        run: |world| {
            let _ = world.detach(device(HELD));
        },
    },
    Operation {
        name: "detach of one with a cache",
        parts: Parts::One,
        run: |world| {
            let _ = world.detach(device(CACHING));
        },
    },
    Operation {
        name: "detach of one alone",
        parts: Parts::One,
        run: |world| {
            let _ = world.detach(device(PRIVATE));
        },
    },
    Operation {
        name: "detach of one behind a bridge, and its alias",
        parts: Parts::Several,
        run: |world| {
            let _ = world.detach(device(ALIASED));
            let _ = world.alias(device(ALIASED), device(ALIASED));
        },
    },
    Operation {
        name: "keep nothing any more",
        parts: Parts::One,
        run: |world| {
            let _ = world.cache(device(CACHING), 0);
        },
    },
    Operation {
        name: "keep translations",
        parts: Parts::One,
        run: |world| {
            let _ = world.cache(device(HELD), 4);
        },
    },
    Operation {
        name: "remap",
        parts: Parts::One,
        run: |world| {
            let _ = world.remap(device(CACHING), 0xfee0_0000, 0x61, 4);
        },
    },
    Operation {
        name: "unremap",
        parts: Parts::Several,
        run: |world| {
            let _ = world.unremap(device(HELD));
        },
    },
    Operation {
        name: "reroute",
        parts: Parts::Several,
        run: |world| {
            let request = iommu::Request::Reroute {
                device: device(HELD),
                // The first block.
                remapped: 0xfee0_0018,
                messages: ipc_proto::Messages { first: 0, count: 3 },
                address: 0xfee0_2000,
            };
            let _ = world.send(shard_badge(device(HELD)), &request.encode());
        },
    },
    Operation {
        name: "faults",
        parts: Parts::One,
        run: |world| {
            let _ = world.dma(device(HELD), 0x66_6000, sim::vtd::Dma::Write);
            world.shard.on_interrupt(0);
            let request = iommu::Request::FaultNext {};
            let _ = world.send(client_badge(0), &request.encode());
        },
    },
    Operation {
        name: "a client that is gone",
        parts: Parts::Several,
        run: |world| {
            let _ = world.client_gone(0);
        },
    },
    Operation {
        name: "another client that is gone",
        parts: Parts::Several,
        run: |world| {
            let _ = world.client_gone(1);
        },
    },
];
