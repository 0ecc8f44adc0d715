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
use pci_core::bank::{Bank, PageSize};
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
        Some(Object::Frame { base, .. }) => base,
        other => panic!("{other:?} is no frame"),
    }
}

fn region(base: u64, bytes: u64) -> RegionId {
    RegionId { base, bytes }
}

fn place(
    bank: &mut Bank,
    kernel: &mut Kernel,
    region: RegionId,
    first: u32,
    count: u16,
    slot: u16,
) -> Result<(), Rule> {
    bank.place(kernel, region, PageSize::Small, first, count, CLIENT, slot)
        .map_err(|refusal| refusal.rule)
}

#[test]
fn bars_of_any_size_and_place_have_their_own_memory() {
    let (mut kernel, mut bank) = bank(&[(0xc000_0000, 29), (0xe000_0000, 16), (0xe001_0000, 12)]);
    let regions = [
        region(0xdea0_0000, 1 << 20),
        region(0xdebf_e000, 1 << 12),
        region(0xc000_0000, 1 << 16),
        // Enhanced Allocation: no power of two.
        region(0xc001_0000, 0x7000),
        region(0xe001_0000, 0x1000),
    ];
    for (slot, region) in (0..).zip(regions) {
        let last = (region.bytes / 4096 - 1) as u32;
        place(&mut bank, &mut kernel, region, last, 1, slot).unwrap();
        assert_eq!(frame_at(&kernel, slot), region.last() & !0xfff);
    }
    // Beyond the shard's memory, and beyond the region.
    let beyond = region(0xe001_1000, 0x1000);
    assert_eq!(
        place(&mut bank, &mut kernel, beyond, 0, 1, 9),
        Err(Rule::PageOutOfRange)
    );
    assert_eq!(
        place(&mut bank, &mut kernel, regions[3], 7, 1, 9),
        Err(Rule::PageOutOfRange)
    );
}

#[test]
fn untypeds_that_make_no_sense_are_refused() {
    let mut bank = Bank::new();
    for (base, bits) in [(0x1000, 11), (0, 49), (0x1000, 13), (0, 255)] {
        assert_eq!(
            bank.add(1, base, bits).unwrap_err().rule,
            Rule::PageOutOfRange
        );
    }
}

#[test]
fn any_page_of_a_large_region_is_had_without_making_them_all() {
    let (mut kernel, mut bank) = bank(&[(0x80_0000_0000, 32)]);
    let region = region(0x80_0000_0000, 1 << 30);
    let at_boot = kernel.state();
    kernel.window_bits = 12;
    for (slot, page) in [0, 262_143, 131_072, 63, 64, 4095, 4096]
        .into_iter()
        .enumerate()
    {
        place(&mut bank, &mut kernel, region, page, 1, slot as u16).unwrap();
        let expected = 0x80_0000_0000 + u64::from(page) * 4096;
        assert_eq!(frame_at(&kernel, slot as u16), expected);
    }
    // Not 262,144 frames.
    assert!(kernel.slots_used() < 500, "{}", kernel.slots_used());
    let beyond = bank.frame(&mut kernel, region, 262_144);
    assert_eq!(beyond.unwrap_err().rule, Rule::PageOutOfRange);
    bank.revoke(&mut kernel, region).unwrap();
    assert_eq!(kernel.state(), at_boot);
    assert_eq!(bank.split_bytes(), 0);
}

#[test]
fn large_frames_come_whole_and_not_where_there_are_small_ones() {
    let (mut kernel, mut bank) = bank(&[(0x80_0000_0000, 32)]);
    let at_boot = kernel.state();
    let whole = region(0x80_0020_0000, 4 << 20);
    let large = |bank: &mut Bank, kernel: &mut Kernel, first, count, slot| {
        bank.place(kernel, whole, PageSize::Large, first, count, CLIENT, slot)
            .map_err(|refusal| refusal.rule)
    };
    large(&mut bank, &mut kernel, 0, 1, 0).unwrap();
    let object = kernel.object(Place::Window(CLIENT.0, 0));
    assert_eq!(
        object,
        Some(Object::Frame {
            base: 0x80_0020_0000,
            bits: 21
        })
    );
    // Page 512 is in the second large page, page 511 in the first.
    assert_eq!(
        place(&mut bank, &mut kernel, whole, 511, 1, 1),
        Err(Rule::PageWithheld)
    );
    place(&mut bank, &mut kernel, whole, 512, 1, 1).unwrap();
    assert_eq!(
        large(&mut bank, &mut kernel, 1, 1, 2),
        Err(Rule::PageWithheld)
    );
    // Both or none.
    assert_eq!(
        large(&mut bank, &mut kernel, 0, 2, 2),
        Err(Rule::PageWithheld)
    );
    assert_eq!(kernel.object(Place::Window(CLIENT.0, 2)), None);
    assert_eq!(
        large(&mut bank, &mut kernel, 2, 1, 2),
        Err(Rule::PageOutOfRange)
    );
    bank.revoke(&mut kernel, whole).unwrap();
    large(&mut bank, &mut kernel, 0, 2, 2).unwrap();
    bank.revoke(&mut kernel, whole).unwrap();
    assert_eq!(kernel.state(), at_boot);
    // A region that is not aligned has none.
    let odd = region(0x80_0010_0000, 4 << 20);
    let refused = bank.place(&mut kernel, odd, PageSize::Large, 0, 1, CLIENT, 0);
    assert_eq!(refused.unwrap_err().rule, Rule::PageOutOfRange);
}

#[test]
fn revoking_one_region_leaves_the_others() {
    let (mut kernel, mut bank) = bank(&[(0xe000_0000, 24)]);
    // The second and third lie in what the first page of frames was split from.
    let (one, two, three) = (
        region(0xe000_0000, 0x2000),
        region(0xe000_2000, 0x1000),
        region(0xe010_0000, 1 << 20),
    );
    place(&mut bank, &mut kernel, one, 0, 2, 0).unwrap();
    place(&mut bank, &mut kernel, two, 0, 1, 2).unwrap();
    place(&mut bank, &mut kernel, three, 0, 1, 3).unwrap();
    let copy = kernel.client_copies(Place::Window(CLIENT.0, 0));
    bank.revoke(&mut kernel, one).unwrap();
    assert_eq!(kernel.object(Place::Window(CLIENT.0, 0)), None);
    assert_eq!(kernel.object(copy), None);
    assert_eq!(frame_at(&kernel, 2), 0xe000_2000);
    assert_eq!(frame_at(&kernel, 3), 0xe010_0000);
    place(&mut bank, &mut kernel, one, 0, 1, 0).unwrap();
    assert_eq!(frame_at(&kernel, 0), 0xe000_0000);
    // One of which there is nothing is no harm.
    bank.revoke(&mut kernel, region(0x1000, 0x1000)).unwrap();
    bank.revoke(&mut kernel, region(u64::MAX - 0xfff, 0x1000))
        .unwrap();
}

#[test]
fn when_slots_run_out_requests_are_refused_and_slots_come_back() {
    let (mut kernel, mut bank) = bank(&[(0xe000_0000, 24)]);
    let region = region(0xe000_0000, 1 << 20);
    let used = kernel.slots_used();
    // Room for the first two levels (8 and 16) and one of frames (32).
    kernel.slot_limit = used + 60;
    place(&mut bank, &mut kernel, region, 0, 1, 0).unwrap();
    let held = kernel.held_by_clients();
    let refused = place(&mut bank, &mut kernel, region, 30, 4, 1);
    assert_eq!(refused, Err(Rule::SlotsExhausted));
    assert_eq!(kernel.held_by_clients(), held);
    bank.revoke(&mut kernel, region).unwrap();
    assert_eq!(kernel.slots_used(), used);
    place(&mut bank, &mut kernel, region, 64, 1, 1).unwrap();
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
        let region = region(base, 1 << bits);
        let at_boot = kernel.state();
        kernel.window_bits = 12;
        kernel.fail_at = fail.map(|fail| kernel.calls + fail);
        let total = 1u32 << (bits - 12);
        let mut slot = 0;
        for (page, count) in pages {
            let first = page % total;
            let count = u32::from(count).min(total - first) as u16;
            let before = kernel.held_by_clients();
            match place(&mut bank, &mut kernel, region, first, count, slot) {
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

    /// Devices come and go: at each place BARs of changing sizes, side by side.
    #[test]
    fn bars_that_come_and_go_leave_nothing_behind(
        steps in prop::collection::vec((0u64..8, 0u32..6, any::<u32>(), any::<bool>()), 1..40),
        fail in prop::option::of(0usize..60),
    ) {
        let (mut kernel, mut bank) = bank(&[(0x8000_0000, 27), (0x8800_0000, 20)]);
        let at_boot = kernel.state();
        kernel.window_bits = 12;
        kernel.fail_at = fail.map(|fail| kernel.calls + fail);
        // Eight places of 16 MiB, of which the last passes the end of the memory; in each at most
        // one BAR at its start and one at its end.
        let mut there: Vec<Option<RegionId>> = vec![None; 16];
        for (slot, (at, size, page, end)) in steps.into_iter().enumerate() {
            let index = (at * 2 + u64::from(end)) as usize;
            if let Some(region) = there[index] {
                if bank.revoke(&mut kernel, region).is_ok() {
                    there[index] = None;
                }
                continue;
            }
            let bytes = 0x1000u64 << (2 * size);
            let start = 0x8100_0000 + (at << 24);
            let new = region(if end { start + (16 << 20) - bytes } else { start }, bytes);
            there[index] = Some(new);
            let page = page % (bytes / 4096) as u32;
            if place(&mut bank, &mut kernel, new, page, 1, slot as u16).is_ok() {
                prop_assert_eq!(frame_at(&kernel, slot as u16), new.base + u64::from(page) * 4096);
            }
        }
        kernel.fail_at = None;
        for region in there.into_iter().flatten() {
            bank.revoke(&mut kernel, region).unwrap();
        }
        prop_assert_eq!(kernel.state(), at_boot);
        prop_assert_eq!(bank.split_bytes(), 0);
    }
}
