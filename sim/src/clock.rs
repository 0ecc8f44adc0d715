//! A clock that stands until the test moves it.

use std::cell::Cell;

/// Microseconds that only [`ManualClock::advance_us`] adds to.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_us: Cell<u64>,
}

impl ManualClock {
    /// A clock at 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on.
    pub fn advance_us(&self, us: u64) {
        self.now_us.set(self.now_us.get().saturating_add(us));
    }
}

impl hw::Clock for ManualClock {
    fn now_us(&self) -> u64 {
        self.now_us.get()
    }
}
