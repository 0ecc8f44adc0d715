//! Methods of a CNode, written on the slot they change.

use sel4_sys::Word;
use sel4_sys::constants::label;
use sel4_sys::invocation::invoke;

use crate::error::done;
use crate::{Badge, CapData, Result, Rights, Slot};

impl Slot {
    /// `CNode_Copy`: fills this empty slot with a copy of `source`, with at most `rights`.
    ///
    /// # Errors
    /// `DeleteFirst` if this slot is occupied, `FailedLookup` if `source` is empty or either was not found.
    #[inline]
    pub fn copy_from(self, source: Slot, rights: Rights) -> Result {
        done(invoke(
            self.root.cptr(),
            label::CNODE_COPY,
            [
                self.index,
                self.depth.into(),
                source.index,
                source.depth.into(),
                rights.word(),
            ],
            [source.root.cptr()],
        ))
    }

    /// `CNode_Mint`: a copy with a badge, guard or requester id.
    ///
    /// # Errors
    /// As [`Slot::copy_from`]; `IllegalOperation` if the capability cannot take the data.
    #[inline]
    pub fn mint_from(self, source: Slot, rights: Rights, data: CapData) -> Result {
        let depths: [Word; 2] = [self.depth.into(), source.depth.into()];
        done(invoke(
            self.root.cptr(),
            label::CNODE_MINT,
            [
                self.index,
                depths[0],
                source.index,
                depths[1],
                rights.word(),
                data.word(),
            ],
            [source.root.cptr()],
        ))
    }

    /// [`Slot::mint_from`] with a badge.
    ///
    /// # Errors
    /// As [`Slot::mint_from`].
    #[inline]
    pub fn mint_badged(self, source: Slot, rights: Rights, badge: Badge) -> Result {
        self.mint_from(source, rights, CapData::badge(badge))
    }

    /// `CNode_Move`: moves the capability of `source` into this empty slot.
    ///
    /// # Errors
    /// As [`Slot::copy_from`].
    #[inline]
    pub fn move_from(self, source: Slot) -> Result {
        done(invoke(
            self.root.cptr(),
            label::CNODE_MOVE,
            [
                self.index,
                self.depth.into(),
                source.index,
                source.depth.into(),
            ],
            [source.root.cptr()],
        ))
    }

    /// `CNode_Mutate`: moves a CNode capability and sets its guard, or any kind without data.
    ///
    /// # Errors
    /// As [`Slot::move_from`]; `IllegalOperation` for endpoint and notification capabilities, whose badge
    /// cannot be changed this way.
    #[inline]
    pub fn mutate_from(self, source: Slot, data: CapData) -> Result {
        done(invoke(
            self.root.cptr(),
            label::CNODE_MUTATE,
            [
                self.index,
                self.depth.into(),
                source.index,
                source.depth.into(),
                data.word(),
            ],
            [source.root.cptr()],
        ))
    }

    /// `CNode_Rotate`: moves the capability of `pivot` into this slot and that of `source` into the place of
    /// `pivot`, in one step. With `self == source` the two are swapped.
    ///
    /// The kernel applies capability data as in [`Slot::mutate_from`]: a CNode loses its guard, and endpoint
    /// and notification capabilities are refused.
    ///
    /// # Errors
    /// As [`Slot::move_from`]; `IllegalOperation` if `pivot` is one of the other two, or for the kinds above.
    #[inline]
    pub fn rotate(self, pivot: Slot, source: Slot) -> Result {
        done(invoke(
            self.root.cptr(),
            label::CNODE_ROTATE,
            [
                self.index,
                self.depth.into(),
                CapData::NONE.word(),
                pivot.index,
                pivot.depth.into(),
                CapData::NONE.word(),
                source.index,
                source.depth.into(),
            ],
            [pivot.root.cptr(), source.root.cptr()],
        ))
    }

    /// `CNode_Delete`: empties this slot. An empty one is no error.
    ///
    /// # Errors
    /// `FailedLookup` if there is no such slot.
    #[inline]
    pub fn delete(self) -> Result {
        done(invoke(
            self.root.cptr(),
            label::CNODE_DELETE,
            [self.index, self.depth.into()],
            [],
        ))
    }

    /// `CNode_Revoke`: deletes everything derived from this slot's capability, which itself stays.
    ///
    /// # Errors
    /// `FailedLookup` if there is no such slot.
    #[inline]
    pub fn revoke(self) -> Result {
        done(invoke(
            self.root.cptr(),
            label::CNODE_REVOKE,
            [self.index, self.depth.into()],
            [],
        ))
    }

    /// `CNode_CancelBadgedSends`: sends in flight with this capability's badge are broken off.
    ///
    /// # Errors
    /// `IllegalOperation` if it is not an endpoint capability with all rights.
    #[inline]
    pub fn cancel_badged_sends(self) -> Result {
        done(invoke(
            self.root.cptr(),
            label::CNODE_CANCEL_BADGED_SENDS,
            [self.index, self.depth.into()],
            [],
        ))
    }

    /// `CNode_SaveCaller`: puts the right to reply to the last caller into this empty slot.
    /// Take [`crate::Reply::save`], which keeps the two apart.
    #[inline]
    pub(crate) fn save_caller(self) -> Result {
        done(invoke(
            self.root.cptr(),
            label::CNODE_SAVE_CALLER,
            [self.index, self.depth.into()],
            [],
        ))
    }
}
