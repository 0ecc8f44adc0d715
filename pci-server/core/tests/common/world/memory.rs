//! Device memory of the [`World`]: frames in windows, and the shard's own pages.

use super::*;

impl BarMemory for World {
    fn place_frames(
        &mut self,
        region: RegionId,
        size: PageSize,
        first: u32,
        count: u16,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        self.bank
            .place(&mut self.kernel, region, size, first, count, client, slot)?;
        self.did.push(Did::PlacedFrames { first, count });
        Ok(())
    }
    fn map_table(
        &mut self,
        region: RegionId,
        table: u16,
        first: u32,
        pages: u16,
    ) -> Result<(), Refusal> {
        assert!(pages <= pci_core::MAX_TABLE_PAGES);
        if self.tables.contains_key(&table) {
            return Ok(());
        }
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        for page in first..first + u32::from(pages) {
            self.bank.frame(&mut self.kernel, region, page)?;
        }
        self.tables
            .insert(table, region.base + u64::from(first) * 4096);
        self.did.push(Did::MappedTable);
        Ok(())
    }
    fn read_table(&self, table: u16, offset: u32) -> u32 {
        let base = self.tables.get(&table).copied();
        base.map_or(u32::MAX, |base| {
            self.memory
                .get(&(base + u64::from(offset)))
                .copied()
                .unwrap_or(0)
        })
    }
    fn write_table(&mut self, table: u16, offset: u32, value: u32) {
        if !self.kernel.effect() {
            return;
        }
        let base = *self
            .tables
            .get(&table)
            .expect("a table that is not mapped is written");
        self.memory.insert(base + u64::from(offset), value);
        self.did.push(Did::WroteTable { offset, value });
    }
    fn map_page(&mut self, region: RegionId, table: u16, page: u32) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        self.bank.frame(&mut self.kernel, region, page)?;
        let base = region.base + u64::from(page) * 4096;
        self.pages.insert(table, base);
        Ok(())
    }
    fn read_page(&self, table: u16, offset: u16, width: Width) -> u32 {
        assert_eq!(offset % width as u16, 0);
        let Some(base) = self.pages.get(&table) else {
            return u32::MAX;
        };
        let place = base + u64::from(offset);
        let word = self.memory.get(&(place & !3)).copied().unwrap_or(0);
        (u64::from(word >> (place % 4 * 8)) & ((1 << (8 * width as u64)) - 1)) as u32
    }
    fn write_page(&mut self, table: u16, offset: u16, width: Width, value: u32) {
        if !self.kernel.effect() {
            return;
        }
        let base = self
            .pages
            .get(&table)
            .expect("a page that is not mapped is written");
        let place = base + u64::from(offset);
        let shift = place % 4 * 8;
        let mask = ((1u64 << (8 * width as u64)) - 1) << shift;
        let word = self.memory.entry(place & !3).or_default();
        *word = (u64::from(*word) & !mask | u64::from(value) << shift & mask) as u32;
    }
    fn revoke_frames(&mut self, region: RegionId, table: u16) -> Result<(), Refusal> {
        self.pages.remove(&table);
        self.tables.remove(&table);
        self.bank.revoke(&mut self.kernel, region)?;
        self.did.push(Did::RevokedFrames);
        Ok(())
    }
    fn keep_frames(&mut self, region: RegionId) {
        self.bank.keep(region);
    }
    fn sweep_frames(&mut self) -> Result<(), Refusal> {
        self.bank.recover(&mut self.kernel)
    }
}
