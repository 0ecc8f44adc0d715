//! [`Machine`]: units and tables for tests of the back end; [`World`]: a whole
//! shard with clients' requests.

use std::vec::Vec;

use hw::Sbdf;
use ipc_proto::{
    ANY_IOVA, Access, Badge, BadgeKind, ClientId, ContextChoice, Message, PagePreference, Refusal,
    Rule, Switch, Trouble, iommu,
};
use sim::vtd::{Dma, Memory, Model, Reason};
use system::info::{Slots, UntypedPiece};

use super::kernel::{Kernel, Object, forever};
use crate::vtd::unit::FaultMessage;
use crate::vtd::{self, Options, Quarantine, Remap, UnitSetup};
use crate::{ClientLimits, Extent, FAULT_BOUND, Setup, Shard, Storage, TableMemory};

pub type TestVtd = vtd::Vtd<'static, sim::vtd::Vtd, TestTables>;

/// Physical address of the tables.
pub const TABLES: u64 = 0x7000_0000;
/// Message of the fault event.
pub const MESSAGE: FaultMessage = FaultMessage {
    address: 0xfee0_1000,
    data: 0x4e,
};

/// Table memory in the simulated machine.
#[derive(Clone)]
pub struct TestTables {
    pub memory: Memory,
    pub pages: u32,
}

impl TestTables {
    fn address(page: u32, index: u16) -> u64 {
        TABLES + u64::from(page) * 0x1000 + u64::from(index) * 8
    }
}

impl TableMemory for TestTables {
    fn pages(&self) -> u32 {
        self.pages
    }
    fn read64(&self, page: u32, index: u16) -> u64 {
        self.memory.read(Self::address(page, index))
    }
    fn write64(&mut self, page: u32, index: u16, value: u64) {
        assert!(page < self.pages && index < 512);
        self.memory.write(Self::address(page, index), value);
    }
    fn write_back(&mut self, page: u32, index: u16, count: u16) {
        self.memory
            .write_back(Self::address(page, index), u64::from(count) * 8);
    }
}

/// Puts junk where the tables will be: memory need not be clean.
pub fn dirty_tables(memory: &Memory, pages: u32) {
    for word in 0..u64::from(pages) * 512 {
        memory.write(TABLES + word * 8, 0xdead_beef_0000_0003);
    }
    memory.write_back(TABLES, u64::from(pages) * 0x1000);
    memory.flush_write_buffer();
}

/// Back end over units of these models.
pub struct Machine {
    pub units: Vec<sim::vtd::Vtd>,
    pub vtd: TestVtd,
}

impl Machine {
    pub fn new(models: &[Model]) -> Self {
        Self::with_tables(models, 256)
    }

    pub fn with_tables(models: &[Model], pages: u32) -> Self {
        let memory = Memory::new();
        let units: Vec<_> = models
            .iter()
            .map(|model| sim::vtd::Vtd::new(*model, memory.clone()))
            .collect();
        dirty_tables(&memory, pages.min(64));
        let vtd = start(&units, &memory, pages);
        Self { units, vtd }
    }

    /// Requests of `device` through its unit, which is the one numbered like its segment.
    pub fn dma(&self, device: Sbdf, iova: u64, direction: Dma) -> Result<u64, Reason> {
        self.units[usize::from(device.segment())].dma(device.requester_id(), iova, direction)
    }
}

/// How tests start units when they do not say otherwise.
pub const OPTIONS: Options = Options {
    remap: Remap::WherePossible,
    quarantine: Quarantine::Blocking,
    clients: 4,
};

/// Takes over units, one a segment.
pub fn start(units: &[sim::vtd::Vtd], memory: &Memory, pages: u32) -> TestVtd {
    let tables = TestTables {
        memory: memory.clone(),
        pages,
    };
    let setups = units.iter().enumerate().map(|(segment, unit)| UnitSetup {
        window: unit.clone(),
        segment: segment as u16,
        include_all: true,
        scopes: &[],
        message: MESSAGE,
    });
    vtd::Vtd::start(
        forever(vtd::Storage::new()),
        tables,
        TABLES,
        setups,
        &OPTIONS,
    )
}

pub fn device(bits: u32) -> Sbdf {
    Sbdf::from_bits(bits)
}

pub fn small(physical: u64, pages: u64) -> Extent {
    Extent {
        physical,
        bytes: pages * 0x1000,
        frames: 0,
        page_bits: 12,
    }
}

/// Clients, quotas and memory of a [`World`].
pub const CLIENTS: u16 = 4;
pub const QUOTA: u64 = 3 << 20;
pub const WINDOW_BITS: u8 = 12;
pub const SLOTS: Slots = Slots {
    first: 100,
    count: 8000,
};
pub const POOL: [UntypedPiece; 3] = [
    UntypedPiece {
        slot: 10,
        base: 0x1000_0000,
        bits: 22,
    },
    UntypedPiece {
        slot: 11,
        base: 0x2000_0000,
        bits: 21,
    },
    UntypedPiece {
        slot: 12,
        base: 0x3000_0000,
        bits: 16,
    },
];

pub const SETUP: Setup<'static> = Setup {
    clients: &[ClientLimits {
        quota: QUOTA,
        largest: u64::MAX,
        window_bits: WINDOW_BITS,
    }; CLIENTS as usize],
    buses: &[(0, 0, 0x7f), (0, 0x80, 0xff)],
    slots: SLOTS,
    pool: &POOL,
    reserved: &[],
    aliases: &[],
    reserved_allowed: &[],
    fault_bound: FAULT_BOUND,
};

/// A shard with everything around it.
pub struct WorldOf<'s, V> {
    pub unit: sim::vtd::Vtd,
    pub kernel: Kernel,
    pub shard: Shard<'s, Kernel, V>,
}

pub type World = WorldOf<'static, TestVtd>;

impl World {
    pub fn new(model: Model) -> Self {
        Self::with(model, |_| ())
    }

    /// A world without a bound on faults.
    pub fn patient(model: Model) -> Self {
        Self::with(model, |setup| setup.fault_bound = u32::MAX)
    }

    pub fn with(model: Model, adjust: impl FnOnce(&mut Setup<'_>)) -> Self {
        let memory = Memory::new();
        let unit = sim::vtd::Vtd::new(model, memory.clone());
        let vtd = start(std::slice::from_ref(&unit), &memory, 256);
        let mut setup = SETUP;
        adjust(&mut setup);
        let kernel = Kernel::with_untypeds(setup.pool);
        let shard = Shard::new(forever(Storage::new()), kernel.clone(), vtd, &setup).unwrap();
        Self {
            unit,
            kernel,
            shard,
        }
    }
}

impl<V: crate::Backend> WorldOf<'_, V> {
    pub fn send(&mut self, badge: Badge, request: &Message) -> Message {
        self.shard
            .serve(badge.to_word(), request, Message::clone)
            .unwrap()
    }

    fn call(&mut self, badge: Badge, request: iommu::Request, cap: Option<Badge>) -> Message {
        let mut message = request.encode();
        message.cap = cap.map(Badge::to_word);
        self.send(badge, &message)
    }

    /// The badge on the endpoint capability in a client's window slot.
    pub fn buffer_badge(&self, client: u16, slot: u16) -> Badge {
        match self.kernel.cap_in_window(client, slot) {
            Some(Object::Endpoint { badge }) => badge,
            other => panic!("no buffer capability in slot {slot} of client {client}: {other:?}"),
        }
    }

    pub fn alloc(
        &mut self,
        client: u16,
        bytes: u64,
        pages: PagePreference,
        slot: u16,
    ) -> Result<iommu::AllocReply, Refusal> {
        let request = iommu::Request::Alloc { bytes, pages, slot };
        iommu::AllocReply::decode(&self.call(client_badge(client), request, None))
    }

    /// The buffer in `slot`, its frames behind it.
    pub fn alloc_private(&mut self, client: u16, bytes: u64, slot: u16) -> Result<u32, Refusal> {
        self.alloc_private_at(client, bytes, slot, slot.saturating_add(1))
    }

    pub fn alloc_private_at(
        &mut self,
        client: u16,
        bytes: u64,
        slot: u16,
        frames: u16,
    ) -> Result<u32, Refusal> {
        let request = iommu::Request::AllocPrivate {
            bytes,
            slot,
            frames,
        };
        let reply = self.call(client_badge(client), request, None);
        Ok(iommu::AllocPrivateReply::decode(&reply)?.pages)
    }

    pub fn import(
        &mut self,
        client: u16,
        buffer: Badge,
        slot: u16,
    ) -> Result<iommu::ImportReply, Refusal> {
        let request = iommu::Request::Import { slot };
        iommu::ImportReply::decode(&self.call(client_badge(client), request, Some(buffer)))
    }

    pub fn frames(
        &mut self,
        buffer: Badge,
        first: u32,
        count: u16,
        slot: u16,
    ) -> Result<u16, Refusal> {
        let request = iommu::Request::Frames { first, count, slot };
        Ok(iommu::FramesReply::decode(&self.call(buffer, request, None))?.placed)
    }

    pub fn map(&mut self, buffer: Badge, iova: u64, access: Access) -> Result<u64, Refusal> {
        self.map_in(buffer, iova, access, 0)
    }

    pub fn map_in(
        &mut self,
        buffer: Badge,
        iova: u64,
        access: Access,
        context: u16,
    ) -> Result<u64, Refusal> {
        let request = iommu::Request::Map {
            iova,
            access,
            context,
        };
        Ok(iommu::MapReply::decode(&self.call(buffer, request, None))?.iova)
    }

    pub fn map_any(&mut self, buffer: Badge) -> Result<u64, Refusal> {
        self.map(buffer, ANY_IOVA, Access::ReadWrite)
    }

    pub fn unmap(&mut self, buffer: Badge) -> Result<(), Refusal> {
        let request = iommu::Request::Unmap {};
        iommu::UnmapReply::decode(&self.call(buffer, request, None)).map(drop)
    }

    pub fn free(&mut self, buffer: Badge) -> Result<(), Refusal> {
        let request = iommu::Request::Free {};
        iommu::FreeReply::decode(&self.call(buffer, request, None)).map(drop)
    }

    pub fn info(&mut self, buffer: Badge) -> Result<iommu::InfoReply, Refusal> {
        let request = iommu::Request::Info {};
        iommu::InfoReply::decode(&self.call(buffer, request, None))
    }

    pub fn attach(&mut self, device: Sbdf, client: u16) -> Result<(), Refusal> {
        self.attach_as(device, client, ContextChoice::Shared, 0)
            .map(drop)
    }

    pub fn attach_as(
        &mut self,
        device: Sbdf,
        client: u16,
        context: ContextChoice,
        ats_queue: u8,
    ) -> Result<iommu::AttachReply, Refusal> {
        let request = iommu::Request::Attach {
            device,
            client: ClientId(client),
            context,
            ats_queue,
        };
        iommu::AttachReply::decode(&self.call(shard_badge(device), request, None))
    }

    /// Whether the device may keep translations from now on.
    pub fn cache(&mut self, device: Sbdf, ats_queue: u8) -> Result<Switch, Refusal> {
        let request = iommu::Request::Cache { device, ats_queue };
        let reply = self.call(shard_badge(device), request, None);
        Ok(iommu::CacheReply::decode(&reply)?.allowed)
    }

    pub fn alias(&mut self, device: Sbdf, alias: Sbdf) -> Result<(), Refusal> {
        let request = iommu::Request::Alias { device, alias };
        iommu::AliasReply::decode(&self.call(shard_badge(device), request, None)).map(drop)
    }

    pub fn trouble_next(&mut self, shard: u16) -> Result<iommu::TroubleNextReply, Refusal> {
        let request = iommu::Request::TroubleNext {};
        let badge = Badge::plain(BadgeKind::Shard, shard);
        iommu::TroubleNextReply::decode(&self.call(badge, request, None))
    }

    /// Faults of a held device that the shard hears of, which come before what was done about them.
    pub fn faults_told(&mut self, shard: u16, device: Sbdf) -> u32 {
        let told = self.trouble_next(shard).unwrap();
        assert_eq!((told.device, told.trouble), (device, Trouble::Fault));
        told.count
    }

    pub fn reserved_at(
        &mut self,
        device: Sbdf,
        index: u16,
    ) -> Result<iommu::ReservedAtReply, Refusal> {
        let request = iommu::Request::ReservedAt { device, index };
        iommu::ReservedAtReply::decode(&self.call(shard_badge(device), request, None))
    }

    pub fn remap(
        &mut self,
        device: Sbdf,
        address: u64,
        data: u32,
        count: u16,
    ) -> Result<iommu::RemapReply, Refusal> {
        let request = iommu::Request::Remap {
            device,
            address,
            data,
            count,
        };
        iommu::RemapReply::decode(&self.call(shard_badge(device), request, None))
    }

    pub fn unremap(&mut self, device: Sbdf) -> Result<(), Refusal> {
        let request = iommu::Request::Unremap { device };
        iommu::UnremapReply::decode(&self.call(shard_badge(device), request, None)).map(drop)
    }

    pub fn detach(&mut self, device: Sbdf) -> Result<(), Refusal> {
        let request = iommu::Request::Detach { device };
        iommu::DetachReply::decode(&self.call(shard_badge(device), request, None)).map(drop)
    }

    pub fn fault_next(&mut self, client: u16) -> Result<iommu::FaultNextReply, Refusal> {
        let request = iommu::Request::FaultNext {};
        iommu::FaultNextReply::decode(&self.call(client_badge(client), request, None))
    }

    /// All turns of a client's end, and the bytes that were freed.
    pub fn client_gone(&mut self, client: u16) -> Result<u64, Refusal> {
        let mut freed = 0;
        loop {
            let reply = self.some_of_client_gone(client)?;
            freed += reply.bytes;
            if reply.left == 0 {
                return Ok(freed);
            }
        }
    }

    pub fn some_of_client_gone(&mut self, client: u16) -> Result<iommu::ClientGoneReply, Refusal> {
        let request = iommu::Request::ClientGone {
            client: ClientId(client),
        };
        let reply = self.call(Badge::plain(BadgeKind::Supervisor, 0), request, None);
        iommu::ClientGoneReply::decode(&reply)
    }

    /// Figures, without those that only grow.
    pub fn figures(&mut self) -> iommu::FiguresReply {
        let request = iommu::Request::Figures {};
        let reply = self.call(Badge::plain(BadgeKind::Supervisor, 0), request, None);
        iommu::FiguresReply {
            operations: 0,
            refused: 0,
            faults: 0,
            ..iommu::FiguresReply::decode(&reply).unwrap()
        }
    }

    pub fn attached_at(&mut self, index: u16) -> Result<iommu::AttachedAtReply, Refusal> {
        let request = iommu::Request::AttachedAt { index };
        let reply = self.call(Badge::plain(BadgeKind::Supervisor, 0), request, None);
        iommu::AttachedAtReply::decode(&reply)
    }

    pub fn hello(&mut self, client: u16, version: u64) -> Result<iommu::HelloReply, Refusal> {
        let request = iommu::Request::Hello { version };
        iommu::HelloReply::decode(&self.call(client_badge(client), request, None))
    }

    pub fn dma(&self, device: Sbdf, iova: u64, direction: Dma) -> Result<u64, Reason> {
        self.unit.dma(device.requester_id(), iova, direction)
    }
}

pub fn client_badge(client: u16) -> Badge {
    Badge::plain(BadgeKind::Client, client)
}

/// Of the pci-server shard that has the device's bus.
pub fn shard_badge(device: Sbdf) -> Badge {
    Badge::plain(BadgeKind::Shard, u16::from(device.bus() >> 7))
}

pub fn rule<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> Rule {
    outcome.unwrap_err().rule
}
