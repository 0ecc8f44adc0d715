//! Device memory: what is made of the untypeds, and that all of it comes back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::kernel::{Kernel, Object, Place};
use ipc_proto::{ClientId, Rule};
use pci_core::RegionId;
use pci_core::bank::Bank;
use proptest::prelude::*;

const CLIENT: ClientId = ClientId(3);

fn bank(untypeds: &[(u64, u8)]) -> (Kernel, Bank) {
    let (mut kernel, mut bank) = (Kernel::new(), Bank::new());
    for (slot, &(base, bits)) in (100..).zip(untypeds) {
        kernel.give_untyped(slot, base, bits);
        bank.add(slot, base, bits).unwrap();
    }
    (kernel, bank)
}

fn frame_at(kernel: &Kernel, slot: u16) -> u64 {
    match kernel.object(Place::Window(CLIENT.0, slot)) {
        Some(Object::Frame { base }) => base,
        other => panic!("{other:?} is no frame"),
    }
}

#[test]
fn every_region_gets_its_own_memory_and_the_gaps_serve_others() {
    let (mut kernel, mut bank) = bank(&[(0xc000_0000, 29)]);
    let mut prepare = |base, bits| bank.prepare(&mut kernel, base, bits);
    let one = prepare(0xfea0_0000 - 0x2000_0000, 20).unwrap();
    let two = prepare(0xdebf_e000, 12).unwrap();
    // Below what was cut already: from a piece that was kept.
    let three = prepare(0xc000_0000, 16).unwrap();
    assert_eq!(prepare(0xdebf_e000, 12).unwrap(), two);
    assert_eq!(
        prepare(0xe000_0000, 12).unwrap_err().rule,
        Rule::PageOutOfRange
    );
    assert_eq!(
        prepare(0xc000_8000, 12).unwrap_err().rule,
        Rule::PageOutOfRange,
        "inside another region"
    );
    for (slot, region, base) in [
        (0, one, 0xdea0_0000),
        (1, two, 0xdebf_e000),
        (2, three, 0xc000_0000),
    ] {
        bank.place(&mut kernel, region, 0, 1, CLIENT, slot).unwrap();
        assert_eq!(frame_at(&kernel, slot), base);
    }
}

#[test]
fn any_page_of_a_large_region_is_had_without_making_them_all() {
    let (mut kernel, mut bank) = bank(&[(0x80_0000_0000, 32)]);
    let region = bank.prepare(&mut kernel, 0x80_0000_0000, 30).unwrap();
    let at_boot = kernel.state();
    kernel.window_bits = 12;
    for (slot, page) in [0, 262_143, 131_072, 63, 64, 4095, 4096]
        .into_iter()
        .enumerate()
    {
        bank.place(&mut kernel, region, page, 1, CLIENT, slot as u16)
            .unwrap();
        assert_eq!(
            frame_at(&kernel, slot as u16),
            0x80_0000_0000 + u64::from(page) * 4096
        );
    }
    // One level of 16 MiB, some of 256 KiB, some of frames: not 262,144 frames.
    assert!(kernel.slots_used() < 1000, "{}", kernel.slots_used());
    assert_eq!(
        bank.frame(&mut kernel, region, 262_144).unwrap_err().rule,
        Rule::PageOutOfRange
    );
    bank.revoke(&mut kernel, region).unwrap();
    assert_eq!(kernel.state(), at_boot);
    assert_eq!(bank.split_bytes(), 0);
}

#[test]
fn revoking_one_region_leaves_the_others() {
    let (mut kernel, mut bank) = bank(&[(0xe000_0000, 24)]);
    let one = bank.prepare(&mut kernel, 0xe000_0000, 20).unwrap();
    let two = bank.prepare(&mut kernel, 0xe010_0000, 20).unwrap();
    bank.place(&mut kernel, one, 0, 2, CLIENT, 0).unwrap();
    bank.place(&mut kernel, two, 0, 2, CLIENT, 2).unwrap();
    let copy = kernel.client_copies(Place::Window(CLIENT.0, 0));
    bank.revoke(&mut kernel, one).unwrap();
    assert_eq!(kernel.object(Place::Window(CLIENT.0, 0)), None);
    assert_eq!(kernel.object(copy), None);
    assert_eq!(frame_at(&kernel, 3), 0xe010_1000);
    bank.place(&mut kernel, one, 0, 1, CLIENT, 0).unwrap();
    assert_eq!(frame_at(&kernel, 0), 0xe000_0000);
    // One that does not exist is no harm.
    bank.revoke(&mut kernel, RegionId(99)).unwrap();
    assert_eq!(
        bank.place(&mut kernel, RegionId(99), 0, 1, CLIENT, 9)
            .unwrap_err()
            .rule,
        Rule::PageOutOfRange
    );
}

#[test]
fn when_slots_run_out_requests_are_refused_and_slots_come_back() {
    let (mut kernel, mut bank) = bank(&[(0xe000_0000, 24)]);
    let region = bank.prepare(&mut kernel, 0xe000_0000, 20).unwrap();
    let used = kernel.slots_used();
    // Room for the first level (4) and one of two leaves (64).
    kernel.slot_limit = used + 70;
    bank.place(&mut kernel, region, 0, 1, CLIENT, 0).unwrap();
    let held = kernel.held_by_clients();
    assert_eq!(
        bank.place(&mut kernel, region, 62, 4, CLIENT, 1)
            .unwrap_err()
            .rule,
        Rule::SlotsExhausted
    );
    assert_eq!(kernel.held_by_clients(), held);
    bank.revoke(&mut kernel, region).unwrap();
    assert_eq!(kernel.slots_used(), used);
    bank.place(&mut kernel, region, 64, 1, CLIENT, 1).unwrap();
}

proptest! {
    #[test]
    fn frames_are_where_they_should_be_and_everything_comes_back(
        bits in 12u8..26,
        pages in prop::collection::vec((any::<u32>(), 1u16..80), 1..12),
        fail in prop::option::of(0usize..40),
    ) {
        let (mut kernel, mut bank) = bank(&[(0x80_0000_0000, 32)]);
        let base = 0x80_4000_0000u64;
        let region = bank.prepare(&mut kernel, base, bits).unwrap();
        let at_boot = kernel.state();
        kernel.window_bits = 12;
        kernel.fail_at = fail.map(|fail| kernel.calls + fail);
        let total = 1u32 << (bits - 12);
        let mut slot = 0;
        for (page, count) in pages {
            let first = page % total;
            let count = u32::from(count).min(total - first) as u16;
            let before = kernel.held_by_clients();
            match bank.place(&mut kernel, region, first, count, CLIENT, slot) {
                Ok(()) => {
                    for n in 0..count {
                        prop_assert_eq!(frame_at(&kernel, slot + n), base + u64::from(first + u32::from(n)) * 4096);
                    }
                    slot += count;
                }
                Err(_) => prop_assert_eq!(before, kernel.held_by_clients()),
            }
        }
        kernel.fail_at = None;
        bank.revoke(&mut kernel, region).unwrap();
        prop_assert_eq!(kernel.state(), at_boot);
        prop_assert_eq!(bank.split_bytes(), 0);
    }
}
