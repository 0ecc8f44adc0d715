//! [`carve`]: how to cut a block out of an untyped. The kernel retypes an
//! untyped only from its watermark upwards, so what lies between is cut into
//! pieces that are kept for later.

/// An untyped of 2^bits bytes, as far as it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Slot of its capability.
    pub slot: u32,
    /// Physical address.
    pub base: u64,
    /// Size: 2^bits bytes.
    pub bits: u8,
    /// First byte that is not cut off yet, counted from `base`.
    pub used: u64,
}

impl Piece {
    /// Bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match 1u64.checked_shl(self.bits as u32) {
            Some(bytes) => bytes,
            None => 0,
        }
    }

    /// Can the block of 2^bits bytes at `base` still be cut out of it?
    #[must_use]
    pub fn holds(&self, base: u64, bits: u8) -> bool {
        let Some(offset) = base.checked_sub(self.base) else {
            return false;
        };
        let Some(bytes) = 1u64.checked_shl(u32::from(bits)) else {
            return false;
        };
        offset >= self.used
            && base.is_multiple_of(bytes)
            && offset
                .checked_add(bytes)
                .is_some_and(|end| end <= self.bytes())
    }
}

/// A block to be cut off next: address and size (2^bits bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Physical address.
    pub base: u64,
    /// Size: 2^bits bytes.
    pub bits: u8,
}

/// The blocks to cut off, in order, until the watermark of `piece` is at `base`: at most two
/// for each power of two. The caller has checked [`Piece::holds`]; otherwise there are none.
pub fn carve(piece: &Piece, base: u64, bits: u8) -> impl Iterator<Item = Cut> + use<> {
    let (start, end) = if piece.holds(base, bits) {
        (piece.base.saturating_add(piece.used), base)
    } else {
        (0, 0)
    };
    let mut at = start;
    core::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        // As large as its place allows and the gap has room for.
        let bits = at.trailing_zeros().min(left.ilog2());
        let cut = Cut {
            base: at,
            bits: bits as u8,
        };
        at = at.checked_add(1u64.checked_shl(bits)?)?;
        Some(cut)
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn the_gap_is_filled_with_aligned_blocks_and_nothing_more(
            bits in 12u8..48, small in 12u8..48, place in any::<u64>(), used in any::<u64>(), high in 0u64..1000,
        ) {
            let small = small.min(bits);
            let base = high << bits;
            let blocks = 1u64 << (bits - small);
            let target = base + ((place % blocks) << small);
            let used = (used % (target - base + 1)) & !0xfff;
            let piece = Piece { slot: 1, base, bits, used };
            prop_assert!(piece.holds(target, small));
            let cuts: Vec<Cut> = carve(&piece, target, small).collect();
            prop_assert!(cuts.len() <= 2 * usize::from(bits));
            let mut at = base + used;
            for cut in cuts {
                prop_assert_eq!(cut.base, at);
                prop_assert_eq!(at % (1 << cut.bits), 0);
                at += 1 << cut.bits;
            }
            prop_assert_eq!(at, target);
        }
    }

    #[test]
    fn what_is_outside_or_used_is_not_held() {
        let piece = Piece {
            slot: 1,
            base: 0x10_0000,
            bits: 20,
            used: 0x1000,
        };
        assert!(piece.holds(0x10_1000, 12));
        assert!(!piece.holds(0x10_0000, 12));
        assert!(!piece.holds(0x10_1800, 12));
        assert!(!piece.holds(0x20_0000, 12));
        assert!(!piece.holds(0xf_f000, 12));
        assert!(!piece.holds(0x10_0000, 21));
        assert!(!piece.holds(0, 64));
        assert_eq!(carve(&piece, 0x20_0000, 12).count(), 0);
    }
}
