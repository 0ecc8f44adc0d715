//! The bounded walk over both capability lists, [`Walk`] and [`ExtendedWalk`],
//! and what they find, [`CapabilityList`].
//!
//! Conventional list: PCIe 5.0, 7.5.1.1.11 and 7.5.3; extended list: 7.6.3. The
//! two low bits of a pointer are reserved and masked, as both sections demand. A
//! walk remembers where it has been: a cycle ends it, so that no list, however
//! forged or changing, costs more reads than there are places for a capability.

use heapless::Vec;
use thiserror::Error;

use super::{CONVENTIONAL_BYTES, Capability, CapabilityError, ExtendedCapability, id};
use crate::header::{Layout, Status, register};
use crate::{ConfigSpace, Sbdf};

/// Places for a conventional capability: 192 bytes, four-byte aligned.
pub const MAX_CAPABILITIES: usize = 48;
/// Extended capabilities that [`CapabilityList`] keeps; no known function has half as many.
pub const MAX_EXTENDED_CAPABILITIES: usize = 64;

/// Bits of a pointer that software masks (PCIe 5.0, 7.5.1.1.11, 7.5.3 and 7.6.3).
const RESERVED_POINTER_BITS: u16 = 3;
/// First place for a conventional capability.
const FIRST: u8 = 0x40;
/// First place for an extended capability, where the list starts.
const FIRST_EXTENDED: u16 = 0x100;
/// Places for an extended capability: 3,840 bytes, four-byte aligned.
const EXTENDED_PLACES: usize = 960;

/// A conventional capability as the list has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Capability id.
    pub id: u8,
    /// Offset of its first byte.
    pub offset: u8,
}

impl Entry {
    /// Its name (see [`id::name`]).
    #[must_use]
    pub const fn name(&self) -> &'static str {
        id::name(self.id)
    }
}

/// An extended capability as the list has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ExtendedEntry {
    /// Capability id.
    pub id: u16,
    /// Version, 0 to 15.
    pub version: u8,
    /// Offset of its first byte.
    pub offset: u16,
}

impl ExtendedEntry {
    /// Its name (see [`id::extended_name`]).
    #[must_use]
    pub const fn name(&self) -> &'static str {
        id::extended_name(self.id)
    }
}

/// Why a capability list ended before its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum WalkFault {
    /// A pointer into the header, or beyond the space.
    #[error("the pointer at {from:#x} holds {to:#x}, which is outside the capability area")]
    OutOfRange {
        /// Offset of the register that points.
        from: u16,
        /// Where it points.
        to: u16,
    },
    /// A pointer back to a capability already seen.
    #[error("the pointer at {from:#x} holds {to:#x}: the list has a cycle")]
    Cycle {
        /// Offset of the register that points.
        from: u16,
        /// Where it points.
        to: u16,
    },
    /// A capability's id reads all ones: the function is gone, or nothing is there.
    #[error("the capability at {at:#x} reads all ones")]
    AllOnes {
        /// Its offset.
        at: u16,
    },
    /// More capabilities than are kept ([`MAX_EXTENDED_CAPABILITIES`]).
    #[error("more than {limit} capabilities")]
    TooMany {
        /// How many are kept.
        limit: u16,
    },
}

/// Where a walk goes next.
#[derive(Clone, Copy)]
struct Step {
    from: u16,
    to: u16,
}

impl Step {
    /// The step that the register at `from` names; `None` if its pointer is zero, which ends a list.
    const fn new(from: u16, pointer: u16) -> Option<Self> {
        match pointer & !RESERVED_POINTER_BITS {
            0 => None,
            to => Some(Self { from, to }),
        }
    }
}

/// Iterates over the conventional list of a function; ends after the first fault.
pub struct Walk<'c, C: ?Sized> {
    cfg: &'c C,
    at: Sbdf,
    next: Option<Step>,
    /// One bit a place, from offset 0.
    seen: u64,
}

impl<'c, C: ConfigSpace + ?Sized> Walk<'c, C> {
    /// A walk over the function at `at`; empty if Status says that there is no list.
    pub fn new(cfg: &'c C, at: Sbdf, layout: Layout) -> Self {
        let status = Status::from_bits_retain(cfg.read16(at, register::STATUS));
        let next = if status.contains(Status::CAPABILITIES) {
            let from = layout.capabilities_pointer();
            Step::new(from, u16::from(cfg.read8(at, from)))
        } else {
            None
        };
        Self {
            cfg,
            at,
            next,
            seen: 0,
        }
    }

    #[inline(always)]
    fn enter(&mut self, step: Step) -> Result<Entry, WalkFault> {
        let Step { from, to } = step;
        if to < u16::from(FIRST) || to >= CONVENTIONAL_BYTES {
            return Err(WalkFault::OutOfRange { from, to });
        }
        let place = 1u64 << (to / 4);
        if self.seen & place != 0 {
            return Err(WalkFault::Cycle { from, to });
        }
        self.seen |= place;
        let word = self.cfg.read16(self.at, to);
        if word as u8 == u8::MAX {
            return Err(WalkFault::AllOnes { at: to });
        }
        self.next = Step::new(to + 1, word >> 8);
        Ok(Entry {
            id: word as u8,
            // Below 256, as checked.
            offset: to as u8,
        })
    }
}

impl<C: ConfigSpace + ?Sized> Iterator for Walk<'_, C> {
    type Item = Result<Entry, WalkFault>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let step = self.next.take()?;
        Some(self.enter(step))
    }
}

/// Iterates over the extended list of a function; ends after the first fault.
pub struct ExtendedWalk<'c, C: ?Sized> {
    cfg: &'c C,
    at: Sbdf,
    next: Option<Step>,
    /// One bit a place, from offset 100h.
    seen: [u64; EXTENDED_PLACES / 64],
}

impl<'c, C: ConfigSpace + ?Sized> ExtendedWalk<'c, C> {
    /// A walk over the function at `at`; empty if it has only 256 bytes of configuration space.
    pub fn new(cfg: &'c C, at: Sbdf) -> Self {
        Self {
            cfg,
            at,
            next: Some(Step {
                from: FIRST_EXTENDED,
                to: FIRST_EXTENDED,
            }),
            seen: [0; EXTENDED_PLACES / 64],
        }
    }

    #[inline(always)]
    fn enter(&mut self, step: Step) -> Result<Option<ExtendedEntry>, WalkFault> {
        let Step { from, to } = step;
        let place = to
            .checked_sub(FIRST_EXTENDED)
            .map(|bytes| usize::from(bytes / 4))
            .ok_or(WalkFault::OutOfRange { from, to })?;
        let word = self
            .seen
            .get_mut(place / 64)
            .ok_or(WalkFault::OutOfRange { from, to })?;
        let bit = 1u64 << (place % 64);
        if *word & bit != 0 {
            return Err(WalkFault::Cycle { from, to });
        }
        *word |= bit;
        let header = self.cfg.read32(self.at, to);
        if header == 0 || (to == FIRST_EXTENDED && header == u32::MAX) {
            // An empty list or its end, or a function with 256 bytes only.
            return Ok(None);
        }
        if header == u32::MAX {
            return Err(WalkFault::AllOnes { at: to });
        }
        self.next = Step::new(to, (header >> 20) as u16);
        Ok(Some(ExtendedEntry {
            id: header as u16,
            version: (header >> 16 & 0xf) as u8,
            offset: to,
        }))
    }
}

impl<C: ConfigSpace + ?Sized> Iterator for ExtendedWalk<'_, C> {
    type Item = Result<ExtendedEntry, WalkFault>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let step = self.next.take()?;
        self.enter(step).transpose()
    }
}

/// The capabilities of a function: both lists, as far as they could be followed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CapabilityList {
    /// Conventional capabilities in the order of the list.
    pub entries: Vec<Entry, MAX_CAPABILITIES>,
    /// Extended capabilities in the order of the list.
    pub extended: Vec<ExtendedEntry, MAX_EXTENDED_CAPABILITIES>,
    /// What ended the conventional list early.
    pub fault: Option<WalkFault>,
    /// What ended the extended list early.
    pub extended_fault: Option<WalkFault>,
    /// Ids in [`Self::entries`], one bit for each of which the lower six bits are the same: what is not there is not
    /// looked for.
    present: u64,
}

impl CapabilityList {
    /// Walks both lists of the function at `at`. The extended one is looked for only in a
    /// function with a PCI Express capability: elsewhere its space may alias the first 256 bytes.
    pub fn read<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf, layout: Layout) -> Self {
        let mut list = Self::default();
        list.fill(cfg, at, layout);
        list
    }

    /// [`Self::read`] into this list, whatever it holds: lists are large.
    pub fn fill<C: ConfigSpace + ?Sized>(&mut self, cfg: &C, at: Sbdf, layout: Layout) {
        self.entries.clear();
        self.extended.clear();
        (self.fault, self.extended_fault, self.present) = (None, None, 0);
        let mut is_extended = false;
        for step in Walk::new(cfg, at, layout) {
            match step {
                Ok(entry) if self.entries.push(entry).is_ok() => {
                    // Conventional functions of PCI-X 2.0 have 4,096 bytes, too.
                    is_extended |= matches!(entry.id, id::EXPRESS | id::PCI_X);
                    self.present |= 1 << (entry.id % 64);
                }
                Ok(_) => {
                    self.fault = Some(WalkFault::TooMany {
                        limit: MAX_CAPABILITIES as u16,
                    });
                    break;
                }
                Err(fault) => self.fault = Some(fault),
            }
        }
        if !is_extended {
            return;
        }
        for step in ExtendedWalk::new(cfg, at) {
            match step {
                Ok(entry) if self.extended.push(entry).is_ok() => {}
                Ok(_) => {
                    self.extended_fault = Some(WalkFault::TooMany {
                        limit: MAX_EXTENDED_CAPABILITIES as u16,
                    });
                    break;
                }
                Err(fault) => self.extended_fault = Some(fault),
            }
        }
    }

    /// Offset of the first conventional capability with this id.
    #[must_use]
    #[inline]
    pub fn offset_of(&self, id: u8) -> Option<u8> {
        if self.present >> (id % 64) & 1 == 0 {
            return None;
        }
        self.entries
            .iter()
            .find(|entry| entry.id == id)
            .map(|entry| entry.offset)
    }

    /// Offset of the first extended capability with this id.
    #[must_use]
    pub fn extended_offset_of(&self, id: u16) -> Option<u16> {
        self.extended
            .iter()
            .find(|entry| entry.id == id)
            .map(|entry| entry.offset)
    }

    /// The first conventional capability of a family, decoded; `Ok(None)` if there is none.
    ///
    /// # Errors
    /// There is one, and it breaks a rule.
    #[inline]
    pub fn find<T: Capability, C: ConfigSpace + ?Sized>(
        &self,
        cfg: &C,
        at: Sbdf,
    ) -> Result<Option<T>, CapabilityError> {
        match self.offset_of(T::ID) {
            Some(offset) => T::decode(cfg, at, offset).map(Some),
            None => Ok(None),
        }
    }

    /// The first extended capability of a family, decoded; `Ok(None)` if there is none.
    ///
    /// # Errors
    /// There is one, and it breaks a rule.
    pub fn find_extended<T: ExtendedCapability, C: ConfigSpace + ?Sized>(
        &self,
        cfg: &C,
        at: Sbdf,
    ) -> Result<Option<T>, CapabilityError> {
        self.extended_offset_of(T::ID)
            .map(|offset| T::decode(cfg, at, offset))
            .transpose()
    }
}
