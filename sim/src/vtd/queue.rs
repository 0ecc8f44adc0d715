//! Queued invalidation (6.5.2): descriptors of 128 bits.

use super::{Ailment, Event, State};
use crate::vtd::Snoop;

/// Fault status: invalid descriptor; a device did not answer.
const QUEUE_ERROR: u32 = 1 << 4;
const TIMEOUT_ERROR: u32 = 1 << 6;

/// A descriptor that the unit does not understand.
struct Invalid;

impl State {
    /// Carries out what lies between head and tail.
    pub(super) fn run_queue(&mut self) {
        let size = 0x1000u64 << (self.queue_address & 7);
        if self.ailment == Ailment::QueueStuck || self.status >> 26 & 1 == 0 {
            return;
        }
        while self.queue_head != self.queue_tail && self.fault_status & 0x70 == 0 {
            if let Ailment::DeviceSilent(left) = self.ailment
                && left > 0
            {
                // What was fetched is aborted.
                self.ailment = Ailment::DeviceSilent(left - 1);
                self.queue_head = self.queue_tail;
                self.raise(TIMEOUT_ERROR);
                return;
            }
            let at = (self.queue_address & !0xfff) + self.queue_head;
            // The queue is always read coherently.
            let low = self.memory.unit_read(at, Snoop::Yes);
            let high = self.memory.unit_read(at + 8, Snoop::Yes);
            let rejects = self.ailment == Ailment::RejectsDescriptors;
            if rejects || self.carry_out(low, high).is_err() {
                self.raise(QUEUE_ERROR);
                return;
            }
            self.descriptors += 1;
            self.queue_head = (self.queue_head + 16) % size;
        }
    }

    fn carry_out(&mut self, low: u64, high: u64) -> Result<(), Invalid> {
        let domain = (low >> 16) as u16;
        let granularity = low >> 4 & 3;
        match low & 0xf {
            1 => {
                if low & 0xfffc_0000_0000_ffc0 != 0 || high != 0 {
                    return Err(Invalid);
                }
                if self.ailment == Ailment::DeafToContexts {
                    return Ok(());
                }
                match granularity {
                    1 => {
                        self.caches.forget_all_contexts();
                        self.events.push(Event::ContextsForgotten);
                    }
                    2 => self.caches.forget_contexts_of(domain),
                    3 => self.caches.forget_context((low >> 32) as u16, domain),
                    _ => return Err(Invalid),
                }
            }
            2 => {
                if low & 0xffff_ffff_0000_ff00 != 0 || high & 0xf80 != 0 {
                    return Err(Invalid);
                }
                self.forget_translations(granularity, domain, high)?;
            }
            5 => {
                let writes = low >> 5 & 1 == 1;
                if low & 0xffff_ff80 != 0 || high & 3 != 0 || !writes {
                    return Err(Invalid);
                }
                self.memory.unit_write32(high, (low >> 32) as u32);
            }
            _ => return Err(Invalid),
        }
        Ok(())
    }

    fn forget_translations(
        &mut self,
        granularity: u64,
        domain: u16,
        high: u64,
    ) -> Result<(), Invalid> {
        if self.ailment == Ailment::DeafToTranslations {
            return Ok(());
        }
        match granularity {
            1 => {
                self.caches.forget_all_pages();
                self.events.push(Event::TranslationsForgotten);
            }
            2 => self.caches.forget_domain(domain),
            3 => {
                let (mask, largest) = (high & 0x3f, self.capability >> 48 & 0x3f);
                if self.capability >> 39 & 1 == 0 || mask > largest {
                    return Err(Invalid);
                }
                let first = high & !0xfff & (u64::MAX << (12 + mask));
                let last = first + ((0x1000 << mask) - 1);
                let tables_too = high >> 6 & 1 == 0;
                self.caches.forget_range(domain, first, last, tables_too);
            }
            _ => return Err(Invalid),
        }
        Ok(())
    }
}
