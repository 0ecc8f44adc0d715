//! Removals that administrators wait for: of a card with all that is on it, or of one function.

use hw::Sbdf;
use ipc_proto::pci::RemoveReply;
use ipc_proto::{ClientId, Refusal};

use super::Shard;
use super::waiting::{MAX_PARKED, Waiting};
use crate::env::Env;
use crate::ports::State;

/// Most removals that administrators wait for: all that can be put aside.
pub(super) const MAX_REMOVALS: usize = MAX_PARKED;

/// A removal that an administrator waits for.
#[derive(Debug)]
pub struct Removal<T> {
    /// What is removed.
    what: Removed,
    /// How many functions.
    functions: u16,
    pub(super) waiting: Waiting<T>,
}

/// What is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Removed {
    /// The card behind a port.
    Card(Sbdf),
    /// One function.
    Function(Sbdf),
}

impl<E: Env> Shard<'_, E> {
    /// Puts the administrator aside who waits for a removal.
    pub(super) fn await_removal(
        &mut self,
        client: ClientId,
        what: Removed,
        functions: u16,
    ) -> Result<(), Refusal> {
        let waiting = self.park(client)?;
        let removal = Removal {
            what,
            functions,
            waiting,
        };
        // There is room.
        let _ = self.later.removals.push(removal);
        Ok(())
    }

    /// Answers those who wait for the removal of a card, if it may be pulled out now.
    pub(super) fn answer_removals(&mut self, at: Sbdf) {
        let busy = self.ports.iter().any(|port| {
            let state = port.state;
            port.at == at
                && matches!(
                    state,
                    State::Occupied
                        | State::RemovalPending
                        | State::Withdrawing(_)
                        | State::PoweringOff
                )
        });
        if !busy {
            self.answer_removal(Removed::Card(at));
        }
    }

    pub(super) fn answer_removal(&mut self, what: Removed) {
        while let Some(place) = (self.later.removals.iter()).position(|one| one.what == what) {
            let Removal {
                functions, waiting, ..
            } = self.later.removals.swap_remove(place);
            self.env
                .answer(waiting.ticket, &RemoveReply { functions }.encode());
        }
    }
}
