//! [`Remapper`]: a unit's interrupt remapping table (VT-d 3.0, 5.1 and 9.10):
//! which messages which device may send.
//!
//! A device is given messages in the remappable format: the address holds the
//! number of a block's first entry (the handle), the data is added to it (the
//! subhandle), so one address serves a block of 2^n entries, as MSI needs it
//! and MSI-X can use it. An entry holds the vector and destination and which
//! requester ids may use it; everybody else's message is blocked, and so is
//! one to an entry that is not present.
//!
//! An entry's halves are written as a context entry's are ([`super::context`]):
//! second half first, the first half with the present bit last, in one write;
//! taken away in one write of the first half. A freed entry is used again only when the unit has
//! confirmed that it forgot it; the confirmation also means that the messages
//! in flight have been delivered (6.5.2.7).
//!
//! **What is promised.** `interrupts_isolated` says that the unit reports
//! remapping on and the compatibility format blocked (IRES set, CFIS clear): then
//! the specification leaves no other way to raise an interrupt. Whether a unit
//! keeps its word cannot be read anywhere: QEMU 7.2's lets messages in the
//! compatibility format pass all the same.

mod adopt;

use heapless::Vec;
use hw::Sbdf;
use system::pool::NumberPool;

use crate::TableMemory;
use crate::backend::{BackendError, InterruptMessage, MessagePart};
use crate::tables::{Page, Tables};

/// Entries of a table: 2 pages of entries of 128 bits. There are fewer interrupt vectors in the whole machine.
pub const ENTRIES: u16 = 512;
/// Pages of a table.
pub const PAGES: u16 = 2;
/// Size field of the table's register: 2^(this + 1) entries.
pub const SIZE_CODE: u64 = 8;
/// Most blocks of entries at a time.
pub const MAX_BLOCKS: usize = 128;
/// Most messages of a block.
pub const MAX_MESSAGES: u16 = 128;

const ENTRIES_A_PAGE: u16 = 256;

/// Bits of an entry's first half.
const PRESENT: u64 = 1;
/// Where it goes: the id of a local APIC, as in bits 19:12 of a message's address.
const DESTINATION: u64 = 0xff << 40;
const DESTINATION_ADDRESS: u64 = 0xff << 12;
/// Bits of its second half: all 16 bits of the requester id count; those of bus and device; its bus lies in a range.
const EXACT: u64 = 1 << 18;
const ANY_FUNCTION: u64 = 1 << 18 | 3 << 16;
const BUS_RANGE: u64 = 2 << 18;

/// Bits of a message's address: the remappable format; a subhandle comes with the data.
const REMAPPABLE: u64 = 1 << 4;
const SUBHANDLE: u64 = 1 << 3;

/// Who may use an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// One requester id.
    Exact(u16),
    /// Every function of one device.
    Device(u16),
    /// Every requester on these buses.
    Buses(u8, u8),
}

impl Source {
    /// The narrowest source that takes in what a device's messages carry, of which `aliases` are named from the
    /// device upwards: the outermost one. An alias of device 0, function 0 on a bus that is not the root's stands
    /// for all of a bridge's secondary bus (PCI Express to PCI/PCI-X Bridge Specification 1.0, 2.3: requests of PCI-X
    /// may keep their ids); any other is the own id of a conventional bridge, which replaces whatever was there.
    pub fn of(device: Sbdf, aliases: &[Sbdf]) -> Self {
        let id = device.requester_id();
        let others = || aliases.iter().map(|alias| alias.requester_id());
        let is_secondary = |alias: u16| alias > 0xff && alias & 0xff == 0;
        let Some(outermost) = others()
            .next_back()
            .filter(|_| others().any(|alias| alias != id))
        else {
            return Self::Exact(id);
        };
        if others().all(|alias| alias >> 3 == id >> 3) {
            return Self::Device(id);
        }
        // A bridge that may be of either kind: its own id, or its secondary bus.
        if others().any(|alias| is_secondary(alias) && alias >= outermost) {
            let (own, top) = (device.bus(), (outermost >> 8) as u8);
            return Self::Buses(own.min(top), own.max(top));
        }
        Self::Exact(outermost)
    }

    const fn bits(self) -> u64 {
        match self {
            Self::Exact(id) => EXACT | id as u64,
            Self::Device(id) => ANY_FUNCTION | id as u64,
            Self::Buses(first, last) => BUS_RANGE | (first as u64) << 8 | last as u64,
        }
    }
}

/// Consecutive entries of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    device: Sbdf,
    /// First entry, aligned to their number.
    pub first: u16,
    /// Entries taken: 2^this.
    pub mask: u8,
    /// Not to be given back: the unit did not confirm.
    lost: bool,
}

impl Block {
    fn entries(&self) -> core::ops::Range<u16> {
        self.first..self.first + (1 << self.mask)
    }

    /// The message to send for its first entry.
    fn message(&self) -> InterruptMessage {
        // There are fewer than 2^15 entries, so the handle's highest bit (bit 2) is zero.
        let address = 0xfee0_0000 | u64::from(self.first) << 5 | REMAPPABLE | SUBHANDLE;
        InterruptMessage { address, data: 0 }
    }
}

/// What an entry delivers, taken from a message of the compatibility format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Delivery {
    vector: u8,
    /// Delivery mode: 0 fixed, 1 lowest priority.
    mode: u64,
    /// Destination: a local APIC's id (8 bits).
    destination: u64,
    /// Redirection hint and destination mode, bits 3 and 2 of the address.
    redirect: u64,
    logical: u64,
}

/// Vectors below are the processor's exceptions.
const FIRST_VECTOR: u64 = 0x20;

impl Delivery {
    /// Checks a message and the `count - 1` that follow it (local APIC messages, Intel SDM 3A, 10.11).
    fn of(message: InterruptMessage, count: u16) -> Result<Self, MessagePart> {
        if count == 0 || count > MAX_MESSAGES {
            return Err(MessagePart::Count);
        }
        let (address, data) = (message.address, u64::from(message.data));
        if address & !0xf_f00c != 0xfee0_0000 {
            return Err(MessagePart::Address);
        }
        // Edge-triggered; bit 14 (assert) says nothing then.
        let (vector, mode) = (data & 0xff, data >> 8 & 7);
        let last = vector + u64::from(count) - 1;
        if data & !0x47ff != 0 || mode > 1 || vector < FIRST_VECTOR || last > 0xff {
            return Err(MessagePart::Data);
        }
        Ok(Self {
            vector: vector as u8,
            mode,
            destination: address >> 12 & 0xff,
            redirect: address >> 3 & 1,
            logical: address >> 2 & 1,
        })
    }

    /// First half of the entry of the `number`th message.
    fn bits(self, number: u16) -> u64 {
        PRESENT
            | self.logical << 2
            | self.redirect << 3
            | self.mode << 5
            | (u64::from(self.vector) + u64::from(number)) << 16
            | self.destination << 40
    }
}

/// One unit's table.
pub struct Remapper {
    /// Its first page; the other follows. `None`: the unit does not remap.
    table: Option<Page>,
    free: NumberPool<{ ENTRIES as usize / 64 }>,
    blocks: Vec<Block, MAX_BLOCKS>,
}

impl Default for Remapper {
    fn default() -> Self {
        Self::new()
    }
}

impl Remapper {
    /// Of a unit that does not remap.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            table: None,
            free: NumberPool::empty(),
            blocks: Vec::new(),
        }
    }

    /// Uses an empty table.
    pub fn open(&mut self, table: Page) {
        if let Some(free) = NumberPool::new(0, ENTRIES.into()) {
            (self.table, self.free) = (Some(table), free);
        }
    }

    /// Entries in use.
    pub fn used(&self) -> u32 {
        self.free.used()
    }

    /// Makes a block for a device and returns it with the message to send.
    ///
    /// # Errors
    /// `BadMessage`, `RemapExhausted`; `Cannot` without a table.
    pub fn make<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        device: Sbdf,
        source: Source,
        message: InterruptMessage,
        count: u16,
    ) -> Result<(Block, InterruptMessage), BackendError> {
        let delivery = Delivery::of(message, count).map_err(BackendError::BadMessage)?;
        let table = self.table.ok_or(BackendError::Cannot)?;
        let wanted = |number| (delivery.bits(number), source.bits());
        if let Some(block) = self.same_as(tables, device, wanted, count) {
            return Ok((block, block.message()));
        }
        if self.blocks.is_full() {
            return Err(BackendError::RemapExhausted);
        }
        let size = u32::from(count).next_power_of_two();
        let first = self
            .free
            .take_run(size, size)
            .ok_or(BackendError::RemapExhausted)? as u16;
        let block = Block {
            device,
            first,
            mask: size.ilog2() as u8,
            lost: false,
        };
        // There is room: it was checked.
        let _ = self.blocks.push(block);
        for number in 0..count {
            let (page, at) = place(tables, table, first + number);
            tables.set(page, at + 1, source.bits());
            tables.set(page, at, delivery.bits(number));
            tables.flush(page, at, 1);
        }
        Ok((block, block.message()))
    }

    /// Sends messages of a block elsewhere; gives the block. Each entry changes in one write, so a message that comes
    /// meanwhile goes to the old place or to the new one.
    ///
    /// # Errors
    /// `BadMessage`; `Cannot` without a table.
    pub fn reroute<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        device: Sbdf,
        remapped: InterruptMessage,
        (first, count): (u16, u16),
        address: u64,
    ) -> Result<Block, BackendError> {
        let bad = BackendError::BadMessage;
        if address & !DESTINATION_ADDRESS != 0xfee0_0000 {
            return Err(bad(MessagePart::Address));
        }
        let table = self.table.ok_or(BackendError::Cannot)?;
        let handle = remapped.address >> 5 & 0x7fff;
        let block = self.blocks.iter().find(|block| {
            block.device == device && u64::from(block.first) == handle && !block.lost
        });
        let block = *block.ok_or(bad(MessagePart::Address))?;
        let end = u32::from(first) + u32::from(count);
        if count == 0 || end > 1 << block.mask {
            return Err(bad(MessagePart::Count));
        }
        for entry in block.entries().skip(first.into()).take(count.into()) {
            let (page, at) = place(tables, table, entry);
            let before = tables.get(page, at);
            if before & PRESENT != 0 {
                let destination = (address & DESTINATION_ADDRESS) >> 12 << 40;
                tables.set(page, at, before & !DESTINATION | destination);
                tables.flush(page, at, 1);
            }
        }
        Ok(block)
    }

    /// A block of the device that is in use.
    pub fn block_of(&self, device: Sbdf) -> Option<Block> {
        let of_device = |block: &&Block| block.device == device && !block.lost;
        self.blocks.iter().find(of_device).copied()
    }

    /// Makes the entries of a block not present; the unit is to be told then.
    pub fn clear<T: TableMemory>(&self, tables: &mut Tables<'_, T>, block: &Block) {
        let Some(table) = self.table else { return };
        for entry in block.entries() {
            let (page, at) = place(tables, table, entry);
            if tables.get(page, at) != 0 {
                tables.set(page, at, 0);
                tables.flush(page, at, 1);
            }
        }
    }

    /// The unit has forgotten the block: its entries may be used again.
    pub fn give(&mut self, block: &Block) {
        self.blocks.retain(|other| other.first != block.first);
        let _ = self.free.give_run(block.first.into(), 1 << block.mask);
    }

    /// The unit did not confirm: its entries are never used again.
    pub fn lose(&mut self, block: &Block) {
        for other in &mut self.blocks {
            other.lost |= other.first == block.first;
        }
    }
}

/// Page and word of an entry.
fn place<T: TableMemory>(tables: &Tables<'_, T>, table: Page, entry: u16) -> (Page, u16) {
    let page = tables.following(table, entry / ENTRIES_A_PAGE);
    (page, entry % ENTRIES_A_PAGE * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bus: u8, device: u8, function: u8) -> Sbdf {
        Sbdf::from_requester_id(
            0,
            u16::from(bus) << 8 | u16::from(device) << 3 | u16::from(function),
        )
    }

    #[test]
    fn a_source_is_as_narrow_as_the_aliases_allow() {
        let device = at(2, 1, 0);
        assert_eq!(Source::of(device, &[]), Source::Exact(0x208));
        assert_eq!(Source::of(device, &[device]), Source::Exact(0x208));
        assert_eq!(Source::of(device, &[at(2, 1, 4)]), Source::Device(0x208));
        assert_eq!(Source::of(device, &[at(2, 0, 0)]), Source::Buses(2, 2));
        // A bridge that is of either kind.
        let either = [at(2, 0, 0), at(1, 0, 0)];
        assert_eq!(Source::of(device, &either), Source::Buses(1, 2));
        // A bus behind a bus behind a bridge from Express.
        let nested = [at(1, 5, 0), at(1, 0, 0)];
        assert_eq!(Source::of(device, &nested), Source::Buses(1, 2));
        // A conventional bridge on the root bus: none of the root bus's other devices.
        assert_eq!(Source::of(device, &[at(0, 30, 0)]), Source::Exact(0xf0));
    }

    #[test]
    fn messages_that_are_no_interrupts_are_refused() {
        let check = |address, data, count| Delivery::of(InterruptMessage { address, data }, count);
        assert_eq!(
            check(0xfee0_300c, 0x4141, 4),
            Ok(Delivery {
                vector: 0x41,
                mode: 1,
                destination: 3,
                redirect: 1,
                logical: 1
            })
        );
        for address in [
            0,
            0xfed0_0000,
            0xfee0_0010,
            0xfee0_0001,
            0x1_fee0_0000,
            0xfef0_0000,
        ] {
            assert_eq!(check(address, 0x41, 1), Err(MessagePart::Address));
        }
        for data in [0x1f, 0x0e, 0, 0x241, 0x741, 0x8041, 0x1_0041] {
            assert_eq!(
                check(0xfee0_0000, data, 1),
                Err(MessagePart::Data),
                "{data:#x}"
            );
        }
        assert_eq!(check(0xfee0_0000, 0xf8, 9), Err(MessagePart::Data));
        assert!(check(0xfee0_0000, 0xf8, 8).is_ok());
        for count in [0, 129, u16::MAX] {
            assert_eq!(check(0xfee0_0000, 0x30, count), Err(MessagePart::Count));
        }
    }
}
