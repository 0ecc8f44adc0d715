//! [`AddressSpace`]: the page tables of one domain: 3 or 4 levels of 512 entries,
//! leaves of 4 KiB, 2 MiB and 1 GiB. What an entry looks like is a [`Format`].
//!
//! Tables are kept when their last translation goes: a driver that maps and
//! unmaps a buffer a packet walks tables that exist. They are taken back
//! ([`AddressSpace::prune`]) when the pool or the domain's share runs out, and
//! when the domain ends. A unit may have cached a pointer to a table that was
//! taken out; such tables wait in *limbo* until it has been told to forget.
//!
//! Ranges are validated by the caller: page-aligned, within the geometry, no
//! overlap between two mappings.

use core::marker::PhantomData;

use ipc_proto::Access;

use crate::tables::{ENTRIES, Exhausted, Link, Page, Tables};
use crate::{Extent, TableMemory};

mod adopt;
mod leaves;

pub use adopt::{Leaf, access};
use leaves::{
    DIRECTORY, HUGE, LARGE, Recent, SMALL, Step, UPPER, child, clear_large, clear_leaves, give,
    give_all, index, leaf_bits, recent_table, write_small,
};

/// Entries of page tables. One that is not present is zero.
pub trait Format {
    /// A leaf in a table of `level` (0: 4 KiB, 1: 2 MiB, 2: 1 GiB). Leaves of consecutive pages differ by the
    /// pages' size.
    fn leaf(physical: u64, level: u8, access: Access) -> u64;
    /// A pointer to a table of `level`.
    fn table(physical: u64, level: u8) -> u64;
    /// The table that an entry of level 1 or more leads to; `None` for a leaf or nothing.
    fn child(entry: u64) -> Option<u64>;
    /// Is an entry of level 1 or more a leaf?
    fn is_large(entry: u64) -> bool;
    /// Where a leaf of `level` leads; `None` for what [`Self::leaf`] does not write.
    fn read(entry: u64, level: u8) -> Option<(u64, Access)>;
}

/// Shape of page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Levels, 3 or 4.
    pub levels: u8,
    /// Largest leaf.
    pub largest: Largest,
}

/// The largest leaf of page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Largest {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Huge,
}

/// The tables of one domain.
#[derive(Debug)]
pub struct AddressSpace<F> {
    root: Page,
    levels: u8,
    /// Highest level at which there may be leaves.
    leaf_level: u8,
    /// Tables below the root, chained.
    tables: Link,
    /// Tables that no entry points to any more, but a unit may.
    limbo: Link,
    /// The table of 4 KiB leaves that was used last, with its 2 MiB of addresses, and the same of 2 MiB leaves.
    recent: Recent,
    recent_large: Recent,
    /// All of them with the root.
    count: u32,
    limit: u32,
    format: PhantomData<F>,
}

impl<F: Format> AddressSpace<F> {
    /// An address space without a translation, of at most `limit` tables.
    ///
    /// # Errors
    /// No table is left.
    pub fn new<T: TableMemory>(
        tables: &mut Tables<'_, T>,
        shape: Shape,
        limit: u32,
    ) -> Result<Self, Exhausted> {
        Ok(Self {
            root: tables.take()?,
            levels: shape.levels,
            leaf_level: match shape.largest {
                Largest::Small => 0,
                Largest::Large => DIRECTORY,
                Largest::Huge => UPPER,
            },
            tables: None,
            limbo: None,
            recent: None,
            recent_large: None,
            count: 1,
            limit,
            format: PhantomData,
        })
    }

    /// The top table.
    pub fn root(&self) -> Page {
        self.root
    }

    /// Tables in use.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Tables that it may have.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Lets it have so many more.
    pub fn allow(&mut self, more: u32) {
        self.limit = self.limit.saturating_add(more);
    }

    /// Does a table wait for an invalidation?
    pub fn in_limbo(&self) -> bool {
        self.limbo.is_some()
    }

    /// Translates the addresses from `iova` on to the extents. Tables are made first, so that it
    /// happens whole or not at all.
    ///
    /// # Errors
    /// No table is left; some more may be there than before, but none has a new translation.
    #[inline]
    pub fn map<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), Exhausted> {
        if let [extent] = extents {
            // All in one table: one walk does.
            if extent.bytes < LARGE && extent.bytes <= LARGE - iova % LARGE {
                let table = match recent_table(self.recent, iova, 0) {
                    Some(table) => table,
                    None => {
                        let table = self.find_or_make(tables, iova, 0)?;
                        self.recent = Some((iova / LARGE, table));
                        table
                    }
                };
                let value = F::leaf(extent.physical, 0, access);
                let count = (extent.bytes / SMALL) as u16;
                write_small(tables, table, index(iova, 0), count, value);
                return Ok(());
            }
            let step = self.step(iova, extent, 0);
            if step.level == DIRECTORY && step.bytes() == extent.bytes {
                let table = match recent_table(self.recent_large, iova, DIRECTORY) {
                    Some(table) => table,
                    None => {
                        let table = self.find_or_make(tables, iova, DIRECTORY)?;
                        self.recent_large = Some((iova / HUGE, table));
                        table
                    }
                };
                let value = F::leaf(extent.physical, DIRECTORY, access);
                self.write_large(tables, table, iova, step, value);
                return Ok(());
            }
        }
        self.map_all(tables, iova, extents, access)
    }

    /// Maps in two walks: the first makes tables, the second writes leaves.
    #[inline(never)]
    fn map_all<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), Exhausted> {
        let mut at = iova;
        for extent in extents {
            self.prepare(tables, at, extent)?;
            at = at.wrapping_add(extent.bytes);
        }
        let mut at = iova;
        for extent in extents {
            self.write(tables, at, extent, access);
            at = at.wrapping_add(extent.bytes);
        }
        Ok(())
    }

    /// Takes away the translation of `bytes` from `iova` on.
    #[inline(always)]
    pub fn unmap<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, iova: u64, bytes: u64) {
        if bytes < LARGE {
            if bytes <= LARGE - iova % LARGE
                && let Some(table) = recent_table(self.recent, iova, 0)
            {
                clear_leaves(tables, table, index(iova, 0), (bytes / SMALL) as u16);
                return;
            }
        } else if bytes <= HUGE - iova % HUGE
            && let Some(table) = recent_table(self.recent_large, iova, DIRECTORY)
            && clear_large::<F, T>(tables, table, iova, bytes)
        {
            return;
        }
        self.clear_all(tables, iova, bytes);
    }

    #[inline(never)]
    fn clear_all<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, iova: u64, bytes: u64) {
        let (mut at, mut left) = (iova, bytes);
        while left > 0 {
            let covered = self.clear(tables, at, left);
            at = at.wrapping_add(covered);
            left = left.saturating_sub(covered);
        }
    }

    /// Clears the leaves of the first step of the range and says how many bytes that were.
    fn clear<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, at: u64, left: u64) -> u64 {
        let mut page = self.root;
        for level in (1..self.levels).rev() {
            let found = tables.get(page, index(at, level));
            if F::is_large(found) {
                clear_leaves(tables, page, index(at, level), 1);
                return 1 << leaf_bits(level);
            }
            match child::<F, T>(tables, found) {
                Some(table) => page = table,
                None => return (1 << leaf_bits(level)) - at % (1 << leaf_bits(level)),
            }
        }
        let covered = left.min(LARGE - at % LARGE);
        clear_leaves(tables, page, index(at, 0), (covered / SMALL) as u16);
        covered
    }

    /// Makes the tables that translating the extent needs.
    #[inline]
    fn prepare<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        iova: u64,
        extent: &Extent,
    ) -> Result<(), Exhausted> {
        let (mut at, mut done) = (iova, 0);
        while done < extent.bytes {
            let step = self.step(at, extent, done);
            self.find_or_make(tables, at, step.level)?;
            at = at.wrapping_add(step.bytes());
            done += step.bytes();
        }
        Ok(())
    }

    /// Writes the leaves; [`Self::prepare`] has made the tables.
    #[inline]
    fn write<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        iova: u64,
        extent: &Extent,
        access: Access,
    ) {
        let (mut at, mut done) = (iova, 0);
        while done < extent.bytes {
            let step = self.step(at, extent, done);
            let value = F::leaf(extent.physical.wrapping_add(done), step.level, access);
            match self.find(tables, at, step.level) {
                Some(table) if step.level == 0 => {
                    write_small(tables, table, index(at, 0), step.count, value);
                }
                Some(table) => self.write_large(tables, table, at, step, value),
                None => {}
            }
            at = at.wrapping_add(step.bytes());
            done += step.bytes();
        }
    }

    /// Writes leaves of 2 MiB or 1 GiB, as many as the step has.
    #[inline]
    fn write_large<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        table: Page,
        iova: u64,
        step: Step,
        mut value: u64,
    ) {
        let first = index(iova, step.level);
        for index in first..first + step.count {
            // A table that was here has no translation any more: ranges do not overlap.
            let before = tables.get(table, index);
            tables.set(table, index, value);
            if before == 0 {
                tables.meta_mut(table).live += 1;
            } else {
                self.replace_tables(tables, before, step.level);
            }
            value = value.wrapping_add(1 << leaf_bits(step.level));
        }
        tables.flush(table, first, step.count);
    }

    /// Sends the table behind an entry that is not there any more, and the tables below it, to limbo.
    #[cold]
    fn replace_tables<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        before: u64,
        level: u8,
    ) {
        let Some(table) = child::<F, T>(tables, before) else {
            return;
        };
        if level > DIRECTORY {
            for index in 0..ENTRIES {
                let below = tables.get(table, index);
                if let Some(below) = child::<F, T>(tables, below) {
                    self.send_to_limbo(tables, below);
                }
            }
        }
        self.send_to_limbo(tables, table);
    }

    /// The largest leaves, as many as one table holds, with which the extent can go on after `done` bytes.
    #[inline]
    fn step(&self, at: u64, extent: &Extent, done: u64) -> Step {
        let left = extent.bytes - done;
        let placed = at | extent.physical.wrapping_add(done);
        let mut level = 0;
        while level < self.leaf_level {
            let bytes = 1u64 << leaf_bits(level + 1);
            if !placed.is_multiple_of(bytes) || left < bytes {
                break;
            }
            level += 1;
        }
        let leaves = u64::from(ENTRIES - index(at, level));
        // Up to where larger leaves may begin.
        let count = (left >> leaf_bits(level)).min(leaves);
        Step {
            level,
            count: count as u16,
        }
    }

    /// The table of `level` that the walk of `iova` passes, if it exists.
    #[inline]
    fn find<T: TableMemory>(&self, tables: &Tables<'_, T>, iova: u64, level: u8) -> Link {
        let mut page = self.root;
        for above in (level + 1..self.levels).rev() {
            page = child::<F, T>(tables, tables.get(page, index(iova, above)))?;
        }
        Some(page)
    }

    #[inline]
    fn find_or_make<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        iova: u64,
        level: u8,
    ) -> Result<Page, Exhausted> {
        let mut page = self.root;
        for above in (level + 1..self.levels).rev() {
            let at = index(iova, above);
            page = match child::<F, T>(tables, tables.get(page, at)) {
                Some(table) => table,
                None => self.make(tables, page, at, above - 1)?,
            };
        }
        Ok(page)
    }

    /// Hangs a new table of `level` under entry `index` of `parent`, which is not present.
    fn make<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        parent: Page,
        index: u16,
        level: u8,
    ) -> Result<Page, Exhausted> {
        if self.count >= self.limit {
            return Err(Exhausted);
        }
        let table = tables.take()?;
        self.count += 1;
        // The zeros of the new table are in memory before the entry that leads a unit to them.
        let value = F::table(tables.physical(table), level);
        tables.set(parent, index, value);
        tables.flush(parent, index, 1);
        tables.meta_mut(parent).live += 1;
        let next = self.tables.replace(table);
        if let Some(next) = next {
            tables.meta_mut(next).previous = Some(table);
        }
        let meta = tables.meta_mut(table);
        meta.parent = Some(parent);
        meta.index = index;
        meta.next = next;
        Ok(table)
    }

    /// Moves a table to which no entry points any more to limbo.
    fn send_to_limbo<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, table: Page) {
        self.recent = None;
        self.recent_large = None;
        let meta = tables.meta(table);
        match meta.previous {
            Some(previous) => tables.meta_mut(previous).next = meta.next,
            None => self.tables = meta.next,
        }
        if let Some(next) = meta.next {
            tables.meta_mut(next).previous = meta.previous;
        }
        let next = self.limbo.replace(table);
        let meta = tables.meta_mut(table);
        meta.next = next;
        meta.previous = None;
        meta.parent = None;
    }

    /// Takes every table without a translation out, to limbo. Returns whether there was one.
    pub fn prune<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>) -> bool {
        let before = self.limbo;
        // A table may become empty when its children go: one round a level below the root.
        for _ in 1..self.levels {
            let mut next = self.tables;
            while let Some(table) = next {
                let meta = tables.meta(table);
                next = meta.next;
                if meta.live != 0 {
                    continue;
                }
                if let Some(parent) = meta.parent {
                    tables.set(parent, meta.index, 0);
                    tables.flush(parent, meta.index, 1);
                    let above = tables.meta_mut(parent);
                    above.live = above.live.saturating_sub(1);
                }
                self.send_to_limbo(tables, table);
            }
        }
        self.limbo != before
    }

    /// Gives the tables in limbo back: every unit has been told to forget them.
    pub fn release_limbo<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>) {
        self.count = self
            .count
            .saturating_sub(give_all(tables, self.limbo.take()));
    }

    /// Gives every table back: no unit uses the domain any more. A domain ends when nothing is mapped in it any
    /// more, so what its tables hold are pointers to each other; without these they are as the next one wants them.
    pub fn destroy<T: TableMemory>(mut self, tables: &mut Tables<'_, T>) {
        self.release_limbo(tables);
        let mut next = self.tables;
        while let Some(table) = next {
            let meta = tables.meta(table);
            next = meta.next;
            if let Some(parent) = meta.parent {
                tables.set(parent, meta.index, 0);
                tables.flush(parent, meta.index, 1);
                let above = tables.meta_mut(parent);
                above.live = above.live.saturating_sub(1);
            }
        }
        give_all(tables, self.tables.take());
        give(tables, self.root);
    }
}
