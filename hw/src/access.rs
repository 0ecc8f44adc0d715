//! The seams through which hardware reaches the pure cores: configuration
//! space, memory-mapped registers and a clock.
//!
//! Implemented by `sel4/glue` over mapped frames and by `sim` over a simulated
//! machine. The traits are infallible on purpose: hardware does not report
//! errors, it reads all ones.

use crate::Sbdf;
use crate::header::register;

/// Access to the configuration space of a set of functions.
///
/// Contract: a read of an absent function, of a register beyond its
/// configuration space, or at an offset that is not a multiple of the access
/// width gives all ones; such a write does nothing. An access has exactly the
/// width asked for: a 16-bit write of Command never touches Status, whose bits
/// are cleared by writing ones (PCIe 5.0, 7.5.1.1.4).
pub trait ConfigSpace {
    /// Reads one byte at `offset` (bytes, 0 to 4095).
    fn read8(&self, at: Sbdf, offset: u16) -> u8;
    /// Reads two bytes at `offset`, which is even.
    fn read16(&self, at: Sbdf, offset: u16) -> u16;
    /// Reads four bytes at `offset`, a multiple of four.
    fn read32(&self, at: Sbdf, offset: u16) -> u32;
    /// Writes one byte at `offset`.
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8);
    /// Writes two bytes at `offset`, which is even.
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16);
    /// Writes four bytes at `offset`, a multiple of four.
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32);
    /// The devices of a bus that may be there, one bit each: those whose function 0 does not read all ones.
    ///
    /// Most buses and devices of a segment are empty, so that this is most of what a scan costs: one that maps
    /// configuration space has a faster way.
    fn devices_on(&self, segment: u16, bus: u8) -> u32 {
        (0..=Sbdf::MAX_DEVICE).fold(0, |found, device| {
            let routing = u16::from(bus) << 8 | u16::from(device) << 3;
            let at = Sbdf::from_requester_id(segment, routing);
            found | u32::from(self.read32(at, register::VENDOR_ID) != u32::MAX) << device
        })
    }
}

impl<C: ConfigSpace + ?Sized> ConfigSpace for &mut C {
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        (**self).read8(at, offset)
    }
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        (**self).read16(at, offset)
    }
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        (**self).read32(at, offset)
    }
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8) {
        (**self).write8(at, offset, value);
    }
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16) {
        (**self).write16(at, offset, value);
    }
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32) {
        (**self).write32(at, offset, value);
    }
    fn devices_on(&self, segment: u16, bus: u8) -> u32 {
        (**self).devices_on(segment, bus)
    }
}

/// A window of memory-mapped device registers, little-endian.
///
/// Contract: an access that is not naturally aligned or passes [`Self::len`]
/// reads all ones or does nothing. Accesses happen once, in program order, with
/// the width asked for.
pub trait Mmio {
    /// Bytes in the window.
    fn len(&self) -> usize;
    /// Whether the window holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads four bytes at `offset` (bytes from the window's start).
    fn read32(&self, offset: usize) -> u32;
    /// Reads eight bytes at `offset`.
    fn read64(&self, offset: usize) -> u64;
    /// Writes four bytes at `offset`.
    fn write32(&mut self, offset: usize, value: u32);
    /// Writes eight bytes at `offset`.
    fn write64(&mut self, offset: usize, value: u64);
}

impl<M: Mmio + ?Sized> Mmio for &mut M {
    fn len(&self) -> usize {
        (**self).len()
    }
    fn read32(&self, offset: usize) -> u32 {
        (**self).read32(offset)
    }
    fn read64(&self, offset: usize) -> u64 {
        (**self).read64(offset)
    }
    fn write32(&mut self, offset: usize, value: u32) {
        (**self).write32(offset, value);
    }
    fn write64(&mut self, offset: usize, value: u64) {
        (**self).write64(offset, value);
    }
}

/// A clock that never goes back.
pub trait Clock {
    /// Microseconds since some fixed moment, at latest the start of the program.
    fn now_us(&self) -> u64;
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now_us(&self) -> u64 {
        (**self).now_us()
    }
}
