//! Memory that its holder shares with nobody: its frames are made in the window, and the server has none.

use std::vec::Vec;

use ipc_proto::{PagePreference, Refusal, Rule};
use sim::vtd::{Dma, Model};

use super::kernel::{Object, Place};
use super::machine::{QUOTA, World, device};

const EDU: u32 = 0x18;

fn rule<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> Rule {
    outcome.unwrap_err().rule
}

/// Physical addresses of the frames in the window, in order.
fn frames(world: &World, client: u16, slots: std::ops::Range<u16>) -> Vec<u64> {
    slots
        .map(|slot| match world.kernel.cap_in_window(client, slot) {
            Some(Object::Frame { base, bits: 12 }) => base,
            other => panic!("slot {slot}: {other:?}"),
        })
        .collect()
}

fn frames_of_the_server(world: &World) -> usize {
    let of_server = |(place, object): &(Place, Object)| {
        matches!(place, Place::Own(_)) && matches!(object, Object::Frame { .. })
    };
    world.kernel.caps().into_iter().filter(of_server).count()
}

#[test]
fn its_frames_are_in_the_window_and_nowhere_else() {
    // Of one block and of several, of one retype and of several.
    for pages in [1u16, 3, 16, 255, 341, 600] {
        let mut world = World::new(Model::QEMU);
        world.attach(device(EDU), 0).unwrap();
        let before = (world.figures(), world.kernel.shape());
        let made = world.alloc_private(0, u64::from(pages) << 12, 7).unwrap();
        assert_eq!(made, u32::from(pages));
        assert_eq!(frames_of_the_server(&world), 0);
        let buffer = world.buffer_badge(0, 7);
        let iova = world.map_any(buffer).unwrap();
        for (page, frame) in frames(&world, 0, 8..8 + pages).into_iter().enumerate() {
            let reached = world.dma(device(EDU), iova + (page as u64) * 0x1000, Dma::Write);
            assert_eq!(reached, Ok(frame), "page {page} of {pages}");
        }
        world.free(buffer).unwrap();
        assert!(world.dma(device(EDU), iova, Dma::Read).is_err());
        let mut after = (world.figures(), world.kernel.shape());
        let windows = |place: &Place| matches!(place, Place::Window(..));
        assert!(!after.1.keys().any(windows));
        world.client_gone(0).unwrap();
        after = (world.figures(), world.kernel.shape());
        after.0.operations = before.0.operations;
        let fresh = World::new(Model::QEMU);
        assert_eq!(after.1, fresh.kernel.shape());
    }
}

#[test]
fn nobody_else_gets_it() {
    let mut world = World::new(Model::QEMU);
    world.alloc_private(0, 0x3000, 0).unwrap();
    let buffer = world.buffer_badge(0, 0);
    assert_eq!(rule(world.import(1, buffer, 0)), Rule::PrivateBuffer);
    assert_eq!(rule(world.import(0, buffer, 9)), Rule::PrivateBuffer);
    assert_eq!(rule(world.frames(buffer, 0, 1, 9)), Rule::PrivateBuffer);
    assert_eq!(world.kernel.cap_in_window(1, 0), None);
    assert_eq!(world.figures().buffers, 1);
}

#[test]
fn what_its_holder_does_with_the_frames_changes_nothing() {
    let mut world = World::new(Model::QEMU);
    let before = world.kernel.shape();
    world.attach(device(EDU), 0).unwrap();
    world.alloc_private(0, 0x4000, 0).unwrap();
    let buffer = world.buffer_badge(0, 0);
    let memory = frames(&world, 0, 1..5);
    for slot in 1..5 {
        world.kernel.drop_from_window(0, slot);
    }
    // Without any frame it is its memory still: nobody else gets it, and its devices reach it.
    let iova = world.map_any(buffer).unwrap();
    assert_eq!(world.dma(device(EDU), iova, Dma::Read), Ok(memory[0]));
    world.alloc_private(1, 0x4000, 0).unwrap();
    let others = frames(&world, 1, 1..5);
    assert!(others.iter().all(|frame| !memory.contains(frame)));
    world.free(buffer).unwrap();
    world.detach(device(EDU)).unwrap();
    for client in 0..2 {
        world.client_gone(client).unwrap();
    }
    assert_eq!(world.kernel.shape(), before);
}

#[test]
fn it_is_zero_for_the_next() {
    let mut world = World::new(Model::QEMU);
    // As much as is cleared when it is freed, and a page more, which is cleared when it is made again: less than a page
    // is left of the former.
    for (bytes, pages, at_once) in [
        (0x4000, 4, true),
        (0x1_0000, 16, true),
        (0x1_1000, 17, false),
    ] {
        world.alloc_private(0, bytes, 0).unwrap();
        let memory = frames(&world, 0, 1..pages + 1);
        let buffer = world.buffer_badge(0, 0);
        let before = world.kernel.cleared();
        world.free(buffer).unwrap();
        let freed = world.kernel.cleared();
        assert_eq!(freed - before, if at_once { bytes } else { 0 });
        world.alloc_private(1, bytes, 0).unwrap();
        assert_eq!(frames(&world, 1, 1..pages + 1), memory);
        let made = world.kernel.cleared() - freed;
        let rest = if at_once { 0..0x1000 } else { bytes..bytes + 1 };
        assert!(rest.contains(&made), "{made:#x} of {bytes:#x}");
        let buffer = world.buffer_badge(1, 0);
        world.free(buffer).unwrap();
    }
}

#[test]
fn many_that_end_at_once_are_cleared_later() {
    let mut world = World::new(Model::QEMU);
    for slot in 0..8 {
        world.alloc_private(0, 0x4000, slot * 8).unwrap();
    }
    let before = world.kernel.cleared();
    world.client_gone(0).unwrap();
    assert_eq!(world.kernel.cleared(), before);
}

#[test]
fn sizes_and_slots_are_limits() {
    let mut world = World::new(Model::QEMU);
    let before = world.figures();
    for bytes in [0, 1, 0x1001, u64::MAX, 4097 << 12] {
        let found = rule(world.alloc_private(0, bytes, 0));
        assert_eq!(found, Rule::BadBufferSize, "{bytes:#x}");
    }
    let too_much = rule(world.alloc_private(0, QUOTA + 0x1000, 0));
    assert_eq!(too_much, Rule::DmaQuota);
    // 4,096 slots: the last page does not fit.
    for (slot, frames) in [(0, 4093), (4096, 0), (0, u16::MAX), (u16::MAX, 0)] {
        let found = rule(world.alloc_private_at(0, 0x4000, slot, frames));
        assert_eq!(found, Rule::WindowSlotOutOfRange, "{slot} {frames}");
    }
    assert!(world.alloc_private_at(0, 0x4000, 0, 4092).is_ok());
    let buffer = world.buffer_badge(0, 0);
    world.free(buffer).unwrap();
    // A slot in the middle is taken; or that of the capability is one of the frames'.
    world.alloc(0, 0x1000, PagePreference::Small, 12).unwrap();
    let refusal = world.alloc_private_at(0, 0x4000, 0, 10).unwrap_err();
    assert_eq!(refusal, Refusal::new(Rule::WindowSlotOccupied, 10));
    let found = rule(world.alloc_private_at(0, 0x4000, 21, 20));
    assert_eq!(found, Rule::WindowSlotOccupied);
    let windows = world.kernel.caps().into_keys();
    let windows: Vec<_> = windows
        .filter(|place| matches!(place, Place::Window(..)))
        .collect();
    assert_eq!(windows, [Place::Window(0, 12)]);
    let after = world.figures();
    assert_eq!(after.pool_free, before.pool_free - 0x1000);
    assert_eq!(after.buffers, 1);
}
