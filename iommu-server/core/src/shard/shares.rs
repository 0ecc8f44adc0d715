//! Slots of the shard, which are all clients' together: a small page that can be shared takes one, so that one client's
//! quota may be as many as there are.
//!
//! Half of them are whoever's comes first; of the other half each client can have an equal part, whatever others have.
//! What a client has is counted only when the first half is gone: there is no number that could go wrong.

use ipc_proto::{ClientId, Refusal, Rule};

use super::Shard;
use super::memory::pages_of;
use crate::backend::Backend;
use crate::buffers::{Buffer, Content, NO_FRAMES};
use crate::env::Env;

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// Refuses `wanted` more slots to a client that has its share and more.
    ///
    /// # Errors
    /// `SlotsExhausted` with the slots that a client can have in any case.
    pub(super) fn may_take(&self, client: ClientId, wanted: u32) -> Result<(), Refusal> {
        let half = self.slots.count() / 2;
        if self.slots.used().saturating_add(wanted) <= half {
            return Ok(());
        }
        let share = half / self.clients.len().max(1) as u32;
        let own = self.buffers.all().filter(|buffer| buffer.holder == client);
        let taken = own.map(slots_of).fold(0, u32::saturating_add);
        if taken.saturating_add(wanted) <= share {
            Ok(())
        } else {
            Err(Refusal::new(Rule::SlotsExhausted, share.into()))
        }
    }
}

/// Slots that a buffer takes: its capability's master, and frames that the server keeps.
fn slots_of(buffer: &Buffer) -> u32 {
    let frames = match &buffer.content {
        Content::Memory(memory) => {
            let kept = memory.extents.iter();
            let kept = kept.filter(|extent| extent.frames != NO_FRAMES);
            kept.map(pages_of).fold(0, u32::saturating_add)
        }
        Content::Share { .. } => 0,
    };
    frames.saturating_add(1)
}
