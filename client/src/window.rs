//! [`Window`]: which slots of the grant window are free. A bitmap; runs are
//! found first-fit. Atomic words let a driver keep it in a static; a PD has
//! one thread.

use core::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = 64;

/// A run of window slots that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First slot.
    pub first: u16,
    /// How many.
    pub count: u16,
}

/// The free slots of a grant window of up to 4,096 slots.
pub struct Window {
    used: [AtomicU64; WORDS],
    slots: u16,
}

impl Window {
    /// A window of 2^`bits` slots, all free (at most 2^12 are used).
    #[must_use]
    pub fn new(bits: u8) -> Self {
        Self {
            used: [const { AtomicU64::new(0) }; WORDS],
            slots: 1 << bits.min(12),
        }
    }

    fn is_used(&self, slot: u16) -> bool {
        self.used
            .get(usize::from(slot / 64))
            .is_none_or(|word| word.load(Ordering::Relaxed) >> (slot % 64) & 1 != 0)
    }

    fn set(&self, slot: u16, used: bool) {
        if let Some(word) = self.used.get(usize::from(slot / 64)) {
            let bit = 1 << (slot % 64);
            if used {
                word.fetch_or(bit, Ordering::Relaxed);
            } else {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// Takes `count` free slots in a row.
    #[must_use]
    pub fn take(&self, count: u16) -> Option<Run> {
        if count == 0 || count > self.slots {
            return None;
        }
        let mut first = 0;
        let mut length = 0;
        for slot in 0..self.slots {
            if self.is_used(slot) {
                first = slot + 1;
                length = 0;
                continue;
            }
            length += 1;
            if length == count {
                (first..=slot).for_each(|slot| self.set(slot, true));
                return Some(Run { first, count });
            }
        }
        None
    }

    /// Frees a run.
    pub fn give_back(&self, run: Run) {
        (run.first..run.first.saturating_add(run.count)).for_each(|slot| self.set(slot, false));
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

    #[test]
    fn runs_do_not_overlap_and_come_back() {
        let window = Window::new(6);
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
        let window = Window::new(12);
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
}
