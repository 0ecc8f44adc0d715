//! [`AddressSpace`]: the second-level page tables of one domain (VT-d 3.0, 3.7
//! and 9.8): 3 or 4 levels, leaves of 4 KiB and 2 MiB.
//!
//! Tables are kept when their last translation goes: a driver that maps and
//! unmaps a buffer a packet walks tables that exist. They are taken back
//! ([`AddressSpace::prune`]) when the pool or the domain's share runs out, and
//! when the domain ends. A unit may have cached a pointer to a table that was
//! taken out; such tables wait in *limbo* until it has been told to forget.
//!
//! Ranges are validated by the caller: page-aligned, within the geometry, no
//! overlap between two mappings.

use ipc_proto::Access;

use super::capability::Geometry;
use super::tables::{ENTRIES, Exhausted, Link, Page, Tables};
use crate::{Extent, TableMemory};

/// Bits of an entry (9.8).
pub mod entry {
    /// The device may read.
    pub const READ: u64 = 1 << 0;
    /// The device may write.
    pub const WRITE: u64 = 1 << 1;
    /// The entry is a leaf (in a directory: 2 MiB).
    pub const LEAF: u64 = 1 << 7;
    /// Address of the page or table.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

const SMALL: u64 = 1 << 12;
const LARGE: u64 = 1 << 21;
/// Level of the tables whose leaves are 2 MiB; level 0 has those of 4 KiB.
const DIRECTORY: u8 = 1;

fn index(iova: u64, level: u8) -> u16 {
    (iova >> (12 + 9 * u32::from(level)) & u64::from(ENTRIES - 1)) as u16
}

/// One step of a walk along a range.
enum Step {
    /// One leaf of 2 MiB.
    Large,
    /// This many leaves of 4 KiB, all in one table.
    Small(u16),
}

/// The tables of one domain.
#[derive(Clone, Copy, Debug)]
pub struct AddressSpace {
    root: Page,
    levels: u8,
    large_pages: bool,
    /// Tables below the root, chained.
    tables: Link,
    /// Tables that no entry points to any more, but a unit may.
    limbo: Link,
    /// The table of small leaves that was used last, and which 2 MiB of addresses it translates.
    recent: Option<(u64, Page)>,
    /// All of them with the root.
    count: u32,
    limit: u32,
}

impl AddressSpace {
    /// An address space without a translation, of at most `limit` tables.
    ///
    /// # Errors
    /// No table is left.
    pub fn new<T: TableMemory>(
        tables: &mut Tables<'_, T>,
        geometry: &Geometry,
        limit: u32,
    ) -> Result<Self, Exhausted> {
        Ok(Self {
            root: tables.take()?,
            levels: geometry.levels,
            large_pages: geometry.large_pages,
            tables: None,
            limbo: None,
            recent: None,
            count: 1,
            limit,
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
        let mut flags = 0;
        if access.reads() {
            flags |= entry::READ;
        }
        if access.writes() {
            flags |= entry::WRITE;
        }
        if let [extent] = extents
            && let Step::Small(count) = self.step(iova, extent, 0)
            && u64::from(count) * SMALL == extent.bytes
        {
            // All in one table: one walk does.
            let table = match self.recent_table(iova) {
                Some(table) => table,
                None => {
                    let table = self.find_or_make(tables, iova, 0)?;
                    self.recent = Some((iova / LARGE, table));
                    table
                }
            };
            write_small(
                tables,
                table,
                index(iova, 0),
                count,
                extent.physical | flags,
            );
            return Ok(());
        }
        let mut at = iova;
        for extent in extents {
            self.prepare(tables, at, extent)?;
            at = at.wrapping_add(extent.bytes);
        }
        let mut at = iova;
        for extent in extents {
            self.write(tables, at, extent, flags);
            at = at.wrapping_add(extent.bytes);
        }
        Ok(())
    }

    /// Takes away the translation of `bytes` from `iova` on.
    #[inline(always)]
    pub fn unmap<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, iova: u64, bytes: u64) {
        if let Some(table) = self.recent_table(iova)
            && bytes <= LARGE - iova % LARGE
        {
            clear_leaves(tables, table, index(iova, 0), (bytes / SMALL) as u16);
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
    #[inline]
    fn clear<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, at: u64, left: u64) -> u64 {
        let to_next_table = LARGE - at % LARGE;
        let Some(directory) = self.find(tables, at, DIRECTORY) else {
            return to_next_table;
        };
        let first = index(at, DIRECTORY);
        let found = tables.get(directory, first);
        let (table, first, count, covered) = if found & entry::LEAF != 0 {
            (directory, first, 1, LARGE)
        } else {
            let Some(table) = child(tables, found) else {
                return to_next_table;
            };
            let covered = left.min(to_next_table);
            (table, index(at, 0), (covered / SMALL) as u16, covered)
        };
        clear_leaves(tables, table, first, count);
        covered
    }

    #[inline]
    fn recent_table(&self, iova: u64) -> Link {
        match self.recent {
            Some((region, table)) if region == iova / LARGE => Some(table),
            _ => None,
        }
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
            let covered = match self.step(at, extent, done) {
                Step::Large => {
                    self.find_or_make(tables, at, DIRECTORY)?;
                    LARGE
                }
                Step::Small(count) => {
                    self.find_or_make(tables, at, 0)?;
                    u64::from(count) * SMALL
                }
            };
            at = at.wrapping_add(covered);
            done += covered;
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
        flags: u64,
    ) {
        let (mut at, mut done) = (iova, 0);
        while done < extent.bytes {
            let physical = extent.physical.wrapping_add(done);
            let covered = match self.step(at, extent, done) {
                Step::Large => {
                    if let Some(directory) = self.find(tables, at, DIRECTORY) {
                        self.write_large(tables, directory, index(at, DIRECTORY), physical | flags);
                    }
                    LARGE
                }
                Step::Small(count) => {
                    if let Some(table) = self.find(tables, at, 0) {
                        write_small(tables, table, index(at, 0), count, physical | flags);
                    }
                    u64::from(count) * SMALL
                }
            };
            at = at.wrapping_add(covered);
            done += covered;
        }
    }

    fn write_large<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        directory: Page,
        index: u16,
        value: u64,
    ) {
        // A table that was here has no translation any more: ranges do not overlap.
        let replaced = child(tables, tables.get(directory, index));
        tables.set(directory, index, value | entry::LEAF);
        tables.flush(directory, index, 1);
        match replaced {
            Some(table) => self.send_to_limbo(tables, table),
            None => tables.meta_mut(directory).live += 1,
        }
    }

    /// The largest leaf, or run of small ones, with which the extent can go on after `done` bytes.
    #[inline]
    fn step(&self, at: u64, extent: &Extent, done: u64) -> Step {
        let left = extent.bytes - done;
        let physical = extent.physical.wrapping_add(done);
        if self.large_pages && (at | physical).is_multiple_of(LARGE) && left >= LARGE {
            return Step::Large;
        }
        Step::Small((left.min(LARGE - at % LARGE) / SMALL) as u16)
    }

    /// The table of `level` that the walk of `iova` passes, if it exists.
    #[inline]
    fn find<T: TableMemory>(&self, tables: &Tables<'_, T>, iova: u64, level: u8) -> Link {
        let mut page = self.root;
        for above in (level + 1..self.levels).rev() {
            page = child(tables, tables.get(page, index(iova, above)))?;
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
            page = match child(tables, tables.get(page, at)) {
                Some(table) => table,
                None => self.make(tables, page, at)?,
            };
        }
        Ok(page)
    }

    /// Hangs a new table under entry `index` of `parent`, which is not present.
    fn make<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        parent: Page,
        index: u16,
    ) -> Result<Page, Exhausted> {
        if self.count >= self.limit {
            return Err(Exhausted);
        }
        let table = tables.take()?;
        self.count += 1;
        // The zeros of the new table are in memory before the entry that leads a unit to them.
        let value = tables.physical(table) | entry::READ | entry::WRITE;
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

    /// Gives every table back: no unit uses the domain any more.
    pub fn destroy<T: TableMemory>(mut self, tables: &mut Tables<'_, T>) {
        self.release_limbo(tables);
        give_all(tables, self.tables.take());
        tables.give(self.root);
    }
}

/// Clears `count` leaves, all of which were written by one mapping.
#[inline]
fn clear_leaves<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page, first: u16, count: u16) {
    for index in first..first + count {
        tables.set(table, index, 0);
    }
    tables.flush(table, first, count);
    let meta = tables.meta_mut(table);
    meta.live = meta.live.saturating_sub(count);
}

/// Writes `count` leaves of consecutive pages.
#[inline]
fn write_small<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    first: u16,
    count: u16,
    mut value: u64,
) {
    for index in first..first + count {
        tables.set(table, index, value);
        value = value.wrapping_add(SMALL);
    }
    tables.flush(table, first, count);
    tables.meta_mut(table).live += count;
}

/// The table that an entry points to, if it is present and no leaf.
#[inline]
fn child<T: TableMemory>(tables: &Tables<'_, T>, value: u64) -> Link {
    if value & (entry::READ | entry::WRITE) == 0 || value & entry::LEAF != 0 {
        return None;
    }
    tables.page_at(value & entry::ADDRESS)
}

/// Gives a chain of pages back and says how many they were.
fn give_all<T: TableMemory>(tables: &mut Tables<'_, T>, mut chain: Link) -> u32 {
    let mut given = 0;
    while let Some(page) = chain {
        chain = tables.meta(page).next;
        tables.give(page);
        given += 1;
    }
    given
}
