//! Requests that wait, client by client: [`Shard::park`] puts a caller aside as long as its client has fewer waiting than
//! its bound. There is room for the bounds of all clients together, so nobody is refused because others wait.
//!
//! A request by a device capability counts for the device's holder, whoever it was handed to. How many wait
//! is counted anew each time: there is no number that could go wrong.

use ipc_proto::pci::{ConfigWriteReply, ReleaseReply, ResetReply};
use ipc_proto::{ClientId, Refusal, ResetKind, Rule};
use system::model::MAX_CLIENTS;

use super::{Later, Shard};
use crate::env::Env;

/// Most requests of one client that wait at once.
pub const MAX_PARKED_OF_CLIENT: usize = 8;
/// Most requests that wait at once in a shard.
pub const MAX_PARKED: usize = MAX_PARKED_OF_CLIENT * MAX_CLIENTS;

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// The client it counts for.
    pub client: ClientId,
    /// The right to answer it.
    pub ticket: T,
}

impl<T> Later<T> {
    /// Who waits for what goes on besides jobs of devices.
    pub(super) fn waiting(&self) -> impl Iterator<Item = ClientId> {
        let resets = self.bus_resets.iter().map(|one| &one.waiting);
        let enabling = self.enabling.iter().filter_map(|one| one.waiting.as_ref());
        let removals = self.removals.iter().map(|one| &one.waiting);
        let scan = self.scan.iter().map(|scan| &scan.waiting);
        (resets.chain(enabling).chain(removals).chain(scan)).map(|waiting| waiting.client)
    }
}

/// What a job was, when it has come to a good end.
#[derive(Clone, Copy)]
pub(super) enum Done {
    /// A write to a register.
    Written,
    /// A reset.
    Reset(ResetKind),
    /// A release.
    Released,
}

impl<E: Env> Shard<'_, E> {
    /// Every request that waits, by the client it counts for.
    pub(super) fn waiting(&self) -> impl Iterator<Item = ClientId> {
        let holds = self
            .assignments
            .iter()
            .filter_map(|slot| slot.hold.as_ref());
        let jobs = holds.filter(|hold| hold.job.as_ref().is_some_and(|job| job.ticket.is_some()));
        jobs.map(|hold| hold.client).chain(self.later.waiting())
    }

    /// Puts the caller aside. Refused before anything has begun: nothing is to be undone.
    ///
    /// # Errors
    /// `TooManyParked` with the bound of the client; what the kernel refuses.
    pub(super) fn park(&mut self, client: ClientId) -> Result<Waiting<E::Ticket>, Refusal> {
        let have = self.waiting().filter(|other| *other == client).count();
        at_most(MAX_PARKED_OF_CLIENT, have)?;
        let ticket = self.env.park()?;
        Ok(Waiting { client, ticket })
    }

    /// Answers who has waited. Apart, since messages are long, and the compiler clears one with registers whose first use
    /// in a turn costs a visit to the kernel.
    #[inline(never)]
    pub(super) fn answer_waiting(&mut self, ticket: E::Ticket, answer: Result<Done, Refusal>) {
        let message = match answer {
            Ok(Done::Written) => ConfigWriteReply {}.encode(),
            Ok(Done::Reset(kind)) => ResetReply { kind }.encode(),
            Ok(Done::Released) => ReleaseReply {}.encode(),
            Err(refusal) => refusal.to_message(),
        };
        self.env.answer(ticket, &message);
    }
}

/// Refuses one more than `bound`.
pub(super) const fn at_most(bound: usize, have: usize) -> Result<(), Refusal> {
    if have < bound {
        Ok(())
    } else {
        Err(Refusal::new(Rule::TooManyParked, bound as u64))
    }
}
