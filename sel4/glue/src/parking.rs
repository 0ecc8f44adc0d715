//! [`Parking`]: requests that are answered later, so that a slow device never blocks a server.
//!
//! The right to answer is a capability, which the kernel moves into a slot of this pool. The pool is
//! bounded; how much of it each client may have is the server's to say. Of all PDs pci-server shards have one.

use ipc_proto::{Message, Refusal, Rule};
use sel4::{CNode, Reply, SavedReply, Slot};
use system::info::{PdInfo, Role};
use system::pool::NumberPool;

use crate::CSpace;
use crate::port::outgoing;

/// Most requests that wait at once in one PD.
pub const MAX_PARKED: usize = 64 * WORDS;
const WORDS: usize = 4;

/// The right and duty to answer one parked request.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the caller waits until it is answered"]
pub struct Ticket(SavedReply);

/// A pool of slots for parked requests.
#[derive(Debug)]
pub struct Parking {
    cnode: CNode,
    depth: u8,
    free: NumberPool<WORDS>,
}

impl Parking {
    /// A pool for [`MAX_PARKED`] requests, in slots of `cspace`: the first that are taken of it, so that a PD which does
    /// not come as far as this knows where they are ([`refuse_all`]).
    ///
    /// # Errors
    /// `SlotsExhausted`, also when slots were taken before.
    pub fn new(cspace: &mut CSpace) -> Result<Self, Refusal> {
        let exhausted = Refusal::new(Rule::SlotsExhausted, MAX_PARKED as u64);
        if cspace.used() != 0 {
            return Err(exhausted);
        }
        // After a restart there are the callers of an earlier life in it, in the same slots: they are told.
        let first = cspace.take_run_as_it_is(MAX_PARKED as u32)?;
        if cspace.is_again() {
            answer_all(first, &Refusal::new(Rule::Restarted, 0));
        }
        let Slot {
            root: cnode, depth, ..
        } = cspace.slot(first);
        Ok(Self {
            cnode,
            depth,
            free: NumberPool::new(first, MAX_PARKED as u32).ok_or(exhausted)?,
        })
    }

    /// Puts the caller of the current request aside; the request's own reply is then `Reply::Later`.
    /// If the caller is gone already, the answer will go nowhere.
    ///
    /// # Errors
    /// `TooManyParked` with the bound, `KernelRefused`.
    pub fn park(&mut self) -> Result<Ticket, Refusal> {
        let full = Refusal::new(Rule::TooManyParked, u64::from(self.free.count()));
        let slot = self.free.take().ok_or(full)?;
        // A slot that still holds the reply right of a caller that died unanswered is not possible: the
        // kernel takes that right away with the caller, and answering empties the slot.
        let place = self.cnode.slot_at(slot.into(), self.depth);
        match Reply::new().save(place) {
            Ok(saved) => Ok(Ticket(saved)),
            Err(error) => {
                // It was taken just now.
                let _ = self.free.give(slot);
                Err(crate::refused(error))
            }
        }
    }

    /// Answers a parked request. Its caller may be gone: then nobody is answered, and the place is free again all
    /// the same.
    pub fn answer(&mut self, ticket: Ticket, reply: &Message) {
        let Ticket(saved) = ticket;
        let slot = saved.cptr() as u32;
        let (info, registers) = outgoing(reply, 0);
        saved.send(info, registers);
        // It was taken: only `park` makes tickets.
        let _ = self.free.give(slot);
    }

    /// Requests that wait.
    #[must_use]
    pub fn parked(&self) -> u32 {
        self.free.used()
    }
}

/// Tells every caller that waits in a pool, whose first slot is `first`.
fn answer_all(first: u32, refusal: &Refusal) {
    let (info, words) = outgoing(&refusal.to_message(), 0);
    for slot in first..first.saturating_add(MAX_PARKED as u32) {
        // Nothing happens where there is none.
        SavedReply::at(slot.into()).send(info, words);
    }
}

/// In a PD that is not to serve any more: refuses what waited in its pool, if it is a PD that has one.
pub(crate) fn refuse_all(info: &PdInfo, refusal: &Refusal) {
    // Another PD has other capabilities in these slots, which what is sent would invoke.
    if matches!(info.role, Role::Pci(_)) && info.free_slots.count >= MAX_PARKED as u32 {
        answer_all(info.free_slots.first, refusal);
    }
}
