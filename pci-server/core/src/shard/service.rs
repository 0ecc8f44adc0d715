//! The operations of the interface, each to its place.

use hw::header::{Command, register};
use hw::{ConfigSpace, Sbdf};
use ipc_proto::pci::{self, *};
use ipc_proto::{
    Call, ClientId, ConfigRight, ContextChoice, Mechanism, Refusal, Reply, Rule, Switch, VERSION,
    Width,
};

use super::{Parts, Shard};
use crate::assignment::Hold;
use crate::env::Env;
use crate::interrupts::Setup;
use crate::{config, pages};

impl<E: Env> pci::Service for Shard<'_, E> {
    fn hello(&mut self, call: Call, version: u64) -> Result<Reply<HelloReply>, Refusal> {
        self.client(call)?;
        if version != VERSION {
            return Err(Refusal::new(Rule::VersionMismatch, VERSION));
        }
        let (segment, first_bus, last_bus) = self.info.ecam.first().map_or((0, 0, 0), |window| {
            (window.segment, window.first_bus, window.last_bus)
        });
        Ok(Reply::Now(HelloReply {
            version: VERSION,
            shard: u16::from(self.info.shard),
            segment,
            first_bus,
            last_bus,
        }))
    }

    fn device_at(&mut self, call: Call, index: u16) -> Result<Reply<DeviceAtReply>, Refusal> {
        let client = self.client(call)?;
        let device = self
            .devices
            .iter()
            .filter(|device| device.is_granted(client.0))
            .nth(usize::from(index))
            .ok_or(Rule::EndOfList)?;
        Ok(Reply::Now(DeviceAtReply {
            device: device.at,
            ids: device.ids,
            class: device.class,
            state: device.state,
        }))
    }

    fn query(&mut self, call: Call, device: Sbdf) -> Result<Reply<QueryReply>, Refusal> {
        let client = self.client(call)?;
        let index = self.granted(client, device)?;
        let properties = self.promise(index)?;
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        Ok(Reply::Now(QueryReply {
            ids: device.ids,
            class: device.class,
            state: device.state,
            properties,
        }))
    }

    fn assign(
        &mut self,
        call: Call,
        device: Sbdf,
        slot: u16,
        context: ContextChoice,
    ) -> Result<Reply<AssignReply>, Refusal> {
        let client = self.client(call)?;
        let (properties, context) = self.assign_device(client, device, slot, context)?;
        Ok(Reply::Now(AssignReply {
            properties,
            context,
        }))
    }

    fn release(&mut self, call: Call) -> Result<Reply<ReleaseReply>, Refusal> {
        self.release_device(call.badge)
    }

    fn info(&mut self, call: Call) -> Result<Reply<InfoReply>, Refusal> {
        let (hold, device) = self.held(call.badge)?;
        Ok(Reply::Now(InfoReply {
            device: device.at,
            ids: device.ids,
            class: device.class,
            properties: hold.properties,
        }))
    }

    #[inline]
    fn config_read(
        &mut self,
        call: Call,
        offset: u16,
        width: Width,
    ) -> Result<Reply<ConfigReadReply>, Refusal> {
        let (_, device) = self.held(call.badge)?;
        let value = config::read(&self.env, device, offset, width)?;
        Ok(Reply::Now(ConfigReadReply { value }))
    }

    fn config_write(
        &mut self,
        call: Call,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<Reply<ConfigWriteReply>, Refusal> {
        let Parts { env, device, .. } = self.held_mut(call.badge)?;
        config::write(env, device, offset, width, value)?;
        Ok(Reply::Now(ConfigWriteReply {}))
    }

    fn bar(&mut self, call: Call, bar: u8) -> Result<Reply<BarReply>, Refusal> {
        let (_, device) = self.held(call.badge)?;
        let region = device
            .bars
            .get(usize::from(bar))
            .ok_or(Refusal::new(Rule::NoSuchBar, u64::from(bar)))?;
        let (withheld_first, withheld_count) = if region.is_memory() {
            pages::withheld_range(device, region)
        } else {
            (0, 0)
        };
        Ok(Reply::Now(BarReply {
            kind: region.kind,
            bytes: region.bytes,
            withheld_first,
            withheld_count,
        }))
    }

    fn bar_frames(
        &mut self,
        call: Call,
        bar: u8,
        first: u32,
        count: u16,
        slot: u16,
    ) -> Result<Reply<BarFramesReply>, Refusal> {
        let (hold, device) = self.held(call.badge)?;
        let client = hold.client;
        let region = pages::memory_bar(device, bar)?;
        let placed = pages::check_range(device, region, first, count)?;
        let memory = region
            .memory
            .ok_or(Refusal::new(Rule::NoSuchBar, u64::from(bar)))?;
        self.check_window(client, slot, placed)?;
        let Parts { env, hold, .. } = self.held_mut(call.badge)?;
        // Noted before: frames may exist even where placing them failed.
        hold.regions |= 1 << bar;
        env.place_frames(memory, first, placed, client, slot)?;
        hold.frames = hold.frames.saturating_add(u32::from(placed));
        Ok(Reply::Now(BarFramesReply { placed }))
    }

    #[inline]
    fn bus_master(&mut self, call: Call, switch: Switch) -> Result<Reply<BusMasterReply>, Refusal> {
        let Parts { env, device, .. } = self.held_mut(call.badge)?;
        let command = env.read16(device.at, register::COMMAND);
        if command == u16::MAX {
            return Err(device.refusal(Rule::NoSuchDevice));
        }
        let mut command = Command::from_bits_retain(command);
        command.set(Command::BUS_MASTER, switch == Switch::On);
        env.write16(device.at, register::COMMAND, command.bits());
        Ok(Reply::Now(BusMasterReply {}))
    }

    fn reset(&mut self, call: Call) -> Result<Reply<ResetReply>, Refusal> {
        self.reset_device(call.badge)
    }

    fn msi_enable(
        &mut self,
        call: Call,
        mechanism: Mechanism,
        first: u16,
        count: u16,
        slot: u16,
    ) -> Result<Reply<MsiEnableReply>, Refusal> {
        self.enable_messages(call.badge, mechanism, first, count, slot)?;
        Ok(Reply::Now(MsiEnableReply { count }))
    }

    fn msi_disable(&mut self, call: Call) -> Result<Reply<MsiDisableReply>, Refusal> {
        self.disable_messages(call.badge)?;
        Ok(Reply::Now(MsiDisableReply {}))
    }

    fn msi_info(&mut self, call: Call) -> Result<Reply<MsiInfoReply>, Refusal> {
        let (_, device) = self.held(call.badge)?;
        Ok(Reply::Now(MsiInfoReply {
            msi: device.msi.map_or(0, |msi| u16::from(msi.vectors)),
            msix: device.msix.map_or(0, |msix| msix.entries),
        }))
    }

    fn client_gone(
        &mut self,
        _: Call,
        client: ClientId,
    ) -> Result<Reply<ClientGoneReply>, Refusal> {
        if usize::from(client.0) >= self.clients.len() {
            return Err(Refusal::new(Rule::BadArgument, 0));
        }
        let devices = self.take_back_all(client);
        Ok(Reply::Now(ClientGoneReply { devices }))
    }

    fn pending(&mut self, _: Call) -> Result<Reply<PendingReply>, Refusal> {
        Ok(Reply::Now(PendingReply { count: self.owed }))
    }

    fn figures(&mut self, _: Call) -> Result<Reply<FiguresReply>, Refusal> {
        let usage = self.env.usage();
        let holds = || {
            self.assignments
                .iter()
                .filter_map(|assignment| assignment.hold.as_ref())
        };
        let waits =
            |hold: &&Hold<E::Ticket>| hold.job.as_ref().is_some_and(|job| job.ticket.is_some());
        Ok(Reply::Now(FiguresReply {
            devices: self.devices.len() as u32,
            assigned: holds().count() as u32,
            slots_used: usage.slots,
            untyped_used: usage.untyped_bytes,
            operations: self.operations,
            refused: self.refused,
            parked: holds().filter(waits).count() as u64,
        }))
    }

    fn holder(&mut self, _: Call, index: u32) -> Result<Reply<HolderReply>, Refusal> {
        let device = self.devices.get(index as usize).ok_or(Rule::EndOfList)?;
        let hold = device
            .assignment
            .and_then(|at| self.assignments.get(usize::from(at)))
            .and_then(|assignment| assignment.hold.as_ref());
        Ok(Reply::Now(HolderReply {
            device: device.at,
            ids: device.ids,
            class: device.class,
            state: device.state,
            holder: hold.map_or(0, |hold| hold.client.0 + 1),
            frames: hold.map_or(0, |hold| hold.frames),
            messages: hold.map_or(0, |hold| {
                hold.interrupts.as_ref().map_or(0, Setup::messages)
            }),
        }))
    }

    fn holder_bar(
        &mut self,
        _: Call,
        index: u32,
        bar: u8,
    ) -> Result<Reply<HolderBarReply>, Refusal> {
        let device = self.devices.get(index as usize).ok_or(Rule::EndOfList)?;
        let region = device
            .bars
            .get(usize::from(bar))
            .ok_or(Refusal::new(Rule::NoSuchBar, u64::from(bar)))?;
        Ok(Reply::Now(HolderBarReply {
            kind: region.kind,
            base: region.base,
            bytes: region.bytes,
        }))
    }

    fn test_assign(
        &mut self,
        _call: Call,
        _device: Sbdf,
    ) -> Result<Reply<TestAssignReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn group_at(
        &mut self,
        _call: Call,
        _device: Sbdf,
        _index: u16,
    ) -> Result<Reply<GroupAtReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn topology(&mut self, _call: Call, _device: Sbdf) -> Result<Reply<TopologyReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn event_next(&mut self, _call: Call) -> Result<Reply<EventNextReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn capability_at(
        &mut self,
        _call: Call,
        _device: Sbdf,
        _index: u16,
    ) -> Result<Reply<CapabilityAtReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn reserved_at(
        &mut self,
        _call: Call,
        _device: Sbdf,
        _index: u16,
    ) -> Result<Reply<ReservedAtReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn bar_read(
        &mut self,
        _call: Call,
        _bar: u8,
        _offset: u64,
        _width: Width,
    ) -> Result<Reply<BarReadReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn bar_write(
        &mut self,
        _call: Call,
        _bar: u8,
        _offset: u64,
        _width: Width,
        _value: u32,
    ) -> Result<Reply<BarWriteReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn narrow(
        &mut self,
        _call: Call,
        _config: ConfigRight,
        _bars: u8,
        _messages: u16,
        _control: Switch,
        _slot: u16,
    ) -> Result<Reply<NarrowReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn virtual_functions(
        &mut self,
        _call: Call,
        _count: u16,
    ) -> Result<Reply<VirtualFunctionsReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn agree_bus_reset(&mut self, _call: Call) -> Result<Reply<AgreeBusResetReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn bus_reset(&mut self, _call: Call) -> Result<Reply<BusResetReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn msi_mask(
        &mut self,
        _call: Call,
        _first: u16,
        _count: u16,
        _switch: Switch,
    ) -> Result<Reply<MsiMaskReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn msi_pending(
        &mut self,
        _call: Call,
        _first: u16,
        _count: u16,
    ) -> Result<Reply<MsiPendingReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn why(&mut self, _call: Call, _device: Sbdf) -> Result<Reply<WhyReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn raw_config(
        &mut self,
        _call: Call,
        _device: Sbdf,
        _offset: u16,
    ) -> Result<Reply<RawConfigReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn view_at(&mut self, _call: Call, _index: u16) -> Result<Reply<ViewAtReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn rescan(&mut self, _call: Call) -> Result<Reply<RescanReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }

    fn remove(&mut self, _call: Call, _device: Sbdf) -> Result<Reply<RemoveReply>, Refusal> {
        Err(Rule::UnknownOperation.into())
    }
}
