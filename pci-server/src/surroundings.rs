//! [`Surroundings`]: what the core needs, on seL4. One small implementation a trait of `pci_core::env`.

use core::fmt;
use core::sync::atomic::AtomicU64;

use hw::{Clock, ConfigSpace, Sbdf};
use ipc_proto::iommu::{ReservedAtReply, TroubleNextReply};
use ipc_proto::{
    Badge, ClientId, ContextChoice, Message, Messages, Properties, Refusal, Rule, Switch, Turns,
    Width, iommu, msi, timer,
};
use ledger::Words;
use pci_core::again::{again, until_gone};
use pci_core::bank::{Bank, PageSize};
use pci_core::env::{
    Alarm, BarMemory, Grants, Host, Iommu, Parking, Prospect, RegionId, Signals, Usage,
    VectorBlock, Vectors,
};
use pci_core::shard::MAX_PARKED;
use sel4::Notification;
use sel4_glue::cspace::signal_client;
use sel4_glue::{Below, CSpace, Configuration, Pd, Port, Ticket, TscClock, log};
use system::info::ClientEntry;

use crate::masters::{Master, Masters};
use crate::memory::Memory;

/// Kernel, servers below, timer and log of a shard.
pub struct Surroundings {
    configuration: Configuration,
    clock: TscClock,
    iommu: iommu::Stub<Below>,
    msi: msi::Stub<Below>,
    /// The msi-server shard that has the interrupt lines.
    lines: msi::Stub<Below>,
    timer: timer::Stub<Port>,
    clients: &'static [ClientEntry],
    cspace: &'static mut CSpace,
    memory: Memory,
    parking: sel4_glue::Parking,
    masters: Masters,
    ledger: &'static [AtomicU64],
    done: Notification,
    starting: bool,
}

// Whatever the core has wait has a place.
const _: () = assert!(MAX_PARKED <= sel4_glue::parking::MAX_PARKED);

impl Surroundings {
    /// Those of a pci-server shard's PD.
    ///
    /// # Errors
    /// What the root task gave does not suffice.
    pub fn new(pd: &'static Pd, bank: &'static mut Bank) -> Result<Self, Refusal> {
        let info = pd.pci_info();
        let cspace = pd.cspace();
        let parking = sel4_glue::Parking::new(cspace)?;
        let memory = Memory::new(pd, cspace, bank)?;
        let masters = Masters::new(cspace)?;
        Ok(Self {
            configuration: pd.configuration(),
            clock: pd.clock(),
            iommu: pd.iommu(info.iommu_shard),
            msi: pd.msi(info.msi_shard),
            lines: pd.msi(0),
            timer: pd.timer(),
            clients: &pd.info().clients,
            cspace,
            memory,
            parking,
            masters,
            ledger: pd.ledger(),
            done: Notification::at(info.done.into()),
            // Later on nobody waits for the console.
            starting: pd.restarts() == 0,
        })
    }

    /// From now on nothing waits for the console, and what an earlier life has left in slots that nobody knows is gone.
    pub fn end_start(&mut self) {
        self.starting = false;
        let stuck = self.cspace.sweep();
        if stuck > 0 {
            log!("{stuck} slots cannot be emptied");
        }
    }

    fn client(&self, client: ClientId) -> Result<&'static ClientEntry, Refusal> {
        Ok(self
            .clients
            .get(usize::from(client.0))
            .ok_or(Rule::NoWindow)?)
    }
}

impl ConfigSpace for Surroundings {
    #[inline(always)]
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        self.configuration.read8(at, offset)
    }
    #[inline(always)]
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        self.configuration.read16(at, offset)
    }
    #[inline(always)]
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        self.configuration.read32(at, offset)
    }
    #[inline(always)]
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8) {
        self.configuration.write8(at, offset, value);
    }
    #[inline(always)]
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16) {
        self.configuration.write16(at, offset, value);
    }
    #[inline(always)]
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32) {
        self.configuration.write32(at, offset, value);
    }
    #[inline(always)]
    fn devices_on(&self, segment: u16, bus: u8) -> u32 {
        self.configuration.devices_on(segment, bus)
    }
}

impl Clock for Surroundings {
    fn now_us(&self) -> u64 {
        self.clock.now_us()
    }
}

impl Iommu for Surroundings {
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
        until_gone(Rule::NotAttached, || self.iommu.detach(device))?;
        Ok(())
    }

    fn promise(&mut self, device: Sbdf) -> Result<Properties, Refusal> {
        Ok(again(|| self.iommu.promise(device))?.properties)
    }

    fn alias(&mut self, device: Sbdf, alias: Sbdf) -> Result<(), Refusal> {
        again(|| self.iommu.alias(device, alias))?;
        Ok(())
    }

    fn remap(
        &mut self,
        device: Sbdf,
        VectorBlock { address, data }: VectorBlock,
        count: u16,
    ) -> Result<VectorBlock, Refusal> {
        let reply = self.iommu.remap(device, address, data, count)?;
        Ok(VectorBlock {
            address: reply.address,
            data: reply.data,
        })
    }

    fn reroute(
        &mut self,
        device: Sbdf,
        VectorBlock { address, data }: VectorBlock,
        messages: Messages,
        to: u64,
    ) -> Result<(), Refusal> {
        let remapped = address & 0xffff_ffff | u64::from(data) << 32;
        again(|| self.iommu.reroute(device, remapped, messages, to))?;
        Ok(())
    }

    fn unremap(&mut self, device: Sbdf) -> Result<(), Refusal> {
        again(|| self.iommu.unremap(device))?;
        Ok(())
    }

    fn reserved_at(&mut self, device: Sbdf, index: u16) -> Result<ReservedAtReply, Refusal> {
        again(|| self.iommu.reserved_at(device, index))
    }

    fn trouble_next(&mut self) -> Result<TroubleNextReply, Refusal> {
        again(|| self.iommu.trouble_next())
    }
}

impl Vectors for Surroundings {
    fn take(
        &mut self,
        device: Sbdf,
        client: ClientId,
        messages: Messages,
        slot: u16,
    ) -> Result<VectorBlock, Refusal> {
        let reply = self.msi.alloc(device, client, messages, slot)?;
        Ok(VectorBlock {
            address: reply.address,
            data: reply.data,
        })
    }

    fn give_back(&mut self, device: Sbdf) -> Result<(), Refusal> {
        again(|| self.msi.free(device))?;
        Ok(())
    }

    fn retarget(&mut self, device: Sbdf, messages: Messages, core: u8) -> Result<u64, Refusal> {
        Ok(again(|| self.msi.retarget(device, messages, core))?.address)
    }

    fn bind(&mut self, device: Sbdf, message: u16, flags: u64) -> Result<(), Refusal> {
        self.msi.bind(device, message, flags)?;
        Ok(())
    }

    fn resume(&mut self, device: Sbdf, messages: Messages) -> Result<u16, Refusal> {
        Ok(self.msi.resume(device, messages)?.left)
    }

    fn message_trouble(&mut self) -> Result<(Sbdf, u16, u32), Refusal> {
        let reply = self.msi.message_trouble()?;
        Ok((reply.device, reply.message, reply.count))
    }

    fn vectors_for(&mut self, client: ClientId) -> Result<Prospect, Refusal> {
        let reply = self.msi.promise(client)?;
        Ok(Prospect {
            kept: reply.kept,
            common: reply.common,
            left: reply.left,
        })
    }

    fn join_line(&mut self, device: Sbdf, client: ClientId, line: u16) -> Result<(), Refusal> {
        self.lines.line_join(device, client, line)?;
        Ok(())
    }

    fn leave_line(&mut self, device: Sbdf) -> Result<(), Refusal> {
        until_gone(Rule::NotOnLine, || self.lines.line_leave(device))?;
        Ok(())
    }

    fn line_trouble(&mut self) -> Result<(Sbdf, u32), Refusal> {
        let reply = again(|| self.lines.line_trouble())?;
        Ok((reply.device, reply.count))
    }
}

impl Words for Surroundings {
    fn count(&self) -> usize {
        self.ledger.count()
    }
    #[inline(always)]
    fn load(&self, at: usize) -> u64 {
        self.ledger.load(at)
    }
    #[inline(always)]
    fn store(&mut self, at: usize, value: u64) {
        self.ledger.store(at, value);
    }
}

impl Grants for Surroundings {
    fn place_device(
        &mut self,
        assignment: u16,
        badge: Badge,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        let (entry, master) = (self.client(client)?, Master::Device(assignment));
        self.masters.place(self.cspace, master, badge, entry, slot)
    }

    fn revoke_device(&mut self, assignment: u16) -> Result<(), Refusal> {
        self.masters.revoke(self.cspace, Master::Device(assignment))
    }

    fn place_view(
        &mut self,
        view: u16,
        badge: Badge,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        let (entry, master) = (self.client(client)?, Master::View(view));
        self.masters.place(self.cspace, master, badge, entry, slot)
    }

    fn revoke_view(&mut self, view: u16) -> Result<(), Refusal> {
        self.masters.revoke(self.cspace, Master::View(view))
    }

    fn keep_masters(&mut self, assignments: u64, views: u64) -> Result<(), Refusal> {
        self.masters.keep(self.cspace, assignments, views)
    }
}

impl BarMemory for Surroundings {
    fn place_frames(
        &mut self,
        region: RegionId,
        size: PageSize,
        first: u32,
        count: u16,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        self.memory
            .place(self.cspace, region, size, first, count, client, slot)
    }

    fn map_table(
        &mut self,
        region: RegionId,
        table: u16,
        first: u32,
        pages: u16,
    ) -> Result<(), Refusal> {
        self.memory
            .map_table(self.cspace, region, table, first, pages)
    }

    fn read_table(&self, table: u16, offset: u32) -> u32 {
        self.memory.read(table, offset)
    }

    fn write_table(&mut self, table: u16, offset: u32, value: u32) {
        self.memory.write(table, offset, value);
    }

    fn map_page(&mut self, region: RegionId, table: u16, page: u32) -> Result<(), Refusal> {
        self.memory.map_extra(self.cspace, region, table, page)
    }

    fn read_page(&self, table: u16, offset: u16, width: Width) -> u32 {
        self.memory.read_extra(table, offset, width)
    }

    fn write_page(&mut self, table: u16, offset: u16, width: Width, value: u32) {
        self.memory.write_extra(table, offset, width, value);
    }

    fn revoke_frames(&mut self, region: RegionId, table: u16) -> Result<(), Refusal> {
        self.memory.revoke(self.cspace, region, table)
    }

    fn keep_frames(&mut self, region: RegionId) {
        self.memory.keep(region);
    }

    fn sweep_frames(&mut self) -> Result<(), Refusal> {
        self.memory.sweep(self.cspace)
    }
}

impl Parking for Surroundings {
    type Ticket = Ticket;

    fn park(&mut self) -> Result<Ticket, Refusal> {
        self.parking.park()
    }

    fn answer(&mut self, ticket: Ticket, reply: &Message) {
        self.parking.answer(ticket, reply);
    }
}

impl Alarm for Surroundings {
    fn arm(&mut self, micros: u64) {
        if let Err(refusal) = self.timer.arm(micros) {
            log!("the timer service refused: {refusal}");
        }
    }
}

impl Signals for Surroundings {
    fn tell_client(&mut self, client: ClientId) {
        if let Ok(client) = self.client(client) {
            signal_client(client);
        }
    }

    fn tell_supervisor(&mut self) {
        self.done.signal();
    }
}

impl Host for Surroundings {
    fn log(&mut self, line: fmt::Arguments<'_>) {
        if self.starting {
            // A line that is lost all the same is counted by the console.
            let _ = log::reliably(line);
        } else {
            log::line(line);
        }
    }

    fn ticks(&self) -> u64 {
        self.clock.tsc()
    }

    fn turns(&self) -> Turns {
        sel4_glue::turns::turns()
    }

    fn usage(&self) -> Usage {
        // The memory's share was taken as a whole: what of it is free is not in use.
        Usage {
            slots: (self.cspace.used())
                .saturating_sub(self.memory.free_slots() + self.masters.free_slots()),
            untyped_bytes: self.memory.split_bytes(),
        }
    }
}
