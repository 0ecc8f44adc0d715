//! Memory of a held device's BARs, for its holder.

use ipc_proto::pci::{BarFramesReply, BarReply};
use ipc_proto::{Call, Refusal, Rule};

use super::views::Need;
use super::{Parts, Shard};
use crate::bank::PageSize;
use crate::env::Env;
use crate::pages;

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
        let (hold, device) = self.held_for(call.badge, Need::Bar(bar))?;
        let client = hold.client;
        let region = pages::memory_bar(device, bar)?;
        let placed = pages::check_range(device, region, first, count)?;
        let memory = region
            .memory()
            .ok_or(Refusal::new(Rule::NoSuchBar, u64::from(bar)))?;
        self.check_window(client, slot, placed)?;
        let Parts { env, hold, .. } = self.held_mut(call.badge, Need::Bar(bar))?;
        // Noted before: frames may exist even where placing them failed.
        hold.regions |= 1 << bar;
        env.place_frames(memory, PageSize::Small, first, placed, client, slot)?;
        hold.frames = hold.frames.saturating_add(u32::from(placed));
        Ok(BarFramesReply { placed })
    }
}
