//! [`Row`]: the rounds of one row, told as Portcullis's own benchmark does.

use crate::say;
use crate::sys::ticks;

/// Collected ticks of one row.
pub struct Row {
    key: &'static str,
    ticks: Vec<u64>,
    overhead: u64,
}

impl Row {
    /// A row without rounds; `overhead` ticks are what taking the time costs ([`overhead`]).
    pub fn new(key: &'static str, overhead: u64) -> Self {
        Self {
            key,
            ticks: Vec::with_capacity(1024),
            overhead,
        }
    }

    /// Runs and times one round.
    #[inline(always)]
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = ticks();
        let result = work();
        self.add(ticks() - start);
        result
    }

    /// Adds a round that took `spent` ticks.
    pub fn add(&mut self, spent: u64) {
        self.ticks.push(spent.saturating_sub(self.overhead));
    }

    /// Tells median, least and number of rounds; the first `warm_up` do not count. The median, for who wants it.
    pub fn report(mut self, warm_up: usize) -> u64 {
        let mut counted = self.ticks.split_off(warm_up.min(self.ticks.len()));
        counted.sort_unstable();
        let (Some(&least), Some(&median)) = (counted.first(), counted.get(counted.len() / 2))
        else {
            return 0;
        };
        let key = self.key;
        say(&format!("@metric {key} {median}"));
        say(&format!("@metric {key}.min {least}"));
        say(&format!("@metric {key}.n {}", counted.len()));
        median
    }
}

/// What taking the time costs, in ticks.
pub fn overhead() -> u64 {
    let mut empty = Row::new("", 0);
    (0..100).for_each(|_| empty.time(|| ()));
    empty.ticks.into_iter().min().unwrap_or(0)
}
