//! RAM: which untyped each block of kernel objects is made of, [`place`], and
//! the slots of the root CNode, [`Slots`].
//!
//! The kernel clears a whole untyped the first time anything is made of it
//! (`resetUntypedCap`), whatever its size: opening a 256 MiB untyped for 4 KiB
//! costs as much boot time as using it all. So blocks go, the largest first, into
//! untypeds that are open already, and else into the smallest that fits.

use alloc::vec::Vec;

use thiserror::Error;

use crate::carve::{Cut, Piece};
use crate::facts::{Memory, Untyped};

/// A block that is asked for: 2^bits bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Size.
    pub bits: u8,
    /// May it come as two halves (and so on) where no untyped holds it whole?
    pub shape: Shape,
}

/// Whether a block must be one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One piece.
    Whole,
    /// Pieces will do, none smaller than a page.
    Divisible,
}

/// A block of RAM: an untyped of exactly 2^bits bytes, clean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Which request it serves.
    pub request: usize,
    /// Slot of its capability in the root CNode.
    pub slot: u32,
    /// Physical address.
    pub base: u64,
    /// Size.
    pub bits: u8,
}

/// Why memory does not suffice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MemoryError {
    /// No untyped has room for a block.
    #[error(
        "no RAM for a block of 2^{bits} bytes; {free} bytes are left, the largest run is 2^{largest} bytes"
    )]
    NoRam {
        /// Size of the block.
        bits: u8,
        /// Bytes left in all untypeds.
        free: u64,
        /// Largest block that there still would be room for.
        largest: u8,
    },
    /// The root CNode is full.
    #[error("the root CNode has no {0} empty slots in a row")]
    NoSlots(u32),
}

/// Empty slots of the root CNode, handed out in ascending order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slots {
    next: u32,
    end: u32,
}

impl Slots {
    /// The slots from `first` to before `end`.
    #[must_use]
    pub const fn new(first: u32, end: u32) -> Self {
        Self { next: first, end }
    }

    /// The next slot that is empty, and one past the last.
    #[must_use]
    pub const fn left(&self) -> (u32, u32) {
        (self.next, self.end)
    }

    /// Takes `count` slots in a row and returns the first.
    ///
    /// # Errors
    /// So many are not left.
    pub fn take(&mut self, count: u32) -> Result<u32, MemoryError> {
        let first = self.next;
        self.next = first
            .checked_add(count)
            .filter(|next| *next <= self.end)
            .ok_or(MemoryError::NoSlots(count))?;
        Ok(first)
    }
}

/// An untyped and how much of it is used.
struct Source {
    slot: u32,
    base: u64,
    bits: u8,
    used: u64,
}

impl Source {
    fn room(&self) -> u64 {
        (1u64 << self.bits).saturating_sub(self.used)
    }
}

/// The least page of a divisible block.
const LEAST_BITS: u8 = 12;

/// Finds a place for every request in the RAM untypeds, except those whose slots `reserved` names.
/// Returns the retypes in the order they must happen, and the blocks in the order of requests and,
/// among the pieces of one, of addresses.
///
/// # Errors
/// Memory or slots do not suffice.
pub fn place(
    untypeds: &[Untyped],
    reserved: &[u32],
    requests: &[Request],
    slots: &mut Slots,
) -> Result<(Vec<Cut>, Vec<Block>), MemoryError> {
    let mut sources: Vec<Source> = untypeds
        .iter()
        .filter(|untyped| {
            untyped.memory == Memory::Ram && untyped.bits < 64 && !reserved.contains(&untyped.slot)
        })
        .map(|untyped| Source {
            slot: untyped.slot,
            base: untyped.base,
            bits: untyped.bits,
            used: 0,
        })
        .collect();
    // The last is the largest: it is taken first, so that each untyped is filled without gaps.
    let mut open: Vec<(usize, Request)> = requests.iter().copied().enumerate().collect();
    open.sort_by_key(|(index, request)| (request.bits, core::cmp::Reverse(*index)));
    let (mut cuts, mut blocks) = (Vec::new(), Vec::new());
    while let Some((request, wanted)) = open.pop() {
        let Some(source) = choose(&mut sources, wanted.bits) else {
            if wanted.shape == Shape::Divisible && wanted.bits > LEAST_BITS {
                let half = Request {
                    bits: wanted.bits - 1,
                    ..wanted
                };
                let at = open.partition_point(|(_, other)| other.bits <= half.bits);
                open.insert(at, (request, half));
                open.insert(at, (request, half));
                continue;
            }
            return Err(MemoryError::NoRam {
                bits: wanted.bits,
                free: sources.iter().map(Source::room).sum(),
                largest: sources
                    .iter()
                    .filter_map(|source| source.room().checked_ilog2())
                    .max()
                    .unwrap_or(0) as u8,
            });
        };
        let base = source.base + source.used;
        let slot = slots.take(1)?;
        source.used += 1 << wanted.bits;
        cuts.push(Cut {
            from: source.slot,
            base,
            piece: Piece::Untyped(wanted.bits),
            count: 1,
            slot,
            want: None,
        });
        blocks.push(Block {
            request,
            slot,
            base,
            bits: wanted.bits,
        });
    }
    blocks.sort_by_key(|block| (block.request, block.base));
    Ok((cuts, blocks))
}

/// The untyped with the least room among those that are open; else the smallest that is not.
fn choose(sources: &mut [Source], bits: u8) -> Option<&mut Source> {
    let bytes = 1u64.checked_shl(bits.into())?;
    sources
        .iter_mut()
        .filter(|source| source.room() >= bytes)
        .min_by_key(|source| (source.used == 0, source.room(), source.base))
}

/// The untyped that the root task uses for itself while it finds out about the machine: the smallest
/// of RAM with at least 2^bits bytes.
#[must_use]
pub fn for_root(untypeds: &[Untyped], bits: u8) -> Option<Untyped> {
    untypeds
        .iter()
        .filter(|untyped| untyped.memory == Memory::Ram && untyped.bits >= bits)
        .min_by_key(|untyped| (untyped.bits, untyped.base))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::{Region, RegionSet};
    use alloc::vec;
    use proptest::prelude::*;

    fn ram(slot: u32, base: u64, bits: u8) -> Untyped {
        Untyped {
            slot,
            base,
            bits,
            memory: Memory::Ram,
        }
    }

    fn whole(bits: u8) -> Request {
        Request {
            bits,
            shape: Shape::Whole,
        }
    }

    #[test]
    fn a_large_untyped_stays_closed_while_a_small_one_has_room() {
        let untypeds = [
            ram(1, 1 << 28, 28),
            ram(2, 1 << 22, 22),
            ram(3, 1 << 20, 20),
        ];
        let mut slots = Slots::new(100, 200);
        let (cuts, blocks) = place(
            &untypeds,
            &[],
            &[whole(19), whole(21), whole(18)],
            &mut slots,
        )
        .unwrap();
        assert!(cuts.iter().all(|cut| cut.from == 2), "{cuts:?}");
        assert_eq!(
            blocks
                .iter()
                .map(|b| b.base - (1 << 22))
                .collect::<Vec<_>>(),
            vec![0x20_0000, 0, 0x28_0000]
        );
        let (cuts, _) = place(
            &untypeds,
            &[2],
            &[whole(19), whole(21), whole(18)],
            &mut slots,
        )
        .unwrap();
        assert!(
            cuts.iter().all(|cut| cut.from != 2),
            "a reserved untyped was used"
        );
    }

    #[test]
    fn a_pool_comes_in_pieces_where_no_untyped_holds_it() {
        let untypeds = [
            ram(1, 1 << 25, 24),
            ram(2, 1 << 26, 24),
            ram(3, 1 << 27, 20),
        ];
        let pool = Request {
            bits: 25,
            shape: Shape::Divisible,
        };
        let (_, blocks) = place(&untypeds, &[], &[pool], &mut Slots::new(9, 99)).unwrap();
        assert_eq!(
            blocks.iter().map(|b| b.bits).collect::<Vec<_>>(),
            vec![24, 24]
        );
        let error = place(&untypeds, &[], &[whole(25)], &mut Slots::new(9, 99)).unwrap_err();
        assert_eq!(
            error,
            MemoryError::NoRam {
                bits: 25,
                free: (2 << 24) + (1 << 20),
                largest: 24
            }
        );
        let error = place(&untypeds, &[], &[pool], &mut Slots::new(9, 10)).unwrap_err();
        assert_eq!(error, MemoryError::NoSlots(1));
    }

    #[test]
    fn the_root_task_takes_the_smallest_that_suffices() {
        let untypeds = [
            ram(1, 0, 28),
            ram(2, 1 << 29, 12),
            ram(3, 1 << 30, 18),
            ram(4, 1 << 31, 17),
        ];
        assert_eq!(for_root(&untypeds, 17).map(|u| u.slot), Some(4));
        assert_eq!(for_root(&untypeds, 30), None);
    }

    proptest! {
        #[test]
        fn blocks_are_apart_aligned_and_where_the_kernel_puts_them(
            sizes in proptest::collection::vec((12u8..23, any::<bool>()), 1..30),
        ) {
            let untypeds = [ram(1, 1 << 20, 20), ram(2, 1 << 21, 21), ram(3, 1 << 24, 24), ram(4, 1 << 26, 25)];
            let requests: Vec<Request> = sizes.iter().map(|(bits, halves)| Request {
                bits: *bits,
                shape: if *halves { Shape::Divisible } else { Shape::Whole },
            }).collect();
            let Ok((cuts, blocks)) = place(&untypeds, &[], &requests, &mut Slots::new(0, 1000)) else {
                return Ok(());
            };
            let mut watermarks: Vec<(u32, u64)> = untypeds.iter().map(|u| (u.slot, u.base)).collect();
            for cut in &cuts {
                let (_, at) = watermarks.iter_mut().find(|(slot, _)| *slot == cut.from).unwrap();
                prop_assert_eq!(*at, cut.base);
                prop_assert_eq!(cut.base % (1 << cut.piece.bits()), 0);
                *at += 1 << cut.piece.bits();
            }
            let mut all = RegionSet::new();
            for block in &blocks {
                all.insert(Region::sized(block.base, 1 << block.bits).unwrap());
            }
            let asked: u64 = requests.iter().map(|r| 1u64 << r.bits).sum();
            prop_assert_eq!(all.bytes(), asked);
        }
    }
}
