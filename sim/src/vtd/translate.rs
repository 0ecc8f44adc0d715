//! From a device's address to memory: root and context entries, page tables,
//! permissions, and what is cached on the way (3.4, 3.7, 9).

use super::cache::{CachedContext, CachedPage};
use super::memory::Snoop;
use super::{Dma, Reason, State};

/// Bits of an address that an entry may hold.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Leaf above the last level.
const LARGE: u64 = 1 << 7;

impl State {
    pub(super) fn dma(
        &mut self,
        requester: u16,
        address: u64,
        direction: Dma,
    ) -> Result<u64, Reason> {
        if self.status >> 31 == 0 {
            return Ok(address);
        }
        let outcome = self.translate(requester, address, direction);
        if let Err(reason) = outcome {
            self.fault(requester, address, reason, direction);
        }
        outcome
    }

    /// Records a blocked request, unless the context entry says not to (9.3, FPD: present or not).
    pub(super) fn fault(&mut self, requester: u16, address: u64, reason: Reason, direction: Dma) {
        let silent = match self.caches.contexts.get(&requester) {
            Some(entry) => entry.silent,
            None => {
                let root = self.read((self.root & ADDRESS) + u64::from(requester >> 8) * 16);
                let at = (root & ADDRESS) + u64::from(requester & 0xff) * 16;
                root & 1 == 1 && self.read(at) & 2 != 0
            }
        };
        if !silent {
            let read = direction == Dma::Read;
            self.record_fault(requester, address, reason as u8, read);
        }
    }

    pub(super) fn read(&self, address: u64) -> u64 {
        let snoop = if self.extended & 1 == 1 {
            Snoop::Yes
        } else {
            Snoop::No
        };
        self.memory.unit_read(address, snoop)
    }

    pub(super) fn caching_mode(&self) -> bool {
        self.capability >> 7 & 1 == 1
    }

    pub(super) fn translate(
        &mut self,
        requester: u16,
        address: u64,
        direction: Dma,
    ) -> Result<u64, Reason> {
        let context = self.context(requester)?;
        let table = context.table.ok_or(Reason::ContextNotPresent)?;
        if self.caching_mode() && !self.shadowed.contains(&requester) {
            return Err(Reason::ContextNotPresent);
        }
        let width = (12 + 9 * context.levels).min((self.capability >> 16 & 0x3f) as u32 + 1);
        if address >> width != 0 {
            return Err(Reason::BeyondWidth);
        }
        let page = match self.caches.page(context.domain, address) {
            Some(page) => page,
            None => self.walk(context.domain, table, context.levels, address, direction)?,
        };
        match direction {
            Dma::Read if !page.read => Err(Reason::Read),
            Dma::Write if !page.write => Err(Reason::Write),
            _ => Ok(page.physical + (address & ((1 << page.bits) - 1))),
        }
    }

    pub(super) fn context(&mut self, requester: u16) -> Result<CachedContext, Reason> {
        if let Some(entry) = self.caches.contexts.get(&requester) {
            return Ok(*entry);
        }
        let mut absent = CachedContext {
            domain: 0,
            table: None,
            levels: 0,
            keeps: false,
            silent: false,
        };
        let root = self.read((self.root & ADDRESS) + u64::from(requester >> 8) * 16);
        if root & 1 == 0 {
            if self.caching_mode() {
                self.caches.contexts.insert(requester, absent);
            }
            return Err(Reason::RootNotPresent);
        }
        if root & 0xffe != 0 {
            return Err(Reason::RootReserved);
        }
        let at = (root & ADDRESS) + u64::from(requester & 0xff) * 16;
        let (low, high) = (self.read(at), self.read(at + 8));
        absent.silent = low & 2 != 0;
        if low & 1 == 0 {
            if self.caching_mode() {
                self.caches.contexts.insert(requester, absent);
            }
            return Err(Reason::ContextNotPresent);
        }
        if low & 0xff0 != 0 || high & !0x00ff_ff7f != 0 {
            return Err(Reason::ContextReserved);
        }
        let levels = (high & 7) as u32 + 2;
        let widths = self.capability >> 8 & 0x1f;
        let keeps = match low >> 2 & 3 {
            0 => false,
            1 if self.extended >> 2 & 1 == 1 => true,
            _ => return Err(Reason::ContextInvalid),
        };
        if widths >> (levels - 2) & 1 == 0 {
            return Err(Reason::ContextInvalid);
        }
        let entry = CachedContext {
            domain: (high >> 8) as u16,
            table: Some(low & ADDRESS),
            levels,
            keeps,
            silent: low & 2 != 0,
        };
        self.caches.contexts.insert(requester, entry);
        Ok(entry)
    }

    fn walk(
        &mut self,
        domain: u16,
        top: u64,
        levels: u32,
        address: u64,
        direction: Dma,
    ) -> Result<CachedPage, Reason> {
        let not_allowed = match direction {
            Dma::Read => Reason::Read,
            Dma::Write => Reason::Write,
        };
        // A table covers 2^bits bytes; its entries 2^(bits - 9) each. Permissions of the entries
        // above a cached table are not looked at again: this driver's are always full.
        let whole = 12 + 9 * levels;
        let (mut table, mut bits) = match self.caches.table(domain, address) {
            Some((table, bits)) if bits < whole => (table, bits),
            _ => (top, whole),
        };
        let (mut may_read, mut may_write) = (true, true);
        loop {
            let covers = bits - 9;
            let index = address >> covers & 0x1ff;
            let entry = self.read(table + index * 8);
            let (read, write) = (entry & 1 == 1, entry & 2 == 2);
            if !read && !write {
                if self.caching_mode() {
                    // Filed as a translation that allows nothing.
                    let nothing = CachedPage {
                        physical: 0,
                        bits: covers.min(30),
                        read: false,
                        write: false,
                    };
                    self.caches.insert_page(domain, address, nothing);
                }
                return Err(not_allowed);
            }
            // Snoop bit without snoop control, and what lies above the address.
            if entry & (1 << 11 | 0x0030_0000_0000_0000) & !ADDRESS != 0 {
                return Err(Reason::PagingReserved);
            }
            may_read &= read;
            may_write &= write;
            let leaf = covers == 12 || entry & LARGE != 0;
            if leaf {
                let physical = entry & ADDRESS;
                let large_allowed = match covers {
                    12 => true,
                    21 => self.capability >> 34 & 1 == 1,
                    30 => self.capability >> 35 & 1 == 1,
                    _ => false,
                };
                if !large_allowed || physical & ((1 << covers) - 1) != 0 {
                    return Err(Reason::PagingReserved);
                }
                let page = CachedPage {
                    physical,
                    bits: covers,
                    read: may_read,
                    write: may_write,
                };
                self.caches.insert_page(domain, address, page);
                return Ok(page);
            }
            table = entry & ADDRESS;
            bits = covers;
            self.caches.insert_table(domain, address, bits, table);
        }
    }
}
