//! [`TscClock`]: the processor's time-stamp counter as a clock.

use hw::Clock;

/// The time-stamp counter, which runs from the machine's start and never goes back.
#[derive(Clone, Copy, Debug)]
pub struct TscClock {
    ticks_per_us: u64,
}

impl TscClock {
    /// A counter of `mhz` ticks a microsecond; 0 counts as 1.
    #[must_use]
    pub const fn new(mhz: u32) -> Self {
        Self {
            ticks_per_us: if mhz == 0 { 1 } else { mhz as u64 },
        }
    }

    /// The counter itself, in ticks. Not ordered against the instructions around it (Intel SDM volume 2B, RDTSC).
    #[inline(always)]
    #[must_use]
    pub fn tsc(self) -> u64 {
        tsc()
    }

    /// Ticks a microsecond.
    #[must_use]
    pub const fn ticks_per_us(self) -> u64 {
        self.ticks_per_us
    }
}

/// The time-stamp counter, in ticks.
#[inline(always)]
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: the instruction exists on every x86_64 processor, and the kernel leaves CR4.TSD clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

impl Clock for TscClock {
    fn now_us(&self) -> u64 {
        tsc() / self.ticks_per_us
    }
}
