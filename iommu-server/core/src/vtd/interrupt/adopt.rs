//! Interrupt entries that an earlier life of the shard has left.

use hw::Sbdf;

use super::{Block, ENTRIES, MAX_MESSAGES, PRESENT, Remapper, Source, place};
use crate::TableMemory;
use crate::backend::InterruptMessage;
use crate::tables::Tables;

impl Remapper {
    /// Takes up the block whose first message is `sent`, if its entries are all there and `source`'s. What is not taken up
    /// [`Self::clear_others`] takes away.
    pub fn adopt<T: TableMemory>(
        &mut self,
        tables: &Tables<'_, T>,
        device: Sbdf,
        source: Source,
        sent: InterruptMessage,
        count: u16,
    ) -> bool {
        let Some(table) = self.table else {
            return false;
        };
        let size = count.clamp(1, MAX_MESSAGES).next_power_of_two();
        let first = (sent.address >> 5 & 0x7fff) as u16;
        let fits = (1..=MAX_MESSAGES).contains(&count)
            && first.is_multiple_of(size)
            && first < ENTRIES
            && !self.blocks.is_full();
        let whole = || {
            (0..size).all(|number| {
                let (page, at) = place(tables, table, first + number);
                let (low, high) = (tables.get(page, at), tables.get(page, at + 1));
                if number < count {
                    low & PRESENT != 0 && high == source.bits()
                } else {
                    low & PRESENT == 0
                }
            })
        };
        if !fits || !whole() || !self.free.claim_run(first.into(), size.into()) {
            return false;
        }
        let block = Block {
            device,
            first,
            mask: size.ilog2() as u8,
            lost: false,
        };
        // There is room: it was checked.
        let _ = self.blocks.push(block);
        true
    }

    /// Takes away every entry of no block; the unit is to be told then.
    pub fn clear_others<T: TableMemory>(&self, tables: &mut Tables<'_, T>) {
        let Some(table) = self.table else { return };
        for entry in 0..ENTRIES {
            let (page, at) = place(tables, table, entry);
            if !self.free.is_taken(entry.into()) && tables.get(page, at) != 0 {
                tables.set(page, at, 0);
                tables.flush(page, at, 1);
            }
        }
    }

    /// A block with these contents that the device has already: who asks again, because the answer was lost, gets the
    /// same one.
    pub fn same_as<T: TableMemory>(
        &self,
        tables: &Tables<'_, T>,
        device: Sbdf,
        wanted: impl Fn(u16) -> (u64, u64),
        count: u16,
    ) -> Option<Block> {
        let table = self.table?;
        let mut blocks = self.blocks.iter().filter(|block| {
            block.device == device
                && !block.lost
                && u32::from(block.mask) == u32::from(count).next_power_of_two().ilog2()
        });
        blocks
            .find(|block| {
                (0..count).all(|number| {
                    let (page, at) = place(tables, table, block.first + number);
                    (tables.get(page, at), tables.get(page, at + 1)) == wanted(number)
                })
            })
            .copied()
    }
}
