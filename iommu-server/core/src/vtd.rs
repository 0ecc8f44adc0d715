//! [`Vtd`]: the back end for Intel VT-d units, driven from here (the kernel's
//! own driver is off). Legacy mode, second-level translation, queued
//! invalidation (specification revision 3.0).
//!
//! One domain serves all devices of a client, on every unit of the shard: its
//! id and its page tables are the same on each, and an invalidation goes to
//! those units that have a device of it. Id 0 is never used: with caching mode
//! units file entries that are not present under it.
//!
//! `operations` implements [`Backend`](crate::Backend), `forget` tells units and
//! devices what they may not use any more, `start` takes the units over.
//! [`registers`], [`capability`]: what the hardware says. [`unit`], [`queue`],
//! [`context`], [`interrupt`], [`fault`]: driving it. [`crate::tables`], [`crate::paging`]: its memory.
//!
//! Devices may keep translations (ATS) where the unit supports it and the caller
//! asks for it. Page requests (PRI) are refused: no entry enables them, no
//! queue is set up for them, and a unit answers "response failure" then (7.5.1).

mod adopt;
pub mod capability;
pub mod context;
pub mod fault;
mod forget;
mod format;
pub mod interrupt;
mod operations;
pub mod queue;
pub mod registers;
mod start;
pub mod unit;

use heapless::Vec;
use hw::{Mmio, Sbdf};
use ipc_proto::{Access, ClientId};
use system::info::{MAX_SCOPES, MAX_UNITS, Scope};
use system::model::MAX_CLIENTS;

use crate::TableMemory;
use crate::backend::{BackendError, DomainId, Extent};
use crate::paging::AddressSpace;
use crate::place::Place;
use crate::tables::{MAX_TABLE_PAGES, Meta, Page, Tables};
use capability::{Capabilities, Geometry};
use forget::{Forget, tell};
use format::SecondLevel;
use interrupt::Remapper;
use unit::{Remapping, State, Unit, UnitError};

pub use start::{Options, Quarantine, Remap, UnitSetup};

/// Most domains at a time.
pub const MAX_DOMAINS: usize = 64;

/// Most devices of a domain that may keep translations; others are attached without.
pub const MAX_CACHING: usize = 8;

/// Tables that a domain may have at once; more come out of its owner's share as it grows.
const FIRST_TABLES: u32 = 8;

/// Memory of the back end, too large for a stack.
pub struct Storage {
    meta: [Meta; MAX_TABLE_PAGES],
    domains: [Place<Domain>; MAX_DOMAINS],
    remappers: [Remapper; MAX_UNITS],
    scopes: [Vec<Scope, MAX_SCOPES>; MAX_UNITS],
}

impl Storage {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            meta: [Meta::EMPTY; MAX_TABLE_PAGES],
            domains: [const { Place::Empty }; MAX_DOMAINS],
            remappers: [const { Remapper::new() }; MAX_UNITS],
            scopes: [const { Vec::new() }; MAX_UNITS],
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::new()
    }
}

struct Domain {
    space: AddressSpace<SecondLevel>,
    owner: ClientId,
    /// Devices attached, by unit.
    attached: [u16; MAX_UNITS],
    /// Those of them that may keep translations.
    caching: Vec<Caching, MAX_CACHING>,
    fate: Fate,
}

/// A device that may keep translations.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Caching {
    unit: u8,
    device: Sbdf,
    /// Depth of its invalidate queue.
    depth: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Usable,
    /// A unit may still hold something of it: never used again.
    Retired,
}

enum Slot<M> {
    Driven(Unit<M>),
    /// Not even its tables could be set up; nothing confines the devices behind it.
    Dead(UnitError),
}

struct Entry<M> {
    slot: Slot<M>,
    segment: u16,
    include_all: bool,
}

/// What became of a unit at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// What it can do, if it said something sensible.
    pub capabilities: Option<Capabilities>,
    /// Whether it runs.
    pub state: State,
    /// What becomes of interrupt messages.
    pub remapping: Remapping,
}

/// The VT-d units of a shard.
pub struct Vtd<'a, M, T> {
    units: Vec<Entry<M>, MAX_UNITS>,
    tables: Tables<'a, T>,
    domains: &'a mut [Place<Domain>; MAX_DOMAINS],
    remappers: &'a mut [Remapper; MAX_UNITS],
    scopes: &'a mut [Vec<Scope, MAX_SCOPES>; MAX_UNITS],
    geometry: Option<Geometry>,
    /// Tables that each client may still have.
    shares: [u32; MAX_CLIENTS],
    /// Where devices without a domain are, if not blocked: the scratch tables and their domain id.
    scratch: Option<(Page, u16)>,
    /// Devices that did not answer, not yet told to the caller.
    silent: Vec<Sbdf, MAX_CACHING>,
    /// Some unit must hear of new mappings (caching mode, write buffer).
    tells_on_map: bool,
}

impl<'a, M: Mmio, T: TableMemory> Vtd<'a, M, T> {
    /// How unit `unit` is; `None` past the last.
    pub fn report(&self, unit: usize) -> Option<Report> {
        Some(match &self.units.get(unit)?.slot {
            Slot::Driven(unit) => Report {
                capabilities: Some(*unit.capabilities()),
                state: unit.state(),
                remapping: unit.remapping(),
            },
            Slot::Dead(error) => Report {
                capabilities: None,
                state: State::Failed(*error),
                remapping: Remapping::Off,
            },
        })
    }

    /// Shape of the page tables, if there is one that every unit understands.
    pub fn geometry(&self) -> Option<Geometry> {
        self.geometry
    }

    /// The memory behind the tables, to look at.
    pub fn tables(&self) -> &Tables<'a, T> {
        &self.tables
    }

    fn domain(&mut self, domain: DomainId) -> Result<&mut Domain, BackendError> {
        find_domain(self.domains, domain).ok_or(BackendError::NoDomain)
    }

    /// [`tell`]s the units about a domain.
    #[inline(never)]
    fn forget(&mut self, domain: DomainId, what: Forget) -> Result<(), BackendError> {
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        tell(&mut self.units, &mut self.tables, found, domain, what)
    }

    /// Takes empty tables of the domain back. `false` when there was none.
    fn reclaim(&mut self, domain: DomainId) -> Result<bool, BackendError> {
        let Some(found) = find_domain(self.domains, domain) else {
            return Err(BackendError::NoDomain);
        };
        found.space.prune(&mut self.tables);
        if !found.space.in_limbo() {
            return Ok(false);
        }
        self.forget(domain, Forget::All)?;
        if let Some(found) = find_domain(self.domains, domain) {
            found.space.release_limbo(&mut self.tables);
        }
        Ok(true)
    }

    /// Lets a domain have as many more tables as a mapping of these extents may need, out of its owner's
    /// share. `false` when nothing is left of that.
    fn grow(&mut self, domain: DomainId, extents: &[Extent]) -> Result<bool, BackendError> {
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        let share = self.shares.get_mut(usize::from(found.owner.0));
        let Some(share) = share.filter(|share| **share > 0) else {
            return Ok(false);
        };
        // A table of each level for each end of an extent, and one for each 2 MiB.
        let wanted = extents.iter().fold(0u64, |sum, extent| {
            sum.saturating_add(8 + (extent.bytes >> 21))
        });
        let granted = u64::from(*share).min(wanted) as u32;
        *share -= granted;
        found.space.allow(granted);
        Ok(true)
    }

    /// Maps once more when the tables did not suffice: the owner's share may have more, or empty ones
    /// elsewhere in the domain may make room.
    #[cold]
    fn map_after_growth(
        &mut self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), BackendError> {
        for step in 0..2 {
            let room = match step {
                0 => self.grow(domain, extents)?,
                _ => matches!(self.reclaim(domain), Ok(true)),
            };
            if !room {
                continue;
            }
            let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
            let mapped = found.space.map(&mut self.tables, iova, extents, access);
            if mapped.is_ok() {
                return Ok(());
            }
        }
        Err(BackendError::TablesExhausted)
    }

    /// Makes the units see a new mapping: those that cached that there was none, those behind a write
    /// buffer, and all when large leaves took the place of empty tables.
    #[inline(never)]
    fn tell_of_new(
        &mut self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
    ) -> Result<(), BackendError> {
        let bytes = extents
            .iter()
            .fold(0u64, |sum, extent| sum.saturating_add(extent.bytes));
        let mut told = self.forget(domain, Forget::NewRange { iova, bytes });
        if told.is_ok() && self.domain(domain)?.space.in_limbo() {
            told = self.forget(domain, Forget::All);
        }
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        if told.is_ok() {
            found.space.release_limbo(&mut self.tables);
        } else {
            found.space.unmap(&mut self.tables, iova, bytes);
        }
        told
    }
}

fn find_domain(
    domains: &mut [Place<Domain>; MAX_DOMAINS],
    domain: DomainId,
) -> Option<&mut Domain> {
    // Domain n is in place n - 1: there is no domain 0.
    domains
        .get_mut(usize::from(domain.0).checked_sub(1)?)?
        .as_mut()
}
