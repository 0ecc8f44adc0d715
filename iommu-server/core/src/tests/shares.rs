//! The shard's slots are all clients' together: none of them can take so many that another gets nothing.

use ipc_proto::{PagePreference, Rule};
use sim::vtd::Model;
use system::info::Slots;

use super::machine::{CLIENTS, World, rule};

/// So few that one client's quota of small pages would take them all.
const SLOTS: u32 = 640;
/// Of these a client can have so many in any case.
const SHARE: u32 = SLOTS / 2 / CLIENTS as u32;
const PAGES: u16 = 16;

fn scarce() -> World {
    World::with(Model::QEMU, |setup| {
        setup.slots = Slots {
            first: 100,
            count: SLOTS,
        };
    })
}

/// Buffers that can be shared, until one is refused; how many.
fn greed(world: &mut World, client: u16) -> u32 {
    for n in 0.. {
        let bytes = u64::from(PAGES) << 12;
        match world.alloc(client, bytes, PagePreference::Small, n) {
            Ok(_) => {}
            refused => {
                assert_eq!(rule(refused), Rule::SlotsExhausted);
                return n.into();
            }
        }
    }
    unreachable!()
}

#[test]
fn a_client_that_takes_all_slots_it_can_leaves_each_other_its_share() {
    let mut world = scarce();
    let before = (world.figures(), world.kernel.shape());
    let each = u32::from(PAGES) + 1;
    let first = greed(&mut world, 0);
    assert!(first * each > 2 * SHARE, "{first}: more than its share");
    for other in 1..CLIENTS {
        let had = greed(&mut world, other);
        assert!((had + 1) * each > SHARE, "client {other}: {had}");
    }
    // What is private takes one slot, and so does a share.
    let own = world.buffer_badge(3, 0);
    assert_eq!(
        rule(world.alloc(0, 0x1000, PagePreference::Small, 100)),
        Rule::SlotsExhausted
    );
    world.free(own).unwrap();
    world.alloc_private(3, 0x10_0000, 200).unwrap();
    let shared = world.buffer_badge(2, 0);
    world.import(3, shared, 100).unwrap();
    for client in 0..CLIENTS {
        world.client_gone(client).unwrap();
    }
    assert_eq!((world.figures(), world.kernel.shape()), before);
    assert_eq!(greed(&mut world, 3), first);
}
