//! Memory of a held device's BARs, for its holder.

use ipc_proto::pci::{BarFramesReply, BarLargeReply, BarReadReply, BarReply, BarWriteReply};
use ipc_proto::{Badge, Call, Refusal, Rule, Width};

use super::views::{Need, slot_of};
use super::{Parts, Shard};
use crate::assignment::Hold;
use crate::bank::PageSize;
use crate::env::{Env, RegionId};
use crate::{notes, pages};

impl<E: Env> Shard<'_, E> {
    pub(super) fn describe_bar(&self, call: Call, bar: u8) -> Result<BarReply, Refusal> {
        let (_, device) = self.held_for(call.badge, Need::Bar(bar))?;
        let region = device
            .bars
            .get(usize::from(bar))
            .ok_or(Refusal::new(Rule::NoSuchBar, u64::from(bar)))?;
        let (withheld_first, withheld_count) = if region.is_memory() {
            pages::withheld_range(device, region)
        } else {
            (0, 0)
        };
        Ok(BarReply {
            kind: region.kind,
            bytes: region.bytes,
            withheld_first,
            withheld_count,
        })
    }

    pub(super) fn place_bar(
        &mut self,
        call: Call,
        bar: u8,
        first: u32,
        count: u16,
        slot: u16,
    ) -> Result<BarFramesReply, Refusal> {
        let (_, device) = self.held_for(call.badge, Need::Bar(bar))?;
        let region = pages::memory_bar(device, bar)?;
        let placed = pages::check_range(device, region, first, count)?;
        let memory = region
            .memory()
            .ok_or(Refusal::new(Rule::NoSuchBar, u64::from(bar)))?;
        self.place(call, bar, (memory, PageSize::Small), first, placed, slot)?;
        Ok(BarFramesReply { placed })
    }

    pub(super) fn place_large(
        &mut self,
        call: Call,
        bar: u8,
        first: u16,
        count: u16,
        slot: u16,
    ) -> Result<BarLargeReply, Refusal> {
        let (_, device) = self.held_for(call.badge, Need::Bar(bar))?;
        let region = pages::memory_bar(device, bar)?;
        let (memory, placed) = pages::check_large(device, bar, region, first, count)?;
        let first = u32::from(first);
        self.place(call, bar, (memory, PageSize::Large), first, placed, slot)?;
        Ok(BarLargeReply { placed })
    }

    /// Places frames of pages that have been checked.
    fn place(
        &mut self,
        call: Call,
        bar: u8,
        (memory, size): (RegionId, PageSize),
        first: u32,
        count: u16,
        slot: u16,
    ) -> Result<(), Refusal> {
        let (hold, _) = self.held_for(call.badge, Need::Bar(bar))?;
        let client = hold.client;
        self.check_window(client, slot, count)?;
        let at = slot_of(call.badge);
        let Parts { env, hold, .. } = self.held_mut(call.badge, Need::Bar(bar))?;
        // Noted before: frames may exist even where placing them failed.
        touch(env, hold, at, bar);
        let frames = hold.frames.saturating_add(u32::from(count));
        notes::placing(env, at, hold.frames);
        let placed = env.place_frames(memory, size, first, count, client, slot);
        if placed.is_ok() {
            hold.frames = frames;
            env.store(notes::Word::Frames.of(at), frames.into());
        }
        // Only now they stay, whatever happens.
        notes::placed(env);
        placed
    }

    pub(super) fn read_register(
        &mut self,
        badge: Badge,
        bar: u8,
        offset: u64,
        width: Width,
    ) -> Result<BarReadReply, Refusal> {
        let (env, place) = self.map_register(badge, bar, offset, width)?;
        Ok(BarReadReply {
            value: env.read_page(slot_of(badge), place, width),
        })
    }

    pub(super) fn write_register(
        &mut self,
        badge: Badge,
        bar: u8,
        offset: u64,
        width: Width,
        value: u32,
    ) -> Result<BarWriteReply, Refusal> {
        let (env, place) = self.map_register(badge, bar, offset, width)?;
        env.write_page(slot_of(badge), place, width, value);
        Ok(BarWriteReply {})
    }

    /// Maps the page of a register that its holder cannot map; gives its offset there.
    fn map_register(
        &mut self,
        badge: Badge,
        bar: u8,
        offset: u64,
        width: Width,
    ) -> Result<(&mut E, u16), Refusal> {
        let (_, device) = self.held_for(badge, Need::Bar(bar))?;
        let region = pages::memory_bar(device, bar)?;
        let (page, place) = pages::register(device, bar, region, offset, width)?;
        // None where the page is another function's too.
        let memory = region
            .memory()
            .ok_or(Refusal::new(Rule::PageWithheld, page.into()))?;
        let Parts { env, hold, .. } = self.held_mut(badge, Need::Bar(bar))?;
        // Noted before: its frame may exist even where mapping it failed.
        touch(env, hold, slot_of(badge), bar);
        env.map_page(memory, slot_of(badge), page)?;
        Ok((env, place))
    }
}

/// Notes that frames of a BAR may exist.
fn touch<E: Env>(env: &mut E, hold: &mut Hold<E::Ticket>, at: u16, bar: u8) {
    let regions = hold.regions | 1u8.checked_shl(bar.into()).unwrap_or(0);
    if core::mem::replace(&mut hold.regions, regions) != regions {
        hold.note(env, at);
    }
}
