//! [`Driver`]: what a client asks the kernel for. The client library's platform is made of it.
//!
//! A client maps what lies in its grant window with its own VSpace, in the two ranges that
//! `system::layout::va` sets aside, and lets its interrupts signal its own event notification. No server is asked.

use core::cell::RefCell;

use ipc_proto::{Badge, Refusal, Rule};
use sel4::{CNode, Caching, FrameSize, IrqHandler, Notification};
use system::layout::{self, slot};

use crate::{AddressSpace, CSpace, MmioRegion, Pd, refused};

/// What the kernel does for a driver. One a PD.
#[derive(Debug)]
pub struct Driver {
    window_bits: u8,
    cspace: RefCell<&'static mut CSpace>,
    addresses: RefCell<&'static mut AddressSpace>,
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
            addresses: RefCell::new(pd.address_space()),
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

    /// Maps `pages` frames of the window slots `first`... in a row: [`AddressSpace::map`].
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
        self.addresses
            .borrow_mut()
            .map(layout::window(first), pages, size, caching)
    }

    /// Takes such a mapping away: [`AddressSpace::unmap`].
    pub fn unmap(&self, region: &MmioRegion, first: u16, pages: u16, size: FrameSize) {
        self.addresses
            .borrow_mut()
            .unmap(region, layout::window(first), pages, size);
    }

    /// Takes the addresses of such a mapping back, of which every frame was revoked: [`AddressSpace::forget`].
    pub fn forget(&self, region: &MmioRegion, pages: u16, size: FrameSize) {
        self.addresses.borrow_mut().forget(region, pages, size);
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
        Notification::at(slot::EVENTS).wait() & FLAGS
    }

    /// The flags that were signalled, without waiting.
    #[inline]
    pub fn poll(&self) -> u64 {
        Notification::at(slot::EVENTS).poll() & FLAGS
    }
}

/// The flags in what a PD's event notification hands out: nothing but events is signalled there.
const FLAGS: u64 = Badge::event(u64::MAX) & !Badge::event(0);

/// The size of frames of 2^`bits` bytes that can be mapped here.
#[must_use]
pub fn frame_size(bits: u8) -> Option<FrameSize> {
    [FrameSize::Small, FrameSize::Large]
        .into_iter()
        .find(|size| size.bits() == bits)
}
