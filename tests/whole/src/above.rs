//! [`Surroundings`]: what the pci-server's shard has around it. Its calls to the
//! servers below are encoded messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use hw::{Clock, ConfigSpace, Sbdf};
use ipc_proto::iommu::{ReservedAtReply, TroubleNextReply};
use ipc_proto::{
    Badge, BadgeKind, ClientId, ContextChoice, Message, Messages, Properties, Refusal, Rule,
    Switch, Turns, Width, iommu, msi,
};
use ledger::Words;
use pci_core::again::{again, until_gone};
use pci_core::bank::{Bank, PageSize};
use pci_core::env::*;

mod vectors;

use crate::below::{Handlers, Issued, Memory, Registers, TableWindow};
use crate::calls::{Below, To};
use crate::caps::{self, Caps};
use crate::hardware::Hardware;
use crate::kernel::Kernel;
use crate::mortal::restarted;

/// The iommu-server's core over its driver.
pub type IommuShard<'s> =
    iommu_core::Shard<'s, Memory, iommu_core::vtd::Vtd<'s, Registers, TableWindow>>;
/// The msi-server's core.
pub type MsiShard = msi_core::Shard<Handlers>;

/// The environment of the pci-server's shard.
pub struct Surroundings<'s> {
    hardware: Rc<Hardware>,
    caps: Caps,
    bank: Bank,
    iommu: iommu::Stub<To<'s, IommuShard<'s>>>,
    msi: msi::Stub<To<'s, MsiShard>>,
    issued: Issued,
    tables: BTreeMap<u16, u64>,
    pages: BTreeMap<u16, u64>,
    parked: BTreeSet<u32>,
    last_ticket: u32,
    /// Who waits for which ticket is the world's to know: the ticket of a request that has just been
    /// parked.
    pub just_parked: Option<u32>,
    /// Answers of parked requests.
    pub answers: BTreeMap<u32, Message>,
    /// When the timer runs out.
    pub alarm: Option<u64>,
    /// Has it said that it owes the supervisor nothing?
    pub done: bool,
    /// Lines for people.
    pub log: Vec<String>,
}

impl<'s> Surroundings<'s> {
    /// Around nothing yet.
    pub fn new(
        hardware: Rc<Hardware>,
        kernel: Kernel,
        bank: Bank,
        iommu: &Below<'s, IommuShard<'s>>,
        msi: &Below<'s, MsiShard>,
    ) -> Self {
        let badge = Badge::plain(BadgeKind::Shard, 0);
        Self {
            caps: Caps::new(kernel, &hardware.lives),
            hardware,
            bank,
            iommu: iommu::Stub(iommu.with(badge)),
            msi: msi::Stub(msi.with(badge)),
            issued: Rc::clone(&msi.shard.borrow().env().issued),
            tables: BTreeMap::new(),
            pages: BTreeMap::new(),
            parked: BTreeSet::new(),
            last_ticket: 0,
            just_parked: None,
            answers: BTreeMap::new(),
            alarm: None,
            done: false,
            log: Vec::new(),
        }
    }
}

impl Surroundings<'_> {
    /// Around the shard's next life, with `fresh` around the one that has ended: what the kernel and hardware keep is as
    /// it was. Whoever waited for an answer is told.
    pub fn after_death(&mut self, fresh: Self) -> Self {
        let mut old = std::mem::replace(self, fresh);
        std::mem::swap(&mut old.bank, &mut self.bank);
        old.caps.after_death();
        old.tables.clear();
        old.pages.clear();
        let waited = std::mem::take(&mut old.parked);
        old.answers
            .extend(waited.into_iter().map(|ticket| (ticket, restarted())));
        old.just_parked = None;
        old.alarm = None;
        old
    }

    /// The shard has taken up what its last life has left: whatever else lies in its slots goes.
    pub fn sweep(&mut self) {
        self.caps.sweep();
    }
}

impl ConfigSpace for Surroundings<'_> {
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        self.hardware.machine.borrow().read8(at, offset)
    }
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        self.hardware.machine.borrow().read16(at, offset)
    }
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        self.hardware.machine.borrow().read32(at, offset)
    }
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8) {
        self.hardware.lives.effect();
        self.hardware.machine.borrow_mut().write8(at, offset, value);
    }
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16) {
        self.hardware.lives.effect();
        self.hardware
            .machine
            .borrow_mut()
            .write16(at, offset, value);
    }
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32) {
        self.hardware.lives.effect();
        self.hardware
            .machine
            .borrow_mut()
            .write32(at, offset, value);
    }
}

impl Clock for Surroundings<'_> {
    fn now_us(&self) -> u64 {
        self.hardware.clock.now_us()
    }
}

impl Iommu for Surroundings<'_> {
    fn attach(
        &mut self,
        device: Sbdf,
        client: ClientId,
        context: ContextChoice,
        ats_queue: u8,
    ) -> Result<(Properties, u16), Refusal> {
        let reply = self.iommu.attach(device, client, context, ats_queue)?;
        Ok((reply.properties, reply.context))
    }
    fn keep(&mut self, device: Sbdf, ats_queue: u8) -> Result<Switch, Refusal> {
        Ok(again(|| self.iommu.cache(device, ats_queue))?.allowed)
    }
    fn detach(&mut self, device: Sbdf) -> Result<(), Refusal> {
        until_gone(Rule::NotAttached, || self.iommu.detach(device))
    }
    fn promise(&mut self, device: Sbdf) -> Result<Properties, Refusal> {
        Ok(again(|| self.iommu.promise(device))?.properties)
    }
    fn alias(&mut self, device: Sbdf, alias: Sbdf) -> Result<(), Refusal> {
        again(|| self.iommu.alias(device, alias)).map(drop)
    }
    fn remap(
        &mut self,
        device: Sbdf,
        vectors: VectorBlock,
        count: u16,
    ) -> Result<VectorBlock, Refusal> {
        let reply = self
            .iommu
            .remap(device, vectors.address, vectors.data, count)?;
        Ok(VectorBlock {
            address: reply.address,
            data: reply.data,
        })
    }
    fn reroute(
        &mut self,
        device: Sbdf,
        remapped: VectorBlock,
        messages: Messages,
        address: u64,
    ) -> Result<(), Refusal> {
        let remapped = remapped.address | u64::from(remapped.data) << 32;
        again(|| self.iommu.reroute(device, remapped, messages, address)).map(drop)
    }
    fn unremap(&mut self, device: Sbdf) -> Result<(), Refusal> {
        again(|| self.iommu.unremap(device)).map(drop)
    }
    fn reserved_at(&mut self, device: Sbdf, index: u16) -> Result<ReservedAtReply, Refusal> {
        again(|| self.iommu.reserved_at(device, index))
    }
    fn trouble_next(&mut self) -> Result<TroubleNextReply, Refusal> {
        again(|| self.iommu.trouble_next())
    }
}

impl Grants for Surroundings<'_> {
    fn place_device(
        &mut self,
        assignment: u16,
        badge: Badge,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        let master = caps::DEVICES + u32::from(assignment);
        self.caps.mint(master, badge, client, slot)
    }
    fn revoke_device(&mut self, assignment: u16) -> Result<(), Refusal> {
        self.caps.retire(caps::DEVICES + u32::from(assignment));
        Ok(())
    }
    fn place_view(
        &mut self,
        view: u16,
        badge: Badge,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        let master = caps::VIEWS + u32::from(view);
        self.caps.mint(master, badge, client, slot)
    }
    fn revoke_view(&mut self, view: u16) -> Result<(), Refusal> {
        self.caps.retire(caps::VIEWS + u32::from(view));
        Ok(())
    }
    fn keep_masters(&mut self, assignments: u64, views: u64) -> Result<(), Refusal> {
        for (first, stay) in [(caps::DEVICES, assignments), (caps::VIEWS, views)] {
            for number in (0..64).filter(|number| stay >> number & 1 == 0) {
                self.caps.retire(first + number);
            }
        }
        Ok(())
    }
}

impl BarMemory for Surroundings<'_> {
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
            .place(&mut self.caps, region, size, first, count, client, slot)
    }
    fn map_table(
        &mut self,
        region: RegionId,
        table: u16,
        first: u32,
        pages: u16,
    ) -> Result<(), Refusal> {
        if self.tables.contains_key(&table) {
            return Ok(());
        }
        for page in first..first + u32::from(pages) {
            self.bank.frame(&mut self.caps, region, page)?;
        }
        let base = region.base + u64::from(first) * 4096;
        self.tables.insert(table, base);
        Ok(())
    }
    fn read_table(&self, table: u16, offset: u32) -> u32 {
        let Some(base) = self.tables.get(&table) else {
            return u32::MAX;
        };
        let registers = self.hardware.registers.borrow();
        let value = registers.get(&(base + u64::from(offset)));
        value.copied().unwrap_or(0)
    }
    fn write_table(&mut self, table: u16, offset: u32, value: u32) {
        self.hardware.lives.effect();
        let base = self.tables.get(&table).expect("a table that is mapped");
        let place = base + u64::from(offset);
        self.hardware.registers.borrow_mut().insert(place, value);
    }
    fn map_page(&mut self, region: RegionId, table: u16, page: u32) -> Result<(), Refusal> {
        self.bank.frame(&mut self.caps, region, page)?;
        self.pages
            .insert(table, region.base + u64::from(page) * 4096);
        Ok(())
    }
    fn read_page(&self, _: u16, _: u16, _: Width) -> u32 {
        0
    }
    fn write_page(&mut self, _: u16, _: u16, _: Width, _: u32) {}
    fn revoke_frames(&mut self, region: RegionId, table: u16) -> Result<(), Refusal> {
        self.pages.remove(&table);
        self.tables.remove(&table);
        self.bank.revoke(&mut self.caps, region)
    }
    fn keep_frames(&mut self, region: RegionId) {
        self.bank.keep(region);
    }
    fn sweep_frames(&mut self) -> Result<(), Refusal> {
        self.bank.recover(&mut self.caps)
    }
}

impl Words for Surroundings<'_> {
    fn count(&self) -> usize {
        self.caps.count()
    }
    fn load(&self, at: usize) -> u64 {
        self.caps.load(at)
    }
    fn store(&mut self, at: usize, value: u64) {
        self.caps.store(at, value);
    }
}

impl Parking for Surroundings<'_> {
    type Ticket = u32;
    fn park(&mut self) -> Result<u32, Refusal> {
        self.last_ticket += 1;
        self.parked.insert(self.last_ticket);
        self.just_parked = Some(self.last_ticket);
        Ok(self.last_ticket)
    }
    fn answer(&mut self, ticket: u32, reply: &Message) {
        assert!(self.parked.remove(&ticket), "answered twice");
        self.answers.insert(ticket, *reply);
    }
}

impl Alarm for Surroundings<'_> {
    fn arm(&mut self, micros: u64) {
        assert!(micros > 0, "0 switches the timer off");
        self.alarm = Some(self.now_us() + micros);
    }
}

impl Signals for Surroundings<'_> {
    fn tell_client(&mut self, _: ClientId) {}
    fn tell_supervisor(&mut self) {
        self.done = true;
    }
}

impl Host for Surroundings<'_> {
    fn turns(&self) -> Turns {
        Turns::default()
    }
    fn log(&mut self, line: fmt::Arguments<'_>) {
        self.log.push(line.to_string());
    }
    fn ticks(&self) -> u64 {
        self.hardware.machine.borrow().reads() as u64
    }
    fn usage(&self) -> Usage {
        Usage {
            slots: self.caps.used(),
            untyped_bytes: self.bank.split_bytes(),
        }
    }
}
