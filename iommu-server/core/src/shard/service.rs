//! The operations, as `ipc_proto::iommu` lists them.

use hw::Sbdf;
use ipc_proto::iommu::{
    AliasReply, AllocPrivateReply, AllocReply, AttachReply, AttachedAtReply, CacheReply,
    ClientGoneReply, DetachReply, FaultNextReply, FiguresReply, FramesReply, FreeReply, HelloReply,
    ImportReply, InfoReply, MapReply, PromiseReply, RemapReply, RerouteReply, ReservedAtReply,
    Service, TroubleNextReply, TurnsReply, UnmapReply, UnremapReply,
};
use ipc_proto::{
    ANY_IOVA, Access, BadgeKind, Call, ClientId, ContextChoice, Messages, PagePreference, Refusal,
    Reply, Rule, Switch, VERSION,
};

use super::Shard;
use super::memory::{Clearing, Frames, shape};
use crate::backend::{Backend, DeviceCache, InterruptMessage};
use crate::buffers::{Buffer, Content, Fate, Memory, Sharing};
use crate::env::Env;
use crate::notes::Stage;

/// Deepest invalidate queue of a device (PCIe 5.0, 10.5.1.1).
const MAX_QUEUE: u8 = 32;

/// Bytes of a dead client's buffers that a turn ends, and with them the buffer that makes it as many.
const ENDED_AT_ONCE: u64 = 64 << 10;
/// A share takes a turn as long as a buffer of this.
const A_SHARE: u64 = 4 << 10;

type Answer<T> = Result<Reply<T>, Refusal>;

impl<E: Env, B: Backend> Service for Shard<'_, E, B> {
    fn hello(&mut self, call: Call, version: u64) -> Answer<HelloReply> {
        let caller = self.caller(call)?;
        if version != VERSION {
            return Err(Refusal::new(Rule::VersionMismatch, VERSION));
        }
        let client = self.client(caller)?;
        Ok(Reply::Now(HelloReply {
            version: VERSION,
            quota: client.limits.quota,
            used: client.used_bytes,
        }))
    }

    fn alloc(
        &mut self,
        call: Call,
        bytes: u64,
        pages: PagePreference,
        slot: u16,
    ) -> Answer<AllocReply> {
        let caller = self.caller(call)?;
        let pages = if self.backend.large_frames() {
            pages
        } else {
            PagePreference::Small
        };
        let (page_bits, pages) = shape(bytes, pages)?;
        self.window(caller, slot, 1)?;
        self.may_take(caller, pages.saturating_add(1))?;
        let memory = Memory::new(page_bits, pages, Sharing::Shareable);
        let index = self.enter(caller, Content::Memory(memory))?;
        let made = self
            .fill(index, page_bits, pages, Frames::Kept)
            .and_then(|()| self.hand_out(index, slot));
        if let Err(refusal) = made {
            let _ = self.dismantle(index, Fate::Reuse, Clearing::Later);
            return Err(refusal);
        }
        self.note_buffer(index, Stage::Whole);
        Ok(Reply::Now(AllocReply { page_bits, pages }))
    }

    fn alloc_private(
        &mut self,
        call: Call,
        bytes: u64,
        slot: u16,
        frames: u16,
    ) -> Answer<AllocPrivateReply> {
        let caller = self.caller(call)?;
        let (page_bits, pages) = shape(bytes, PagePreference::Small)?;
        // As many as fit: a buffer has at most `MAX_PAGES`.
        let count = pages as u16;
        self.window(caller, slot, 1)?;
        self.window(caller, frames, count)?;
        let kept = if self.backend.maps_frames() { pages } else { 0 };
        self.may_take(caller, kept.saturating_add(1))?;
        let memory = Memory::new(page_bits, pages, Sharing::Private);
        let index = self.enter(caller, Content::Memory(memory))?;
        let made = if self.backend.maps_frames() {
            self.fill(index, page_bits, pages, Frames::Kept)
                .and_then(|()| self.place_frames(index, 0, count, frames))
        } else {
            self.fill(index, page_bits, pages, Frames::InWindow(frames))
        };
        if let Err(refusal) = made.and_then(|()| self.hand_out(index, slot)) {
            let _ = self.dismantle(index, Fate::Reuse, Clearing::Later);
            return Err(refusal);
        }
        self.note_buffer(index, Stage::Whole);
        Ok(Reply::Now(AllocPrivateReply { pages }))
    }

    fn fault_next(&mut self, call: Call) -> Answer<FaultNextReply> {
        let caller = self.caller(call)?;
        // A client may ask before the timer lets a storm's next records in, or where a unit's own interrupt
        // does not come.
        for unit in 0..self.backend.units() {
            self.drain(unit);
        }
        let (fault, lost) = self
            .client(caller)?
            .faults
            .pop()
            .map_err(|lost| Refusal::new(Rule::EndOfList, lost.into()))?;
        Ok(Reply::Now(FaultNextReply {
            device: fault.device,
            address: fault.address,
            access: fault.access,
            reason: fault.reason,
            lost,
        }))
    }

    fn import(&mut self, call: Call, slot: u16) -> Answer<ImportReply> {
        let caller = self.caller(call)?;
        let given = call.given.ok_or(Rule::MissingCapability)?;
        if given.kind != BadgeKind::Buffer {
            return Err(Rule::WrongCapability.into());
        }
        let stale = Refusal::new(Rule::StaleCapability, given.index.into());
        let found = self.buffers.find(given).ok_or(stale)?;
        let of = match self.buffers.get(found).ok_or(stale)?.content {
            Content::Share { of } => of,
            Content::Memory(_) => found,
        };
        self.window(caller, slot, 1)?;
        let memory = self.buffers.memory(of).ok_or(stale)?;
        if memory.sharing == Sharing::Private {
            return Err(Rule::PrivateBuffer.into());
        }
        let (page_bits, pages) = (memory.page_bits, memory.pages);
        self.may_take(caller, 1)?;
        let index = self.enter(caller, Content::Share { of })?;
        if let Some(memory) = self.buffers.memory_mut(of) {
            // There are fewer buffers than a u16 counts.
            memory.shares = memory.shares.saturating_add(1);
        }
        if let Err(refusal) = self.hand_out(index, slot) {
            let _ = self.dismantle(index, Fate::Reuse, Clearing::Later);
            return Err(refusal);
        }
        self.note_buffer(index, Stage::Whole);
        Ok(Reply::Now(ImportReply { page_bits, pages }))
    }

    fn frames(&mut self, call: Call, first: u32, count: u16, slot: u16) -> Answer<FramesReply> {
        let index = self.buffer(call)?;
        let memory = self.buffers.memory(index);
        if memory.is_some_and(|memory| memory.sharing == Sharing::Private) {
            return Err(Rule::PrivateBuffer.into());
        }
        self.place_frames(index, first, count, slot)?;
        Ok(Reply::Now(FramesReply { placed: count }))
    }

    #[inline]
    fn map(&mut self, call: Call, iova: u64, access: Access, context: u16) -> Answer<MapReply> {
        let index = self.buffer(call)?;
        let iova = self.map_buffer(index, iova, access, context)?;
        Ok(Reply::Now(MapReply { iova }))
    }

    #[inline]
    fn unmap(&mut self, call: Call) -> Answer<UnmapReply> {
        let index = self.buffer(call)?;
        self.unmap_buffer(index)?;
        Ok(Reply::Now(UnmapReply {}))
    }

    fn free(&mut self, call: Call) -> Answer<FreeReply> {
        let index = self.buffer(call)?;
        self.note_buffer(index, Stage::Ending);
        if let Err(refusal) = self.withdraw(index) {
            // It goes on, without what came out.
            self.note_buffer(index, Stage::Whole);
            return Err(refusal);
        }
        self.dismantle(index, Fate::Reuse, Clearing::Now)?;
        Ok(Reply::Now(FreeReply {}))
    }

    fn info(&mut self, call: Call) -> Answer<InfoReply> {
        let index = self.buffer(call)?;
        let stale = Refusal::from(Rule::StaleCapability);
        let memory = self.buffers.memory(index).ok_or(stale)?;
        let mapping = self.buffers.get(index).ok_or(stale)?.mapping;
        Ok(Reply::Now(InfoReply {
            bytes: memory.bytes(),
            page_bits: memory.page_bits,
            iova: mapping.map_or(ANY_IOVA, |mapping| mapping.iova),
        }))
    }

    fn attach(
        &mut self,
        call: Call,
        device: Sbdf,
        client: ClientId,
        context: ContextChoice,
        ats_queue: u8,
    ) -> Answer<AttachReply> {
        self.on_its_buses(call, device)?;
        if ats_queue > MAX_QUEUE {
            return Err(Refusal::new(Rule::BadArgument, 3));
        }
        let client = self.known(client)?;
        let cache = DeviceCache::from_depth(ats_queue);
        let (properties, context) = self.attach_device(device, client, context, cache)?;
        Ok(Reply::Now(AttachReply {
            properties,
            context,
        }))
    }

    fn detach(&mut self, call: Call, device: Sbdf) -> Answer<DetachReply> {
        self.on_its_buses(call, device)?;
        self.detach_device(device)?;
        Ok(Reply::Now(DetachReply {}))
    }

    fn cache(&mut self, call: Call, device: Sbdf, ats_queue: u8) -> Answer<CacheReply> {
        self.on_its_buses(call, device)?;
        if ats_queue > MAX_QUEUE {
            return Err(Refusal::new(Rule::BadArgument, 1));
        }
        let allowed = if self.keep_device(device, DeviceCache::from_depth(ats_queue))? {
            Switch::On
        } else {
            Switch::Off
        };
        Ok(Reply::Now(CacheReply { allowed }))
    }

    fn promise(&mut self, call: Call, device: Sbdf) -> Answer<PromiseReply> {
        self.on_its_buses(call, device)?;
        let about = u64::from(device.to_bits());
        let properties = self
            .backend
            .properties(device, DeviceCache::None)
            .ok_or(Refusal::new(Rule::NoIommu, about))?;
        Ok(Reply::Now(PromiseReply { properties }))
    }

    fn remap(
        &mut self,
        call: Call,
        device: Sbdf,
        address: u64,
        data: u32,
        count: u16,
    ) -> Answer<RemapReply> {
        self.on_its_buses(call, device)?;
        let InterruptMessage { address, data } =
            self.remap_device(device, InterruptMessage { address, data }, count)?;
        Ok(Reply::Now(RemapReply { address, data }))
    }

    fn reroute(
        &mut self,
        call: Call,
        device: Sbdf,
        remapped: u64,
        messages: Messages,
        address: u64,
    ) -> Answer<RerouteReply> {
        self.on_its_buses(call, device)?;
        let remapped = InterruptMessage {
            address: remapped & 0xffff_ffff,
            data: (remapped >> 32) as u32,
        };
        self.reroute_device(device, remapped, messages, address)?;
        Ok(Reply::Now(RerouteReply {}))
    }

    fn unremap(&mut self, call: Call, device: Sbdf) -> Answer<UnremapReply> {
        self.on_its_buses(call, device)?;
        self.unremap_device(device)?;
        Ok(Reply::Now(UnremapReply {}))
    }

    fn alias(&mut self, call: Call, device: Sbdf, alias: Sbdf) -> Answer<AliasReply> {
        self.on_its_buses(call, device)?;
        self.on_its_buses(call, alias)?;
        self.add_alias(device, alias)?;
        Ok(Reply::Now(AliasReply {}))
    }

    fn trouble_next(&mut self, call: Call) -> Answer<TroubleNextReply> {
        let (device, trouble, count) = self.next_trouble(call.badge.index)?;
        Ok(Reply::Now(TroubleNextReply {
            device,
            trouble,
            count,
        }))
    }

    fn reserved_at(&mut self, call: Call, device: Sbdf, index: u16) -> Answer<ReservedAtReply> {
        self.on_its_buses(call, device)?;
        let region = self.reserved_at_index(device, index)?;
        Ok(Reply::Now(ReservedAtReply {
            base: region.base,
            bytes: region.bytes,
            allowed: if region.allowed {
                Switch::On
            } else {
                Switch::Off
            },
        }))
    }

    fn client_gone(&mut self, _call: Call, client: ClientId) -> Answer<ClientGoneReply> {
        let client = self.known(client)?;
        let mut outcome = match self.client(client)?.ending.take() {
            Some(outcome) => outcome,
            None => self.detach_all(client),
        };
        let (mut bytes, mut work) = (0, 0);
        let mut from = 0;
        while work < ENDED_AT_ONCE
            && let Some(index) = self.buffers.first_where(from, |b| b.holder == client)
        {
            from = index + 1;
            let held = self.buffers.get(index).map_or(0, Buffer::quota_bytes);
            bytes += held;
            work += held.max(A_SHARE);
            outcome = outcome.and(self.end_buffer(index));
        }
        let entry = self.client(client)?;
        if entry.buffers > 0 {
            entry.ending = Some(outcome);
            let left = entry.buffers;
            return Ok(Reply::Now(ClientGoneReply { bytes, left }));
        }
        entry.faults.clear();
        entry.faulted = 0;
        self.end_idle_contexts(client);
        if self.pool.used_blocks() == 0 {
            self.pool.merge_idle(&mut self.env, self.slots);
        }
        outcome.map(|()| Reply::Now(ClientGoneReply { bytes, left: 0 }))
    }

    fn figures(&mut self, _call: Call) -> Answer<FiguresReply> {
        Ok(Reply::Now(FiguresReply {
            pool_bytes: self.pool.total_bytes(),
            pool_free: self.pool.free_bytes(),
            tables_used: self.backend.tables_used(),
            domains_used: self.backend.domains_used(),
            slots_used: self.slots.used(),
            buffers: self.buffers.used(),
            attached: self.devices.len() as u32,
            faults: self.faults,
            operations: self.operations,
            refused: self.refused,
        }))
    }

    fn turns(&mut self, _call: Call) -> Answer<TurnsReply> {
        let turns = self.env.turns();
        let reply = TurnsReply {
            ticks: turns.ticks,
            longest: turns.longest,
            kernel_calls: turns.kernel_calls,
            kernel_ticks: turns.kernel_ticks,
            requests: turns.requests,
        };
        Ok(Reply::Now(reply))
    }

    fn attached_at(&mut self, _call: Call, index: u16) -> Answer<AttachedAtReply> {
        let attached = self
            .devices
            .get(usize::from(index))
            .copied()
            .ok_or(Rule::EndOfList)?;
        let context = self.context(attached.client, attached.context)?;
        Ok(Reply::Now(AttachedAtReply {
            device: attached.device,
            client: attached.client,
            domain: context.domain.map_or(0, |domain| domain.0),
        }))
    }
}

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// The devices of a client that is gone should be detached by now. Whatever is not is detached here: one that cannot
    /// be stays listed, and keeps its context.
    fn detach_all(&mut self, client: ClientId) -> Result<(), Refusal> {
        let mut outcome = Ok(());
        let mut place = 0;
        while let Some(attached) = self.devices.get(place).copied() {
            let listed = self.devices.len();
            if attached.client == client {
                outcome = outcome.and(self.detach_device(attached.device));
            }
            if self.devices.len() == listed {
                place += 1;
            }
        }
        outcome
    }

    /// Ends a buffer of a client that is gone, and its shares: what a unit may still reach is lost,
    /// the rest free.
    fn end_buffer(&mut self, index: u16) -> Result<(), Refusal> {
        self.note_buffer(index, Stage::Ending);
        let withdrawn = self.withdraw(index);
        if withdrawn.is_ok() {
            return self.dismantle(index, Fate::Reuse, Clearing::Later);
        }
        // What `withdraw` could not take out of a context is of no use to its holder either.
        let is_share = |b: &Buffer| matches!(b.content, Content::Share { of } if of == index);
        while let Some(share) = self.buffers.first_where(0, is_share) {
            let _ = self.dismantle(share, Fate::Lose, Clearing::Later);
        }
        let _ = self.dismantle(index, Fate::Lose, Clearing::Later);
        withdrawn
    }
}
