//! The seams of `hw` over mapped device registers: [`MmioRegion`], [`EcamSpace`].
//!
//! Both are only made from what the root task wrote into the PD's information or from frames that the PD
//! mapped itself, at addresses that nothing else uses. If a mapping goes away while a region is in use
//! (a device was revoked) an access is a page fault, which the supervisor handles: it never reaches
//! memory of the program.

use core::ptr;

use heapless::Vec;
use hw::address::{ECAM_BUS_BYTES, ECAM_FUNCTION_BYTES};
use hw::{ConfigSpace, Mmio, Sbdf};
use system::info::{EcamWindow, MAX_ECAM};

/// A window of mapped device registers. Copies name the same registers.
#[derive(Clone, Copy, Debug)]
pub struct MmioRegion {
    base: *mut u8,
    bytes: usize,
}

impl MmioRegion {
    /// The registers at `address`.
    ///
    /// # Safety
    /// `bytes` bytes from `address`, which is page-aligned, are set aside for device registers or shared memory: no
    /// Rust object is there, now or later.
    #[must_use]
    pub const unsafe fn new(address: u64, bytes: usize) -> Self {
        Self {
            base: ptr::with_exposed_provenance_mut(address as usize),
            bytes,
        }
    }

    /// Address of the first byte.
    #[must_use]
    pub fn address(&self) -> usize {
        self.base.addr()
    }

    /// Pointer to the register of `T` at `offset`; `None` when it is outside or not aligned.
    #[inline(always)]
    fn register<T>(&self, offset: usize) -> Option<*mut T> {
        let end = offset.checked_add(size_of::<T>())?;
        // The base is page-aligned, so the offset alone decides.
        if end > self.bytes || !offset.is_multiple_of(size_of::<T>()) {
            return None;
        }
        Some(self.base.wrapping_add(offset).cast())
    }

    /// Reads a register of one byte at `offset`; all ones outside.
    #[must_use]
    pub fn read8(&self, offset: usize) -> u8 {
        self.read(offset, u8::MAX)
    }

    /// Reads a register of two bytes at `offset`; all ones outside, or where it is not aligned.
    #[must_use]
    pub fn read16(&self, offset: usize) -> u16 {
        self.read(offset, u16::MAX)
    }

    /// Writes a register of one byte at `offset`; nothing outside.
    pub fn write8(&mut self, offset: usize, value: u8) {
        self.write(offset, value);
    }

    /// Writes a register of two bytes at `offset`; nothing outside, or where it is not aligned.
    pub fn write16(&mut self, offset: usize, value: u16) {
        self.write(offset, value);
    }

    /// Reads the register of `T` (an unsigned integer) at `offset`.
    #[inline(always)]
    pub(crate) fn read<T: Copy>(&self, offset: usize, ones: T) -> T {
        match self.register::<T>(offset) {
            // SAFETY: in the window and aligned; the window is device registers (`new`).
            Some(register) => unsafe { register.read_volatile() },
            None => ones,
        }
    }

    /// Writes the register of `T` at `offset`.
    #[inline(always)]
    pub(crate) fn write<T>(&self, offset: usize, value: T) {
        if let Some(register) = self.register::<T>(offset) {
            // SAFETY: in the window and aligned; the window is device registers (`new`).
            unsafe { register.write_volatile(value) }
        }
    }
}

impl Mmio for MmioRegion {
    fn len(&self) -> usize {
        self.bytes
    }
    #[inline]
    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, u32::MAX)
    }
    #[inline]
    fn read64(&self, offset: usize) -> u64 {
        self.read(offset, u64::MAX)
    }
    #[inline]
    fn write32(&mut self, offset: usize, value: u32) {
        self.write(offset, value);
    }
    #[inline]
    fn write64(&mut self, offset: usize, value: u64) {
        self.write(offset, value);
    }
}

/// Configuration space through the mapped ECAM windows of a pci-server shard.
#[derive(Clone, Debug)]
pub struct EcamSpace {
    windows: Vec<(EcamWindow, MmioRegion), MAX_ECAM>,
}

impl EcamSpace {
    /// Configuration space in these windows.
    ///
    /// # Safety
    /// Each window's buses are mapped at its `vaddr`, which is page-aligned, and nothing else is there, now or later.
    pub(crate) unsafe fn new(windows: &[EcamWindow]) -> Self {
        let windows = windows.iter().take(MAX_ECAM).map(|window| {
            let buses = u64::from(window.last_bus.saturating_sub(window.first_bus)) + 1;
            // SAFETY: the caller's promise.
            let region =
                unsafe { MmioRegion::new(window.vaddr, (buses * ECAM_BUS_BYTES) as usize) };
            (*window, region)
        });
        Self {
            windows: windows.collect(),
        }
    }

    /// Where a register is; `None` when no window holds it.
    #[inline]
    fn locate(&self, at: Sbdf, offset: u16) -> Option<(&MmioRegion, usize)> {
        if u64::from(offset) >= ECAM_FUNCTION_BYTES {
            return None;
        }
        let (window, region) = self.windows.iter().find(|(window, _)| {
            window.segment == at.segment()
                && (window.first_bus..=window.last_bus).contains(&at.bus())
        })?;
        let functions =
            u64::from(at.requester_id()).checked_sub(u64::from(window.first_bus) << 8)?;
        Some((
            region,
            (functions * ECAM_FUNCTION_BYTES) as usize + usize::from(offset),
        ))
    }

    #[inline]
    fn read<T: Copy>(&self, at: Sbdf, offset: u16, ones: T) -> T {
        self.locate(at, offset)
            .map_or(ones, |(region, offset)| region.read(offset, ones))
    }

    #[inline]
    fn write<T>(&self, at: Sbdf, offset: u16, value: T) {
        if let Some((region, offset)) = self.locate(at, offset) {
            region.write(offset, value);
        }
    }
}

impl ConfigSpace for EcamSpace {
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        self.read(at, offset, u8::MAX)
    }
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        self.read(at, offset, u16::MAX)
    }
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        self.read(at, offset, u32::MAX)
    }
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8) {
        self.write(at, offset, value);
    }
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16) {
        self.write(at, offset, value);
    }
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32) {
        self.write(at, offset, value);
    }
}
