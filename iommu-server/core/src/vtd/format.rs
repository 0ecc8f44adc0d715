//! [`SecondLevel`]: entries of second-level page tables (VT-d 3.0, 9.8).

use ipc_proto::Access;

use crate::TableMemory;
use crate::paging::{Format, access};
use crate::tables::{ENTRIES, Page, Tables};

/// The device may read.
const READ: u64 = 1 << 0;
/// The device may write.
const WRITE: u64 = 1 << 1;
/// The entry is a leaf, above the last level.
const LEAF: u64 = 1 << 7;
/// Address of the page or table.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct SecondLevel;

impl Format for SecondLevel {
    #[inline]
    fn leaf(physical: u64, level: u8, access: Access) -> u64 {
        let mut entry = physical;
        if access.reads() {
            entry |= READ;
        }
        if access.writes() {
            entry |= WRITE;
        }
        if level > 0 {
            entry |= LEAF;
        }
        entry
    }

    #[inline]
    fn table(physical: u64, _level: u8) -> u64 {
        physical | READ | WRITE
    }

    #[inline]
    fn child(entry: u64) -> Option<u64> {
        let table = entry & (READ | WRITE) != 0 && entry & LEAF == 0;
        table.then_some(entry & ADDRESS)
    }

    #[inline]
    fn is_large(entry: u64) -> bool {
        entry & LEAF != 0
    }

    fn read(entry: u64, level: u8) -> Option<(u64, Access)> {
        let physical = entry & ADDRESS;
        let access = access(entry & READ != 0, entry & WRITE != 0)?;
        (Self::leaf(physical, level, access) == entry).then_some((physical, access))
    }
}

/// Makes every entry of `table` lead to `page`, to be read.
pub fn fill_readable<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page, page: Page) {
    let value = tables.physical(page) | READ;
    for index in 0..ENTRIES {
        tables.set(table, index, value);
    }
    tables.flush(table, 0, ENTRIES);
}
