//! What a test asks of a unit to find steps that a driver left out: devices
//! that try their requests at the worst moment ([`Vtd::attack_with`]), a unit
//! that takes no order for granted, and single steps left out
//! ([`Vtd::leave_out`]).

use super::{Dma, State, Vtd};

/// A step that a driver has a unit take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// An invalidation descriptor, as its lower half says: bits 0..=3 its type (1 contexts, 2 translations, 3 a
    /// device's, 4 interrupts), bits 4 and 5 how much of it, bits 16..=31 the domain id of the first two.
    Invalidation(u64),
    /// A wait that later descriptors must not overtake.
    Fence,
    /// A flush of the write buffer.
    BufferFlush,
}

/// In what order a unit carries out invalidations between which there is no fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// As written.
    Written,
    /// The other way around, which is allowed (6.5.2.8).
    Reversed,
}

impl Vtd {
    /// Between any two steps of the unit each of these requesters tries each of these addresses, and the first
    /// `messages` interrupt entries, so that everything that can be cached then is.
    pub fn attack_with(&self, requesters: &[u16], addresses: &[u64], messages: u16) {
        let state = &mut *self.0.borrow_mut();
        state.attackers = requesters.to_vec();
        state.attacked = addresses.to_vec();
        state.attacked_entries = messages;
    }

    /// The devices try now.
    pub fn attack(&self) {
        self.0.borrow_mut().attack();
    }

    /// See [`Order`].
    pub fn set_order(&self, order: Order) {
        self.0.borrow_mut().order = order;
    }

    /// Forgets the steps taken so far and leaves out the `nth` of those to come (0: the first).
    pub fn leave_out(&self, nth: Option<usize>) {
        let state = &mut *self.0.borrow_mut();
        state.steps.clear();
        state.left_out = nth;
    }

    /// Steps since [`Self::leave_out`].
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.0.borrow().steps.clone()
    }
}

impl State {
    /// Notes a step; `false` when it is the one to be left out.
    pub(super) fn step(&mut self, step: Step) -> bool {
        self.steps.push(step);
        self.left_out != Some(self.steps.len() - 1)
    }

    pub(super) fn attack(&mut self) {
        if self.status >> 31 == 0 {
            return;
        }
        for requester in self.attackers.clone() {
            for address in self.attacked.clone() {
                // Nothing is recorded: what matters is what is cached.
                let _ = self.translate(requester, address, Dma::Read);
                let _ = self.translate(requester, address, Dma::Write);
            }
            for entry in 0..self.attacked_entries {
                let _ = self.look_up(requester, entry);
            }
        }
    }
}
