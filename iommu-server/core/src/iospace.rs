//! [`IoSpaces`]: the back end over the kernel's own IOMMU driver. The kernel
//! keeps tables for each requester and checks every mapping; the server holds
//! one *I/O space* capability a requester and maps frames of buffers into it.
//!
//! What that means, against [`crate::vtd`]:
//! - A table serves one requester, so a domain is a list of mappings that is
//!   carried out in the space of each of its devices.
//! - A frame's capability can be mapped once, so each page mapped for each device
//!   takes a copy in a slot of the back end's own.
//! - Pages are 4 KiB, addresses 39 bits. Regions that firmware reserved cannot be
//!   mapped: there are no frames of them.
//! - Interrupts are not remapped; faults are printed by the kernel and reported
//!   to nobody; devices keep no translations.
//!
//! A device is blocked when nothing is mapped in its space. Its tables stay: the
//! kernel's own way of taking a top table away is not to be relied on in every
//! version (`docs/kernels.md`), and an empty table lets nothing through. Unmapping
//! a page makes the kernel invalidate it before the call returns.
//!
//! Neighbours: [`Spaces`] is the kernel; slots come out of a pool that nobody
//! else uses.

mod operations;

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::{Access, ClientId};
use system::model::MAX_CLIENTS;

use crate::Slot;
use crate::backend::{BackendError, DomainId, Extent};
use crate::buffers::MAX_BLOCKS;
use crate::env::EffectError;
use crate::pool::Slots;

/// Most requesters that ever had a space: a space is never given back.
pub const MAX_SPACES: usize = 64;
/// Most domains at a time.
pub const MAX_SPACE_DOMAINS: usize = 64;
/// Most mappings at a time, over all domains.
pub const MAX_SPACE_MAPPINGS: usize = 512;
/// Most times a mapping is carried out for a device at a time.
pub const MAX_PLACED: usize = 1024;

/// Addresses are below 2^39: three levels of tables, whatever the unit has (seL4 `iospace.c`).
const ADDRESS_BITS: u32 = 39;
const PAGE_BITS: u8 = 12;
/// Tables that the walk to a page may lack.
const LEVELS: usize = 3;

/// Why the kernel did not map a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaceError {
    /// A table is missing on the way.
    NoTable,
    /// The kernel refused.
    Refused(EffectError),
}

/// The kernel's I/O spaces. Every method does its whole effect or none.
pub trait Spaces {
    /// Makes the one capability of a requester's space in `into`. Called once for a requester, ever.
    ///
    /// # Errors
    /// The kernel's: it drives no unit, or none that takes the requester.
    fn open(&mut self, requester: Sbdf, into: Slot) -> Result<(), EffectError>;

    /// Hangs the next table that is missing on the way to `iova` into a space, with its capability in `into`.
    ///
    /// # Errors
    /// The kernel's; no memory for tables is left.
    fn add_table(&mut self, space: Slot, iova: u64, into: Slot) -> Result<(), EffectError>;

    /// Copies a frame's capability to `copy` and maps that at `iova`.
    ///
    /// # Errors
    /// See [`PlaceError`].
    fn place(
        &mut self,
        space: Slot,
        frame: Slot,
        copy: Slot,
        iova: u64,
        access: Access,
    ) -> Result<(), PlaceError>;

    /// Unmaps a page and deletes the copy; the unit has forgotten the page then.
    ///
    /// # Errors
    /// The kernel's; the page may be mapped still.
    fn take_away(&mut self, copy: Slot) -> Result<(), EffectError>;
}

/// Whether a device's mappings are carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Served,
    Silenced,
}

#[derive(Clone, Copy, Debug)]
struct Space {
    requester: Sbdf,
    slot: Slot,
    domain: Option<DomainId>,
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Free,
    Used(ClientId),
    /// The kernel refused to take something away: never used again.
    Retired,
}

#[derive(Clone, Debug)]
struct Mapping {
    domain: DomainId,
    iova: u64,
    access: Access,
    extents: Vec<Extent, MAX_BLOCKS>,
}

/// A mapping carried out for a device: copies in `first`...
#[derive(Clone, Copy, Debug)]
struct Placed {
    requester: Sbdf,
    iova: u64,
    first: Slot,
    pages: u32,
}

/// Memory of the back end, too large for a stack.
pub struct Storage {
    spaces: Vec<Space, MAX_SPACES>,
    domains: [Life; MAX_SPACE_DOMAINS],
    mappings: Vec<Mapping, MAX_SPACE_MAPPINGS>,
    placed: Vec<Placed, MAX_PLACED>,
}

impl Storage {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            spaces: Vec::new(),
            domains: [Life::Free; MAX_SPACE_DOMAINS],
            mappings: Vec::new(),
            placed: Vec::new(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::new()
    }
}

/// The back end.
pub struct IoSpaces<'a, S> {
    kernel: S,
    slots: &'a mut Slots,
    storage: &'a mut Storage,
    domains_a_client: usize,
}

impl<'a, S: Spaces> IoSpaces<'a, S> {
    /// A back end over the kernel's spaces, with slots of its own.
    pub fn new(kernel: S, storage: &'a mut Storage, slots: &'a mut Slots, clients: usize) -> Self {
        Self {
            kernel,
            slots,
            storage,
            domains_a_client: (MAX_SPACE_DOMAINS / clients.clamp(1, MAX_CLIENTS)).max(2),
        }
    }

    fn life(&mut self, domain: DomainId) -> Result<&mut Life, BackendError> {
        let place = usize::from(domain.0).wrapping_sub(1);
        match self.storage.domains.get_mut(place) {
            Some(life) if *life != Life::Free => Ok(life),
            _ => Err(BackendError::NoDomain),
        }
    }

    fn space(&mut self, requester: Sbdf) -> Result<usize, BackendError> {
        let known = |space: &Space| space.requester == requester;
        if let Some(place) = self.storage.spaces.iter().position(known) {
            return Ok(place);
        }
        if self.storage.spaces.is_full() {
            return Err(BackendError::NoUnit);
        }
        let slot = self.slots.take().ok_or(BackendError::TablesExhausted)?;
        if self.kernel.open(requester, slot).is_err() {
            let _ = self.slots.give(slot);
            return Err(BackendError::NoUnit);
        }
        let _ = self.storage.spaces.push(Space {
            requester,
            slot,
            domain: None,
            standing: Standing::Served,
        });
        Ok(self.storage.spaces.len() - 1)
    }

    /// Carries mapping number `mapping` out for the device in `place`, or nothing of it.
    fn carry_out(&mut self, place: usize, mapping: usize) -> Result<(), BackendError> {
        let (Some(space), Some(mapping)) = (
            self.storage.spaces.get_mut(place),
            self.storage.mappings.get(mapping),
        ) else {
            return Err(BackendError::NoDomain);
        };
        let pages = pages_of(&mapping.extents);
        if self.storage.placed.is_full() {
            return Err(BackendError::TablesExhausted);
        }
        let first = self.slots.take_run(pages, 1);
        let first = first.ok_or(BackendError::TablesExhausted)?;
        let frames = mapping
            .extents
            .iter()
            .flat_map(|extent| extent.frames..extent.frames + pages_of_one(extent));
        for (done, frame) in (0..pages).zip(frames) {
            let copy = first + done;
            let iova = mapping.iova + (u64::from(done) << PAGE_BITS);
            let outcome = place_page(
                &mut self.kernel,
                self.slots,
                space,
                (frame, copy),
                iova,
                mapping.access,
            );
            if let Err(error) = outcome {
                let undone = take_pages(&mut self.kernel, first, done);
                if undone.is_ok() {
                    let _ = self.slots.give_run(first, pages);
                    return Err(error);
                }
                return Err(BackendError::Unconfirmed);
            }
        }
        // There is room: it was checked.
        let _ = self.storage.placed.push(Placed {
            requester: space.requester,
            iova: mapping.iova,
            first,
            pages,
        });
        Ok(())
    }

    /// Takes everything away that was carried out and passes the test, tries all.
    fn take_where(&mut self, test: impl Fn(&Placed) -> bool) -> Result<(), BackendError> {
        let mut outcome = Ok(());
        let mut place = 0;
        while let Some(placed) = self.storage.placed.get(place).copied() {
            if !test(&placed) {
                place += 1;
                continue;
            }
            if take_pages(&mut self.kernel, placed.first, placed.pages).is_ok() {
                let _ = self.slots.give_run(placed.first, placed.pages);
            } else {
                // The slots are not used again, and neither is the memory.
                outcome = Err(BackendError::Unconfirmed);
            }
            self.storage.placed.swap_remove(place);
        }
        outcome
    }

    fn mapping_at(&self, domain: DomainId, iova: u64) -> Option<usize> {
        let here = |mapping: &Mapping| mapping.domain == domain && mapping.iova == iova;
        self.storage.mappings.iter().position(here)
    }

    fn member(&self, device: Sbdf, domain: DomainId) -> Result<usize, BackendError> {
        let of = |space: &Space| space.requester == device && space.domain == Some(domain);
        let place = self.storage.spaces.iter().position(of);
        place.ok_or(BackendError::NoDomain)
    }

    fn retire(&mut self, domain: DomainId) {
        if let Ok(life) = self.life(domain) {
            *life = Life::Retired;
        }
    }
}

/// Maps one page, with the tables that it lacks.
fn place_page<S: Spaces>(
    kernel: &mut S,
    slots: &mut Slots,
    space: &mut Space,
    (frame, copy): (Slot, Slot),
    iova: u64,
    access: Access,
) -> Result<(), BackendError> {
    for _ in 0..=LEVELS {
        match kernel.place(space.slot, frame, copy, iova, access) {
            Ok(()) => return Ok(()),
            Err(PlaceError::Refused(_)) => return Err(BackendError::Cannot),
            Err(PlaceError::NoTable) => {
                let table = slots.take().ok_or(BackendError::TablesExhausted)?;
                if kernel.add_table(space.slot, iova, table).is_err() {
                    let _ = slots.give(table);
                    return Err(BackendError::TablesExhausted);
                }
            }
        }
    }
    Err(BackendError::Cannot)
}

/// Takes `count` pages away, the last first, tries all.
fn take_pages<S: Spaces>(kernel: &mut S, first: Slot, count: u32) -> Result<(), EffectError> {
    let mut outcome = Ok(());
    for copy in (first..first + count).rev() {
        outcome = outcome.and(kernel.take_away(copy));
    }
    outcome
}

fn pages_of_one(extent: &Extent) -> u32 {
    (extent.bytes >> PAGE_BITS) as u32
}

fn pages_of(extents: &[Extent]) -> u32 {
    extents.iter().map(pages_of_one).sum()
}
