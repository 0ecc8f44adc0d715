//! The seams of `hw` over mapped device registers: [`MmioRegion`], [`EcamSpace`].
//!
//! Both are only made from what the root task wrote into the PD's information or from frames that the PD
//! mapped itself, at addresses that nothing else uses. If a mapping goes away while a region is in use
//! (a device was revoked) an access is a page fault, which the supervisor handles: it never reaches
//! memory of the program.

use core::ptr::{self, NonNull};

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

/// Buses of a segment whose configuration space is mapped.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// The first function of the first bus: [`Sbdf::to_bits`].
    first: u32,
    /// Places for functions: 256 a bus.
    functions: u32,
    registers: MmioRegion,
}

impl Window {
    /// No buses.
    const NONE: Self = Self {
        first: 0,
        functions: 0,
        registers: MmioRegion {
            base: ptr::null_mut(),
            bytes: 0,
        },
    };

    /// The first register of a function; `None` when it is not in the window.
    #[inline(always)]
    fn function(&self, at: Sbdf) -> Option<NonNull<u8>> {
        let number = at.to_bits().wrapping_sub(self.first);
        if number >= self.functions {
            return None;
        }
        let place = number as usize * ECAM_FUNCTION_BYTES as usize;
        NonNull::new(self.registers.base.wrapping_add(place))
    }
}

/// Configuration space through the mapped ECAM windows of a pci-server shard.
#[derive(Clone, Debug)]
pub struct EcamSpace {
    /// Most shards have no other.
    first: Window,
    others: Vec<Window, MAX_ECAM>,
}

impl EcamSpace {
    /// Configuration space in these windows.
    ///
    /// # Safety
    /// Each window's buses are mapped at its `vaddr`, which is page-aligned, and nothing else is there, now or later.
    pub(crate) unsafe fn new(windows: &[EcamWindow]) -> Self {
        let mut windows = windows.iter().take(MAX_ECAM).map(|window| {
            let buses = u32::from(window.last_bus.saturating_sub(window.first_bus)) + 1;
            let bytes = u64::from(buses) * ECAM_BUS_BYTES;
            let first = Sbdf::from_requester_id(window.segment, u16::from(window.first_bus) << 8);
            Window {
                first: first.to_bits(),
                functions: buses * (ECAM_BUS_BYTES / ECAM_FUNCTION_BYTES) as u32,
                // SAFETY: the caller's promise.
                registers: unsafe { MmioRegion::new(window.vaddr, bytes as usize) },
            }
        });
        Self {
            first: windows.next().unwrap_or(Window::NONE),
            others: windows.collect(),
        }
    }

    /// The first register of a function; `None` when no window holds it.
    #[inline(always)]
    fn function(&self, at: Sbdf) -> Option<NonNull<u8>> {
        match self.first.function(at) {
            Some(function) => Some(function),
            None => self.function_elsewhere(at),
        }
    }

    #[cold]
    fn function_elsewhere(&self, at: Sbdf) -> Option<NonNull<u8>> {
        self.others.iter().find_map(|window| window.function(at))
    }

    /// Pointer to the register of `T` at `offset`; `None` when no window holds it, or it is not aligned.
    #[inline(always)]
    fn register<T>(&self, at: Sbdf, offset: u16) -> Option<*mut T> {
        let offset = usize::from(offset);
        if offset >= ECAM_FUNCTION_BYTES as usize || !offset.is_multiple_of(size_of::<T>()) {
            return None;
        }
        // Aligned and inside the function's bytes.
        Some(self.function(at)?.as_ptr().wrapping_add(offset).cast())
    }

    #[inline(always)]
    fn read<T: Copy>(&self, at: Sbdf, offset: u16, ones: T) -> T {
        match self.register::<T>(at, offset) {
            // SAFETY: in a window and aligned; windows are device registers (`new`).
            Some(register) => unsafe { register.read_volatile() },
            None => ones,
        }
    }

    #[inline(always)]
    fn write<T>(&self, at: Sbdf, offset: u16, value: T) {
        if let Some(register) = self.register::<T>(at, offset) {
            // SAFETY: in a window and aligned; windows are device registers (`new`).
            unsafe { register.write_volatile(value) }
        }
    }
}

/// The first four bytes of the devices of a bus, by its first function.
///
/// # Safety
/// The bus is mapped, whole.
unsafe fn ids_on(bus: NonNull<u8>) -> impl Iterator<Item = u32> {
    const DEVICE_BYTES: usize = 8 * ECAM_FUNCTION_BYTES as usize;
    (0..ECAM_BUS_BYTES as usize / DEVICE_BYTES).map(move |device| {
        let ids = bus.as_ptr().wrapping_add(device * DEVICE_BYTES);
        // SAFETY: the caller's promise; a function starts at a page.
        unsafe { ids.cast::<u32>().read_volatile() }
    })
}

impl ConfigSpace for EcamSpace {
    #[inline]
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        self.read(at, offset, u8::MAX)
    }
    #[inline]
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        self.read(at, offset, u16::MAX)
    }
    #[inline]
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        self.read(at, offset, u32::MAX)
    }
    #[inline]
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8) {
        self.write(at, offset, value);
    }
    #[inline]
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16) {
        self.write(at, offset, value);
    }
    #[inline]
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32) {
        self.write(at, offset, value);
    }
    #[inline]
    fn devices_on(&self, segment: u16, bus: u8) -> u32 {
        let Some(bus) = self.function(Sbdf::from_requester_id(segment, u16::from(bus) << 8)) else {
            return 0;
        };
        // SAFETY: windows are whole buses, which are mapped (`new`).
        let ids = || unsafe { ids_on(bus) };
        // Of most buses every device reads all ones: this is found out without a branch for each.
        if ids().fold(u32::MAX, |all, ids| all & ids) == u32::MAX {
            return 0;
        }
        (0u32..).zip(ids()).fold(0, |found, (device, ids)| {
            found | u32::from(ids != u32::MAX) << device
        })
    }
}
