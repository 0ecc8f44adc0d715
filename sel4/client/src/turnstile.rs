//! [`Turnstile`]: one lock for several PDs, as other systems have one around all of PCI. This project has none;
//! its benchmark takes this one to show what it would cost.

use client::KernelError;
use sel4::{Notification, ObjectType, Rights};
use system::layout::{self, slot};

use crate::{SeL4Platform, kernel, sel4 as refused};

/// A lock: whoever is through holds the one signal of a notification.
#[derive(Clone, Copy, Debug)]
pub struct Turnstile(Notification);

impl Turnstile {
    /// Makes one, and puts its capability into an empty window slot, to be handed to others.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(platform: &SeL4Platform, window_slot: u16) -> Result<Self, KernelError> {
        platform.driver.with_cspace(|cspace| {
            let number = cspace
                .retype(slot::UNTYPED as u32, ObjectType::Notification, 1)
                .map_err(kernel("make a notification"))?;
            platform
                .window(window_slot)
                .copy_from(cspace.slot(number), Rights::ALL)
                .map_err(refused("copy a notification"))
        })?;
        let turnstile = Self::received(window_slot);
        turnstile.0.signal();
        Ok(turnstile)
    }

    /// The one whose capability another PD put into this window slot.
    #[must_use]
    pub fn received(window_slot: u16) -> Self {
        Self(Notification::at(layout::window(window_slot)))
    }

    /// Does something while nobody else is through.
    #[inline(always)]
    pub fn through<T>(&self, work: impl FnOnce() -> T) -> T {
        // The signal has no badge.
        let _ = self.0.wait();
        let result = work();
        self.0.signal();
        result
    }
}
