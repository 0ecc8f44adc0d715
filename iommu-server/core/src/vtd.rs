//! [`Vtd`]: the back end for Intel VT-d units, driven from here (the kernel's
//! own driver is off). Legacy mode, second-level translation, queued
//! invalidation (specification revision 3.0).
//!
//! One domain serves all devices of a client, on every unit of the shard: its
//! id and its page tables are the same on each, and an invalidation goes to
//! those units that have a device of it. Id 0 is never used: with caching mode
//! units file entries that are not present under it.
//!
//! `operations` implements [`Backend`](crate::Backend).
//! [`registers`], [`capability`]: what the hardware says. [`unit`], [`queue`],
//! [`context`], [`fault`]: driving it. [`tables`], [`paging`]: its memory.

pub mod capability;
pub mod context;
pub mod fault;
mod operations;
pub mod paging;
pub mod queue;
pub mod registers;
pub mod tables;
pub mod unit;

use heapless::Vec;
use hw::Mmio;
use ipc_proto::Access;
use system::info::MAX_UNITS;

use crate::TableMemory;
use crate::backend::{BackendError, DomainId, Extent};
use crate::place::Place;
use capability::{Capabilities, Geometry};
use paging::AddressSpace;
use queue::{Changed, Invalidate};
use tables::{Exhausted, MAX_TABLE_PAGES, Meta, Page, Tables};
use unit::{FaultMessage, State, Unit, UnitError};

/// Most domains at a time.
pub const MAX_DOMAINS: usize = 64;

/// A domain may have at least so many tables, however many clients share the pool.
const MIN_TABLES_A_DOMAIN: u32 = 8;

/// Memory of the back end, too large for a stack.
pub struct Storage {
    meta: [Meta; MAX_TABLE_PAGES],
    domains: [Place<Domain>; MAX_DOMAINS],
}

impl Storage {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            meta: [Meta::EMPTY; MAX_TABLE_PAGES],
            domains: [const { Place::Empty }; MAX_DOMAINS],
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::new()
    }
}

/// A unit to be driven.
pub struct UnitSetup<M> {
    /// Its registers.
    pub window: M,
    /// PCI segment of its devices.
    pub segment: u16,
    /// Does it take all devices that no other unit names?
    pub include_all: bool,
    /// Message of its fault event.
    pub message: FaultMessage,
}

struct Domain {
    space: AddressSpace,
    /// Devices attached, by unit.
    attached: [u16; MAX_UNITS],
    fate: Fate,
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
}

/// The VT-d units of a shard.
pub struct Vtd<'a, M, T> {
    units: Vec<Entry<M>, MAX_UNITS>,
    tables: Tables<'a, T>,
    domains: &'a mut [Place<Domain>; MAX_DOMAINS],
    geometry: Option<Geometry>,
    tables_a_domain: u32,
    /// Some unit must hear of new mappings (caching mode, write buffer).
    tells_on_map: bool,
}

impl<'a, M: Mmio, T: TableMemory> Vtd<'a, M, T> {
    /// Takes over every unit with all devices blocked. `memory` begins at physical address
    /// `tables_base`; `clients` share its tables. Units beyond [`MAX_UNITS`] are left alone.
    ///
    /// A unit that fails does not stop the others; see [`Self::report`].
    pub fn start(
        storage: &'a mut Storage,
        memory: T,
        tables_base: u64,
        units: impl Iterator<Item = UnitSetup<M>>,
        clients: usize,
    ) -> Self {
        let mut tables = Tables::new(memory, tables_base, &mut storage.meta);
        let mut probed: Vec<_, MAX_UNITS> = Vec::new();
        for setup in units.take(MAX_UNITS) {
            let found = Unit::probe(setup.window);
            // Room is certain: the iterator was cut to it.
            let _ = probed.push((found, setup.segment, setup.include_all, setup.message));
        }
        let usable = probed
            .iter()
            .filter_map(|(found, ..)| found.as_ref().ok().map(|(_, capabilities)| capabilities));
        let geometry = Geometry::common(usable);
        tables.set_coherent(geometry.is_some_and(|geometry| geometry.coherent));
        let status = tables.take();
        let mut this = Self {
            units: Vec::new(),
            tables,
            domains: &mut storage.domains,
            geometry,
            tables_a_domain: 0,
            tells_on_map: false,
        };
        for (number, (found, segment, include_all, message)) in probed.into_iter().enumerate() {
            let slot = match (found, status) {
                (Err(unusable), _) => Slot::Dead(UnitError::Unusable(unusable)),
                (Ok(_), Err(exhausted)) => Slot::Dead(exhausted.into()),
                (Ok((registers, capabilities)), Ok(page)) => {
                    this.start_unit(registers, capabilities, (page, number as u16 * 8), message)
                }
            };
            let _ = this.units.push(Entry {
                slot,
                segment,
                include_all,
            });
        }
        // Context tables need up to one page a bus; the rest is shared evenly, so that no client
        // can take another's tables.
        let left = this.tables.pages().saturating_sub(this.tables.used());
        let for_domains = left.saturating_sub((left / 8).min(256));
        this.tables_a_domain = (for_domains / clients.max(1) as u32).max(MIN_TABLES_A_DOMAIN);
        this
    }

    fn start_unit(
        &mut self,
        registers: registers::Registers<M>,
        capabilities: Capabilities,
        status: (Page, u16),
        message: FaultMessage,
    ) -> Slot<M> {
        self.tells_on_map |= capabilities.caching_mode || capabilities.write_buffer;
        match Unit::start(registers, capabilities, &mut self.tables, status, message) {
            Err(exhausted) => Slot::Dead(exhausted.into()),
            Ok(mut unit) => {
                if self.geometry.is_none() {
                    // It blocks everything, but no tables can be made that all units understand.
                    unit.distrust(UnitError::NoCommonLevels);
                }
                Slot::Driven(unit)
            }
        }
    }

    /// How unit `unit` is; `None` past the last.
    pub fn report(&self, unit: usize) -> Option<Report> {
        Some(match &self.units.get(unit)?.slot {
            Slot::Driven(unit) => Report {
                capabilities: Some(*unit.capabilities()),
                state: unit.state(),
            },
            Slot::Dead(error) => Report {
                capabilities: None,
                state: State::Failed(*error),
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

    /// Maps once more when the tables did not suffice: empty ones elsewhere in the domain may make room.
    #[cold]
    fn map_after_reclaim(
        &mut self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), BackendError> {
        if !matches!(self.reclaim(domain), Ok(true)) {
            return Err(BackendError::TablesExhausted);
        }
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        found
            .space
            .map(&mut self.tables, iova, extents, access)
            .map_err(|Exhausted| BackendError::TablesExhausted)
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

/// What units are to forget of a domain.
#[derive(Clone, Copy)]
enum Forget {
    /// That these addresses had no translation.
    NewRange { iova: u64, bytes: u64 },
    /// The translations of these addresses.
    OldRange { iova: u64, bytes: u64 },
    /// Everything, pointers to tables too.
    All,
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

/// Tells the units that have devices of the domain to forget part of it, and waits.
#[inline(always)]
fn tell<M: Mmio, T: TableMemory>(
    units: &mut [Entry<M>],
    tables: &mut Tables<'_, T>,
    found: &Domain,
    domain: DomainId,
    what: Forget,
) -> Result<(), BackendError> {
    let mut outcome = Ok(());
    for (number, entry) in units.iter_mut().enumerate() {
        let attached = found.attached.get(number).is_some_and(|count| *count > 0);
        let Slot::Driven(unit) = &mut entry.slot else {
            continue;
        };
        if !attached {
            continue;
        }
        let capabilities = unit.capabilities();
        let request = match what {
            Forget::NewRange { .. } if !capabilities.caching_mode => {
                // Nothing is cached of entries that were not present, but the new ones may sit in
                // the chipset's write buffer.
                if unit.flush_write_buffer().is_err() {
                    outcome = Err(BackendError::Unconfirmed);
                }
                continue;
            }
            Forget::NewRange { iova, bytes } => {
                pages(capabilities, domain.0, iova, bytes, Changed::Tables)
            }
            Forget::OldRange { iova, bytes } => {
                pages(capabilities, domain.0, iova, bytes, Changed::Leaves)
            }
            Forget::All => Invalidate::Domain { domain: domain.0 },
        };
        if unit.flush_write_buffer().is_err() || unit.run(tables, &[request]).is_err() {
            outcome = Err(BackendError::Unconfirmed);
        }
    }
    outcome
}

/// The smallest invalidation that covers the range: one naturally aligned block of pages, since
/// forgetting too much only costs time; the whole domain where the unit has nothing finer.
fn pages(
    capabilities: &Capabilities,
    domain: u16,
    iova: u64,
    bytes: u64,
    changed: Changed,
) -> Invalidate {
    let first = iova >> 12;
    let last = iova.wrapping_add(bytes).wrapping_sub(1) >> 12;
    let mask = (u64::BITS - (first ^ last).leading_zeros()) as u8;
    match capabilities.page_selective {
        Some(largest) if mask <= largest => Invalidate::Pages {
            domain,
            iova: iova & (u64::MAX << (12 + u32::from(mask))),
            mask,
            changed,
        },
        _ => Invalidate::Domain { domain },
    }
}
