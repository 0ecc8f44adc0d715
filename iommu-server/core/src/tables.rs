//! [`Tables`]: the bounded pool of 4 KiB pages in which a shard keeps what its
//! units read: root, context and page tables, queues, status words.
//!
//! Memory is written with [`Tables::set`] and made visible to units that do not
//! snoop caches with [`Tables::flush`]. Neighbours: [`super::paging`] and
//! [`super::unit`] take pages from here.

use crate::TableMemory;

/// Most pages a pool manages.
pub const MAX_TABLE_PAGES: usize = 4096;

/// Entries in a table of 64-bit words.
pub const ENTRIES: u16 = 512;

/// A page of the pool that is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page(u16);

/// A page, or none: how pages are chained.
pub type Link = Option<Page>;

/// What the pool remembers of a page in use; [`super::paging`] keeps its tables' relations here.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Present entries in the table.
    pub live: u16,
    /// The table that points to it.
    pub parent: Link,
    /// Entry of the parent.
    pub index: u16,
    /// Neighbours in the list it is in.
    pub next: Link,
    /// See `next`.
    pub previous: Link,
}

impl Meta {
    /// Nothing known.
    pub const EMPTY: Self = Self {
        live: 0,
        parent: None,
        index: 0,
        next: None,
        previous: None,
    };
}

/// No page is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted;

/// The pool.
pub struct Tables<'a, T> {
    memory: T,
    base: u64,
    meta: &'a mut [Meta; MAX_TABLE_PAGES],
    /// Pages that were given back: those that may hold anything, and those that hold zeros, which units see.
    free: Link,
    clean: Link,
    /// Pages from here on were never taken.
    untouched: u16,
    pages: u16,
    used: u16,
    coherent: bool,
    life: Life,
}

/// Whether the pages hold what an earlier life of the shard left there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// No: a page that is taken is cleared.
    First,
    /// Yes: pages are taken as they are, in the order of the first start, and then claimed one by one as they are
    /// found in use, until [`Tables::settle`].
    Again,
}

/// What is known about the pages that nobody claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Others {
    /// No unit uses them.
    Free,
    /// A unit may.
    Unknown,
}

/// How many entries a page has that nobody has claimed yet.
const UNCLAIMED: u16 = u16::MAX;

impl<'a, T: TableMemory> Tables<'a, T> {
    /// A pool over `memory`, whose first byte has physical address `base`; pages beyond
    /// [`MAX_TABLE_PAGES`] are left alone.
    pub fn new(memory: T, base: u64, meta: &'a mut [Meta; MAX_TABLE_PAGES]) -> Self {
        let pages = memory.pages().min(MAX_TABLE_PAGES as u32) as u16;
        Self {
            memory,
            base,
            meta,
            free: None,
            clean: None,
            untouched: 0,
            pages,
            used: 0,
            coherent: false,
            life: Life::First,
        }
    }

    /// The same, over pages that are in use.
    pub fn again(memory: T, base: u64, meta: &'a mut [Meta; MAX_TABLE_PAGES]) -> Self {
        for page in meta.iter_mut() {
            *page = Meta {
                live: UNCLAIMED,
                ..Meta::EMPTY
            };
        }
        Self {
            life: Life::Again,
            ..Self::new(memory, base, meta)
        }
    }

    /// Whether pages are taken as they are.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Takes a page that was found in use. `false` when it is taken already.
    pub fn claim(&mut self, page: Page) -> bool {
        if self.life == Life::First || self.meta(page).live != UNCLAIMED {
            return false;
        }
        *self.meta_mut(page) = Meta::EMPTY;
        self.used += 1;
        true
    }

    /// No page is taken as it is any more: the rest is claimed.
    pub fn close(&mut self) {
        self.untouched = self.pages;
    }

    /// Makes all that is claimed visible to every unit.
    pub fn write_back(&mut self) {
        for page in (0..self.pages).map(Page) {
            if self.meta(page).live != UNCLAIMED {
                self.flush(page, 0, ENTRIES);
            }
        }
    }

    /// All that is in use is claimed; no unit uses any other page, or else they stay out of use.
    pub fn settle(&mut self, others: Others) {
        self.life = Life::First;
        for page in (0..self.pages).rev().map(Page) {
            if self.meta(page).live == UNCLAIMED {
                *self.meta_mut(page) = Meta::EMPTY;
                if others == Others::Free {
                    self.used += 1;
                    self.give(page);
                }
            }
        }
    }

    /// Says whether every unit snoops caches; until then none is believed to.
    pub fn set_coherent(&mut self, coherent: bool) {
        self.coherent = coherent;
    }

    /// Pages in use.
    pub fn used(&self) -> u32 {
        self.used.into()
    }

    /// Pages in the pool.
    pub fn pages(&self) -> u32 {
        self.pages.into()
    }

    /// Takes a page; it holds zeros, and units see them.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn take(&mut self) -> Result<Page, Exhausted> {
        if let Some(page) = self.clean {
            self.clean = self.meta(page).next;
            self.used += 1;
            *self.meta_mut(page) = Meta::EMPTY;
            return Ok(page);
        }
        let page = match self.free {
            Some(page) => {
                self.free = self.meta(page).next;
                page
            }
            None if self.untouched < self.pages => {
                self.untouched += 1;
                Page(self.untouched - 1)
            }
            None => return Err(Exhausted),
        };
        self.used += 1;
        *self.meta_mut(page) = Meta::EMPTY;
        if self.life == Life::First {
            self.clear(page);
        }
        Ok(page)
    }

    /// Writes zeros over a page, and makes units see them.
    pub fn clear(&mut self, page: Page) {
        for index in 0..ENTRIES {
            self.set(page, index, 0);
        }
        self.flush(page, 0, ENTRIES);
    }

    /// Takes `count` pages that follow each other; they hold zeros, and units see them. Only pages that were
    /// never taken are looked at: this is for the start.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn take_row(&mut self, count: u16) -> Result<Page, Exhausted> {
        if self.pages.saturating_sub(self.untouched) < count {
            return Err(Exhausted);
        }
        let first = Page(self.untouched);
        // Pages that were given back are left where they are.
        let (free, clean) = (self.free.take(), self.clean.take());
        for _ in 0..count {
            self.take()?;
        }
        (self.free, self.clean) = (free, clean);
        Ok(first)
    }

    /// A page's number.
    pub fn number(&self, page: Page) -> u32 {
        page.0.into()
    }

    /// The page with a number, if there is one.
    pub fn page(&self, number: u32) -> Link {
        (number < u32::from(self.pages)).then_some(Page(number as u16))
    }

    /// The `number`th page after `page`.
    pub fn following(&self, page: Page, number: u16) -> Page {
        Page(page.0.wrapping_add(number))
    }

    /// Gives a page back. No unit may read or cache it any more.
    pub fn give(&mut self, page: Page) {
        *self.meta_mut(page) = Meta {
            next: self.free,
            ..Meta::EMPTY
        };
        self.free = Some(page);
        self.used = self.used.saturating_sub(1);
    }

    /// Gives a page back that holds zeros, which units see. No unit may read or cache it any more.
    pub fn give_clean(&mut self, page: Page) {
        debug_assert!((0..ENTRIES).all(|index| self.get(page, index) == 0));
        *self.meta_mut(page) = Meta {
            next: self.clean,
            ..Meta::EMPTY
        };
        self.clean = Some(page);
        self.used = self.used.saturating_sub(1);
    }

    /// Physical address of a page.
    pub fn physical(&self, page: Page) -> u64 {
        self.base + (u64::from(page.0) << 12)
    }

    /// The page at a physical address that an entry holds.
    pub fn page_at(&self, physical: u64) -> Link {
        let number = physical.checked_sub(self.base)? >> 12;
        (number < u64::from(self.pages)).then_some(Page(number as u16))
    }

    /// Entry `index` of a page.
    #[inline]
    pub fn get(&self, page: Page, index: u16) -> u64 {
        self.memory.read64(page.0.into(), index)
    }

    /// Writes entry `index` of a page.
    #[inline]
    pub fn set(&mut self, page: Page, index: u16, value: u64) {
        self.memory.write64(page.0.into(), index, value);
    }

    /// Writes entries `index` and `index + 1` of a page, the second first; `index` is even.
    #[inline]
    pub fn set_pair(&mut self, page: Page, index: u16, first: u64, second: u64) {
        self.memory.write64(page.0.into(), index | 1, second);
        self.memory.write64(page.0.into(), index, first);
    }

    /// Makes `count` entries from `index` on visible to every unit.
    #[inline]
    pub fn flush(&mut self, page: Page, index: u16, count: u16) {
        if !self.coherent {
            self.memory.write_back(page.0.into(), index, count);
        }
    }

    /// What is remembered of a page.
    #[inline]
    pub fn meta(&self, page: Page) -> Meta {
        self.meta
            .get(usize::from(page.0))
            .copied()
            .unwrap_or(Meta::EMPTY)
    }

    /// The same, to change it.
    #[inline]
    pub fn meta_mut(&mut self, page: Page) -> &mut Meta {
        // `Page` is made above only, with numbers below the pool's size; the modulo keeps it total.
        &mut self.meta[usize::from(page.0) % MAX_TABLE_PAGES]
    }
}
