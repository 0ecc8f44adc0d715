//! [`Ports`]: those of a shard. Most of them have nothing to do most of the time, and an operation on a device
//! must not cost more where there are many: when the first is due is found once, until one of them is touched.

use core::cell::Cell;
use core::ops::{Deref, DerefMut};

use heapless::Vec;

use super::errors::ErrorSource;
use super::{MAX_PORTS, Port};

/// The ports of a shard. To be read and changed as a slice.
#[derive(Debug)]
pub struct Ports {
    all: Vec<Port, MAX_PORTS>,
    /// When the first is due; `None`: to be found anew.
    first: Cell<Option<u64>>,
}

impl Ports {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            all: Vec::new(),
            first: Cell::new(None),
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.first.set(None);
        self.all.clear();
    }

    /// One more; `false` when there is no room for it.
    #[must_use]
    pub fn push(&mut self, port: Port) -> bool {
        self.first.set(None);
        self.all.push(port).is_ok()
    }

    /// Forgets those that `stays` does not say.
    pub fn retain(&mut self, stays: impl FnMut(&Port) -> bool) {
        self.first.set(None);
        self.all.retain(stays);
    }

    /// When the first of them is due (`u64::MAX`: none by itself).
    pub fn first_due(&self) -> u64 {
        if let Some(due) = self.first.get() {
            return due;
        }
        let due = self.all.iter().map(Port::next_due).min();
        let due = due.unwrap_or(u64::MAX);
        self.first.set(Some(due));
        due
    }
}

impl Port {
    /// When something of the port is due, its slot or its errors.
    #[must_use]
    pub fn next_due(&self) -> u64 {
        let errors = self.errors.as_ref().map_or(u64::MAX, ErrorSource::due);
        self.due().min(errors)
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Ports {
    type Target = [Port];
    fn deref(&self) -> &[Port] {
        &self.all
    }
}

impl DerefMut for Ports {
    fn deref_mut(&mut self) -> &mut [Port] {
        self.first.set(None);
        &mut self.all
    }
}
