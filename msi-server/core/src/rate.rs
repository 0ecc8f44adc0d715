//! [`Bucket`]: whether something comes more often than a [`Rate`] allows.
//!
//! The rule: of what was let pass, n things in a row take at least n - 1 intervals less what may come ahead ([`AHEAD_US`]). So in any
//! stretch of time no more pass than the rate gives for it and for a tenth of a second besides, and whoever keeps to
//! the rate is never refused. That is the generic cell rate algorithm (ITU-T I.371, annex A) with one word of state.

/// What may come ahead of the rate: so much of it at once, in microseconds.
pub const AHEAD_US: u64 = 100_000;

/// Nanoseconds of a microsecond, and of a second.
const NS_US: u64 = 1_000;
const NS_SECOND: u64 = 1_000_000_000;

/// How often something may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval_ns: u64,
}

impl Rate {
    /// So often a second; `None` for 0, which is no rate.
    #[must_use]
    pub const fn per_second(rate: u32) -> Option<Self> {
        match NS_SECOND.checked_div(rate as u64) {
            Some(interval_ns) => Some(Self { interval_ns }),
            None => None,
        }
    }
}

/// What has come so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When the next would come if all came at the rate, in nanoseconds.
    due_ns: u64,
}

impl Bucket {
    /// One more has come, at `now_us` of a clock that does not go back. May it pass?
    #[inline]
    pub fn pass(&mut self, rate: Rate, now_us: u64) -> bool {
        let now_ns = now_us.saturating_mul(NS_US);
        let ahead = self.due_ns.saturating_sub(now_ns);
        if ahead > AHEAD_US * NS_US {
            return false;
        }
        self.due_ns = self.due_ns.max(now_ns).saturating_add(rate.interval_ns);
        true
    }
}
