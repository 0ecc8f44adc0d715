//! The operations of the interface, each to its place.

use hw::Sbdf;
use ipc_proto::pci::{self, *};
use ipc_proto::{
    Call, ClientId, ConfigRight, ContextChoice, Mechanism, Messages, Refusal, Reply, Rule, Switch,
    Width,
};

use super::Shard;
use super::views::{Need, Rights};
use crate::assignment::Asked;
use crate::config;
use crate::env::Env;

/// An answer that is there at once.
fn now<T>(answer: Result<T, Refusal>) -> Result<Reply<T>, Refusal> {
    answer.map(Reply::Now)
}

impl<E: Env> pci::Service for Shard<'_, E> {
    fn hello(&mut self, call: Call, version: u64) -> Result<Reply<HelloReply>, Refusal> {
        now(self.greet(call, version))
    }

    fn device_at(&mut self, call: Call, index: u16) -> Result<Reply<DeviceAtReply>, Refusal> {
        now(self.granted_at(call, index))
    }

    fn query(&mut self, call: Call, device: Sbdf) -> Result<Reply<QueryReply>, Refusal> {
        now(self.describe(call, device))
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
        now(self.describe_held(call))
    }

    #[inline]
    fn config_read(
        &mut self,
        call: Call,
        offset: u16,
        width: Width,
    ) -> Result<Reply<ConfigReadReply>, Refusal> {
        let (_, device) = self.held_for(call.badge, Need::ReadConfig)?;
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
        self.write_config(call.badge, offset, width, value)
    }

    fn bar(&mut self, call: Call, bar: u8) -> Result<Reply<BarReply>, Refusal> {
        now(self.describe_bar(call, bar))
    }

    fn bar_frames(
        &mut self,
        call: Call,
        bar: u8,
        first: u32,
        count: u16,
        slot: u16,
    ) -> Result<Reply<BarFramesReply>, Refusal> {
        now(self.place_bar(call, bar, first, count, slot))
    }

    #[inline]
    fn bus_master(&mut self, call: Call, switch: Switch) -> Result<Reply<BusMasterReply>, Refusal> {
        self.set_master(call.badge, switch)?;
        Ok(Reply::Now(BusMasterReply {}))
    }

    fn reset(&mut self, call: Call) -> Result<Reply<ResetReply>, Refusal> {
        self.reset_device(call.badge, Asked::Reset)?;
        Ok(Reply::Later)
    }

    fn msi_enable(
        &mut self,
        call: Call,
        mechanism: Mechanism,
        first: u16,
        count: u16,
        slot: u16,
    ) -> Result<Reply<MsiEnableReply>, Refusal> {
        let delivery = self.enable_messages(call.badge, mechanism, first, count, slot)?;
        Ok(Reply::Now(MsiEnableReply { count, delivery }))
    }

    fn msi_bind(
        &mut self,
        call: Call,
        message: u16,
        flags: u64,
    ) -> Result<Reply<MsiBindReply>, Refusal> {
        self.bind_message(call.badge, message, flags)?;
        Ok(Reply::Now(MsiBindReply {}))
    }

    fn msi_disable(&mut self, call: Call) -> Result<Reply<MsiDisableReply>, Refusal> {
        self.disable_messages(call.badge)?;
        Ok(Reply::Now(MsiDisableReply {}))
    }

    fn msi_info(&mut self, call: Call) -> Result<Reply<MsiInfoReply>, Refusal> {
        let (_, device) = self.held_for(call.badge, Need::Nothing)?;
        Ok(Reply::Now(MsiInfoReply {
            msi: device.msi.map_or(0, |msi| u16::from(msi.vectors)),
            msix: device.msix.map_or(0, |msix| msix.entries),
        }))
    }

    fn intx_enable(&mut self, call: Call) -> Result<Reply<IntxEnableReply>, Refusal> {
        let line = self.enable_line(call.badge)?;
        Ok(Reply::Now(IntxEnableReply { line }))
    }

    fn intx_disable(&mut self, call: Call) -> Result<Reply<IntxDisableReply>, Refusal> {
        self.disable_line(call.badge)?;
        Ok(Reply::Now(IntxDisableReply {}))
    }

    fn msi_affinity(
        &mut self,
        call: Call,
        first: u16,
        count: u16,
        core: u8,
    ) -> Result<Reply<MsiAffinityReply>, Refusal> {
        self.move_messages(call.badge, Messages { first, count }, core)?;
        Ok(Reply::Now(MsiAffinityReply {}))
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
        now(self.count())
    }

    fn turns(&mut self, _: Call) -> Result<Reply<TurnsReply>, Refusal> {
        let turns = self.env.turns();
        let reply = TurnsReply {
            ticks: turns.ticks,
            longest: turns.longest,
            kernel_calls: turns.kernel_calls,
            kernel_ticks: turns.kernel_ticks,
            requests: turns.requests,
        };
        now(Ok(reply))
    }

    fn holder(&mut self, _: Call, index: u32) -> Result<Reply<HolderReply>, Refusal> {
        now(self.holder_of(index))
    }

    fn holder_bar(
        &mut self,
        _: Call,
        index: u32,
        bar: u8,
    ) -> Result<Reply<HolderBarReply>, Refusal> {
        now(self.bar_of(index, bar))
    }

    fn held_at(
        &mut self,
        _: Call,
        client: ClientId,
        index: u16,
    ) -> Result<Reply<HeldAtReply>, Refusal> {
        now(self.held_of(client, index))
    }

    fn held_bar(&mut self, _: Call, device: Sbdf, bar: u8) -> Result<Reply<HeldBarReply>, Refusal> {
        now(self.held_bar_of(device, bar))
    }

    fn test_assign(&mut self, call: Call, device: Sbdf) -> Result<Reply<TestAssignReply>, Refusal> {
        let client = self.client(call)?;
        let properties = self.test_assignment(client, device)?;
        Ok(Reply::Now(TestAssignReply { properties }))
    }

    fn group_at(
        &mut self,
        call: Call,
        device: Sbdf,
        index: u16,
    ) -> Result<Reply<GroupAtReply>, Refusal> {
        now(self.member_at(call, device, index))
    }

    fn topology(&mut self, call: Call, device: Sbdf) -> Result<Reply<TopologyReply>, Refusal> {
        now(self.place_of(call, device))
    }

    fn event_next(&mut self, call: Call) -> Result<Reply<EventNextReply>, Refusal> {
        now(self.next_event(call))
    }

    fn capability_at(
        &mut self,
        call: Call,
        device: Sbdf,
        index: u16,
    ) -> Result<Reply<CapabilityAtReply>, Refusal> {
        now(self.capability_of(call, device, index))
    }

    fn reserved_at(
        &mut self,
        call: Call,
        device: Sbdf,
        index: u16,
    ) -> Result<Reply<ReservedAtReply>, Refusal> {
        now(self.reserved_for(call, device, index))
    }

    fn bar_read(
        &mut self,
        call: Call,
        bar: u8,
        offset: u64,
        width: Width,
    ) -> Result<Reply<BarReadReply>, Refusal> {
        now(self.read_register(call.badge, bar, offset, width))
    }

    fn bar_write(
        &mut self,
        call: Call,
        bar: u8,
        offset: u64,
        width: Width,
        value: u32,
    ) -> Result<Reply<BarWriteReply>, Refusal> {
        now(self.write_register(call.badge, bar, offset, width, value))
    }

    fn narrow(
        &mut self,
        call: Call,
        config: ConfigRight,
        bars: u8,
        messages: u16,
        control: Switch,
        slot: u16,
    ) -> Result<Reply<NarrowReply>, Refusal> {
        let rights = Rights {
            config,
            bars,
            messages,
            control,
        };
        now(self.narrow_device(call.badge, rights, slot))
    }

    fn virtual_functions(
        &mut self,
        call: Call,
        count: u16,
    ) -> Result<Reply<VirtualFunctionsReply>, Refusal> {
        self.set_virtual(call.badge, count)
    }

    fn agree_bus_reset(&mut self, call: Call) -> Result<Reply<AgreeBusResetReply>, Refusal> {
        now(self.agree(call.badge))
    }

    fn bus_reset(&mut self, call: Call) -> Result<Reply<BusResetReply>, Refusal> {
        self.reset_bus(call.badge)
    }

    fn msi_mask(
        &mut self,
        call: Call,
        first: u16,
        count: u16,
        switch: Switch,
    ) -> Result<Reply<MsiMaskReply>, Refusal> {
        now(self.mask_messages(call.badge, first, count, switch))
    }

    fn msi_pending(
        &mut self,
        call: Call,
        first: u16,
        count: u16,
    ) -> Result<Reply<MsiPendingReply>, Refusal> {
        now(self.pending_messages(call.badge, first, count))
    }

    fn bar_large(
        &mut self,
        call: Call,
        bar: u8,
        first: u16,
        count: u16,
        slot: u16,
    ) -> Result<Reply<BarLargeReply>, Refusal> {
        now(self.place_large(call, bar, first, count, slot))
    }

    fn why(&mut self, _: Call, device: Sbdf) -> Result<Reply<WhyReply>, Refusal> {
        now(self.why_withheld(device))
    }

    fn raw_config(
        &mut self,
        _: Call,
        device: Sbdf,
        offset: u16,
    ) -> Result<Reply<RawConfigReply>, Refusal> {
        now(self.raw(device, offset))
    }

    fn view_at(&mut self, _: Call, index: u16) -> Result<Reply<ViewAtReply>, Refusal> {
        now(self.view_of(index))
    }

    fn message_at(
        &mut self,
        _: Call,
        device: Sbdf,
        message: u16,
    ) -> Result<Reply<MessageAtReply>, Refusal> {
        now(self.message_of(device, message))
    }

    fn rescan(&mut self, call: Call) -> Result<Reply<RescanReply>, Refusal> {
        self.scan(ClientId(call.badge.index))
    }

    fn remove(&mut self, call: Call, device: Sbdf) -> Result<Reply<RemoveReply>, Refusal> {
        self.remove_device(ClientId(call.badge.index), device)
    }
}
