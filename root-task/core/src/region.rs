//! [`Region`] and [`RegionSet`]: half-open ranges of physical addresses, and
//! sets of them kept sorted and merged.

use alloc::vec::Vec;
use core::fmt;

/// Bytes of a small page.
pub const PAGE: u64 = 4096;
/// Bytes of a large page.
pub const LARGE_PAGE: u64 = 2 << 20;

/// Addresses from `start` up to, not including, `end`. Never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    start: u64,
    end: u64,
}

impl Region {
    /// The addresses from `start` to before `end`; `None` if there are none.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start < end {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// `bytes` addresses from `start` on; `None` if that is none or passes 2^64.
    #[must_use]
    pub fn sized(start: u64, bytes: u64) -> Option<Self> {
        Self::new(start, start.checked_add(bytes)?)
    }

    /// First address.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last address.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many addresses.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// The smallest run of whole pages that holds the region.
    #[must_use]
    pub fn pages(self) -> Self {
        let end = self
            .end
            .checked_next_multiple_of(PAGE)
            .unwrap_or(!(PAGE - 1));
        Self {
            start: self.start & !(PAGE - 1),
            end,
        }
    }

    /// What both have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether all of `other` is in this one.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The pieces of 2^n bytes, each at a multiple of its size, that the region is made of, in
    /// ascending order: what an untyped can be split into. None is smaller than `2^least` bytes;
    /// the region must be a multiple of that.
    pub fn natural_pieces(self, least: u8, most: u8) -> impl Iterator<Item = (u64, u8)> {
        let mut at = self.start;
        core::iter::from_fn(move || {
            let left = self.end.checked_sub(at).filter(|left| *left > 0)?;
            // Both fit a byte: at most 64.
            let by_size = left.ilog2() as u8;
            let by_place = at.trailing_zeros() as u8;
            let bits = by_size.min(by_place).min(most);
            if bits < least {
                return None;
            }
            let piece = (at, bits);
            at = at.checked_add(1 << bits)?;
            Some(piece)
        })
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of addresses: regions in ascending order that neither meet nor touch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegionSet {
    regions: Vec<Region>,
}

impl RegionSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            regions: Vec::new(),
        }
    }

    /// The regions in ascending order.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Adds a region.
    pub fn insert(&mut self, region: Region) {
        let mut whole = region;
        self.regions.retain(|other| {
            let apart = other.end < whole.start || whole.end < other.start;
            if !apart {
                whole = Region {
                    start: whole.start.min(other.start),
                    end: whole.end.max(other.end),
                };
            }
            apart
        });
        let at = self
            .regions
            .partition_point(|other| other.start < whole.start);
        self.regions.insert(at, whole);
    }

    /// Takes a region out.
    pub fn remove(&mut self, region: Region) {
        let before = core::mem::take(&mut self.regions);
        for other in before {
            self.regions
                .extend(Region::new(other.start, other.end.min(region.start)));
            self.regions
                .extend(Region::new(other.start.max(region.end), other.end));
        }
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::new();
        for a in &self.regions {
            for b in &other.regions {
                if let Some(common) = a.intersection(*b) {
                    both.insert(common);
                }
            }
        }
        both
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for region in &other.regions {
            rest.remove(*region);
        }
        rest
    }

    /// Whether the whole region is in the set.
    #[must_use]
    pub fn covers(&self, region: Region) -> bool {
        self.regions.iter().any(|own| own.covers(region))
    }

    /// How many addresses.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.bytes()).sum()
    }
}

impl FromIterator<Region> for RegionSet {
    fn from_iter<I: IntoIterator<Item = Region>>(regions: I) -> Self {
        let mut set = Self::new();
        for region in regions {
            set.insert(region);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn region(start: u64, end: u64) -> Region {
        Region::new(start, end).unwrap()
    }

    #[test]
    fn regions_that_touch_become_one() {
        let set: RegionSet = [region(8, 9), region(0, 4), region(4, 8), region(20, 30)]
            .into_iter()
            .collect();
        assert_eq!(set.regions(), [region(0, 9), region(20, 30)]);
        assert_eq!(set.bytes(), 19);
    }

    #[test]
    fn pieces_are_natural_and_cover_exactly() {
        let pieces: Vec<_> = region(0x3000, 0x2_0000).natural_pieces(12, 47).collect();
        assert_eq!(
            pieces,
            vec![(0x3000, 12), (0x4000, 14), (0x8000, 15), (0x1_0000, 16)]
        );
        let whole: Vec<_> = region(0, 1 << 47).natural_pieces(12, 47).collect();
        assert_eq!(whole, vec![(0, 47)]);
    }

    #[test]
    fn pages_round_outwards_even_at_the_top() {
        assert_eq!(region(0x1fff, 0x2001).pages(), region(0x1000, 0x3000));
        assert_eq!(region(u64::MAX - 1, u64::MAX).pages().end() % PAGE, 0);
    }

    proptest! {
        #[test]
        fn difference_and_intersection_share_the_set_out(
            a in proptest::collection::vec((0u64..200, 1u64..40), 0..8),
            b in proptest::collection::vec((0u64..200, 1u64..40), 0..8),
        ) {
            let set = |list: &[(u64, u64)]| -> RegionSet {
                list.iter().filter_map(|(start, bytes)| Region::sized(*start, *bytes)).collect()
            };
            let (a, b) = (set(&a), set(&b));
            let contains = |set: &RegionSet, at: u64| set.regions().iter().any(|r| r.start() <= at && at < r.end());
            let (both, rest) = (a.intersection(&b), a.difference(&b));
            for at in 0..260 {
                prop_assert_eq!(contains(&both, at), contains(&a, at) && contains(&b, at));
                prop_assert_eq!(contains(&rest, at), contains(&a, at) && !contains(&b, at));
            }
            prop_assert!(rest.regions().is_sorted());
        }

        #[test]
        fn natural_pieces_add_up(first in 0u64..5000, pages in 1u64..5000) {
            let whole = Region::sized(first * PAGE, pages * PAGE).unwrap();
            let mut at = whole.start();
            for (base, bits) in whole.natural_pieces(12, 47) {
                prop_assert_eq!(base, at);
                prop_assert_eq!(base % (1 << bits), 0);
                at += 1 << bits;
            }
            prop_assert_eq!(at, whole.end());
        }
    }
}
