//! Ranges of physical addresses: [`ShardMemory`], which the shard may use for
//! BARs, and [`hole`], which finds room in a range that is partly used.

use core::cell::Cell;

use system::info::UntypedPiece;

/// Addresses from the first to the last, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First address.
    pub first: u64,
    /// Last address, included.
    pub last: u64,
}

impl Range {
    /// `bytes` from `base` on; `None` for nothing, and beyond 64 bits.
    #[must_use]
    pub fn new(base: u64, bytes: u64) -> Option<Self> {
        Some(Self {
            first: base,
            last: base.checked_add(bytes.checked_sub(1)?)?,
        })
    }

    /// Have both some address?
    #[must_use]
    pub const fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Is all of the other one in this one?
    #[must_use]
    pub const fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// What both have.
    #[must_use]
    pub fn and(&self, other: &Self) -> Option<Self> {
        self.meets(other).then_some(Self {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        })
    }
}

/// The first address of the lowest free `bytes` in a range, a multiple of `align` (a power of two):
/// `used` gives, for a range, the last address of one that meets it.
pub fn hole(
    range: Range,
    bytes: u64,
    align: u64,
    mut used: impl FnMut(Range) -> Option<u64>,
) -> Option<u64> {
    let mut at = range.first.checked_next_multiple_of(align)?;
    // Each round leaves something that is used behind.
    loop {
        let here = Range::new(at, bytes).filter(|here| range.covers(here))?;
        let Some(last) = used(here) else {
            return Some(at);
        };
        at = last
            .max(here.first)
            .checked_add(1)?
            .checked_next_multiple_of(align)?;
    }
}

/// Device memory of the shard: pieces in ascending order, which may touch.
#[derive(Clone, Debug)]
pub struct ShardMemory<'i> {
    pieces: &'i [UntypedPiece],
    /// Where the last was found: the next is mostly there too.
    found: Cell<Range>,
}

impl<'i> ShardMemory<'i> {
    /// These pieces, ascending and without overlap.
    #[must_use]
    pub const fn new(pieces: &'i [UntypedPiece]) -> Self {
        Self {
            pieces,
            found: Cell::new(Range { first: 1, last: 0 }),
        }
    }

    fn last(piece: &UntypedPiece) -> u64 {
        let bytes = 1u64.checked_shl(piece.bits.into()).unwrap_or(u64::MAX);
        piece.base.saturating_add(bytes.saturating_sub(1))
    }

    /// Are all these addresses the shard's?
    #[must_use]
    pub fn holds(&self, base: u64, bytes: u64) -> bool {
        let Some(wanted) = Range::new(base, bytes) else {
            return false;
        };
        if self.found.get().covers(&wanted) {
            return true;
        }
        let start = self
            .pieces
            .partition_point(|piece| Self::last(piece) < wanted.first);
        let rest = self.pieces.get(start..).unwrap_or(&[]);
        let range = Self::ranges_of(rest).next();
        let Some(range) = range.filter(|range| range.covers(&wanted)) else {
            return false;
        };
        self.found.set(range);
        true
    }

    /// Its addresses as few ranges: what touches is one.
    pub fn ranges(&self) -> impl Iterator<Item = Range> + use<'i> {
        Self::ranges_of(self.pieces)
    }

    fn ranges_of(pieces: &'i [UntypedPiece]) -> impl Iterator<Item = Range> + use<'i> {
        let mut rest = pieces.iter().peekable();
        core::iter::from_fn(move || {
            let piece = rest.next()?;
            let mut range = Range {
                first: piece.base,
                last: Self::last(piece),
            };
            while let Some(next) = rest.next_if(|next| range.last.checked_add(1) == Some(next.base))
            {
                range.last = Self::last(next);
            }
            Some(range)
        })
    }
}
