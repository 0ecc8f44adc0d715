//! [`Row`]: the rounds of one row of the table, and how they are told to the judge.

use sel4_client::{SeL4Platform, ticks};

use client::Platform;

/// Rounds that count.
pub const ROUNDS: usize = 200;
/// Rounds before them, so that nothing is done for the first time.
const WARM_UP: usize = ROUNDS / 10;
/// All rounds.
pub const ALL: usize = ROUNDS + WARM_UP;

/// Collected ticks of one row.
pub struct Row {
    ticks: [u64; ROUNDS],
    round: usize,
    overhead: u64,
}

impl Row {
    /// A row without rounds; `overhead` ticks are what taking the time costs ([`overhead`]).
    pub const fn new(overhead: u64) -> Self {
        Self {
            ticks: [0; ROUNDS],
            round: 0,
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

    /// Adds a round that took `spent` ticks; warm-up rounds do not count.
    #[inline(always)]
    pub fn add(&mut self, spent: u64) {
        if let Some(cell) = self
            .round
            .checked_sub(WARM_UP)
            .and_then(|at| self.ticks.get_mut(at))
        {
            *cell = spent.saturating_sub(self.overhead);
        }
        self.round += 1;
    }

    /// The rounds that counted, in order.
    fn sorted(&mut self) -> &[u64] {
        let count = self.round.saturating_sub(WARM_UP).min(ROUNDS);
        let taken = self.ticks.get_mut(..count).unwrap_or_default();
        taken.sort_unstable();
        taken
    }

    /// The median; 0 without rounds.
    pub fn median(&mut self) -> u64 {
        let taken = self.sorted();
        taken.get(taken.len() / 2).copied().unwrap_or(0)
    }

    /// Tells median, least and number of rounds.
    pub fn report(mut self, platform: &SeL4Platform, key: &str) {
        let taken = self.sorted();
        let (count, Some(least)) = (taken.len(), taken.first()) else {
            return;
        };
        let median = taken[count / 2];
        platform.log(format_args!("@metric {key} {median}"));
        platform.log(format_args!("@metric {key}.min {least}"));
        platform.log(format_args!("@metric {key}.n {count}"));
    }
}

/// What taking the time costs, in ticks.
pub fn overhead() -> u64 {
    let mut empty = Row::new(0);
    (0..ALL).for_each(|_| empty.time(|| ()));
    empty.ticks.into_iter().min().unwrap_or(0)
}
