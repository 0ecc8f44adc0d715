//! [`CSpace`]: a PD's own capability slots, and what a server does with capabilities: retype, mint, copy
//! into a client's grant window, revoke.
//!
//! Slots are numbers of the private CNode. Those of `PdInfo::free_slots` are handed out by a bounded pool;
//! the fixed ones (`system::layout::slot`) and the given ones are only named. A server keeps the *master* of
//! everything that it places in a window: [`CSpace::revoke`] on the master takes every copy everywhere.
//! What lies in a window is never read.

use ipc_proto::{Badge, Refusal, Rule};
use sel4::object::RETYPE_MAX;
use sel4::{
    CNode, CapData, Error, IrqHandler, Notification, ObjectType, Rights, Slot, Untyped, Window,
};
use system::info::{ClientEntry, PdInfo};
use system::layout::slot;
use system::pool::NumberPool;

/// Words of the slot pool: a private CNode has at most 2^16 slots.
const POOL_WORDS: usize = 1 << 10;

/// A PD's own capability slots.
#[derive(Debug)]
pub struct CSpace {
    cnode: CNode,
    depth: u8,
    free: NumberPool<POOL_WORDS>,
    start: Start,
}

/// What may lie in a slot that the pool calls free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Nothing.
    First,
    /// What an earlier life of the PD left there.
    Again,
}

impl CSpace {
    /// The slots that `info` describes. More free slots than there can be are cut off.
    /// In a PD that was restarted they are all called free and yet hold what it left: those that it takes
    /// in the same order as the first time are emptied as they are taken anew, those that its ledger names it
    /// [adopts](Self::adopt), and the others [`Self::sweep`] empties.
    pub(crate) const fn new(info: &PdInfo, restarts: u64) -> Self {
        let free = match NumberPool::new(info.free_slots.first, info.free_slots.count) {
            Some(pool) => pool,
            None => NumberPool::empty(),
        };
        Self {
            cnode: CNode::at(slot::CNODE),
            depth: info.cnode_bits,
            free,
            start: if restarts == 0 {
                Start::First
            } else {
                Start::Again
            },
        }
    }

    /// May slots that the pool calls free hold what an earlier life of the PD left there?
    pub(crate) fn is_again(&self) -> bool {
        self.start == Start::Again
    }

    /// Slot `number` of the private CNode, as CNode methods name it.
    #[must_use]
    pub const fn slot(&self, number: u32) -> Slot {
        self.cnode.slot_at(number as u64, self.depth)
    }

    /// Slots in use, of those the PD may use as it likes.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.free.used()
    }

    /// Slots left.
    #[must_use]
    pub const fn free(&self) -> u32 {
        self.free.free()
    }

    /// Takes an empty slot.
    ///
    /// # Errors
    /// `SlotsExhausted` with the number of slots there are.
    pub fn take(&mut self) -> Result<u32, Refusal> {
        self.take_run(1)
    }

    /// Takes `count` empty slots in a row.
    ///
    /// # Errors
    /// `SlotsExhausted` with the number of slots there are; `KernelRefused` in a PD that was restarted: a slot
    /// cannot be emptied.
    pub fn take_run(&mut self, count: u32) -> Result<u32, Refusal> {
        let first = self.take_run_as_it_is(count)?;
        if self.start == Start::Again {
            self.empty(first, count)?;
        }
        Ok(first)
    }

    /// Takes `count` slots in a row. In a PD that was restarted what its earlier life left there stays: to be
    /// looked at before [`Self::sweep`], by who takes the same slots at every start.
    ///
    /// # Errors
    /// `SlotsExhausted` with the number of slots there are.
    pub fn take_run_as_it_is(&mut self, count: u32) -> Result<u32, Refusal> {
        self.free.take_run(count, 1).ok_or(Refusal::new(
            Rule::SlotsExhausted,
            u64::from(self.free.count()),
        ))
    }

    /// Takes `count` slots from `first` on with what is in them: what the PD's ledger says that an earlier life
    /// has left.
    ///
    /// # Errors
    /// `BadArgument` with `first`: some are not the PD's own, or taken.
    pub fn adopt(&mut self, first: u32, count: u32) -> Result<(), Refusal> {
        if self.free.claim_run(first, count) {
            Ok(())
        } else {
            Err(Refusal::new(Rule::BadArgument, first.into()))
        }
    }

    /// Ends a restart: takes whatever lies in slots that are free, with all that was derived from it. To be called
    /// when everything that stays is taken or adopted. Does nothing in a PD that was not restarted. How many slots could
    /// not be emptied: they count as taken for ever.
    pub fn sweep(&mut self) -> u32 {
        if self.start == Start::First {
            return 0;
        }
        self.start = Start::First;
        let mut stuck = 0;
        for number in self.free.first()..self.free.first() + self.free.count() {
            if !self.free.is_taken(number) && self.empty(number, 1).is_err() {
                // It was free.
                let _ = self.free.claim_run(number, 1);
                stuck += 1;
            }
        }
        stuck
    }

    /// Takes what lies in these slots, and all that was derived from it.
    fn empty(&self, first: u32, count: u32) -> Result<(), Refusal> {
        for number in first..first + count {
            let slot = self.slot(number);
            slot.revoke()
                .and_then(|()| slot.delete())
                .map_err(crate::refused)?;
        }
        Ok(())
    }

    /// Empties `count` slots from `first` on and takes them back. What is derived from their capabilities
    /// stays: [`Self::revoke`] first. Slots that were not taken are left alone.
    ///
    /// # Errors
    /// `KernelRefused`; the slots that could not be emptied stay taken.
    pub fn delete_run(&mut self, first: u32, count: u32) -> Result<(), Refusal> {
        let mut result = Ok(());
        for number in first..first.saturating_add(count) {
            if !self.free.is_taken(number) {
                continue;
            }
            match self.slot(number).delete() {
                Ok(()) => {
                    // It was taken.
                    let _ = self.free.give(number);
                }
                Err(error) => result = Err(crate::refused(error)),
            }
        }
        result
    }

    /// Empties one slot and takes it back: [`Self::delete_run`].
    ///
    /// # Errors
    /// As [`Self::delete_run`].
    pub fn delete(&mut self, number: u32) -> Result<(), Refusal> {
        self.delete_run(number, 1)
    }

    /// Deletes everything derived from the capability in `number`, wherever it is.
    ///
    /// # Errors
    /// `KernelRefused`.
    pub fn revoke(&self, number: u32) -> Result<(), Refusal> {
        self.slot(number).revoke().map_err(crate::refused)
    }

    /// Breaks off every send that waits with the badge of the endpoint capability in `number`, which must
    /// have all rights. To be done after [`Self::revoke`], which does not reach senders that wait already.
    ///
    /// # Errors
    /// `KernelRefused`.
    pub fn cancel_badged_sends(&self, number: u32) -> Result<(), Refusal> {
        match self.slot(number).cancel_badged_sends() {
            // So the kernel says of an empty slot: an earlier life was killed before it could note that it had emptied it.
            Err(Error::IllegalOperation) => Ok(()),
            result => result.map_err(crate::refused),
        }
    }

    /// Takes a slot and lets `fill` put a capability there.
    ///
    /// # Errors
    /// `SlotsExhausted`; `KernelRefused` when `fill` failed: the slot is free again.
    pub fn make(&mut self, fill: impl FnOnce(Slot) -> sel4::Result) -> Result<u32, Refusal> {
        let number = self.take()?;
        match fill(self.slot(number)) {
            Ok(()) => Ok(number),
            Err(error) => {
                // It was taken a moment ago and is still empty.
                let _ = self.free.give(number);
                Err(crate::refused(error))
            }
        }
    }

    /// Makes a capability with a badge from the one in `source` (an endpoint or notification without a badge),
    /// in a slot of its own: the master of copies for clients.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn mint(&mut self, source: u32, rights: Rights, badge: Badge) -> Result<u32, Refusal> {
        let source = self.slot(source);
        self.make(|target| target.mint_from(source, rights, cap_data(badge)))
    }

    /// As [`Self::mint`], in a slot that the caller keeps account of, which is empty.
    ///
    /// # Errors
    /// `KernelRefused`.
    pub fn mint_into(
        &self,
        number: u32,
        source: u32,
        rights: Rights,
        badge: Badge,
    ) -> Result<(), Refusal> {
        self.slot(number)
            .mint_from(self.slot(source), rights, cap_data(badge))
            .map_err(crate::refused)
    }

    /// Empties a slot that the caller keeps account of.
    ///
    /// # Errors
    /// `KernelRefused`.
    pub fn clear(&self, number: u32) -> Result<(), Refusal> {
        self.slot(number).delete().map_err(crate::refused)
    }

    /// Copies the capability in `source` into a slot of its own.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn copy(&mut self, source: u32, rights: Rights) -> Result<u32, Refusal> {
        let source = self.slot(source);
        self.make(|target| target.copy_from(source, rights))
    }

    /// Makes a capability that signals `flags` (`system::layout::event`) on the PD's event notification.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn make_signal(&mut self, flags: u64) -> Result<u32, Refusal> {
        // Every word of an event is a badge.
        let badge = Badge::from_word(Badge::event(flags)).ok_or(Rule::UnknownBadge)?;
        self.mint(slot::EVENTS as u32, Rights::WRITE, badge)
    }

    /// As [`Self::make_signal`], in a slot that the caller took, whose capability goes.
    ///
    /// # Errors
    /// `KernelRefused`.
    pub fn fill_signal(&self, number: u32, flags: u64) -> Result<(), Refusal> {
        self.refill_signal(number, slot::EVENTS as u32, flags)
    }

    /// Makes a capability that signals `flags` on the notification in slot `source`, which has no badge, in a slot
    /// that the caller took, whose capability goes.
    ///
    /// # Errors
    /// `KernelRefused`; the slot may be empty then.
    pub fn refill_signal(&self, number: u32, source: u32, flags: u64) -> Result<(), Refusal> {
        let badge = Badge::from_word(Badge::event(flags)).ok_or(Rule::UnknownBadge)?;
        self.clear(number)?;
        self.slot(number)
            .mint_from(self.slot(source), Rights::WRITE, cap_data(badge))
            .map_err(crate::refused)
    }

    /// Lets an interrupt signal `flags` on the PD's event notification.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn bind_interrupt(&mut self, handler: IrqHandler, flags: u64) -> Result<(), Refusal> {
        let signal = self.make_signal(flags)?;
        handler
            .set_notification(Notification::at(signal.into()))
            .map_err(crate::refused)
    }

    /// Makes `count` objects (at most 256) of the untyped in slot `untyped`, in as many slots in a row;
    /// returns the first.
    ///
    /// # Errors
    /// `SlotsExhausted`; `KernelRefused`: what the untyped cannot become, or has no room for.
    pub fn retype(&mut self, untyped: u32, kind: ObjectType, count: u32) -> Result<u32, Refusal> {
        if count == 0 || count > RETYPE_MAX {
            return Err(crate::refused(Error::RangeError));
        }
        let first = self.take_run(count)?;
        match self.retype_into(untyped, kind, first, count) {
            Ok(()) => Ok(first),
            Err(refusal) => {
                // All or nothing in the kernel: the slots are still empty.
                let _ = self.free.give_run(first, count);
                Err(refusal)
            }
        }
    }

    /// As [`Self::retype`], in slots that the caller keeps account of: `first`... , which are empty.
    ///
    /// # Errors
    /// `KernelRefused`: what the untyped cannot become, or has no room for.
    pub fn retype_into(
        &self,
        untyped: u32,
        kind: ObjectType,
        first: u32,
        count: u32,
    ) -> Result<(), Refusal> {
        let window = Window::of(self.cnode, first.into(), count);
        Untyped::at(untyped.into())
            .retype(kind, window)
            .map_err(crate::refused)
    }

    /// Makes `count` objects (at most 256) of the untyped in slot `untyped`, in as many empty slots of a client's window:
    /// there is no master of them but the untyped.
    ///
    /// # Errors
    /// `NoWindow`, `WindowSlotOutOfRange`, `WindowSlotOccupied`, `KernelRefused`.
    pub fn retype_to_window(
        &self,
        client: &ClientEntry,
        window_slot: u16,
        untyped: u32,
        kind: ObjectType,
        count: u32,
    ) -> Result<(), Refusal> {
        // The kernel looks whether all of them lie in the window.
        let first = window(client, window_slot)?;
        let slots = Window::of(first.root, first.index, count);
        Untyped::at(untyped.into())
            .retype(kind, slots)
            .map_err(|error| placing(error, window_slot))
    }

    /// Copies the capability in `source` into a client's window.
    ///
    /// # Errors
    /// `NoWindow`, `WindowSlotOutOfRange`, `WindowSlotOccupied`, `KernelRefused`.
    pub fn copy_to_window(
        &self,
        client: &ClientEntry,
        window_slot: u16,
        source: u32,
        rights: Rights,
    ) -> Result<(), Refusal> {
        let target = window(client, window_slot)?;
        target
            .copy_from(self.slot(source), rights)
            .map_err(|error| placing(error, window_slot))
    }

    /// Places a capability with a badge in a client's window, made from the one in `source`. There is no
    /// master of it but `source` itself: for device and buffer capabilities [`Self::mint`] a master first.
    ///
    /// # Errors
    /// As [`Self::copy_to_window`].
    pub fn mint_to_window(
        &self,
        client: &ClientEntry,
        window_slot: u16,
        source: u32,
        rights: Rights,
        badge: Badge,
    ) -> Result<(), Refusal> {
        let target = window(client, window_slot)?;
        target
            .mint_from(self.slot(source), rights, cap_data(badge))
            .map_err(|error| placing(error, window_slot))
    }

    /// Empties a slot of a client's window, whatever lies there: to undo what was just placed.
    ///
    /// # Errors
    /// `NoWindow`, `WindowSlotOutOfRange`, `KernelRefused`.
    pub fn clear_window(&self, client: &ClientEntry, window_slot: u16) -> Result<(), Refusal> {
        window(client, window_slot)?
            .delete()
            .map_err(crate::refused)
    }
}

/// Signals a client's event notification, with the badge that the root task put on this server's capability.
pub fn signal_client(client: &ClientEntry) {
    Notification::at(u64::from(client.events)).signal();
}

/// A slot of a client's window, which must be inside.
fn window(client: &ClientEntry, window_slot: u16) -> Result<Slot, Refusal> {
    if client.window == 0 {
        return Err(Rule::NoWindow.into());
    }
    if u32::from(window_slot)
        .checked_shr(u32::from(client.window_bits))
        .is_some_and(|beyond| beyond != 0)
    {
        return Err(Refusal::new(
            Rule::WindowSlotOutOfRange,
            u64::from(window_slot),
        ));
    }
    Ok(CNode::at(u64::from(client.window)).slot_at(u64::from(window_slot), client.window_bits))
}

/// The refusal for a capability that could not be placed.
fn placing(error: Error, window_slot: u16) -> Refusal {
    match error {
        Error::DeleteFirst => Refusal::new(Rule::WindowSlotOccupied, u64::from(window_slot)),
        other => crate::refused(other),
    }
}

/// A badge as mint takes it; 28 bits by construction.
fn cap_data(badge: Badge) -> CapData {
    sel4::Badge::new(badge.to_word()).map_or(CapData::NONE, CapData::badge)
}
