//! What the root task needs of `unsafe`: its heap, the bundle behind its image, memory that it maps for
//! a while, registers that it looks at before a server owns them, its log ring.
//!
//! - [`Heap`]: memory for the plan, a fixed number of bytes.
//! - [`bundle_memory`], [`extra_boot_information`], [`use_ipc_buffer`]: what the kernel mapped for the root task.
//! - [`Space`]: the root task's address space above its image; nothing else maps there.
//! - [`Desk`]: the supervisor's endpoint, where requests, faults and signals arrive;
//! - [`Second`]: a second thread, above the first, with a desk of its own;
//! - [`Below`]: a thread below the first, for kernel calls that take long.
//!
//! Only the root task may use this module: it is about the initial thread's address space.

mod below;
mod desk;
mod second;

pub use below::Below;
pub use desk::{Arrival, Desk};
pub use second::{Second, Stack};

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering};

use hw::address::ECAM_BUS_BYTES;
use ipc_proto::log::LogRing;
use linked_list_allocator::Heap as List;
use sel4::{
    BootInfo, Caching, Error, Frame, FrameSize, ObjectType, PageDirectory, PageTable, Pdpt, Result,
    Rights, VSpace, bootinfo,
};
use system::info::EcamWindow;

use crate::{EcamSpace, MmioRegion};

/// A heap of `BYTES` bytes, for `#[global_allocator]`. What does not fit is an allocation failure.
#[derive(Debug)]
pub struct Heap<const BYTES: usize> {
    list: UnsafeCell<List>,
    begun: Cell<bool>,
    memory: UnsafeCell<[MaybeUninit<u8>; BYTES]>,
}

// SAFETY: one thread of the root task allocates: the others (`Second`, `Below`) are made of what never does.
unsafe impl<const BYTES: usize> Sync for Heap<BYTES> {}

impl<const BYTES: usize> Heap<BYTES> {
    /// An empty heap.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            list: UnsafeCell::new(List::empty()),
            begun: Cell::new(false),
            memory: UnsafeCell::new([MaybeUninit::uninit(); BYTES]),
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut List) -> R) -> R {
        // SAFETY: one thread, and `work` (the two methods below) does not come here again.
        let list = unsafe { &mut *self.list.get() };
        if !self.begun.replace(true) {
            // SAFETY: the memory is a static's own (`GlobalAlloc`), used by nothing else, and this happens once.
            unsafe { list.init(self.memory.get().cast(), BYTES) };
        }
        work(list)
    }
}

impl<const BYTES: usize> Default for Heap<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: the list hands out disjoint pieces of `memory` with the layout asked for. It neither panics on a
// layout nor unwinds.
unsafe impl<const BYTES: usize> GlobalAlloc for Heap<BYTES> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|list| list.allocate_first_fit(layout))
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller's promise: it is from `alloc`, with this layout.
            self.with(|list| unsafe { list.deallocate(pointer, layout) });
        }
    }
}

/// One past the last byte of the root task's own segments.
fn image_end() -> u64 {
    unsafe extern "C" {
        /// Set by the linker script.
        static _end: u8;
    }
    (&raw const _end).addr() as u64
}

/// The memory of the root task's image behind its own segments, where the bundle is: up to where the kernel's image
/// frames end. Empty in a program that nothing was packed into.
#[must_use]
pub fn bundle_memory(boot: &BootInfo<'_>) -> &'static [u8] {
    let start = system::bundle::vaddr_after(image_end());
    // The kernel maps the image without gaps, and the IPC buffer on the page after it (`init_sys_state`).
    let bytes = boot.ipc_buffer.saturating_sub(start);
    // SAFETY: the kernel mapped these pages from the packed image for the root task's life. The linker put
    // nothing there, so nobody writes.
    unsafe {
        core::slice::from_raw_parts(ptr::with_exposed_provenance(start as usize), bytes as usize)
    }
}

/// The extra boot information, which the kernel maps behind the boot information's frame.
#[must_use]
pub fn extra_boot_information(frame: &'static [u8], boot: &BootInfo<'_>) -> &'static [u8] {
    let start = frame.as_ptr().addr() + bootinfo::FRAME_BYTES;
    // SAFETY: the kernel mapped `extra_bytes` there for the root task's life (`init_sys_state`); nobody writes.
    unsafe { core::slice::from_raw_parts(ptr::with_exposed_provenance(start), boot.extra_bytes) }
}

/// Tells the bindings where the kernel put the IPC buffer.
pub fn use_ipc_buffer(boot: &BootInfo<'_>) {
    // SAFETY: the kernel mapped the buffer for the root task's life; the address is checked to be aligned and the
    // user's. No Rust object is there, since it lies behind the image.
    unsafe { sel4::init_ipc_buffer(ptr::with_exposed_provenance_mut(boot.ipc_buffer as usize)) }
}

/// Bits of a physical address that the processor has (Intel SDM volume 2A, CPUID leaf 80000008h); 36 where it
/// does not say.
#[must_use]
pub fn physical_address_bits() -> u8 {
    use core::arch::x86_64::__cpuid;
    const LEAF: u32 = 0x8000_0008;
    match __cpuid(0x8000_0000).eax {
        // The lowest byte of the register.
        highest if highest >= LEAF => __cpuid(LEAF).eax as u8,
        _ => 36,
    }
}

/// Where page tables for the root task come from.
pub trait Tables {
    /// Makes a page table of some level; the address of its capability.
    ///
    /// # Errors
    /// The kernel's.
    fn make(&mut self, kind: ObjectType) -> Result<u64>;
}

/// Pages that [`Space::show`] can show at once.
pub const SHOWN_PAGES: u32 = 256;

const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;
/// Where pages are shown. Far above any image, below the rest.
const SHOW: u64 = 0x30_0000_0000;
/// Registers and rings, each at an address that is used once.
const AREA: u64 = 0x31_0000_0000;

/// The root task's address space above its image.
#[derive(Debug)]
pub struct Space<T> {
    vspace: VSpace,
    tables: T,
    next: u64,
}

static TAKEN: AtomicBool = AtomicBool::new(false);

impl<T: Tables> Space<T> {
    /// The address space, once: it alone maps there.
    #[must_use]
    pub fn take(vspace: VSpace, tables: T) -> Option<Self> {
        let first = !TAKEN.swap(true, Ordering::Relaxed);
        first.then_some(Self {
            vspace,
            tables,
            next: AREA,
        })
    }

    /// What makes the page tables.
    pub fn tables(&mut self) -> &mut T {
        &mut self.tables
    }

    /// Maps a frame, and the tables that are missing above it.
    fn map(&mut self, frame: Frame, size: FrameSize, address: u64, caching: Caching) -> Result {
        match frame.map(self.vspace, address, Rights::READ_WRITE, caching) {
            Err(Error::FailedLookup) => {}
            done => return done,
        }
        if size == FrameSize::Small {
            let table = PageTable::at(self.tables.make(ObjectType::PageTable)?);
            match table.map(self.vspace, address) {
                Err(Error::FailedLookup) => {
                    self.add_directory(address)?;
                    table.map(self.vspace, address)?;
                }
                done => done?,
            }
        } else {
            self.add_directory(address)?;
        }
        frame.map(self.vspace, address, Rights::READ_WRITE, caching)
    }

    /// Adds a page directory, and the table above it if that is missing too.
    fn add_directory(&mut self, address: u64) -> Result {
        let directory = PageDirectory::at(self.tables.make(ObjectType::PageDirectory)?);
        match directory.map(self.vspace, address) {
            Err(Error::FailedLookup) => {}
            done => return done,
        }
        let pdpt = Pdpt::at(self.tables.make(ObjectType::Pdpt)?);
        pdpt.map(self.vspace, address)?;
        directory.map(self.vspace, address)
    }

    /// Maps `pages` (at most [`SHOWN_PAGES`]) pages of RAM or firmware's tables, whose capabilities lie in slots from
    /// `first` on and are not mapped; lets `work` see them, and unmaps them.
    ///
    /// # Errors
    /// The kernel's; everything is unmapped again.
    pub fn show<R>(
        &mut self,
        first: u64,
        pages: u32,
        work: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R> {
        if pages > SHOWN_PAGES {
            return Err(Error::RangeError);
        }
        let mut mapped = 0;
        let mut result = Ok(());
        while mapped < pages && result.is_ok() {
            let address = SHOW + u64::from(mapped) * PAGE;
            result = self.map(
                Frame::at(first + u64::from(mapped)),
                FrameSize::Small,
                address,
                Caching::WriteBack,
            );
            mapped += u32::from(result.is_ok());
        }
        let result = result.map(|()| {
            // SAFETY: 1. these pages were just mapped, readable and writable, and stay so until `work` returns;
            // 2. `&mut self` keeps the area to one caller; 3. frames that were not mapped are no Rust object of
            // the root task, and no PD runs that has them.
            let bytes = unsafe {
                core::slice::from_raw_parts_mut(
                    ptr::with_exposed_provenance_mut(SHOW as usize),
                    pages as usize * PAGE as usize,
                )
            };
            work(bytes)
        });
        for page in 0..mapped {
            Frame::at(first + u64::from(page)).unmap()?;
        }
        result
    }

    /// Addresses that nothing used yet, as far beyond a large page as `like`.
    fn addresses(&mut self, like: u64, bytes: u64) -> u64 {
        let address = self.next + like % LARGE_PAGE;
        self.next = (address + bytes).next_multiple_of(LARGE_PAGE);
        address
    }

    /// Maps device registers that begin at the physical address `physical`: frames side by side, in order.
    ///
    /// # Errors
    /// The kernel's. What was mapped stays mapped, at addresses that are not used again.
    pub fn registers(
        &mut self,
        physical: u64,
        frames: impl Iterator<Item = (Frame, FrameSize)> + Clone,
    ) -> Result<MmioRegion> {
        let bytes = frames.clone().map(|(_, size)| size.bytes()).sum();
        let address = self.addresses(physical, bytes);
        let mut at = address;
        for (frame, size) in frames {
            self.map(frame, size, at, Caching::Uncacheable)?;
            at += size.bytes();
        }
        // SAFETY: the range was handed out once; if the mapping goes away an access is a page fault.
        Ok(unsafe { MmioRegion::new(address, bytes as usize) })
    }

    /// Configuration space in windows that [`Self::registers`] mapped: (segment, first bus, last bus) and registers.
    /// Windows beyond `system::info::MAX_ECAM`, and those that are not mapped whole, are left out.
    pub fn ecam(windows: impl Iterator<Item = ((u16, u8, u8), MmioRegion)>) -> EcamSpace {
        let mapped = windows.filter_map(|((segment, first_bus, last_bus), region)| {
            let buses = u64::from(last_bus.checked_sub(first_bus)?) + 1;
            (buses * ECAM_BUS_BYTES <= hw::Mmio::len(&region) as u64).then_some(EcamWindow {
                vaddr: region.address() as u64,
                paddr: 0,
                segment,
                first_bus,
                last_bus,
            })
        });
        let list: heapless::Vec<EcamWindow, { system::info::MAX_ECAM }> =
            mapped.take(system::info::MAX_ECAM).collect();
        // SAFETY: each window's registers are mapped for all its buses, at addresses of their own.
        unsafe { EcamSpace::new(&list) }
    }

    /// Maps a frame of RAM for good, at an address of its own, which comes back.
    ///
    /// # Errors
    /// The kernel's.
    pub fn page(&mut self, frame: Frame) -> Result<u64> {
        let address = self.addresses(0, PAGE);
        self.map(frame, FrameSize::Small, address, Caching::WriteBack)?;
        Ok(address)
    }

    /// Maps a log ring of zeros: `pages` frames in slots from `first` on.
    ///
    /// # Errors
    /// The kernel's; `RangeError` for fewer pages than a ring has.
    pub fn ring(&mut self, first: u64, pages: u32) -> Result<&'static LogRing> {
        let bytes = u64::from(pages) * PAGE;
        if (bytes as usize) < size_of::<LogRing>() {
            return Err(Error::RangeError);
        }
        let address = self.addresses(0, bytes);
        for page in 0..u64::from(pages) {
            self.map(
                Frame::at(first + page),
                FrameSize::Small,
                address + page * PAGE,
                Caching::WriteBack,
            )?;
        }
        // SAFETY: mapped for good at an address of its own, page-aligned; a ring is made of atomics alone, for which
        // all zeros, and whatever the console makes of it, is a value.
        Ok(unsafe { &*ptr::with_exposed_provenance::<LogRing>(address as usize) })
    }
}
