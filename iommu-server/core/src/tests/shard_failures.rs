//! Each effect of each operation refused once: the operation says so, and
//! everything is as before.

use ipc_proto::{PagePreference, Refusal, Rule};
use sim::vtd::{Dma, Model};

use super::kernel::{Object, PROVOKED};
use super::machine::{World, device};

const EDU: u32 = 0x18;

type Operation = fn(&mut World) -> Result<(), Refusal>;

/// Runs an operation with its first, second... effect refused, until one run has nothing to refuse.
/// `settle` brings a world into the state in which it is compared.
fn refuse_each(prepare: fn(&mut World), operation: Operation) -> u64 {
    for nth in 0.. {
        let mut world = World::new(Model::QEMU);
        prepare(&mut world);
        let before = (world.figures(), visible(&world));
        world.kernel.refuse(Some(nth));
        let outcome = operation(&mut world);
        let refused = world.kernel.refused();
        world.kernel.refuse(None);
        if !refused {
            assert_eq!(outcome, Ok(()));
            return nth;
        }
        assert_eq!(
            outcome,
            Err(Refusal::new(Rule::KernelRefused, PROVOKED)),
            "effect {nth}"
        );
        let mut after = (world.figures(), visible(&world));
        // Blocks may stay split: their slots are given back when nothing is in use.
        after.0.slots_used = before.0.slots_used;
        assert_eq!(after, before, "effect {nth}");
        operation(&mut world).unwrap();
        // Nothing was lost on the way.
        for client in 0..4 {
            world.client_gone(client).unwrap();
        }
        let mut fresh = World::new(Model::QEMU);
        let figures = (world.figures(), world.kernel.shape());
        assert_eq!(figures, (fresh.figures(), fresh.kernel.shape()));
        assert!(nth < 1000);
    }
    0
}

/// What clients have: windows, and what their devices reach.
fn visible(world: &World) -> std::vec::Vec<std::string::String> {
    let caps = world.kernel.caps();
    let windows = caps
        .iter()
        .filter(|(place, _)| matches!(place, super::kernel::Place::Window(..)))
        .map(|(place, object)| std::format!("{place:?} {object:?}"));
    let reached = (0..64).map(|page| {
        let address = 0x10_0000 + page * 0x1000;
        std::format!("{:x?}", world.dma(device(EDU), address, Dma::Read))
    });
    windows.chain(reached).collect()
}

#[test]
fn allocation() {
    let refused = refuse_each(
        |world| world.attach(device(EDU), 0).unwrap(),
        |world| {
            // Three blocks, of which the largest takes two retypes.
            world
                .alloc(0, 0x20_3000, PagePreference::Small, 3)
                .map(drop)
        },
    );
    assert!(refused >= 10, "{refused}");
}

#[test]
fn private_allocation() {
    let refused = refuse_each(
        |world| world.attach(device(EDU), 0).unwrap(),
        |world| world.alloc_private(0, 0x20_3000, 3).map(drop),
    );
    assert!(refused >= 10, "{refused}");
}

#[test]
fn large_allocation() {
    refuse_each(
        |_| (),
        |world| world.alloc(0, 2 << 20, PagePreference::Large, 3).map(drop),
    );
}

#[test]
fn frames() {
    let refused = refuse_each(
        |world| {
            world.alloc(0, 0x6000, PagePreference::Small, 0).unwrap();
        },
        |world| {
            let buffer = world.buffer_badge(0, 0);
            world.frames(buffer, 0, 6, 1).map(drop)
        },
    );
    assert_eq!(refused, 6);
}

#[test]
fn import() {
    let refused = refuse_each(
        |world| {
            world.alloc(0, 0x6000, PagePreference::Small, 0).unwrap();
        },
        |world| {
            let buffer = world.buffer_badge(0, 0);
            world.import(1, buffer, 1).map(drop)
        },
    );
    assert_eq!(refused, 2);
}

/// A refusal while a buffer is taken apart cannot be undone: it is gone all the same, and what the
/// kernel did not give back is never used again.
#[test]
fn freeing() {
    for nth in 0.. {
        let mut world = World::new(Model::QEMU);
        world.attach(device(EDU), 0).unwrap();
        let before = world.figures();
        world.alloc(0, 0x3000, PagePreference::Small, 0).unwrap();
        let buffer = world.buffer_badge(0, 0);
        world.frames(buffer, 0, 3, 1).unwrap();
        let iova = world.map_any(buffer).unwrap();
        let reached = world.dma(device(EDU), iova, Dma::Read).unwrap();
        world.kernel.refuse(Some(nth));
        let outcome = world.free(buffer);
        if !world.kernel.refused() {
            assert_eq!((outcome, nth), (Ok(()), 7));
            return;
        }
        world.kernel.refuse(None);
        // Memory that cannot be cleared at once is cleared when it is made into something again.
        let refusal = Err(Refusal::new(Rule::KernelRefused, PROVOKED));
        let wanted = if [2, 5].contains(&nth) {
            Ok(())
        } else {
            refusal
        };
        assert_eq!(outcome, wanted, "effect {nth}");
        assert!(world.dma(device(EDU), iova, Dma::Read).is_err());
        assert_eq!(world.free(buffer).unwrap_err().rule, Rule::StaleCapability);
        let figures = world.figures();
        assert_eq!((figures.buffers, figures.attached), (0, 1));
        let lost = before.pool_free - figures.pool_free;
        // Effects: retire the capability; revoke, clear and revoke two blocks of 2 pages and 1.
        let losses = [0, 0x2000, 0, 0x2000, 0x1000, 0, 0x1000];
        assert_eq!(lost, losses[nth as usize], "effect {nth}");
        if lost == 0 {
            continue;
        }
        // The page that may still be mapped somewhere is not handed out again.
        let mut slot = 10;
        while world.alloc(1, 0x1000, PagePreference::Small, slot).is_ok() {
            let buffer = world.buffer_badge(1, slot);
            world.frames(buffer, 0, 1, slot + 1).unwrap();
            if let Some(Object::Frame { base, .. }) = world.kernel.cap_in_window(1, slot + 1) {
                assert!(![1, 3].contains(&nth) || base != reached);
            }
            slot += 2;
        }
    }
}
