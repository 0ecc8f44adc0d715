//! Waiting for what is signalled on the PD's event notification: [`Client::wait`], [`Client::wait_for`], [`Client::poll`].
//!
//! The kernel hands out all flags at once and forgets them. What came and was not asked for is kept here until one of
//! these methods asks for it, so a driver that waits for one thing loses nothing of another. A flag says that something
//! happened since it was last handed out, not how often. Who waits by [`Platform::wait`] instead takes flags past this.

use core::sync::atomic::{AtomicU64, Ordering};

use system::layout::event;

use crate::{Client, Error, Platform};

/// Flags that came and that nobody has asked for yet. Never [`event::TIMER`], which says nothing of anything later.
#[derive(Default)]
pub(crate) struct Kept(AtomicU64);

impl Kept {
    fn add(&self, came: u64) {
        self.0.fetch_or(came & !event::TIMER, Ordering::Relaxed);
    }

    /// Those of `flags` that are kept; they are not any more.
    fn take(&self, flags: u64) -> u64 {
        self.0.fetch_and(!flags, Ordering::Relaxed) & flags
    }
}

impl<P: Platform> Client<'_, P> {
    /// Waits until any flag (`system::layout::event`) is signalled; returns all that came and were not handed out yet.
    ///
    /// [`event::TIMER`] is among them for who armed the timer by its stub.
    #[inline(always)]
    pub fn wait(&self) -> u64 {
        if self.kept.0.load(Ordering::Relaxed) == 0 {
            self.platform.wait()
        } else {
            self.all()
        }
    }

    /// All that came and was not handed out, out of the way of who waits while nothing is kept.
    #[cold]
    #[inline(never)]
    fn all(&self) -> u64 {
        self.poll(u64::MAX)
    }

    /// Waits until one of `flags` is signalled, at most `micros` microseconds; returns those of them that came, at once
    /// if some came before, and 0 when time ran out. Without `flags` it lets that time go by. Other flags that come
    /// meanwhile are kept for who asks for them.
    ///
    /// It uses the PD's one timer: one that was armed by the stub is armed no longer, and [`event::TIMER`] among `flags`
    /// is not waited for.
    ///
    /// # Errors
    /// The timer service's refusal. No flag is lost by it.
    pub fn wait_for(&self, flags: u64, micros: u64) -> Result<u64, Error> {
        let flags = flags & !event::TIMER;
        let came = self.poll(flags);
        // No time is what disarms the timer.
        if came != 0 || micros == 0 {
            return Ok(came);
        }
        let timer = self.timer();
        let deadline = timer.now()?.micros.saturating_add(micros);
        timer.arm(micros)?;
        loop {
            let came = self.platform.wait();
            self.kept.add(came);
            if came & flags != 0 {
                timer.arm(0)?;
                // It may have run out just before: that is not to end a later wait.
                self.kept.add(self.platform.poll());
                return Ok(self.kept.take(flags));
            }
            if came & event::TIMER != 0 && timer.now()?.micros >= deadline {
                return Ok(0);
            }
        }
    }

    /// Those of `flags` that came and were not handed out yet, without waiting. The others are kept.
    pub fn poll(&self, flags: u64) -> u64 {
        let came = self.platform.poll();
        self.kept.add(came & !flags);
        came & flags | self.kept.take(flags)
    }
}
