//! [`Known`]: a machine of which it is remembered whether anything was read that
//! the dump does not have.

use std::cell::Cell;

use hw::{ConfigSpace, Sbdf};
use sim::config::Machine;

/// A function of a machine of which `length` bytes are known.
pub struct Known<'m> {
    machine: &'m Machine,
    length: usize,
    beyond: Cell<bool>,
}

impl<'m> Known<'m> {
    /// `length` bytes of a function of `machine`.
    pub fn new(machine: &'m Machine, length: usize) -> Self {
        Self {
            machine,
            length,
            beyond: Cell::new(false),
        }
    }

    /// Starts anew.
    pub fn forget(&self) {
        self.beyond.set(false);
    }

    /// Something was read that is not known, since [`Self::forget`].
    pub fn was_beyond(&self) -> bool {
        self.beyond.get()
    }

    /// How many bytes are known.
    pub fn length(&self) -> usize {
        self.length
    }

    fn look(&self, offset: u16, width: usize) {
        if usize::from(offset) + width > self.length {
            self.beyond.set(true);
        }
    }
}

impl ConfigSpace for Known<'_> {
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        self.look(offset, 1);
        self.machine.read8(at, offset)
    }
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        self.look(offset, 2);
        self.machine.read16(at, offset)
    }
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        self.look(offset, 4);
        self.machine.read32(at, offset)
    }
    // A dump is not written.
    fn write8(&mut self, _: Sbdf, _: u16, _: u8) {}
    fn write16(&mut self, _: Sbdf, _: u16, _: u16) {}
    fn write32(&mut self, _: Sbdf, _: u16, _: u32) {}
}
