//! Root and context entries (VT-d 3.0, 9.1 and 9.3): which page tables a
//! requester's addresses go through.
//!
//! A unit reads an entry's two halves in no defined order relative to our
//! writes, and caches what it read under the entry's domain id. So an entry is
//! only ever changed while its present bit is clear, and a present entry is
//! never changed into another present one:
//!
//! 1. *attach*: second half (width, domain id); then first half with the present
//!    bit, in one 64-bit write. Both lie in one cache line and the processor
//!    writes in order, so memory never has the new first half without the new
//!    second, and one flush does for both.
//! 2. *detach*: first half to zero in one write; the unit told to forget the
//!    entry (by requester and old domain id), then, after a fence, the domain's
//!    translations, which it could fetch until it forgot the entry; then, after
//!    that is confirmed, the device what it keeps itself (it could ask the unit
//!    until then).
//! 3. *replace* (out of the scratch domain into a client's, and back): 2, then 1.
//!    In between the device is blocked; at no moment does it reach memory
//!    untranslated, or through one domain's tables under the other's id.
//! 4. *silence*: as 2, but the first half keeps one bit, which stops the unit from
//!    recording what the requester tries, whether the entry is present or not.
//!
//! A bus without a context table is blocked by its root entry. Context tables
//! stay once made: at most one a bus.

use super::capability::Geometry;
use crate::TableMemory;
use crate::tables::{Exhausted, Page, Tables};

/// Present, in root and context entries.
pub const PRESENT: u64 = 1;
/// Faults of the requester are not recorded (FPD); the unit looks at it in entries that are not present too.
const SILENT: u64 = 1 << 1;
/// Translation type 1: the device may ask for translations and keep them. 0: untranslated requests only.
const KEEPS_TRANSLATIONS: u64 = 1 << 2;

/// Where an entry leads.
#[derive(Clone, Copy)]
pub struct Target {
    /// Top page table.
    pub root: Page,
    /// Domain id.
    pub domain: u16,
    /// Whether the device may keep translations.
    pub keeps: bool,
}

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

/// Step 1: the entry of a blocked requester leads to the target.
pub fn enable<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    requester: u16,
    target: &Target,
    geometry: &Geometry,
) {
    let at = index(requester);
    let (low, high) = halves(tables, target, geometry);
    tables.set(table, at + 1, high);
    tables.set(table, at, low);
    tables.flush(table, at, 1);
}

/// What an entry that leads to the target holds.
fn halves<T: TableMemory>(
    tables: &Tables<'_, T>,
    target: &Target,
    geometry: &Geometry,
) -> (u64, u64) {
    let mut low = tables.physical(target.root) | PRESENT;
    if target.keeps {
        low |= KEEPS_TRANSLATIONS;
    }
    (low, geometry.width_code() | u64::from(target.domain) << 8)
}

/// Whether a requester's entry is exactly the target's.
pub fn leads_to<T: TableMemory>(
    tables: &Tables<'_, T>,
    table: Page,
    requester: u16,
    target: &Target,
    geometry: &Geometry,
) -> bool {
    let at = index(requester);
    (tables.get(table, at), tables.get(table, at + 1)) == halves(tables, target, geometry)
}

/// The domain id of a requester whose entry is present.
pub fn domain_of<T: TableMemory>(
    tables: &Tables<'_, T>,
    table: Page,
    requester: u16,
) -> Option<u16> {
    let high = tables.get(table, index(requester) + 1);
    is_present(tables, table, requester).then_some((high >> 8) as u16)
}

/// Whether the device may keep translations.
pub fn keeps<T: TableMemory>(tables: &Tables<'_, T>, table: Page, requester: u16) -> bool {
    let both = PRESENT | KEEPS_TRANSLATIONS;
    tables.get(table, index(requester)) & both == both
}

/// Whether the requester was silenced.
pub fn is_silent<T: TableMemory>(tables: &Tables<'_, T>, table: Page, requester: u16) -> bool {
    tables.get(table, index(requester)) & SILENT != 0
}

/// Step 5, before the unit is told: whether the device of a present entry may keep translations. The translation type
/// is in the half that is written at once, so the entry is whole at every moment.
pub fn set_keeps<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    requester: u16,
    keeps: bool,
) {
    let low = tables.get(table, index(requester)) & !KEEPS_TRANSLATIONS;
    let kind = if keeps { KEEPS_TRANSLATIONS } else { 0 };
    write_low(tables, table, requester, low | kind);
}

/// Whether a requester's entry is present.
pub fn is_present<T: TableMemory>(tables: &Tables<'_, T>, table: Page, requester: u16) -> bool {
    tables.get(table, index(requester)) & PRESENT != 0
}

/// Step 2, before the unit is told: the entry is not present. One that was silenced stays so.
pub fn disable<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page, requester: u16) {
    let silent = tables.get(table, index(requester)) & SILENT;
    write_low(tables, table, requester, silent);
}

/// Step 4, before the unit is told: the entry is not present, and faults are not recorded.
pub fn silence<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page, requester: u16) {
    write_low(tables, table, requester, SILENT);
}

fn write_low<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page, requester: u16, low: u64) {
    tables.set(table, index(requester), low);
    tables.flush(table, index(requester), 1);
}
