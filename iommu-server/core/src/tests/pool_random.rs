//! The pool under random takes and gives: no two blocks overlap, nothing is
//! lost, and refused effects change nothing.

use std::vec::Vec;

use proptest::prelude::*;
use system::info::UntypedPiece;

use super::kernel::{Kernel, Object, Place, forever};
use super::machine::POOL;
use crate::pool::{Block, Pool, PoolError, Slots};
use crate::{Env, Target};

const ALL: u64 = (4 << 20) + (2 << 20) + (64 << 10);

struct Rig {
    kernel: Kernel,
    slots: Slots,
    pool: &'static mut Pool,
}

fn rig(slots: u32) -> Rig {
    let pool = forever(Pool::new());
    for piece in &POOL {
        assert!(pool.add(piece));
    }
    Rig {
        kernel: Kernel::with_untypeds(&POOL),
        slots: Slots::new(100, slots).unwrap(),
        pool,
    }
}

impl Rig {
    fn take(&mut self, bits: u8) -> Result<Block, PoolError> {
        self.pool.take(&mut self.kernel, &mut self.slots, bits)
    }

    /// Checks a block against the kernel's view of its untyped.
    fn check(&self, block: Block, bits: u8) {
        let caps = self.kernel.caps();
        match caps.get(&Place::Own(self.pool.slot(block))) {
            Some(Object::Untyped {
                base, bits: found, ..
            }) => {
                assert_eq!((*base, *found), (self.pool.base(block), bits));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pieces_that_make_no_sense_are_refused() {
    let pool = forever(Pool::new());
    let piece = |base, bits| UntypedPiece {
        slot: 1,
        base,
        bits,
    };
    for (base, bits) in [(0x1000, 11), (0x1000, 13), (0, 48), (0, 64), (0x800, 12)] {
        assert!(!pool.add(&piece(base, bits)), "{base:#x} {bits}");
    }
    assert!(pool.add(&piece(0x2000, 13)));
    assert_eq!((pool.total_bytes(), pool.free_bytes()), (0x2000, 0x2000));
}

#[test]
fn a_block_given_back_is_not_cleared_beyond_its_size() {
    let mut rig = rig(1000);
    let block = rig.take(12).unwrap();
    let after_first = rig.kernel.cleared();
    rig.pool.give(block);
    for _ in 0..100 {
        let block = rig.take(12).unwrap();
        let slot = rig.slots.take().unwrap();
        rig.kernel
            .frames(rig.pool.slot(block), 12, Target::Own(slot), 1)
            .unwrap();
        rig.kernel.revoke(rig.pool.slot(block)).unwrap();
        assert!(rig.slots.give(slot));
        rig.pool.give(block);
    }
    assert!(rig.kernel.cleared() - after_first <= 100 * 0x1000);
}

#[test]
fn merging_makes_room_for_a_large_block() {
    let mut rig = rig(8000);
    let blocks: Vec<Block> = (0..1536).map(|_| rig.take(12).unwrap()).collect();
    assert_eq!(rig.pool.free_bytes(), ALL - 1536 * 0x1000);
    assert_eq!(rig.take(21), Err(PoolError::Exhausted));
    for block in blocks {
        rig.pool.give(block);
    }
    let large = rig.take(22).unwrap();
    rig.check(large, 22);
    assert_eq!(rig.take(22), Err(PoolError::Exhausted));
    rig.pool.give(large);
    rig.pool.merge_idle(&mut rig.kernel, &mut rig.slots);
    assert_eq!(rig.slots.used(), 0);
    assert_eq!(rig.pool.free_bytes(), ALL);
}

#[test]
fn slots_tied_up_in_idle_pieces_are_found_again() {
    // 20 slots: enough to split one piece of 4 MiB down to a page, not two.
    let mut rig = rig(20);
    let one = rig.take(12).unwrap();
    rig.pool.give(one);
    let large = rig.take(21).unwrap();
    assert!(rig.slots.used() > 0);
    let other = rig.take(12).unwrap();
    rig.check(large, 21);
    rig.check(other, 12);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take { bits: u8, refuse: Option<u64> },
    Give(usize),
    MergeIdle,
}

fn step() -> impl Strategy<Value = Step> {
    let refuse = prop_oneof![4 => Just(None), 1 => (0u64..4).prop_map(Some)];
    prop_oneof![
        6 => (12u8..=22, refuse).prop_map(|(bits, refuse)| Step::Take { bits, refuse }),
        4 => any::<prop::sample::Index>().prop_map(|index| Step::Give(index.index(64))),
        1 => Just(Step::MergeIdle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 3))]

    #[test]
    fn blocks_never_overlap_and_all_come_back(
        steps in prop::collection::vec(step(), 1..150),
        slots in prop_oneof![Just(24u32), Just(4000)],
    ) {
        let mut rig = rig(slots);
        let mut held: Vec<(Block, u8)> = Vec::new();
        for step in steps {
            match step {
                Step::Take { bits, refuse } => {
                    rig.kernel.refuse(refuse);
                    let taken = rig.take(bits);
                    rig.kernel.refuse(None);
                    if let Ok(block) = taken {
                        rig.check(block, bits);
                        held.push((block, bits));
                    }
                }
                Step::Give(index) if !held.is_empty() => {
                    let (block, _) = held.swap_remove(index % held.len());
                    rig.pool.give(block);
                }
                Step::Give(_) => {}
                Step::MergeIdle => rig.pool.merge_idle(&mut rig.kernel, &mut rig.slots),
            }
            let mut ranges: Vec<(u64, u64)> = held
                .iter()
                .map(|(block, bits)| (rig.pool.base(*block), 1u64 << bits))
                .collect();
            ranges.sort_unstable();
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "overlap");
            }
            let used: u64 = ranges.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(rig.pool.free_bytes(), ALL - used);
            prop_assert_eq!(rig.pool.used_blocks() as usize, held.len());
        }
        for (block, _) in held {
            rig.pool.give(block);
        }
        rig.pool.merge_idle(&mut rig.kernel, &mut rig.slots);
        prop_assert_eq!(rig.slots.used(), 0);
        prop_assert_eq!(rig.kernel.caps().len(), POOL.len());
        let again = rig.take(22);
        prop_assert!(again.is_ok());
    }
}
