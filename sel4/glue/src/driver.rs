//! [`Driver`]: what a client asks the kernel for. The client library's platform is made of it.
//!
//! A client maps what lies in its grant window with its own VSpace, in the two ranges that
//! `system::layout::va` sets aside, and lets its interrupts signal its own event notification. No server is asked.

use core::cell::RefCell;

use ipc_proto::{Badge, Refusal, Rule};
use sel4::{CNode, Caching, Frame, FrameSize, IrqHandler, Notification, Rights, VSpace};
use system::layout::{self, slot, va};
use system::pool::NumberPool;

use crate::{CSpace, MmioRegion, Pd, refused};

/// Pages of 4 KiB in `va::SMALL`.
const SMALL_PAGES: u32 = (va::SMALL_BYTES >> 12) as u32;
/// Pages of 2 MiB in `va::LARGE`.
const LARGE_PAGES: u32 = (va::LARGE_BYTES >> 21) as u32;

/// What the kernel does for a driver. One a PD.
#[derive(Debug)]
pub struct Driver {
    window_bits: u8,
    cspace: RefCell<&'static mut CSpace>,
    small: RefCell<NumberPool<{ SMALL_PAGES as usize / 64 }>>,
    large: RefCell<NumberPool<{ LARGE_PAGES as usize / 64 }>>,
    /// Notification capabilities that carry flags of interrupts: slot and flags.
    signals: RefCell<heapless::Vec<(u32, u64), MAX_SIGNALS>>,
}

/// Most different sets of flags that interrupts can signal.
pub const MAX_SIGNALS: usize = 32;

impl Driver {
    /// The driver's side of a client PD. Stops in a PD of another kind, or when made twice.
    #[must_use]
    pub fn new(pd: &Pd) -> Self {
        Self {
            window_bits: pd.client_info().window_bits,
            cspace: RefCell::new(pd.cspace()),
            small: RefCell::new(NumberPool::new(0, SMALL_PAGES).unwrap_or(NumberPool::empty())),
            large: RefCell::new(NumberPool::new(0, LARGE_PAGES).unwrap_or(NumberPool::empty())),
            signals: RefCell::new(heapless::Vec::new()),
        }
    }

    /// The PD's own slots, for programs that work with capabilities themselves.
    pub fn with_cspace<R>(&self, work: impl FnOnce(&mut CSpace) -> R) -> R {
        work(&mut self.cspace.borrow_mut())
    }

    /// A capability that signals `flags` on the PD's event notification, made at the first call for these flags.
    fn signal_for(&self, flags: u64) -> Result<u32, Refusal> {
        let mut signals = self.signals.borrow_mut();
        if let Some((signal, _)) = signals.iter().find(|(_, bound)| *bound == flags) {
            return Ok(*signal);
        }
        if signals.is_full() {
            return Err(Refusal::new(Rule::SlotsExhausted, MAX_SIGNALS as u64));
        }
        let signal = self.cspace.borrow_mut().make_signal(flags)?;
        // There is room.
        let _ = signals.push((signal, flags));
        Ok(signal)
    }

    /// Takes addresses for `pages` pages; the address of the first.
    fn take_addresses(&self, size: FrameSize, pages: u16) -> Option<u64> {
        match size {
            FrameSize::Small => self
                .small
                .borrow_mut()
                .take_run(pages.into(), 1)
                .map(|page| va::SMALL + (u64::from(page) << 12)),
            FrameSize::Large => self
                .large
                .borrow_mut()
                .take_run(pages.into(), 1)
                .map(|page| va::LARGE + (u64::from(page) << 21)),
            FrameSize::Huge => None,
        }
    }

    /// Gives such addresses back.
    fn give_addresses(&self, size: FrameSize, address: u64, pages: u16) {
        // An address that was never taken is told by `false`, and nothing changes.
        let _ = match size {
            FrameSize::Small => self
                .small
                .borrow_mut()
                .give_run((address.wrapping_sub(va::SMALL) >> 12) as u32, pages.into()),
            FrameSize::Large => self
                .large
                .borrow_mut()
                .give_run((address.wrapping_sub(va::LARGE) >> 21) as u32, pages.into()),
            FrameSize::Huge => false,
        };
    }

    /// Maps `pages` frames of the window slots `first`... in a row, readable and writable.
    ///
    /// # Errors
    /// `SlotsExhausted` when the address range is used up, `KernelRefused`; nothing stays mapped then.
    pub fn map(
        &self,
        first: u16,
        pages: u16,
        size: FrameSize,
        caching: Caching,
    ) -> Result<MmioRegion, Refusal> {
        let start = self
            .take_addresses(size, pages)
            .ok_or(Refusal::new(Rule::SlotsExhausted, pages.into()))?;
        for page in 0..pages {
            let address = start + u64::from(page) * size.bytes();
            let frame = window_frame(first.saturating_add(page));
            if let Err(error) = frame.map(
                VSpace::at(slot::VSPACE),
                address,
                Rights::READ_WRITE,
                caching,
            ) {
                unmap(first, page);
                self.give_addresses(size, start, pages);
                return Err(refused(error));
            }
        }
        // SAFETY: page-aligned, and only mappings of this type lie in the two ranges of `va`, at addresses taken
        // from the pools and not given back before they are unmapped.
        Ok(unsafe { MmioRegion::new(start, usize::from(pages) * size.bytes() as usize) })
    }

    /// Takes such a mapping away. `region` and its copies must not be used after that: an access is a page
    /// fault, or reaches what is mapped there next.
    pub fn unmap(&self, region: &MmioRegion, first: u16, pages: u16, size: FrameSize) {
        unmap(first, pages);
        self.give_addresses(size, region.address() as u64, pages);
    }

    /// Empties a window slot. One that a server emptied already is fine.
    pub fn clear(&self, slot: u16) {
        // A slot outside the window is no slot: then there is nothing to empty.
        let _ = CNode::at(slot::WINDOW)
            .slot_at(slot.into(), self.window_bits)
            .delete();
    }

    /// Lets the interrupt handler in a window slot signal `flags` (`system::layout::event`) on the PD's event
    /// notification.
    ///
    /// # Errors
    /// `SlotsExhausted`, `KernelRefused`.
    pub fn bind_interrupt(&self, slot: u16, flags: u64) -> Result<(), Refusal> {
        let signal = self.signal_for(flags)?;
        let handler = IrqHandler::at(layout::window(slot));
        handler
            .set_notification(Notification::at(signal.into()))
            .map_err(refused)
    }

    /// Waits for the PD's event notification; the flags that were signalled.
    #[inline]
    pub fn wait(&self) -> u64 {
        Badge::event_flags(Notification::at(slot::EVENTS).wait()).unwrap_or(0)
    }

    /// The flags that were signalled, without waiting.
    #[inline]
    pub fn poll(&self) -> u64 {
        Badge::event_flags(Notification::at(slot::EVENTS).poll()).unwrap_or(0)
    }
}

/// The size of frames of 2^`bits` bytes that can be mapped here.
#[must_use]
pub fn frame_size(bits: u8) -> Option<FrameSize> {
    [FrameSize::Small, FrameSize::Large]
        .into_iter()
        .find(|size| size.bits() == bits)
}

/// Unmaps frames of window slots. One that a server revoked is unmapped already, and its slot empty.
fn unmap(first: u16, pages: u16) {
    for page in 0..pages {
        let _ = window_frame(first.saturating_add(page)).unmap();
    }
}

fn window_frame(slot: u16) -> Frame {
    Frame::at(layout::window(slot))
}
