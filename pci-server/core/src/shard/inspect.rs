//! What the supervisor, and clients that may look at everything, are told. Nothing is changed.

use ipc_proto::pci::{FiguresReply, HolderBarReply, HolderReply};
use ipc_proto::{Refusal, Rule};

use super::Shard;
use crate::assignment::Hold;
use crate::env::Env;
use crate::interrupts::Setup;

impl<E: Env> Shard<'_, E> {
    pub(super) fn count(&self) -> Result<FiguresReply, Refusal> {
        let usage = self.env.usage();
        let holds = || {
            self.assignments
                .iter()
                .filter_map(|assignment| assignment.hold.as_ref())
        };
        let waits =
            |hold: &&Hold<E::Ticket>| hold.job.as_ref().is_some_and(|job| job.ticket.is_some());
        Ok(FiguresReply {
            devices: self.devices.len(),
            assigned: holds().count() as u32,
            slots_used: usage.slots,
            untyped_used: usage.untyped_bytes,
            operations: self.operations,
            refused: self.refused,
            parked: (holds().filter(waits).count() + self.later.waiting()) as u64,
        })
    }

    pub(super) fn holder_of(&self, index: u32) -> Result<HolderReply, Refusal> {
        let device = self.nth(index)?;
        let hold = device
            .assignment
            .and_then(|at| self.assignments.get(usize::from(at)))
            .and_then(|assignment| assignment.hold.as_ref());
        Ok(HolderReply {
            device: device.at,
            ids: device.ids,
            class: device.class,
            state: device.state,
            holder: hold.map_or(0, |hold| hold.client.0 + 1),
            frames: hold.map_or(0, |hold| hold.frames),
            messages: hold.map_or(0, |hold| {
                hold.interrupts.as_ref().map_or(0, Setup::messages)
            }),
        })
    }

    pub(super) fn bar_of(&self, index: u32, bar: u8) -> Result<HolderBarReply, Refusal> {
        let device = self.nth(index)?;
        let region = device
            .bars
            .get(usize::from(bar))
            .ok_or(Refusal::new(Rule::NoSuchBar, u64::from(bar)))?;
        Ok(HolderBarReply {
            kind: region.kind,
            base: region.base,
            bytes: region.bytes,
        })
    }
}
