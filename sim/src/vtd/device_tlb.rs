//! Devices that keep translations (ATS; PCIe 5.0, 10): they ask the unit, keep
//! the answer for ever, and send requests that say "translated" with it. They
//! forget only when the unit sends an invalidation.

use super::{Ailment, Dma, Reason, State, Vtd};

impl Vtd {
    /// A device asks for the translation of a page, and keeps it. What it could read or write is what
    /// [`Self::dma`] would do.
    ///
    /// # Errors
    /// The unit does not answer such questions of this device, or there is no translation.
    pub fn ask(&self, requester: u16, address: u64, direction: Dma) -> Result<(), Reason> {
        let state = &mut *self.0.borrow_mut();
        state.may_keep(requester)?;
        let physical = state.dma(requester, address & !0xfff, direction)?;
        state
            .device_tlbs
            .insert((requester, address >> 12), physical);
        Ok(())
    }

    /// A device uses a translation that it keeps; `None` if it keeps none.
    ///
    /// # Errors
    /// The unit lets no translated requests of this device pass.
    pub fn translated(&self, requester: u16, address: u64) -> Option<Result<u64, Reason>> {
        let state = &mut *self.0.borrow_mut();
        let physical = *state.device_tlbs.get(&(requester, address >> 12))?;
        let outcome = state.may_keep(requester);
        if let Err(reason) = outcome {
            state.fault(requester, address, reason, Dma::Read);
        }
        Some(outcome.map(|()| physical + address % 0x1000))
    }

    /// A device asks for a page to be made present (PRI). The unit has no queue for that unless one was set
    /// up, which shows in its registers: it answers "response failure".
    #[must_use]
    pub fn page_request(&self) -> bool {
        self.0.borrow().page_requests_on
    }
}

impl State {
    fn may_keep(&mut self, requester: u16) -> Result<(), Reason> {
        let context = self.context(requester)?;
        match context.table {
            None => Err(Reason::ContextNotPresent),
            Some(_) if context.keeps => Ok(()),
            Some(_) => Err(Reason::Translated),
        }
    }

    /// Sends an invalidation to a device (6.5.2.5). `false`: it did not answer.
    pub(super) fn forget_in_device(&mut self, low: u64, high: u64) -> bool {
        let requester = (low >> 32) as u16;
        if self.ailment == Ailment::DeviceMute(requester) {
            return false;
        }
        let (first, last) = if high & 1 == 0 {
            (high >> 12, high >> 12)
        } else {
            // The lowest zero from bit 12 up: so many pages, doubled.
            let bits = (high >> 12).trailing_ones() + 1;
            let first = if bits > 51 {
                0
            } else {
                high >> 12 >> bits << bits
            };
            (first, first + ((1u64 << bits.min(52)) - 1))
        };
        self.device_tlbs
            .retain(|(of, page), _| *of != requester || !(first..=last).contains(page));
        true
    }
}
