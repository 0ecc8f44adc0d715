//! What needs `unsafe` on Linux: calls of a driver ([`call`]), memory mapped
//! into the process ([`Mapping`]), the time-stamp counter ([`ticks`]).
//!
//! The only file outside `sel4/` with that word: this program is in no image
//! of the project, and Linux cannot be asked otherwise.

use rustix::io::Result;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::ffi::{CStr, c_void};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// An argument of a driver's call.
pub enum Argument<'a, T> {
    /// A number, or none (0).
    Number(usize),
    /// Memory that the driver reads or writes, as long as its type.
    Memory(&'a mut T),
}

struct Call<'a, T> {
    opcode: Opcode,
    argument: Argument<'a, T>,
}

// SAFETY: the argument is a number, or borrowed for the call and as long as the callers of `call` promise.
unsafe impl<T> Ioctl for Call<'_, T> {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        match &mut self.argument {
            Argument::Number(number) => ptr::with_exposed_provenance_mut(*number),
            Argument::Memory(memory) => ptr::from_mut::<T>(memory).cast(),
        }
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> Result<i32> {
        Ok(output)
    }
}

/// Calls VFIO (`ioctl`, numbers of `linux/vfio.h`); what it answered.
///
/// # Errors
/// The driver's.
pub fn call<T>(file: impl AsFd, opcode: Opcode, argument: Argument<'_, T>) -> Result<i32> {
    // SAFETY: VFIO reads or writes no more than the length that the argument's first word gives, which callers set
    // to its type's; without memory it takes a number. Nothing else of the process is touched: memory that is
    // mapped for DMA is a `Mapping` of the caller.
    unsafe { rustix::ioctl::ioctl(file, Call { opcode, argument }) }
}

/// Calls VFIO with a name; the file that it opened.
///
/// # Errors
/// The driver's.
pub fn open_by(file: impl AsFd, opcode: Opcode, name: &CStr) -> Result<OwnedFd> {
    let argument = Argument::<()>::Number(name.as_ptr().expose_provenance());
    let number = call(file, opcode, argument)?;
    // SAFETY: the driver has just opened it for this process, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Memory of a driver, or of the process alone, mapped into the process until it is dropped.
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    /// Bytes before the first that is used.
    skipped: usize,
}

/// Bytes of an ordinary page and of a huge one.
const PAGE: usize = 4 << 10;
const HUGE: usize = 2 << 20;

/// What pages the process's own memory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// 4 KiB, and no larger ones in their place.
    Ordinary,
    /// 2 MiB, reserved when Linux started (hugetlb).
    Huge,
    /// 2 MiB in the place of 512 ordinary ones (transparent).
    Transparent,
}

impl Mapping {
    fn new(start: *mut c_void, bytes: usize) -> Result<Self> {
        let start = NonNull::new(start.cast()).ok_or(rustix::io::Errno::FAULT)?;
        let skipped = 0;
        Ok(Self {
            start,
            bytes,
            skipped,
        })
    }

    /// Maps `bytes` of a driver's file from `offset`.
    ///
    /// # Errors
    /// Linux's.
    pub fn of_file(file: impl AsFd, offset: u64, bytes: usize) -> Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: Linux chooses the address, so nothing of the process is mapped over.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                bytes,
                access,
                MapFlags::SHARED,
                file,
                offset,
            )
        };
        Self::new(start?, bytes)
    }

    /// Takes `bytes` of zeroed memory that is there at once.
    ///
    /// # Errors
    /// Linux's: no such memory is left.
    pub fn of_memory(bytes: usize, pages: Pages) -> Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let (flags, spare, advice) = match pages {
            Pages::Ordinary => (MapFlags::PRIVATE, 0, Some(Advice::LinuxNoHugepage)),
            Pages::Huge => (MapFlags::PRIVATE | MapFlags::HUGETLB, 0, None),
            // An aligned part of this length is in it.
            Pages::Transparent => (MapFlags::PRIVATE, HUGE, Some(Advice::LinuxHugepage)),
        };
        let length = bytes + spare;
        // SAFETY: as above.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), length, access, flags) };
        let mut memory = Self::new(start?, length)?;
        if let Some(advice) = advice {
            // SAFETY: advice about pages changes nothing of what is in them; they are this mapping's.
            unsafe { rustix::mm::madvise(memory.start.as_ptr().cast(), length, advice) }?;
        }
        memory.skipped = match spare {
            0 => 0,
            spare => {
                memory.start.as_ptr().addr().next_multiple_of(spare) - memory.start.as_ptr().addr()
            }
        };
        (0..bytes)
            .step_by(PAGE)
            .for_each(|page| memory.write32(page, 0));
        Ok(memory)
    }

    /// The address of its first byte.
    pub fn address(&self) -> u64 {
        (self.start.as_ptr().addr() + self.skipped) as u64
    }

    fn word(&self, offset: usize) -> Option<*mut u32> {
        let offset = offset.checked_add(self.skipped)?;
        let inside = offset.is_multiple_of(4) && offset.checked_add(4)? <= self.bytes;
        // SAFETY: it is inside the mapping.
        inside.then(|| unsafe { self.start.as_ptr().add(offset) }.cast())
    }

    /// Reads a register; all ones outside.
    pub fn read32(&self, offset: usize) -> u32 {
        // SAFETY: aligned and mapped; a register has no type that could be broken.
        self.word(offset)
            .map_or(u32::MAX, |word| unsafe { word.read_volatile() })
    }

    /// Writes a register; nothing happens outside.
    pub fn write32(&self, offset: usize, value: u32) {
        if let Some(word) = self.word(offset) {
            // SAFETY: as above.
            unsafe { word.write_volatile(value) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by this value, which nobody can name any more.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The processor's time-stamp counter.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: the instruction is there on every x86_64 processor, and Linux lets processes use it.
    unsafe { core::arch::x86_64::_rdtsc() }
}
