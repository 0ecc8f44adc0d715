//! What a unit remembers: context entries, pointers to page tables and
//! translations. Nothing here ages: an entry stays until it is invalidated, so
//! that an invalidation which a driver forgot shows at once.

use std::collections::BTreeMap;

/// A context entry as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CachedContext {
    /// Domain id under which it is filed; 0 for an entry that was not present.
    pub domain: u16,
    /// Top page table; `None`: not present.
    pub table: Option<u64>,
    /// Levels of its tables.
    pub levels: u32,
    /// The device may keep translations.
    pub keeps: bool,
    /// Faults are not recorded.
    pub silent: bool,
}

/// A translation as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CachedPage {
    /// Physical address of the page.
    pub physical: u64,
    /// Page of 2^this bytes.
    pub bits: u32,
    /// The device may read.
    pub read: bool,
    /// The device may write.
    pub write: bool,
}

/// Everything cached. Keys: requester; domain and first address with size.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    pub(super) contexts: BTreeMap<u16, CachedContext>,
    /// Interrupt entries by index.
    pub(super) interrupts: BTreeMap<u16, (u64, u64)>,
    /// (domain, address >> bits, bits)
    pages: BTreeMap<(u16, u64, u32), CachedPage>,
    /// (domain, address >> bits, bits of what the table covers) -> table
    tables: BTreeMap<(u16, u64, u32), u64>,
}

impl Caches {
    pub(super) fn page(&self, domain: u16, address: u64) -> Option<CachedPage> {
        [12, 21, 30]
            .iter()
            .find_map(|bits| self.pages.get(&(domain, address >> bits, *bits)))
            .copied()
    }

    pub(super) fn insert_page(&mut self, domain: u16, address: u64, page: CachedPage) {
        self.pages
            .insert((domain, address >> page.bits, page.bits), page);
    }

    /// The lowest table cached for an address, and how many bits it covers.
    pub(super) fn table(&self, domain: u16, address: u64) -> Option<(u64, u32)> {
        [21, 30, 39].iter().find_map(|bits| {
            let table = self.tables.get(&(domain, address >> bits, *bits))?;
            Some((*table, *bits))
        })
    }

    pub(super) fn insert_table(&mut self, domain: u16, address: u64, bits: u32, table: u64) {
        self.tables.insert((domain, address >> bits, bits), table);
    }

    pub(super) fn forget_all_contexts(&mut self) {
        self.contexts.clear();
    }

    pub(super) fn forget_contexts_of(&mut self, domain: u16) {
        self.contexts.retain(|_, entry| entry.domain != domain);
    }

    /// One requester's, if it is filed under this domain.
    pub(super) fn forget_context(&mut self, requester: u16, domain: u16) {
        if self
            .contexts
            .get(&requester)
            .is_some_and(|entry| entry.domain == domain)
        {
            self.contexts.remove(&requester);
        }
    }

    pub(super) fn forget_all_pages(&mut self) {
        self.pages.clear();
        self.tables.clear();
    }

    pub(super) fn forget_domain(&mut self, domain: u16) {
        self.pages.retain(|key, _| key.0 != domain);
        self.tables.retain(|key, _| key.0 != domain);
    }

    /// Translations of `first..=last`, and with `tables` pointers to tables on the way to them.
    pub(super) fn forget_range(&mut self, domain: u16, first: u64, last: u64, tables: bool) {
        let apart = |key: &(u16, u64, u32)| {
            let start = key.1 << key.2;
            key.0 != domain || start > last || start + ((1 << key.2) - 1) < first
        };
        self.pages.retain(|key, _| apart(key));
        if tables {
            self.tables.retain(|key, _| apart(key));
        }
    }
}
