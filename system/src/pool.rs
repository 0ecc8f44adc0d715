//! [`NumberPool`]: a bounded pool of consecutive numbers, of which any may be
//! taken singly or as an aligned run: capability slots, pages of an address
//! range, interrupt vectors.
//!
//! First fit: the lowest that fits. A number given back twice, or never taken,
//! is told to the caller and changes nothing.

/// Fewer numbers than these are looked at one by one, more by words.
const MANY: u32 = 8;

/// A pool over at most `WORDS * 64` numbers, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberPool<const WORDS: usize> {
    taken: [u64; WORDS],
    first: u32,
    count: u32,
    free: u32,
    /// No number below this offset is free.
    lowest: u32,
}

impl<const WORDS: usize> NumberPool<WORDS> {
    /// Most numbers a pool of this size manages.
    pub const CAPACITY: u32 = (WORDS * 64) as u32;

    /// A pool of the numbers `first..first + count`, all free. `None` when there are more than
    /// [`Self::CAPACITY`], or when they pass `u32::MAX`.
    #[must_use]
    pub const fn new(first: u32, count: u32) -> Option<Self> {
        if count > Self::CAPACITY || first.checked_add(count).is_none() {
            return None;
        }
        Some(Self {
            taken: [0; WORDS],
            first,
            count,
            free: count,
            lowest: 0,
        })
    }

    /// A pool of nothing.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            taken: [0; WORDS],
            first: 0,
            count: 0,
            free: 0,
            lowest: 0,
        }
    }

    /// The first number of the pool, taken or not.
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.first
    }

    /// Numbers in the pool.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Numbers that are free.
    #[must_use]
    pub const fn free(&self) -> u32 {
        self.free
    }

    /// Numbers that are taken.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.count - self.free
    }

    /// Whether `number` is one of the pool and taken.
    #[must_use]
    pub fn is_taken(&self, number: u32) -> bool {
        number
            .checked_sub(self.first)
            .is_some_and(|offset| offset < self.count && self.bit(offset))
    }

    /// Takes the lowest free number.
    pub fn take(&mut self) -> Option<u32> {
        self.take_run(1, 1)
    }

    /// Takes the lowest `count` consecutive numbers of which the first is a multiple of `align`.
    /// `None` when there are none, `count` is 0 or `align` is not a power of two.
    pub fn take_run(&mut self, count: u32, align: u32) -> Option<u32> {
        if count == 0 || count > self.free || !align.is_power_of_two() {
            return None;
        }
        // Alignment is of the number itself, not of its place in the pool.
        let align_up = |offset: u32| {
            let number = self.first.checked_add(offset)?;
            number
                .checked_next_multiple_of(align)?
                .checked_sub(self.first)
        };
        let mut offset = align_up(self.next_free(self.lowest)?)?;
        // Each round moves past a taken number: at most `self.count` rounds.
        while offset
            .checked_add(count)
            .is_some_and(|end| end <= self.count)
        {
            match self.last_taken(offset, offset + count) {
                None => {
                    self.set(offset, count, true);
                    self.free -= count;
                    if offset == self.lowest {
                        self.lowest = offset + count;
                    }
                    return Some(self.first + offset);
                }
                Some(taken) => offset = align_up(taken + 1)?,
            }
        }
        None
    }

    /// Takes the numbers `number..number + count` themselves. `false`, and nothing changes, unless all were free.
    #[must_use]
    pub fn claim_run(&mut self, number: u32, count: u32) -> bool {
        let Some(offset) = number.checked_sub(self.first) else {
            return false;
        };
        let Some(end) = offset.checked_add(count).filter(|end| *end <= self.count) else {
            return false;
        };
        if self.last_taken(offset, end).is_some() {
            return false;
        }
        self.set(offset, count, true);
        self.free -= count;
        true
    }

    /// Gives one number back. `false`, and nothing changes, when it was not taken.
    #[must_use]
    pub fn give(&mut self, number: u32) -> bool {
        self.give_run(number, 1)
    }

    /// Gives `count` numbers from `number` on back. `false`, and nothing changes, unless all were taken.
    #[must_use]
    pub fn give_run(&mut self, number: u32, count: u32) -> bool {
        let Some(offset) = number.checked_sub(self.first) else {
            return false;
        };
        let Some(end) = offset.checked_add(count).filter(|end| *end <= self.count) else {
            return false;
        };
        let taken = if count < MANY {
            (offset..end).all(|offset| self.bit(offset))
        } else {
            self.masked(offset, end).all(|(_, word, mask)| word == mask)
        };
        if !taken {
            return false;
        }
        self.set(offset, count, false);
        self.free += count;
        self.lowest = self.lowest.min(offset);
        true
    }

    fn bit(&self, offset: u32) -> bool {
        self.taken
            .get(offset as usize / 64)
            .is_some_and(|word| word >> (offset % 64) & 1 == 1)
    }

    fn set(&mut self, offset: u32, count: u32, taken: bool) {
        if count < MANY {
            for offset in offset..offset + count {
                self.set_word(offset as usize / 64, 1 << (offset % 64), taken);
            }
        } else {
            for (index, mask) in masks(offset, offset + count) {
                self.set_word(index, mask, taken);
            }
        }
    }

    fn set_word(&mut self, index: usize, mask: u64, taken: bool) {
        if let Some(word) = self.taken.get_mut(index) {
            if taken { *word |= mask } else { *word &= !mask }
        }
    }

    /// Words of the offsets `from..to`: index, those of its bits that are set, all of them.
    fn masked(&self, from: u32, to: u32) -> impl DoubleEndedIterator<Item = (usize, u64, u64)> {
        masks(from, to).map(|(index, mask)| {
            let word = self.taken.get(index).copied().unwrap_or(0);
            (index, word & mask, mask)
        })
    }

    /// The first free offset at or after `from`.
    fn next_free(&self, from: u32) -> Option<u32> {
        let mut mask = u64::MAX << (from % 64);
        for (index, word) in self.taken.iter().enumerate().skip(from as usize / 64) {
            let free = !word & mask;
            if free != 0 {
                let offset = (index * 64) as u32 + free.trailing_zeros();
                return (offset < self.count).then_some(offset);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The last taken offset in `from..to`.
    fn last_taken(&self, from: u32, to: u32) -> Option<u32> {
        if to - from < MANY {
            return (from..to).rev().find(|offset| self.bit(*offset));
        }
        let mut words = self.masked(from, to).rev();
        let (index, word, _) = words.find(|(_, word, _)| *word != 0)?;
        Some(last_bit(index, word))
    }
}

/// The words of 64 bits that hold the bits `from..to`: index, and which of its bits.
pub fn masks(from: u32, to: u32) -> impl DoubleEndedIterator<Item = (usize, u64)> {
    let (first, last) = (from / 64, to.saturating_sub(1) / 64);
    let end = if from < to { last + 1 } else { first };
    (first..end).map(move |index| {
        let low = if index == first { from % 64 } else { 0 };
        let high = if index == last {
            to.wrapping_sub(1) % 64
        } else {
            63
        };
        (index as usize, u64::MAX << low & u64::MAX >> (63 - high))
    })
}

/// Number of the highest bit that is set in word `index`, which is not 0.
#[must_use]
pub const fn last_bit(index: usize, word: u64) -> u32 {
    (index as u32) * 64 + 63u32.saturating_sub(word.leading_zeros())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// What a test does to a pool.
    #[derive(Clone, Debug)]
    enum Step {
        Take(u32, u32),
        Give(u32, u32),
        Claim(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..9, 0u32..6).prop_map(|(count, shift)| Step::Take(count, 1 << shift)),
            (0u32..200, 0u32..9).prop_map(|(number, count)| Step::Give(number, count)),
            (0u32..200, 0u32..9).prop_map(|(number, count)| Step::Claim(number, count)),
        ]
    }

    proptest! {
        #[test]
        fn a_pool_does_what_a_set_of_numbers_does(first in 0u32..40, count in 0u32..=128, steps in prop::collection::vec(step(), 0..120)) {
            let mut pool = NumberPool::<2>::new(first, count).unwrap();
            let mut free: BTreeSet<u32> = (first..first + count).collect();
            for step in steps {
                match step {
                    Step::Take(count, align) => {
                        // The lowest aligned run, by trying every number.
                        let wanted = (first..first + 200)
                            .find(|n| count > 0 && n % align == 0 && (*n..n + count).all(|n| free.contains(&n)));
                        prop_assert_eq!(pool.take_run(count, align), wanted);
                        for n in wanted.into_iter().flat_map(|n| n..n + count) {
                            free.remove(&n);
                        }
                    }
                    Step::Claim(number, many) => {
                        let run: Vec<u32> = (number..number + many).collect();
                        let all = run.iter().all(|n| free.contains(n));
                        let inside = many > 0 || (first..=first + count).contains(&number);
                        prop_assert_eq!(pool.claim_run(number, many), all && inside);
                        if all {
                            for number in run {
                                free.remove(&number);
                            }
                        }
                    }
                    Step::Give(number, many) => {
                        let run: Vec<u32> = (number..number + many).collect();
                        let ours = run.iter().all(|n| (first..first + count).contains(n) && !free.contains(n));
                        let inside = many > 0 || (first..=first + count).contains(&number);
                        prop_assert_eq!(pool.give_run(number, many), ours && inside);
                        if ours {
                            free.extend(run);
                        }
                    }
                }
                prop_assert_eq!(pool.free() as usize, free.len());
                for n in 0..220 {
                    prop_assert_eq!(pool.is_taken(n), (first..first + count).contains(&n) && !free.contains(&n));
                }
            }
        }
    }

    #[test]
    fn a_pool_beyond_its_words_or_the_numbers_is_refused() {
        assert!(NumberPool::<1>::new(5, 64).is_some());
        assert!(NumberPool::<1>::new(5, 65).is_none());
        assert!(NumberPool::<1>::new(u32::MAX, 2).is_none());
    }

    #[test]
    fn a_pool_at_the_end_of_the_numbers_never_overflows() {
        let mut pool = NumberPool::<1>::new(u32::MAX - 10, 10).unwrap();
        assert_eq!(pool.take_run(1, 1 << 31), None);
        assert_eq!(pool.take_run(4, 4), Some(u32::MAX - 7));
        assert_eq!(pool.take_run(11, 1), None);
        assert!(!pool.give_run(u32::MAX, u32::MAX));
    }

    #[test]
    fn the_whole_pool_can_be_taken_singly_and_given_back() {
        let mut pool = NumberPool::<2>::new(7, 128).unwrap();
        for n in 7..135 {
            assert_eq!(pool.take(), Some(n));
        }
        assert_eq!((pool.take(), pool.used()), (None, 128));
        assert!(pool.give_run(7, 128));
        assert!(!pool.give(7));
        assert_eq!(pool.take_run(128, 1), Some(7));
    }
}
