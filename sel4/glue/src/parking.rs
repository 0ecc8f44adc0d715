//! [`Parking`]: requests that are answered later, so that a slow device never blocks a server.
//!
//! The right to answer is a capability, which the kernel moves into a slot of this pool. The pool is
//! bounded: a client that makes requests wait cannot use up the server's slots.

use ipc_proto::{Message, Refusal, Rule};
use sel4::{CNode, Reply, SavedReply, Slot};

use crate::CSpace;
use crate::port::outgoing;

/// Most requests that wait at once in one PD: one for each thread that can call it is enough.
pub const MAX_PARKED: usize = 64;

/// The right and duty to answer one parked request.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the caller waits until it is answered"]
pub struct Ticket(SavedReply);

/// A pool of slots for parked requests.
#[derive(Debug)]
pub struct Parking {
    cnode: CNode,
    depth: u8,
    first: u32,
    capacity: u8,
    /// One bit a slot in use.
    used: u64,
}

impl Parking {
    /// A pool for `capacity` requests (at most [`MAX_PARKED`]), in slots of `cspace`.
    ///
    /// # Errors
    /// `SlotsExhausted`.
    pub fn new(cspace: &mut CSpace, capacity: u8) -> Result<Self, Refusal> {
        let capacity = capacity.min(MAX_PARKED as u8);
        // After a restart there are the callers of an earlier life in it, in the same slots: they are told.
        let first = cspace.take_run_as_it_is(u32::from(capacity))?;
        let (info, words) = outgoing(&Refusal::new(Rule::Restarted, 0).to_message(), 0);
        for slot in first..first + u32::from(capacity) {
            // Nothing happens where there is none.
            SavedReply::at(slot.into()).send(info, words);
        }
        let Slot {
            root: cnode, depth, ..
        } = cspace.slot(first);
        Ok(Self {
            cnode,
            depth,
            first,
            capacity,
            used: 0,
        })
    }

    /// Puts the caller of the current request aside; the request's own reply is then `Reply::Later`.
    /// If the caller is gone already, the answer will go nowhere.
    ///
    /// # Errors
    /// `TooManyParked` with the bound, `KernelRefused`.
    pub fn park(&mut self) -> Result<Ticket, Refusal> {
        let index = self.used.trailing_ones() as u8;
        if index >= self.capacity {
            return Err(Refusal::new(Rule::TooManyParked, u64::from(self.capacity)));
        }
        // A slot that still holds the reply right of a caller that died unanswered is not possible: the
        // kernel takes that right away with the caller, and answering empties the slot.
        let saved = Reply::new()
            .save(self.slot(index))
            .map_err(crate::refused)?;
        self.used |= 1 << index;
        Ok(Ticket(saved))
    }

    /// Answers a parked request. Its caller may be gone: then nobody is answered, and the place is free again all
    /// the same.
    pub fn answer(&mut self, ticket: Ticket, reply: &Message) {
        let Ticket(saved) = ticket;
        let index = saved.cptr().wrapping_sub(u64::from(self.first));
        let (info, registers) = outgoing(reply, 0);
        saved.send(info, registers);
        if index < u64::from(self.capacity) {
            self.used &= !(1 << index);
        }
    }

    /// Requests that wait.
    #[must_use]
    pub const fn parked(&self) -> u32 {
        self.used.count_ones()
    }

    fn slot(&self, index: u8) -> Slot {
        self.cnode
            .slot_at(u64::from(self.first) + u64::from(index), self.depth)
    }
}
