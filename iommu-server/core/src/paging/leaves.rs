//! Entries of the page tables: what they hold, and writing and clearing runs of
//! them in one table.

use super::Format;
use crate::TableMemory;
use crate::tables::{ENTRIES, Link, Page, Tables};

pub const SMALL: u64 = 1 << 12;
pub const LARGE: u64 = 1 << 21;
pub const HUGE: u64 = 1 << 30;
/// Levels of the tables whose leaves are 2 MiB and 1 GiB; level 0 has those of 4 KiB.
pub const DIRECTORY: u8 = 1;
pub const UPPER: u8 = 2;

pub fn index(iova: u64, level: u8) -> u16 {
    (iova >> (12 + 9 * u32::from(level)) & u64::from(ENTRIES - 1)) as u16
}

/// One step of a walk along a range: leaves of one size, all in one table.
#[derive(Clone, Copy)]
pub struct Step {
    /// Level of the table.
    pub level: u8,
    /// How many leaves.
    pub count: u16,
}

impl Step {
    /// Bytes that it covers.
    #[inline]
    pub const fn bytes(self) -> u64 {
        (self.count as u64) << leaf_bits(self.level)
    }
}

/// Bits of the addresses that a leaf in a table of `level` covers.
pub const fn leaf_bits(level: u8) -> u32 {
    12 + 9 * level as u32
}

/// A table that was used last, and which addresses it translates.
pub type Recent = Option<(u64, Page)>;

/// The recent table, if it has the leaves of `level` for this address.
#[inline]
pub fn recent_table(recent: Recent, iova: u64, level: u8) -> Link {
    match recent {
        Some((region, table)) if region == iova >> leaf_bits(level + 1) => Some(table),
        _ => None,
    }
}

/// Clears the leaves of a range in a directory, if they are of 2 MiB all.
#[inline]
pub fn clear_large<F: Format, T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    iova: u64,
    bytes: u64,
) -> bool {
    if !(iova | bytes).is_multiple_of(LARGE) {
        return false;
    }
    let first = index(iova, DIRECTORY);
    if bytes == LARGE && F::is_large(tables.get(table, first)) {
        clear_leaves(tables, table, first, 1);
        return true;
    }
    let count = (bytes / LARGE) as u16;
    let leaves = (first..first + count).all(|index| F::is_large(tables.get(table, index)));
    if leaves {
        clear_leaves(tables, table, first, count);
    }
    leaves
}

/// Clears `count` leaves, all of which were written by one mapping.
#[inline]
pub fn clear_leaves<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    first: u16,
    count: u16,
) {
    for index in first..first + count {
        tables.set(table, index, 0);
    }
    tables.flush(table, first, count);
    let meta = tables.meta_mut(table);
    meta.live = meta.live.saturating_sub(count);
}

/// Writes `count` leaves of consecutive pages.
#[inline]
pub fn write_small<T: TableMemory>(
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
pub fn child<F: Format, T: TableMemory>(tables: &Tables<'_, T>, entry: u64) -> Link {
    tables.page_at(F::child(entry)?)
}

/// Gives a chain of pages back and says how many they were.
pub fn give_all<T: TableMemory>(tables: &mut Tables<'_, T>, mut chain: Link) -> u32 {
    let mut given = 0;
    while let Some(page) = chain {
        chain = tables.meta(page).next;
        give(tables, page);
        given += 1;
    }
    given
}

/// Gives a table back, as a clean one when it has no entry.
pub fn give<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page) {
    if tables.meta(table).live == 0 {
        tables.give_clean(table);
    } else {
        tables.give(table);
    }
}
