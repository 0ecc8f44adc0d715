//! [`Window`]: which slots of the grant window are free. A bitmap in memory of the platform's; runs are
//! found first-fit. Atomic words let that be a static; a PD has one thread.

use core::sync::atomic::{AtomicU64, Ordering};

use system::pool::{last_bit, masks};

/// The largest window that a description can give (`window` in docs/describing-a-system.md): 2^this slots.
const MAX_BITS: u8 = 16;
/// Words with a bit for each slot of it.
pub const WORDS: usize = (1 << MAX_BITS) / 64;

/// A run of window slots that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First slot.
    pub first: u16,
    /// How many.
    pub count: u16,
}

/// The free slots of a grant window of up to 65,536 slots.
pub struct Window<'u> {
    used: &'u [AtomicU64],
    slots: u32,
}

impl<'u> Window<'u> {
    /// A window of 2^`bits` slots, as far as `used` has a bit for each: those whose bit is set are in use.
    #[must_use]
    pub fn new(bits: u8, used: &'u [AtomicU64]) -> Self {
        let slots = 1 << bits.min(MAX_BITS);
        let used = used.get(..WORDS).unwrap_or(used);
        Self {
            used,
            slots: slots.min(used.len() as u32 * u64::BITS),
        }
    }

    /// The last used slot in `from..to`.
    fn last_used(&self, from: u32, to: u32) -> Option<u32> {
        masks(from, to).rev().find_map(|(index, mask)| {
            let word = self.used.get(index)?.load(Ordering::Relaxed) & mask;
            (word != 0).then(|| last_bit(index, word))
        })
    }

    /// Takes `count` free slots in a row.
    #[must_use]
    pub fn take(&self, count: u16) -> Option<Run> {
        if count == 0 {
            return None;
        }
        let mut first = 0;
        // Each round passes a used slot.
        loop {
            let end = first + u32::from(count);
            if end > self.slots {
                return None;
            }
            match self.last_used(first, end) {
                Some(used) => first = used + 1,
                None => {
                    for (index, mask) in masks(first, end) {
                        if let Some(word) = self.used.get(index) {
                            word.fetch_or(mask, Ordering::Relaxed);
                        }
                    }
                    let first = first as u16;
                    return Some(Run { first, count });
                }
            }
        }
    }

    /// Frees a run.
    pub fn give_back(&self, run: Run) {
        let first = u32::from(run.first);
        for (index, mask) in masks(first, first + u32::from(run.count)) {
            if let Some(word) = self.used.get(index) {
                word.fetch_and(!mask, Ordering::Relaxed);
            }
        }
    }

    /// How many slots are in use.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.used
            .iter()
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn none_used() -> [AtomicU64; WORDS] {
        [const { AtomicU64::new(0) }; WORDS]
    }

    #[test]
    fn runs_do_not_overlap_and_come_back() {
        let used = none_used();
        let window = Window::new(6, &used);
        let runs: [Run; 6] = core::array::from_fn(|_| window.take(10).unwrap());
        for (at, run) in runs.iter().enumerate() {
            assert_eq!(usize::from(run.first), at * 10);
        }
        assert_eq!(window.take(10), None);
        assert_eq!(
            window.take(4),
            Some(Run {
                first: 60,
                count: 4
            })
        );
        window.give_back(runs[2]);
        assert_eq!(window.take(11), None);
        assert_eq!(window.take(10), Some(runs[2]));
        assert_eq!(window.in_use(), 64);
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        let used = none_used();
        let window = Window::new(12, &used);
        assert_eq!(window.take(0), None);
        assert_eq!(window.take(4097), None);
        assert_eq!(
            window.take(4096),
            Some(Run {
                first: 0,
                count: 4096
            })
        );
        assert_eq!(window.take(1), None);
    }

    #[test]
    fn a_window_is_as_it_was_left() {
        let used = none_used();
        let kept = Window::new(6, &used).take(3).unwrap();
        let window = Window::new(6, &used);
        assert_eq!(window.take(1).unwrap().first, kept.count);
        window.give_back(kept);
        assert_eq!(window.take(3), Some(kept));
        // Of slots without a bit nobody knows.
        assert_eq!(Window::new(16, &used[..2]).take(129), None);
    }

    #[test]
    fn the_largest_window_is_used_to_its_end() {
        let used = none_used();
        let window = Window::new(16, &used);
        let taken: [Run; 16] = core::array::from_fn(|_| window.take(4096).unwrap());
        assert_eq!(window.take(1), None);
        assert_eq!(window.in_use(), 65_536);
        let [.., before, last] = taken;
        assert_eq!(last.first, 61_440);
        window.give_back(last);
        assert_eq!(window.take(4097), None);
        window.give_back(before);
        assert_eq!(window.take(4097).unwrap().first, before.first);
    }
}
