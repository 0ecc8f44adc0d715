//! How the PD's loop has spent its time: [`turns`]. Counted by [`crate::Server`] with every receive.
//!
//! Statics, because whoever answers for them does not hold the server. One thread a PD: plain loads and stores.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use ipc_proto::Turns;

use crate::clock::tsc;

/// Low half of the counter: a turn is shorter than the second in which it wraps.
static BEGAN: AtomicU32 = AtomicU32::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
static LONGEST: AtomicU64 = AtomicU64::new(0);
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Turns of this PD's loop since its start; the one that asks is not among them.
#[must_use]
pub fn turns() -> Turns {
    let (kernel_calls, kernel_ticks) = sel4::kernel_calls();
    Turns {
        ticks: TICKS.load(Relaxed),
        longest: LONGEST.load(Relaxed),
        kernel_calls,
        kernel_ticks,
        requests: REQUESTS.load(Relaxed),
    }
}

/// A request to a server below.
#[inline(always)]
pub(crate) fn ask() {
    REQUESTS.store(REQUESTS.load(Relaxed).wrapping_add(1), Relaxed);
}

/// A request or an event is there.
#[inline(always)]
pub(crate) fn begin() {
    BEGAN.store(tsc() as u32, Relaxed);
}

/// It has been served.
#[inline(always)]
pub(crate) fn end() {
    let spent = u64::from((tsc() as u32).wrapping_sub(BEGAN.load(Relaxed)));
    TICKS.store(TICKS.load(Relaxed).wrapping_add(spent), Relaxed);
    if spent > LONGEST.load(Relaxed) {
        LONGEST.store(spent, Relaxed);
    }
}
