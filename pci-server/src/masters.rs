//! [`Masters`]: the masters of device capabilities and narrowed ones, each in a slot that its number says. So the slots
//! are the same whenever the server is restarted, and nothing of them needs to be noted.

use ipc_proto::{Badge, Refusal, Rule};
use pci_core::MAX_ASSIGNMENTS;
use pci_core::shard::MAX_VIEWS;
use sel4::Rights;
use sel4_glue::CSpace;
use system::info::ClientEntry;
use system::layout::slot;

/// A master by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Master {
    /// Of the device that is held through this assignment slot.
    Device(u16),
    /// Of this narrowed capability (from 1).
    View(u16),
}

/// Masters of both kinds; a view's number begins at 1.
const COUNT: u32 = (MAX_ASSIGNMENTS + MAX_VIEWS) as u32 + 1;

/// The slots of all masters, and which of them hold one.
pub struct Masters {
    first: u32,
    /// One bit each: first devices, then views.
    held: u128,
}

const _: () = assert!(COUNT <= 128);

impl Masters {
    /// Takes the slots. What an earlier life has left in them is looked at by [`Self::keep`].
    ///
    /// # Errors
    /// `SlotsExhausted`.
    pub fn new(cspace: &mut CSpace) -> Result<Self, Refusal> {
        Ok(Self {
            first: cspace.take_run_as_it_is(COUNT)?,
            held: 0,
        })
    }

    /// Slots that hold nothing.
    pub const fn free_slots(&self) -> u32 {
        COUNT - self.held.count_ones()
    }

    /// Number and slot of a master.
    fn find(&self, master: Master) -> Result<(u32, u32), Refusal> {
        let (number, most, rule) = match master {
            Master::Device(at) => (u32::from(at), MAX_ASSIGNMENTS, Rule::TooManyAssignments),
            Master::View(view) => (u32::from(view), MAX_VIEWS + 1, Rule::TooManyViews),
        };
        if number as usize >= most {
            return Err(rule.into());
        }
        let number = match master {
            Master::Device(_) => number,
            Master::View(_) => number + MAX_ASSIGNMENTS as u32,
        };
        Ok((number, self.first + number))
    }

    /// Mints a master and places a copy in the client's window.
    ///
    /// # Errors
    /// `NoWindow`, `WindowSlotOccupied`, `WindowSlotOutOfRange`, `KernelRefused`: nothing has changed.
    pub fn place(
        &mut self,
        cspace: &CSpace,
        master: Master,
        badge: Badge,
        client: &ClientEntry,
        window_slot: u16,
    ) -> Result<(), Refusal> {
        let (number, at) = self.find(master)?;
        // All rights, without which the kernel does not break sends off; it never leaves this PD.
        cspace.mint_into(at, slot::ENDPOINT as u32, Rights::ALL, badge)?;
        let placed = cspace.copy_to_window(client, window_slot, at, Rights::CALL);
        match placed {
            Ok(()) => self.held |= 1 << number,
            // Minted a moment ago: deleting it cannot fail.
            Err(_) => drop(cspace.clear(at)),
        }
        placed
    }

    /// Takes a master and every copy of it away.
    ///
    /// # Errors
    /// `KernelRefused`: copies may be left.
    pub fn revoke(&mut self, cspace: &CSpace, master: Master) -> Result<(), Refusal> {
        let (number, at) = self.find(master)?;
        if self.held >> number & 1 == 0 {
            return Ok(());
        }
        empty(cspace, at)?;
        self.held &= !(1 << number);
        Ok(())
    }

    /// After a restart: those with these numbers are there and stay, one bit each; all others go.
    ///
    /// # Errors
    /// `KernelRefused`: some may be left.
    pub fn keep(&mut self, cspace: &CSpace, devices: u64, views: u64) -> Result<(), Refusal> {
        self.held = u128::from(devices) | u128::from(views) << MAX_ASSIGNMENTS;
        let mut result = Ok(());
        for number in 0..COUNT {
            if self.held >> number & 1 != 0 {
                continue;
            }
            let at = self.first + number;
            result = result.and(empty(cspace, at));
        }
        result
    }
}

/// Takes a master away with every copy of it and every request that waits by it. A slot that is empty stays so: a server may
/// be killed after it has emptied one and before it has noted that.
fn empty(cspace: &CSpace, at: u32) -> Result<(), Refusal> {
    cspace.revoke(at)?;
    cspace.cancel_badged_sends(at)?;
    cspace.clear(at)
}
