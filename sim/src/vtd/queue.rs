//! Queued invalidation (6.5.2): descriptors of 128 bits.

use super::{Ailment, Event, Order, State, Step};
use crate::vtd::Snoop;

/// Fault status: invalid descriptor; a device did not answer.
const QUEUE_ERROR: u32 = 1 << 4;
const TIMEOUT_ERROR: u32 = 1 << 6;

const WAIT: u64 = 5;

/// Why a descriptor was not carried out.
enum Fault {
    /// The unit does not understand it.
    Invalid,
    /// A device did not answer.
    Silent,
}
use Fault::Invalid;

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
                self.ailment = Ailment::DeviceSilent(left - 1);
                self.give_up();
                return;
            }
            // Up to and with the next wait that orders: the rest may go in any order.
            let mut group = Vec::new();
            let mut waits = Vec::new();
            while self.queue_head != self.queue_tail {
                let at = (self.queue_address & !0xfff) + self.queue_head;
                // The queue is always read coherently.
                let low = self.memory.unit_read(at, Snoop::Yes);
                let high = self.memory.unit_read(at + 8, Snoop::Yes);
                self.queue_head = (self.queue_head + 16) % size;
                if low & 0xf != WAIT {
                    group.push((low, high));
                    continue;
                }
                waits.push((low, high));
                let last = self.queue_head == self.queue_tail;
                if last || low >> 6 & 1 == 1 && self.step(Step::Fence) {
                    break;
                }
            }
            if self.order == Order::Reversed {
                group.reverse();
            }
            for (low, high) in group.into_iter().chain(waits) {
                self.attack();
                let rejects = self.ailment == Ailment::RejectsDescriptors;
                match self.carry_out(low, high) {
                    Ok(()) if !rejects => self.descriptors += 1,
                    Err(Fault::Silent) => {
                        self.give_up();
                        return;
                    }
                    _ => {
                        self.raise(QUEUE_ERROR);
                        return;
                    }
                }
            }
            self.attack();
        }
    }

    /// A device did not answer: what was fetched is aborted.
    fn give_up(&mut self) {
        self.queue_head = self.queue_tail;
        self.raise(TIMEOUT_ERROR);
    }

    fn carry_out(&mut self, low: u64, high: u64) -> Result<(), Fault> {
        let domain = (low >> 16) as u16;
        let granularity = low >> 4 & 3;
        let kind = low & 0xf;
        if kind != WAIT && !self.step(Step::Invalidation(low)) {
            return Ok(());
        }
        match kind {
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
                self.understand(granularity, (low >> 32) as u16);
            }
            2 => {
                if low & 0xffff_ffff_0000_ff00 != 0 || high & 0xf80 != 0 {
                    return Err(Invalid);
                }
                self.forget_translations(granularity, domain, high)?;
                if granularity < 3 {
                    let known = self.known.iter();
                    let told = known.filter(|(_, of)| granularity == 1 || **of == domain);
                    self.shadowed.extend(told.map(|(requester, _)| *requester));
                }
            }
            3 => {
                if self.extended >> 2 & 1 == 0 || low & 0xffe0_fff0 != 0 || high & 0xffe != 0 {
                    return Err(Invalid);
                }
                if !self.forget_in_device(low, high) {
                    return Err(Fault::Silent);
                }
            }
            4 => {
                let all = low >> 4 & 1 == 0;
                let too_many = low >> 27 & 0x1f > self.extended >> 20 & 0xf;
                if low & 0xffff_0000_07ff_ffe0 != 0 || high != 0 || !all && too_many {
                    return Err(Invalid);
                }
                self.forget_interrupts(low);
                if all {
                    self.events.push(Event::InterruptsForgotten);
                }
            }
            WAIT => {
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

    /// With caching mode: a hypervisor looks at the context entry that was invalidated (6.1).
    fn understand(&mut self, granularity: u64, requester: u16) {
        if granularity != 3 {
            self.known.clear();
            self.shadowed.clear();
            return;
        }
        self.known.remove(&requester);
        self.shadowed.remove(&requester);
        if let Ok(entry) = self.context(requester)
            && entry.table.is_some()
        {
            self.known.insert(requester, entry.domain);
        }
    }

    fn forget_translations(
        &mut self,
        granularity: u64,
        domain: u16,
        high: u64,
    ) -> Result<(), Fault> {
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
