//! [`Memory`]: device memory on seL4. The bank's kernel operations ([`Kernel`]) and the MSI-X tables that the
//! shard maps for itself.

use core::sync::atomic::AtomicU64;

use heapless::Vec;
use hw::Mmio;
use ipc_proto::{ClientId, Refusal, Rule, Width};
use ledger::Words;
use pci_core::bank::{Bank, LARGE_BITS, Objects, PageSize};
use pci_core::ports::message::PORT_TABLE;
use pci_core::shard::MAX_VIEWS;
use pci_core::{MAX_ASSIGNMENTS, MAX_TABLE_PAGES, RegionId};
use sel4::object::{FrameSize, RETYPE_MAX};
use sel4::{Caching, Frame, ObjectType, Rights};
use sel4_glue::{AddressSpace, CSpace, MmioRegion, Pd};
use system::info::ClientEntry;
use system::pool::NumberPool;

/// Slots that are left to the rest of the server: masters of device capabilities, and some.
const OTHER_SLOTS: u32 = (MAX_ASSIGNMENTS + MAX_VIEWS) as u32 + 64;
/// Words of the slot pool: a private CNode of a pci-server shard has 2^14 slots.
const POOL_WORDS: usize = 256;

/// What the bank asks of the kernel, in slots of its own: their capabilities go with the untyped above them,
/// so that no slot has to be emptied one by one.
pub struct Kernel {
    clients: &'static [ClientEntry],
    slots: NumberPool<POOL_WORDS>,
    ledger: &'static [AtomicU64],
}

/// The kernel operations with the CSpace they work on.
struct Hands<'m> {
    kernel: &'m mut Kernel,
    cspace: &'m CSpace,
}

impl Hands<'_> {
    fn retype(&mut self, untyped: u32, kind: ObjectType, count: u32) -> Result<u32, Refusal> {
        let exhausted = Refusal::new(Rule::SlotsExhausted, self.kernel.slots.count().into());
        if count > RETYPE_MAX {
            return Err(exhausted);
        }
        let first = self.kernel.slots.take_run(count, 1).ok_or(exhausted)?;
        let made = self.cspace.retype_into(untyped, kind, first, count);
        if made.is_err() {
            // All or nothing in the kernel: the slots are still empty.
            self.forget(first, count);
        }
        made.map(|()| first)
    }

    fn client(&self, client: ClientId) -> Result<&'static ClientEntry, Refusal> {
        let entry = self.kernel.clients.get(usize::from(client.0));
        Ok(entry.ok_or(Rule::NoWindow)?)
    }
}

impl Words for Hands<'_> {
    fn count(&self) -> usize {
        self.kernel.ledger.count()
    }
    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.kernel.ledger.load(at)
    }
    #[inline]
    fn store(&mut self, at: usize, value: u64) {
        self.kernel.ledger.store(at, value);
    }
}

impl Objects for Hands<'_> {
    fn split(&mut self, untyped: u32, bits: u8, count: u32) -> Result<u32, Refusal> {
        self.retype(untyped, ObjectType::Untyped(bits), count)
    }

    fn frames(&mut self, untyped: u32, bits: u8, count: u32) -> Result<u32, Refusal> {
        let size = match bits {
            LARGE_BITS => FrameSize::Large,
            _ => FrameSize::Small,
        };
        self.retype(untyped, ObjectType::Frame(size), count)
    }

    fn revoke(&mut self, slot: u32) -> Result<(), Refusal> {
        self.cspace.revoke(slot)
    }

    fn forget(&mut self, first: u32, count: u32) {
        // They were taken together.
        let _ = self.kernel.slots.give_run(first, count);
    }

    fn place(&mut self, frame: u32, client: ClientId, slot: u16) -> Result<(), Refusal> {
        self.cspace
            .copy_to_window(self.client(client)?, slot, frame, Rights::READ_WRITE)
    }

    fn clear(&mut self, client: ClientId, slot: u16) {
        if let Ok(client) = self.client(client) {
            // The window is the client's: if the slot is gone, so is what was in it.
            let _ = self.cspace.clear_window(client, slot);
        }
    }

    fn adopt(&mut self, first: u32, count: u32) -> bool {
        self.kernel.slots.claim_run(first, count)
    }

    fn unmap(&mut self, frame: u32, _: u8) {
        // One that is not mapped stays so.
        let _ = Frame::at(frame.into()).unmap();
    }
}

/// A page of an MSI-X table, mapped.
struct TablePage {
    registers: MmioRegion,
    frame: u32,
}

/// One more page of an assignment's device, mapped. A frame is mapped once: where it is a page of the table,
/// that mapping is used.
struct ExtraPage {
    registers: MmioRegion,
    frame: u32,
    is_table: bool,
}

/// Device memory of the shard.
pub struct Memory {
    bank: &'static mut Bank,
    kernel: Kernel,
    addresses: &'static mut AddressSpace,
    /// By assignment slot; the last is a port's, while it is written.
    tables: [Vec<TablePage, { MAX_TABLE_PAGES as usize }>; PORT_TABLE as usize + 1],
    extras: [Option<ExtraPage>; MAX_ASSIGNMENTS],
}

impl Memory {
    /// The untypeds of the shard's information, and most of its slots.
    ///
    /// # Errors
    /// There are more untypeds than the bank holds, or too few slots.
    pub fn new(
        pd: &'static Pd,
        cspace: &mut CSpace,
        bank: &'static mut Bank,
    ) -> Result<Self, Refusal> {
        for piece in &pd.pci_info().mmio {
            bank.add(piece.slot, piece.base, piece.bits)?;
        }
        let count = cspace
            .free()
            .saturating_sub(OTHER_SLOTS)
            .min(NumberPool::<POOL_WORDS>::CAPACITY);
        // What an earlier life has made there goes with its untyped, unless it belongs to a device that is held.
        let first = cspace.take_run_as_it_is(count)?;
        let slots = NumberPool::new(first, count)
            .ok_or(Refusal::new(Rule::SlotsExhausted, count.into()))?;
        bank.divide(pd.info().clients.len(), count);
        Ok(Self {
            bank,
            kernel: Kernel {
                clients: &pd.info().clients,
                slots,
                ledger: pd.ledger(),
            },
            addresses: pd.address_space(),
            tables: [const { Vec::new() }; PORT_TABLE as usize + 1],
            extras: [const { None }; MAX_ASSIGNMENTS],
        })
    }

    /// Slots of its share that hold nothing.
    pub const fn free_slots(&self) -> u32 {
        self.kernel.slots.free()
    }

    /// Bytes of device memory split for frames.
    pub const fn split_bytes(&self) -> u64 {
        self.bank.split_bytes()
    }

    /// See `pci_core::env::BarMemory::place_frames`.
    ///
    /// # Errors
    /// As there; likewise for the others.
    #[expect(clippy::too_many_arguments, reason = "the request has them all")]
    pub fn place(
        &mut self,
        cspace: &CSpace,
        region: RegionId,
        size: PageSize,
        first: u32,
        count: u16,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        let (bank, mut hands) = self.with(cspace);
        bank.place(&mut hands, region, size, first, count, client, slot)
    }

    /// See `pci_core::env::BarMemory::map_table`.
    pub fn map_table(
        &mut self,
        cspace: &CSpace,
        region: RegionId,
        table: u16,
        first: u32,
        pages: u16,
    ) -> Result<(), Refusal> {
        if !self.table(table).is_empty() {
            return Ok(());
        }
        // It may be one of these.
        self.unmap_extra(table);
        for page in 0..pages {
            if let Err(refusal) =
                self.map_page(cspace, region, table, first.saturating_add(page.into()))
            {
                self.unmap_table(table);
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn map_page(
        &mut self,
        cspace: &CSpace,
        region: RegionId,
        table: u16,
        page: u32,
    ) -> Result<(), Refusal> {
        let (bank, mut hands) = self.with(cspace);
        let frame = bank.frame(&mut hands, region, page)?;
        let registers =
            self.addresses
                .map(frame.into(), 1, FrameSize::Small, Caching::Uncacheable)?;
        let full = Refusal::new(Rule::SlotsExhausted, MAX_TABLE_PAGES.into());
        let mapped = TablePage { registers, frame };
        let unmapped = match self.tables.get_mut(usize::from(table)) {
            Some(pages) => pages.push(mapped),
            None => Err(mapped),
        };
        unmapped.map_err(|page| {
            self.unmap_page(&page);
            full
        })
    }

    fn unmap_page(&mut self, page: &TablePage) {
        self.addresses
            .unmap(&page.registers, page.frame.into(), 1, FrameSize::Small);
    }

    fn unmap_table(&mut self, table: u16) {
        let Some(pages) = self.tables.get_mut(usize::from(table)) else {
            return;
        };
        for page in core::mem::take(pages) {
            self.unmap_page(&page);
        }
    }

    /// See `pci_core::env::BarMemory::map_page`.
    pub fn map_extra(
        &mut self,
        cspace: &CSpace,
        region: RegionId,
        table: u16,
        page: u32,
    ) -> Result<(), Refusal> {
        let (bank, mut hands) = self.with(cspace);
        let frame = bank.frame(&mut hands, region, page)?;
        if self.extra(table).is_some_and(|extra| extra.frame == frame) {
            return Ok(());
        }
        self.unmap_extra(table);
        let known = self.table(table).iter().find(|page| page.frame == frame);
        let (registers, is_table) = match known {
            Some(page) => (page.registers, true),
            None => {
                let caching = Caching::Uncacheable;
                let mapped = self
                    .addresses
                    .map(frame.into(), 1, FrameSize::Small, caching)?;
                (mapped, false)
            }
        };
        if let Some(place) = self.extras.get_mut(usize::from(table)) {
            *place = Some(ExtraPage {
                registers,
                frame,
                is_table,
            });
        }
        Ok(())
    }

    fn extra(&self, table: u16) -> Option<&ExtraPage> {
        self.extras.get(usize::from(table))?.as_ref()
    }

    fn unmap_extra(&mut self, table: u16) {
        let extra = self
            .extras
            .get_mut(usize::from(table))
            .and_then(Option::take);
        if let Some(extra) = extra.filter(|extra| !extra.is_table) {
            self.addresses
                .unmap(&extra.registers, extra.frame.into(), 1, FrameSize::Small);
        }
    }

    /// Reads a register of the page that is mapped beside a table; all ones where there is none.
    pub fn read_extra(&self, table: u16, offset: u16, width: Width) -> u32 {
        let offset = usize::from(offset);
        self.extra(table).map_or(u32::MAX, |page| match width {
            Width::Byte => page.registers.read8(offset).into(),
            Width::Word => page.registers.read16(offset).into(),
            Width::Dword => page.registers.read32(offset),
        })
    }

    /// Writes such a register.
    pub fn write_extra(&mut self, table: u16, offset: u16, width: Width, value: u32) {
        let offset = usize::from(offset);
        let extra = self
            .extras
            .get_mut(usize::from(table))
            .and_then(Option::as_mut);
        if let Some(ExtraPage { registers, .. }) = extra {
            match width {
                Width::Byte => registers.write8(offset, value as u8),
                Width::Word => registers.write16(offset, value as u16),
                Width::Dword => registers.write32(offset, value),
            }
        }
    }

    fn table(&self, table: u16) -> &[TablePage] {
        self.tables
            .get(usize::from(table))
            .map_or(&[], |pages| pages.as_slice())
    }

    /// Reads four bytes of a table; all ones where nothing is mapped.
    pub fn read(&self, table: u16, offset: u32) -> u32 {
        self.table(table)
            .get(offset as usize / 4096)
            .map_or(u32::MAX, |page| {
                page.registers.read32(offset as usize % 4096)
            })
    }

    /// Writes four bytes of a table.
    pub fn write(&mut self, table: u16, offset: u32, value: u32) {
        let page = self
            .tables
            .get_mut(usize::from(table))
            .and_then(|pages| pages.get_mut(offset as usize / 4096));
        if let Some(page) = page {
            page.registers.write32(offset as usize % 4096, value);
        }
    }

    /// See `pci_core::env::BarMemory::revoke_frames`. The shard's own mapping goes first.
    pub fn revoke(&mut self, cspace: &CSpace, region: RegionId, table: u16) -> Result<(), Refusal> {
        self.unmap_extra(table);
        self.unmap_table(table);
        let (bank, mut hands) = self.with(cspace);
        bank.revoke(&mut hands, region)
    }

    /// See `pci_core::env::BarMemory::keep_frames`.
    pub fn keep(&mut self, region: RegionId) {
        self.bank.keep(region);
    }

    /// See `pci_core::env::BarMemory::sweep_frames`.
    pub fn sweep(&mut self, cspace: &CSpace) -> Result<(), Refusal> {
        let (bank, mut hands) = self.with(cspace);
        bank.recover(&mut hands)
    }

    fn with<'m>(&'m mut self, cspace: &'m CSpace) -> (&'m mut Bank, Hands<'m>) {
        let hands = Hands {
            kernel: &mut self.kernel,
            cspace,
        };
        (self.bank, hands)
    }
}
