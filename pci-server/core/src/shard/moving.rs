//! Messages of a held device that are sent to another core while they are enabled.

use ipc_proto::{Badge, Mechanism, Messages, Refusal, Rule};

use super::views::{Need, slot_of};
use super::{Parts, Shard, from_below};
use crate::Device;
use crate::assignment::Hold;
use crate::env::Env;
use crate::interrupts::{Masks, moving};
use crate::notes::{Intent, setup};

impl<E: Env> Shard<'_, E> {
    /// Moves messages, block by block. After a refusal some may have been moved.
    pub(super) fn move_messages(
        &mut self,
        badge: Badge,
        wanted: Messages,
        core: u8,
    ) -> Result<(), Refusal> {
        let Parts {
            env,
            hold,
            device,
            masks,
        } = self.held_mut(badge, Need::Messages(wanted.count))?;
        let table = slot_of(badge);
        let remapped = hold.remapped;
        if !remapped && hold.interrupts.is_some() {
            hold.intend(env, table, Intent::Moving);
        }
        let moved = move_blocks(env, hold, device, masks, table, wanted, core);
        if !remapped {
            if let Some(setup) = &hold.interrupts {
                setup::note(env, table, setup);
            }
            hold.intend(env, table, Intent::None);
        }
        moved
    }
}

/// The blocks that have some of the messages, each by one call of the servers below.
fn move_blocks<E: Env>(
    env: &mut E,
    hold: &mut Hold<E::Ticket>,
    device: &Device,
    masks: &Masks,
    table: u16,
    wanted: Messages,
    core: u8,
) -> Result<(), Refusal> {
    let remapped = hold.remapped;
    let setup = hold
        .interrupts
        .as_mut()
        .ok_or_else(|| device.refusal(Rule::InterruptsDisabled))?;
    let all = Messages {
        first: setup.first,
        count: setup.messages(),
    };
    if wanted.first < all.first || wanted.end() > all.end() {
        return Err(Refusal::new(Rule::MessageNotEnabled, wanted.first.into()));
    }
    // Those of MSI have one address.
    if wanted.count == 0 || setup.mechanism == Mechanism::Msi && wanted != all {
        return Err(Refusal::new(Rule::BadMessageCount, all.count.into()));
    }
    let mut begin = all.first;
    for block in setup.blocks.clone() {
        let end = begin.saturating_add(block.count);
        let first = begin.max(wanted.first);
        // Both ends are at most 2^16 - 1 here: a table has 2,048 entries.
        let last = u32::from(end).min(wanted.end()) as u16;
        if first < last {
            let part = Messages {
                first,
                count: last - first,
            };
            let address = env.retarget(device.at, part, core).map_err(from_below)?;
            if remapped {
                let within = Messages {
                    first: first - begin,
                    ..part
                };
                env.reroute(device.at, block.vectors, within, address)
                    .map_err(from_below)?;
            } else {
                moving::to_core(env, device, table, setup, masks, part, address)?;
            }
        }
        begin = end;
    }
    Ok(())
}
