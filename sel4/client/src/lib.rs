//! The client library on seL4: [`SeL4Platform`] is its `Platform`,
//! [`program!`] the entry point of a driver, `virtio` (feature) the adapter
//! for the crates.io virtio drivers.
//!
//! ```ignore
//! sel4_client::program!(main);
//! fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 { 0 }
//! ```
//! The value that `main` returns is the PD's exit code; what it still holds
//! is taken back by the supervisor.
//!
//! Neighbours: `client` (pure), `sel4-glue` (what the kernel does).

#![no_std]

pub mod hammer;
pub mod turnstile;
#[cfg(feature = "virtio")]
pub mod virtio;

use core::fmt;
use core::sync::atomic::AtomicU64;

use client::{KernelError, Memory, Platform, WINDOW_WORDS};
use ipc_proto::{Message, Refusal, Rule};
use sel4::ipc::{self, MessageInfo};
use sel4::{CNode, Caching, Endpoint, Frame, Rights, VSpace};
use sel4_glue::driver::frame_size;
use sel4_glue::{Driver, MmioRegion, Pd, Port, SharedMemory};
use system::info::ClientInfo;
use system::layout::{self, MAILBOX_BITS, slot};

#[doc(hidden)]
pub use sel4_rt as __rt;

/// Defines the entry point of a driver: `program!(main)` with
/// `fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32`.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        $crate::__rt::entry!(__program);
        fn __program(_argument: u64) -> ! {
            $crate::run($main)
        }
    };
}

/// What the kernel does for this PD.
pub struct SeL4Platform {
    pd: &'static Pd,
    driver: Driver,
}

// SAFETY: a PD has one thread, so no two threads ever share the platform. The bound is there because
// drivers keep their client in a static.
unsafe impl Sync for SeL4Platform {}
// SAFETY: as above.
unsafe impl Send for SeL4Platform {}

/// Too large for a driver's stack.
static SLOTS_IN_USE: [AtomicU64; WINDOW_WORDS] = [const { AtomicU64::new(0) }; WINDOW_WORDS];
static PLATFORM: spin::Once<SeL4Platform> = spin::Once::new();

/// Starts the PD, runs `main`, ends the PD. What [`program!`] calls.
pub fn run(main: fn(&'static SeL4Platform, &'static ClientInfo) -> u32) -> ! {
    let pd = Pd::start();
    let platform = PLATFORM.call_once(|| SeL4Platform {
        pd,
        driver: Driver::new(pd),
    });
    pd.ready();
    pd.exit(main(platform, pd.client_info()))
}

/// Ends the PD at once; what it holds is taken back by the supervisor.
pub fn exit(platform: &SeL4Platform, code: u32) -> ! {
    platform.pd.exit(code)
}

/// Ends the PD by a fault, as a broken driver would: for tests.
pub fn fault() -> ! {
    sel4_glue::log::flush();
    // SAFETY: not safe at all, and meant so: nothing is mapped at this address, the PD faults and never goes on.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(0x10).write_volatile(0) };
    sel4_glue::start::stop("a write to address 0x10 did not fault")
}

/// The processor's time-stamp counter. Ordered behind what comes before it.
#[inline(always)]
#[must_use]
pub fn ticks() -> u64 {
    sel4_glue::clock::tsc()
}

/// DMA memory, mapped in this PD.
#[derive(Clone, Copy, Debug)]
pub struct DmaMemory(SharedMemory);

impl Memory for DmaMemory {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        self.0.read(offset, into)
    }
    fn write(&self, offset: usize, from: &[u8]) -> bool {
        self.0.write(offset, from)
    }
    fn address(&self) -> usize {
        self.0.address()
    }
}

const _: () = assert!(layout::va::SMALL_BYTES == 64 << 20 && layout::va::LARGE_BYTES == 1 << 30);
const MAP_MEMORY: &str = "map so many pages of memory: a client has addresses for 64 MiB in small pages and 1 GiB in large ones";
const MAP_REGISTERS: &str = "map so many pages of registers: a client has addresses for 64 MiB in small pages and 1 GiB in large ones";

fn kernel(action: &'static str) -> impl Fn(Refusal) -> KernelError {
    move |refusal| KernelError {
        action,
        rule: refusal.rule,
        code: refusal.about,
    }
}

fn sel4(action: &'static str) -> impl Fn(sel4::Error) -> KernelError {
    move |error| KernelError {
        action,
        rule: Rule::KernelRefused,
        code: sel4_glue::error_code(error),
    }
}

impl SeL4Platform {
    /// Copies the capability of a window slot to an empty window slot.
    ///
    /// # Errors
    /// The kernel's.
    pub fn duplicate(&self, from: u16, to: u16) -> Result<(), KernelError> {
        self.window(to)
            .copy_from(self.window(from), Rights::ALL)
            .map_err(sel4("copy a capability"))
    }

    /// Copies the capability of a private slot (`system::layout::slot`) to an empty window slot: for tests of what
    /// becomes of capabilities that are passed on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn duplicate_private(&self, from: u64, to: u16) -> Result<(), KernelError> {
        let private = CNode::at(slot::CNODE).slot_at(from, self.pd.info().cnode_bits);
        self.window(to)
            .copy_from(private, Rights::ALL)
            .map_err(sel4("copy a capability"))
    }

    /// A slot of the grant window, to work on.
    fn window(&self, slot: u16) -> sel4::Slot {
        let depth = self.pd.client_info().window_bits;
        CNode::at(slot::WINDOW).slot_at(slot.into(), depth)
    }

    /// A slot of the mailbox at a private slot.
    fn mailbox(&self, mailbox: u64, place: u16) -> sel4::Slot {
        CNode::at(mailbox).slot_at(place.into(), MAILBOX_BITS)
    }

    /// Physical address of the frame in a window slot.
    ///
    /// # Errors
    /// The kernel's.
    pub fn physical_address(&self, slot: u16) -> Result<u64, KernelError> {
        Frame::at(layout::window(slot))
            .get_address()
            .map_err(sel4("ask for a frame's address"))
    }

    /// Maps the frame in a window slot at an address of the caller's choice, readable: for tests of the kernel.
    /// Takes no account of what this library has mapped.
    ///
    /// # Errors
    /// The kernel's: `DeleteFirst` when the address is occupied.
    pub fn map_at(&self, window_slot: u16, address: u64) -> Result<(), KernelError> {
        Frame::at(layout::window(window_slot))
            .map(
                VSpace::at(slot::VSPACE),
                address,
                Rights::READ,
                Caching::WriteBack,
            )
            .map_err(sel4("map a frame"))
    }

    /// Calls the endpoint at a private slot with `words` zero words, whatever the contract says: for tests of
    /// servers. At most 120 words.
    #[must_use]
    pub fn raw_call(&self, slot: u64, label: u64, words: usize) -> Message {
        const MOST: usize = 120;
        let registers = ipc::store_message(&[0; MOST]);
        let reply = Endpoint::at(slot).call(MessageInfo::new(label, 0, words.min(MOST)), registers);
        Message::with_words(
            reply.info.label(),
            reply.words.get(..reply.info.length().min(4)).unwrap_or(&[]),
        )
        .unwrap_or(Message::new(Rule::BadReply as u64))
    }
}

impl Platform for SeL4Platform {
    type Port = Port;
    type Registers = MmioRegion;
    type Memory = DmaMemory;

    fn slots_in_use(&self) -> &[AtomicU64] {
        &SLOTS_IN_USE
    }

    #[inline(always)]
    fn port(&self, slot: u64) -> Port {
        Port::at(slot)
    }

    #[inline(always)]
    fn window_port(&self, slot: u16) -> Port {
        Port::at(layout::window(slot))
    }

    fn window_address(&self, slot: u16) -> u64 {
        layout::window(slot)
    }

    fn map_registers(
        &self,
        first: u16,
        pages: u16,
        page_bits: u8,
    ) -> Result<MmioRegion, KernelError> {
        let size = frame_size(page_bits).ok_or(KernelError {
            action: "map registers of this page size",
            rule: Rule::BadArgument,
            code: page_bits.into(),
        })?;
        self.driver
            .map(first, pages, size, Caching::Uncacheable)
            .map_err(kernel(MAP_REGISTERS))
    }

    fn unmap_registers(&self, registers: &mut MmioRegion, first: u16, pages: u16, page_bits: u8) {
        if let Some(size) = frame_size(page_bits) {
            self.driver.unmap(registers, first, pages, size);
        }
    }

    fn map_memory(&self, first: u16, pages: u16, page_bits: u8) -> Result<DmaMemory, KernelError> {
        let size = frame_size(page_bits).ok_or(KernelError {
            action: "map memory of this page size",
            rule: Rule::BadArgument,
            code: page_bits.into(),
        })?;
        let region = self
            .driver
            .map(first, pages, size, Caching::WriteBack)
            .map_err(kernel(MAP_MEMORY))?;
        Ok(DmaMemory(SharedMemory::new(region)))
    }

    fn unmap_memory(&self, memory: &mut DmaMemory, first: u16, pages: u16, page_bits: u8) {
        if let Some(size) = frame_size(page_bits) {
            self.driver.unmap(&memory.0.words(), first, pages, size);
        }
    }

    fn forget_memory(&self, memory: &mut DmaMemory, pages: u16, page_bits: u8) {
        if let Some(size) = frame_size(page_bits) {
            self.driver.forget(&memory.0.words(), pages, size);
        }
    }

    fn clear(&self, slot: u16) {
        self.driver.clear(slot);
    }

    fn post(&self, mailbox: u64, place: u16, from: u16) -> Result<(), KernelError> {
        self.mailbox(mailbox, place)
            .copy_from(self.window(from), Rights::ALL)
            .map_err(sel4("post a capability"))
    }

    fn fetch(&self, mailbox: u64, place: u16, to: u16) -> Result<(), KernelError> {
        self.window(to)
            .move_from(self.mailbox(mailbox, place))
            .map_err(sel4("fetch a capability"))
    }

    fn signal(&self, slot: u64) {
        sel4::Notification::at(slot).signal();
    }

    fn bind_interrupt(&self, slot: u16, flags: u64) -> Result<(), KernelError> {
        self.driver
            .bind_interrupt(slot, flags)
            .map_err(kernel("bind an interrupt"))
    }

    #[inline(always)]
    fn wait(&self) -> u64 {
        self.driver.wait()
    }

    #[inline(always)]
    fn poll(&self) -> u64 {
        self.driver.poll()
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        // A line that the console does not take is lost; there is nobody else to tell.
        let _ = sel4_glue::log::reliably(line);
    }
}
