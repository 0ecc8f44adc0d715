//! [`Interrupts`]: interrupt remapping tables, one of 128 entries a device (2.2.5,
//! the 32-bit format). A device sends the number of an entry as its message's
//! data; that its device table entry leads here is what makes the entry its own.

use heapless::Vec;
use hw::Sbdf;
use system::pool::NumberPool;

use crate::TableMemory;
use crate::backend::{BackendError, InterruptMessage, MessagePart};
use crate::tables::{Page, Tables};

/// Tables that can be had.
pub const TABLES: usize = 64;
/// Entries of each: 2^this.
pub const SIZE: u32 = 7;

const BYTES: u64 = 512;
const TABLES_A_PAGE: u16 = 8;
const WORDS: u16 = 64;
/// Bits of an entry: messages are delivered.
const ENABLED: u64 = 1;

/// Requester ids that lead to a table.
pub type Ids = Vec<u16, MAX_IDS>;
/// Most of them: a device's own and its aliases.
const MAX_IDS: usize = crate::MAX_ALIASES + 1;

struct Owned {
    device: Sbdf,
    table: u16,
    /// Entries in use, from the first on.
    used: u16,
    ids: Ids,
}

/// All tables of a shard.
pub struct Interrupts {
    first: Option<Page>,
    free: NumberPool<1>,
    owned: Vec<Owned, TABLES>,
}

impl Default for Interrupts {
    fn default() -> Self {
        Self::new()
    }
}

impl Interrupts {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: None,
            free: NumberPool::empty(),
            owned: Vec::new(),
        }
    }

    /// Takes memory for them; without it messages are not remapped.
    pub fn open<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>) {
        let pages = TABLES as u16 / TABLES_A_PAGE;
        if let (Ok(first), Some(free)) = (tables.take_row(pages), NumberPool::new(0, TABLES as u32))
        {
            (self.first, self.free) = (Some(first), free);
        }
    }

    /// Are messages remapped?
    pub fn is_open(&self) -> bool {
        self.first.is_some()
    }

    /// Entries in use.
    pub fn used(&self) -> u32 {
        self.owned.iter().map(|owned| u32::from(owned.used)).sum()
    }

    /// Makes entries for `count` messages. Returns the message to send and where the device's table is.
    ///
    /// # Errors
    /// `BadMessage`, `RemapExhausted`.
    pub fn make<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        device: Sbdf,
        ids: &[u16],
        message: InterruptMessage,
        count: u16,
    ) -> Result<(InterruptMessage, u64), BackendError> {
        let (destination, vector, mode) = check(message, count)?;
        let place = match self.owned.iter().position(|owned| owned.device == device) {
            Some(place) => place,
            None => {
                let table = self.free.take().ok_or(BackendError::RemapExhausted)? as u16;
                let owned = Owned {
                    device,
                    table,
                    used: 0,
                    ids: Ids::new(),
                };
                // There are as many places as tables.
                let _ = self.owned.push(owned);
                self.owned.len() - 1
            }
        };
        let (Some(owned), Some(first)) = (self.owned.get_mut(place), self.first) else {
            return Err(BackendError::Cannot);
        };
        // The lowest bits of the data are the device's to set.
        let begin = owned.used.next_multiple_of(count.next_power_of_two());
        if u32::from(begin) + u32::from(count) > 1 << SIZE {
            return Err(BackendError::RemapExhausted);
        }
        for number in 0..count {
            let value = ENABLED | mode << 2 | destination << 8 | (vector + u64::from(number)) << 16;
            write(tables, first, owned.table, begin + number, value);
        }
        owned.used = begin + count;
        for id in ids {
            if !owned.ids.contains(id) {
                owned.ids.push(*id).map_err(|_| BackendError::Cannot)?;
            }
        }
        let sent = InterruptMessage {
            address: message.address,
            data: begin.into(),
        };
        Ok((sent, address(tables, first, owned.table)))
    }

    /// Sends messages of a device elsewhere, `first` and `count` counted from the one with data `begin`; says which ids the
    /// unit has to forget. Each entry changes in one write.
    ///
    /// # Errors
    /// `BadMessage`.
    pub fn reroute<T: TableMemory>(
        &self,
        tables: &mut Tables<'_, T>,
        device: Sbdf,
        begin: u32,
        (first, count): (u16, u16),
        address: u64,
    ) -> Result<Ids, BackendError> {
        let bad = BackendError::BadMessage;
        if address & !0xf_f000 != 0xfee0_0000 {
            return Err(bad(MessagePart::Address));
        }
        let owned = self.owned.iter().find(|owned| owned.device == device);
        let owned = owned.ok_or(bad(MessagePart::Address))?;
        let begin = begin.saturating_add(first.into());
        let end = begin.saturating_add(count.into());
        if count == 0 || end > u32::from(owned.used) {
            return Err(bad(MessagePart::Count));
        }
        let first = self.first.ok_or(BackendError::Cannot)?;
        for entry in begin..end {
            // Below 2^7.
            let entry = entry as u16;
            let before = read(tables, first, owned.table, entry);
            if before & ENABLED != 0 {
                let destination = (address >> 12 & 0xff) << 8;
                let value = before & !(0xff << 8) | destination;
                write(tables, first, owned.table, entry, value);
            }
        }
        Ok(owned.ids.clone())
    }

    /// Clears the table of a device, if it has one, and says which ids lead to it: it is to be given back when
    /// they do not any more, and the unit has forgotten it.
    pub fn clear<T: TableMemory>(&self, tables: &mut Tables<'_, T>, device: Sbdf) -> Option<Ids> {
        let owned = self.owned.iter().find(|owned| owned.device == device)?;
        for entry in 0..owned.used {
            write(tables, self.first?, owned.table, entry, 0);
        }
        Some(owned.ids.clone())
    }

    /// Takes up messages that an earlier life of the shard has made: `count` entries from `begin` on in the table at
    /// `address`, to which `ids` lead. `false`: they are not all there.
    pub fn adopt<T: TableMemory>(
        &mut self,
        tables: &Tables<'_, T>,
        device: Sbdf,
        (ids, at): (&[u16], u64),
        (begin, count): (u32, u16),
    ) -> bool {
        let Some(first) = self.first else {
            return false;
        };
        let end = begin.saturating_add(count.into());
        let offset = at.wrapping_sub(tables.physical(first));
        let (table, aligned) = ((offset / BYTES) as u16, offset.is_multiple_of(BYTES));
        if !aligned || offset / BYTES >= TABLES as u64 || count == 0 || end > 1 << SIZE {
            return false;
        }
        let enabled = |entry: u32| read(tables, first, table, entry as u16) & ENABLED != 0;
        if !(begin..end).all(enabled) {
            return false;
        }
        let known = self.owned.iter().position(|owned| owned.device == device);
        let place = match known {
            Some(place) => place,
            None if self.free.claim_run(table.into(), 1) => {
                let owned = Owned {
                    device,
                    table,
                    used: 0,
                    ids: Ids::new(),
                };
                // There are as many places as tables.
                let _ = self.owned.push(owned);
                self.owned.len() - 1
            }
            None => return false,
        };
        let Some(owned) = self
            .owned
            .get_mut(place)
            .filter(|owned| owned.table == table)
        else {
            return false;
        };
        owned.used = owned.used.max(end as u16);
        for id in ids {
            if !owned.ids.contains(id) {
                let _ = owned.ids.push(*id);
            }
        }
        true
    }

    /// Takes away every entry that was not taken up.
    pub fn clear_others<T: TableMemory>(&self, tables: &mut Tables<'_, T>) {
        let Some(first) = self.first else { return };
        for table in 0..TABLES as u16 {
            let owned = self.owned.iter().find(|owned| owned.table == table);
            for entry in owned.map_or(0, |owned| owned.used)..1 << SIZE {
                if read(tables, first, table, entry) != 0 {
                    write(tables, first, table, entry, 0);
                }
            }
        }
    }

    /// Whether a requester's messages are to be looked up at an address.
    pub fn leads_to<T: TableMemory>(&self, tables: &Tables<'_, T>, id: u16, at: u64) -> bool {
        self.owned.iter().any(|owned| {
            let here = self.first.map(|first| address(tables, first, owned.table));
            here == Some(at) && owned.ids.contains(&id)
        })
    }

    /// The table of a device may be another's.
    pub fn give(&mut self, device: Sbdf) {
        if let Some(place) = self.owned.iter().position(|owned| owned.device == device) {
            let owned = self.owned.swap_remove(place);
            let _ = self.free.give(owned.table.into());
        }
    }
}

fn position<T: TableMemory>(tables: &Tables<'_, T>, first: Page, table: u16) -> (Page, u16) {
    let page = tables.following(first, table / TABLES_A_PAGE);
    (page, table % TABLES_A_PAGE * WORDS)
}

fn address<T: TableMemory>(tables: &Tables<'_, T>, first: Page, table: u16) -> u64 {
    tables.physical(first) + u64::from(table) * BYTES
}

/// Reads one entry.
fn read<T: TableMemory>(tables: &Tables<'_, T>, first: Page, table: u16, entry: u16) -> u64 {
    let (page, at) = position(tables, first, table);
    tables.get(page, at + entry / 2) >> (u32::from(entry % 2) * 32) & 0xffff_ffff
}

/// Writes one entry: half a word, together with its neighbour.
fn write<T: TableMemory>(
    tables: &mut Tables<'_, T>,
    first: Page,
    table: u16,
    entry: u16,
    value: u64,
) {
    let (page, at) = position(tables, first, table);
    let (at, shift) = (at + entry / 2, u32::from(entry % 2) * 32);
    let word = tables.get(page, at) & !(0xffff_ffff << shift) | value << shift;
    tables.set(page, at, word);
    tables.flush(page, at, 1);
}

/// Destination, first vector and delivery mode of messages that make sense.
fn check(message: InterruptMessage, count: u16) -> Result<(u64, u64, u64), BackendError> {
    let bad = |part| Err(BackendError::BadMessage(part));
    if count == 0 || u32::from(count) > 1 << SIZE {
        return bad(MessagePart::Count);
    }
    let (address, data) = (message.address, u64::from(message.data));
    // Physical destination, no redirection.
    if address & !0xf_f000 != 0xfee0_0000 {
        return bad(MessagePart::Address);
    }
    let (vector, mode) = (data & 0xff, data >> 8 & 7);
    let last = vector + u64::from(count) - 1;
    if data & !0x47ff != 0 || mode > 1 || vector < 0x20 || last > 0xff {
        return bad(MessagePart::Data);
    }
    Ok((address >> 12 & 0xff, vector, mode))
}
