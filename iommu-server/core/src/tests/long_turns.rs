//! How much one request may have the server do while others wait: the largest buffer, and the turns of a client's end.

use ipc_proto::{PagePreference, Rule};
use sim::vtd::{Ailment, Dma, Model};

use super::machine::{QUOTA, WINDOW_BITS, World, device, rule};
use crate::{ClientLimits, Note};

const EDU: u32 = 0x18;
const OTHER: u32 = 0x20;
/// Pages of the dead client's buffers, in each of the rounds.
const SIZES: [u64; 6] = [1, 2, 16, 3, 1, 40];
const ROUNDS: u16 = 6;

#[test]
fn a_buffer_is_no_larger_than_the_client_may_have() {
    let clients = [64 << 10, QUOTA].map(|largest| ClientLimits {
        quota: QUOTA,
        largest,
        window_bits: WINDOW_BITS,
    });
    let mut world = World::with(Model::QEMU, |setup| {
        setup.clients = std::boxed::Box::leak(std::boxed::Box::new(clients));
    });
    let before = (world.figures(), world.kernel.shape());
    for bytes in [(64 << 10) + 0x1000, QUOTA] {
        let refusal = world.alloc(0, bytes, PagePreference::Small, 0).unwrap_err();
        assert_eq!(
            (refusal.rule, refusal.about),
            (Rule::BufferTooLarge, 64 << 10)
        );
        let refusal = world.alloc_private(0, bytes, 0).unwrap_err();
        assert_eq!(
            (refusal.rule, refusal.about),
            (Rule::BufferTooLarge, 64 << 10)
        );
    }
    assert_eq!((world.figures(), world.kernel.shape()), before);
    world.alloc(0, 64 << 10, PagePreference::Small, 0).unwrap();
    world.alloc_private(0, 64 << 10, 1).unwrap();
    // It is each client's own.
    world.alloc(1, QUOTA, PagePreference::Small, 0).unwrap();
}

/// Fills a client with buffers, each mapped; what they have in all.
fn fill(world: &mut World, client: u16) -> u64 {
    let mut bytes = 0;
    for round in 0..ROUNDS {
        for (number, pages) in SIZES.into_iter().enumerate() {
            let slot = round * SIZES.len() as u16 + number as u16;
            world
                .alloc(client, pages << 12, PagePreference::Small, slot)
                .unwrap();
            let buffer = world.buffer_badge(client, slot);
            world.map_any(buffer).unwrap();
            bytes += pages << 12;
        }
    }
    bytes
}

#[test]
fn a_client_ends_in_turns_and_others_are_served_between() {
    let mut world = World::new(Model::QEMU);
    let before = (world.figures(), world.kernel.shape());
    world.attach(device(OTHER), 1).unwrap();
    world.alloc(1, 0x2000, PagePreference::Small, 0).unwrap();
    let living = world.buffer_badge(1, 0);
    world.attach(device(EDU), 0).unwrap();
    let bytes = fill(&mut world, 0);
    let mut left = ROUNDS * SIZES.len() as u16;
    let (mut freed, mut turns) = (0, 0);
    while left > 0 {
        let reply = world.some_of_client_gone(0).unwrap();
        turns += 1;
        // What was begun with less than 64 KiB is finished, and no more is begun.
        assert!((0x1_0000..0x1_0000 + (40 << 12)).contains(&reply.bytes) || reply.left == 0);
        assert!(reply.left < left, "{} of {left} are left", reply.left);
        (left, freed) = (reply.left, freed + reply.bytes);
        assert_eq!(
            world.hello(0, ipc_proto::VERSION).unwrap().used,
            bytes - freed
        );
        let iova = world.map_any(living).unwrap();
        assert!(world.dma(device(OTHER), iova, Dma::Write).is_ok());
        world.unmap(living).unwrap();
    }
    assert_eq!(freed, bytes);
    assert!(turns >= 6, "{turns}");
    assert_eq!(world.figures().attached, 1);
    // The next life of the client ends at once.
    assert_eq!(world.some_of_client_gone(0).unwrap().left, 0);
    world.detach(device(OTHER)).unwrap();
    world.client_gone(1).unwrap();
    assert_eq!((world.figures(), world.kernel.shape()), before);
}

#[test]
fn what_is_refused_in_the_first_turn_is_told_in_the_last() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(EDU), 0).unwrap();
    world
        .alloc(0, 0x1_0000, PagePreference::Small, 100)
        .unwrap();
    let stuck = world.buffer_badge(0, 100);
    world.map_any(stuck).unwrap();
    fill(&mut world, 0);
    world.unit.set_ailment(Ailment::QueueStuck);
    assert_eq!(rule(world.unmap(stuck)), Rule::InvalidationTimeout);
    world.unit.set_ailment(Ailment::Healthy);
    let _ = world.kernel.take_notes();
    let first = world.some_of_client_gone(0).unwrap();
    assert!(first.left > 0);
    assert_eq!(
        world.kernel.take_notes(),
        [Note::MemoryLost { bytes: 0x1_0000 }]
    );
    assert_eq!(rule(world.client_gone(0)), Rule::InvalidationTimeout);
    assert_eq!(world.hello(0, ipc_proto::VERSION).unwrap().used, 0);
}
