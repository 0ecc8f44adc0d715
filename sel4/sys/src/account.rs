//! What [`invoke`](crate::invocation::invoke) has cost: how many kernel calls a program has made, and how long they took.
//!
//! Statics, and plain loads and stores: about ten instructions a call, each of which takes the kernel hundreds. A
//! program's second thread may make counts wrong, never anything else.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

static CALLS: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);

/// Kernel calls since the program's start, and ticks of the time-stamp counter in them.
#[must_use]
pub fn kernel_calls() -> (u64, u64) {
    (CALLS.load(Relaxed), TICKS.load(Relaxed))
}

/// Counts what `call` takes: less than the four seconds and more in which 32 bits of the counter wrap.
#[inline(always)]
pub(crate) fn counted<T>(call: impl FnOnce() -> T) -> T {
    let began = tsc();
    let result = call();
    let spent = tsc().wrapping_sub(began);
    CALLS.store(CALLS.load(Relaxed).wrapping_add(1), Relaxed);
    TICKS.store(TICKS.load(Relaxed).wrapping_add(spent.into()), Relaxed);
    result
}

#[inline(always)]
fn tsc() -> u32 {
    // SAFETY: the instruction exists on every x86_64 processor, and the kernel leaves CR4.TSD clear.
    unsafe { core::arch::x86_64::_rdtsc() as u32 }
}
