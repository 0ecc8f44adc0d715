//! Root and context entries (VT-d 3.0, 9.1 and 9.3): which page tables a
//! requester's addresses go through.
//!
//! A unit reads an entry's two halves in no defined order relative to our
//! writes, and caches what it read under the entry's domain id. So an entry is
//! only ever changed while its present bit is clear, and a present entry is
//! never changed into another present one:
//!
//! 1. *attach*: second half (width, domain id), flushed; then first half with
//!    the present bit, in one 64-bit write.
//! 2. *detach*: first half to zero in one write; the unit told to forget the
//!    entry (by requester and old domain id), then, after a fence, the domain's
//!    translations, which it could fetch until it forgot the entry; when it has
//!    confirmed both, the second half.
//!
//! A bus without a context table is blocked by its root entry. Context tables
//! stay once made: at most one a bus.

use super::capability::Geometry;
use super::tables::{Exhausted, Page, Tables};
use crate::TableMemory;

/// Present, in root and context entries.
pub const PRESENT: u64 = 1;

/// The context table of a bus, made if there is none. A new one blocks every requester of the bus,
/// as the root entry did.
///
/// # Errors
/// No table is left.
pub fn table_of<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    root: Page,
    bus: u8,
) -> Result<Page, Exhausted> {
    let index = u16::from(bus) * 2;
    if let Some(page) = existing(tables, root, bus) {
        return Ok(page);
    }
    let page = tables.take()?;
    let value = tables.physical(page) | PRESENT;
    tables.set(root, index, value);
    tables.flush(root, index, 1);
    Ok(page)
}

/// The context table of a bus, if there is one.
pub fn existing<T: TableMemory>(tables: &Tables<'_, T>, root: Page, bus: u8) -> Option<Page> {
    let entry = tables.get(root, u16::from(bus) * 2);
    if entry & PRESENT == 0 {
        return None;
    }
    tables.page_at(entry & !0xfff)
}

/// Where a requester's entry begins in its bus's context table.
pub const fn index(requester: u16) -> u16 {
    (requester & 0xff) * 2
}

/// Step 1: the entry of a blocked requester leads to `space_root` under domain id `domain`.
pub fn enable<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    requester: u16,
    space_root: Page,
    geometry: &Geometry,
    domain: u16,
) {
    let at = index(requester);
    tables.set(
        table,
        at + 1,
        geometry.width_code() | u64::from(domain) << 8,
    );
    tables.flush(table, at + 1, 1);
    // Translation type 0: untranslated requests only, through the second-level tables.
    let value = tables.physical(space_root) | PRESENT;
    tables.set(table, at, value);
    tables.flush(table, at, 1);
}

/// Step 2, before the unit is told: the entry is not present.
pub fn disable<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page, requester: u16) {
    tables.set(table, index(requester), 0);
    tables.flush(table, index(requester), 1);
}

/// Step 2, after the unit has confirmed: the entry is empty.
pub fn forget<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page, requester: u16) {
    tables.set(table, index(requester) + 1, 0);
    tables.flush(table, index(requester) + 1, 1);
}
