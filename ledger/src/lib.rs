//! What a server notes for its next start: records in memory that survives it.
//!
//! A server may be killed at any instruction. When it is restarted, its variables are as at the first start, and
//! only what hardware, tables and the kernel know is left, and this: [`Words`], 64-bit words that are kept, and
//! [`Records`] in them, each of which changes as a whole or not at all.
//!
//! How to use it: note the intent before the first effect, and the outcome after the last. A record that still says
//! the intent tells the next start what to undo or to finish. What can be found out otherwise is not to be noted.
//!
//! To the next start a ledger is input: it is read with the same distrust as a message. Nothing in here panics, and
//! what is outside reads as free.

#![no_std]
#![forbid(unsafe_code)]

mod records;

pub use records::Records;

use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

/// Words that survive their owner. A store happens as a whole, and in the program's order.
pub trait Words {
    /// How many there are.
    fn count(&self) -> usize;
    /// The word at `at`; 0 outside.
    fn load(&self, at: usize) -> u64;
    /// Replaces the word at `at`; nothing outside.
    fn store(&mut self, at: usize, value: u64);
}

impl Words for &[AtomicU64] {
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn load(&self, at: usize) -> u64 {
        self.get(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn store(&mut self, at: usize, value: u64) {
        if let Some(word) = self.get(at) {
            word.store(value, Ordering::Release);
            // What follows (a register of a device, a call of the kernel) is no atomic access. Only the same
            // thread's order matters: who reads comes after its death.
            compiler_fence(Ordering::SeqCst);
        }
    }
}
