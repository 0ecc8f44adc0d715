//! The device table (2.2.2.1): 65,536 entries of four words, one a requester id.
//!
//! An entry that is not valid lets its device through, so every entry is valid
//! from the start: translation on, no tables, no permissions. The first word
//! decides alone whether memory is reached, and is changed in one write:
//!
//! 1. *attach*: the domain id in the second word, while the first gives no
//!    permission; then the first word. The unit is told to forget the entry.
//! 2. *detach*: the first word to blocking; the unit told to forget the entry, and
//!    when that is done the domain's translations; then the second word.

use crate::TableMemory;
use crate::tables::{Page, Tables};

/// Pages of a table for all requester ids.
pub const PAGES: u16 = 512;
/// Size field of the table's register: pages less one.
pub const SIZE_CODE: u64 = 511;

const ENTRIES_A_PAGE: u16 = 128;

/// First word: the entry is valid; the translation part is valid.
const VALID: u64 = 1 << 0 | 1 << 1;
/// First word: levels of the tables.
const MODE: u32 = 9;
/// First word: the device may read; write.
const READ_WRITE: u64 = 1 << 61 | 1 << 62;
/// Second word: page faults are not recorded.
const SILENT: u64 = 1 << 34;
/// Third word: the interrupt part is valid. Messages are refused while nothing else is set.
const INTERRUPTS: u64 = 1;
/// Third word: fixed messages are looked up.
const REMAP: u64 = 2 << 60;
/// Third word: address of the table.
const INTERRUPTS_ADDRESS: u64 = 0x000f_ffff_ffff_ffc0;
/// Third word: size of the table, 2^this entries.
const INTERRUPTS_SIZE: u32 = 1;

/// A blocking first word.
const BLOCKED: u64 = VALID;

/// Page and first word of an entry.
fn place<T: TableMemory>(tables: &Tables<'_, T>, table: Page, requester: u16) -> (Page, u16) {
    let page = tables.following(table, requester / ENTRIES_A_PAGE);
    (page, requester % ENTRIES_A_PAGE * 4)
}

/// What becomes of messages of devices that have no table for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Messages {
    /// They are refused.
    Refused,
    /// They pass as they are.
    Pass,
}

/// Makes every entry block its device.
pub fn block_all<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page, messages: Messages) {
    let third = match messages {
        Messages::Refused => INTERRUPTS,
        Messages::Pass => 0,
    };
    for number in 0..PAGES {
        let page = tables.following(table, number);
        for entry in 0..ENTRIES_A_PAGE {
            tables.set(page, entry * 4, BLOCKED);
            tables.set(page, entry * 4 + 2, third);
        }
        tables.flush(page, 0, ENTRIES_A_PAGE * 4);
    }
}

/// Lets the messages of a requester that is no device (I/O APIC, HPET) pass as they are. Its DMA stays blocked.
pub fn pass_messages<T: TableMemory>(tables: &mut Tables<'_, T>, table: Page, requester: u16) {
    let (page, at) = place(tables, table, requester);
    tables.set(page, at + 2, 0);
    tables.flush(page, at, 4);
}

/// Step 1.
pub fn enable<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    requester: u16,
    root: Page,
    levels: u8,
    domain: u16,
) {
    let (page, at) = place(tables, table, requester);
    tables.set(page, at + 1, domain.into());
    let first = tables.physical(root) | VALID | READ_WRITE | u64::from(levels) << MODE;
    tables.set(page, at, first);
    // All four words lie in one cache line.
    tables.flush(page, at, 4);
}

/// Whether a requester's entry is exactly what [`enable`] writes.
pub fn leads_to<T: TableMemory>(
    tables: &Tables<'_, T>,
    table: Page,
    requester: u16,
    (root, levels, domain): (Page, u8, u16),
) -> bool {
    let (page, at) = place(tables, table, requester);
    let first = tables.physical(root) | VALID | READ_WRITE | u64::from(levels) << MODE;
    tables.get(page, at) == first && tables.get(page, at + 1) & !SILENT == u64::from(domain)
}

/// Whether a requester's entry blocks it.
pub fn is_blocked<T: TableMemory>(tables: &Tables<'_, T>, table: Page, requester: u16) -> bool {
    let (page, at) = place(tables, table, requester);
    tables.get(page, at) == BLOCKED
}

/// Whether faults of a requester are not recorded.
pub fn is_silent<T: TableMemory>(tables: &Tables<'_, T>, table: Page, requester: u16) -> bool {
    let (page, at) = place(tables, table, requester);
    tables.get(page, at + 1) & SILENT != 0
}

/// Where a requester's messages are looked up, if anywhere.
pub fn interrupts_at<T: TableMemory>(
    tables: &Tables<'_, T>,
    table: Page,
    requester: u16,
) -> Option<u64> {
    let (page, at) = place(tables, table, requester);
    let third = tables.get(page, at + 2);
    (third & (INTERRUPTS | REMAP) == INTERRUPTS | REMAP).then_some(third & INTERRUPTS_ADDRESS)
}

/// Has nothing of a requester looked up any more; what is not looked up is as at the start.
pub fn reset_interrupts<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    requester: u16,
    messages: Messages,
) {
    let (page, at) = place(tables, table, requester);
    let third = match messages {
        Messages::Refused => INTERRUPTS,
        Messages::Pass => 0,
    };
    if tables.get(page, at + 2) != third {
        tables.set(page, at + 2, third);
        tables.flush(page, at, 4);
    }
}

/// Step 2, before the unit is told. `Recorded::No`: what the device tries from now on is not recorded.
pub fn disable<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    requester: u16,
    recorded: Recorded,
) {
    let (page, at) = place(tables, table, requester);
    tables.set(page, at, BLOCKED);
    if recorded == Recorded::No {
        let second = tables.get(page, at + 1) | SILENT;
        tables.set(page, at + 1, second);
    }
    tables.flush(page, at, 4);
}

/// Whether faults of a device are recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// They are, if they were.
    Yes,
    /// They are not.
    No,
}

/// Has a device's messages looked up in a table of 2^`size` entries at `physical`; `None`: they are refused.
pub fn set_interrupts<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    table: Page,
    requester: u16,
    entries: Option<(u64, u32)>,
) {
    let (page, at) = place(tables, table, requester);
    let third = match entries {
        Some((physical, size)) => {
            physical | INTERRUPTS | REMAP | u64::from(size) << INTERRUPTS_SIZE
        }
        None => INTERRUPTS,
    };
    tables.set(page, at + 2, third);
    tables.flush(page, at, 4);
}
