//! [`AmdVi`]: the back end for AMD's IOMMUs, driven from here (AMD I/O
//! Virtualization Technology, 3.05).
//!
//! One device table for all units of the shard holds an entry for each requester
//! id of a segment, blocking from the start on: an entry that says nothing would
//! let its device through. A domain is a set of page tables that entries lead to, as
//! with [`crate::vtd`]; invalidations of a domain go to every unit, those of a
//! device to its own.
//!
//! Interrupts are remapped per device, by a table that its entry leads to, so no
//! source has to be compared: a device without one can send no message at all. The
//! I/O APIC and the HPET keep sending theirs as they are.
//!
//! Entries that are not present may be cached too (the capability that says so is
//! in configuration space, which is not this server's), so every new mapping is
//! announced. Devices keep no translations.
//!
//! [`commands`]: the command buffer. [`device_table`], [`interrupts`]: entries.
//! [`events`]: the event log. [`unit`]: registers and the start. `format`: page
//! tables. `operations` implements [`Backend`](crate::Backend).

mod adopt;
pub mod commands;
pub mod device_table;
pub mod events;
mod format;
pub mod interrupts;
mod operations;
pub mod unit;

use heapless::Vec;
use hw::{Mmio, Sbdf};
use ipc_proto::ClientId;
use system::info::{MAX_SCOPES, MAX_UNITS, Scope};
use system::model::MAX_CLIENTS;

use crate::TableMemory;
use crate::paging::AddressSpace;
use crate::place::Place;
use crate::tables::{Life, MAX_TABLE_PAGES, Meta, Page, Tables};
use crate::vtd::{Options, Remap};
use device_table::Messages;
use format::HostTables;
use interrupts::Interrupts;
use unit::{State, Unit, UnitError};

/// Most domains at a time.
pub const MAX_DOMAINS: usize = 64;
/// Tables that a domain may have at once; more come out of its owner's share as it grows.
const FIRST_TABLES: u32 = 8;

/// A unit to be driven.
pub struct UnitSetup<'s, M> {
    /// Its registers.
    pub window: M,
    /// Does it take all devices that no other unit names?
    pub include_all: bool,
    /// Devices that firmware names as its own, I/O APIC and HPET among them.
    pub scopes: &'s [Scope],
}

struct Domain {
    space: AddressSpace<HostTables>,
    owner: ClientId,
    devices: u16,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Usable,
    /// A unit may still hold something of it: never used again.
    Retired,
}

struct Entry<M> {
    unit: Unit<M>,
    include_all: bool,
}

/// Memory of the back end, too large for a stack.
pub struct Storage {
    meta: [Meta; MAX_TABLE_PAGES],
    domains: [Place<Domain>; MAX_DOMAINS],
    scopes: [Vec<Scope, MAX_SCOPES>; MAX_UNITS],
}

impl Storage {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            meta: [Meta::EMPTY; MAX_TABLE_PAGES],
            domains: [const { Place::Empty }; MAX_DOMAINS],
            scopes: [const { Vec::new() }; MAX_UNITS],
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::new()
    }
}

/// The AMD units of a shard.
pub struct AmdVi<'a, M, T> {
    units: Vec<Entry<M>, MAX_UNITS>,
    tables: Tables<'a, T>,
    domains: &'a mut [Place<Domain>; MAX_DOMAINS],
    scopes: &'a mut [Vec<Scope, MAX_SCOPES>; MAX_UNITS],
    segment: u16,
    /// First page of the device table; `None`: there was no memory for it, and no unit was touched.
    devices: Option<Page>,
    interrupts: Interrupts,
    /// What becomes of messages of devices without entries.
    messages: Messages,
    shares: [u32; MAX_CLIENTS],
}

impl<'a, M: Mmio, T: TableMemory> AmdVi<'a, M, T> {
    /// Takes the units of a segment over with all devices blocked. `memory` begins at physical address
    /// `tables_base` and needs 512 pages for the device table alone. Devices that have no domain are
    /// always blocked.
    pub fn start<'s>(
        storage: &'a mut Storage,
        memory: T,
        tables_base: u64,
        segment: u16,
        units: impl Iterator<Item = UnitSetup<'s, M>>,
        options: &Options,
    ) -> Self
    where
        M: 's,
    {
        let Storage {
            meta,
            domains,
            scopes,
        } = storage;
        let tables = Tables::new(memory, tables_base, meta);
        Self::begin(tables, domains, scopes, segment, units, options)
    }

    /// Takes up the units as an earlier life of the shard has left them; the same arguments as at the first start give the
    /// same places of tables. See [`crate::Adopt`] for what is to follow.
    pub fn adopt<'s>(
        storage: &'a mut Storage,
        memory: T,
        tables_base: u64,
        segment: u16,
        units: impl Iterator<Item = UnitSetup<'s, M>>,
        options: &Options,
    ) -> Self
    where
        M: 's,
    {
        let Storage {
            meta,
            domains,
            scopes,
        } = storage;
        let tables = Tables::again(memory, tables_base, meta);
        let mut this = Self::begin(tables, domains, scopes, segment, units, options);
        this.tables.close();
        this
    }

    /// Each step takes its tables in the same order at every start.
    fn begin<'s>(
        tables: Tables<'a, T>,
        domains: &'a mut [Place<Domain>; MAX_DOMAINS],
        all_scopes: &'a mut [Vec<Scope, MAX_SCOPES>; MAX_UNITS],
        segment: u16,
        units: impl Iterator<Item = UnitSetup<'s, M>>,
        options: &Options,
    ) -> Self
    where
        M: 's,
    {
        let life = tables.life();
        let mut this = Self {
            units: Vec::new(),
            tables,
            domains,
            scopes: all_scopes,
            segment,
            devices: None,
            interrupts: Interrupts::new(),
            messages: Messages::Refused,
            shares: [0; MAX_CLIENTS],
        };
        let Ok(devices) = this.tables.take_row(device_table::PAGES) else {
            return this;
        };
        this.devices = Some(devices);
        let messages = match options.remap {
            Remap::WherePossible => {
                this.interrupts.open(&mut this.tables);
                Messages::Refused
            }
            Remap::Nowhere => Messages::Pass,
        };
        this.messages = messages;
        if life == Life::First {
            device_table::block_all(&mut this.tables, devices, messages);
        }
        let mut setups: Vec<UnitSetup<'s, M>, MAX_UNITS> = Vec::new();
        for (scopes, setup) in this.scopes.iter_mut().zip(units) {
            scopes.clear();
            let known = setup.scopes.get(..MAX_SCOPES).unwrap_or(setup.scopes);
            let _ = scopes.extend_from_slice(known);
            for scope in known {
                if let Scope::IoApic { requester, .. } | Scope::Hpet { requester, .. } = scope {
                    device_table::pass_messages(&mut this.tables, devices, *requester);
                }
            }
            // There are as many places for scopes.
            let _ = setups.push(setup);
        }
        for setup in setups {
            let unit = match life {
                Life::First => Unit::start(setup.window, &mut this.tables, devices),
                Life::Again => Unit::adopt(setup.window, &mut this.tables, devices),
            };
            let _ = this.units.push(Entry {
                unit,
                include_all: setup.include_all,
            });
        }
        let left = this.tables.pages().saturating_sub(this.tables.used());
        let share = (left / options.clients.max(1) as u32).max(FIRST_TABLES);
        for rest in this.shares.iter_mut().take(options.clients) {
            *rest = share;
        }
        this
    }

    /// How unit `unit` is; `None` past the last.
    pub fn report(&self, unit: usize) -> Option<State> {
        if self.devices.is_none() {
            return Some(State::Failed(UnitError::Tables));
        }
        self.units.get(unit).map(|entry| entry.unit.state())
    }
}

fn find_domain(
    domains: &mut [Place<Domain>; MAX_DOMAINS],
    domain: crate::DomainId,
) -> Option<&mut Domain> {
    // Domain n is in place n - 1: id 0 is that of blocked devices.
    domains
        .get_mut(usize::from(domain.0).checked_sub(1)?)?
        .as_mut()
}

/// Whether a scope names a device: itself 0, its bus 1.
fn names(scope: &Scope, device: Sbdf) -> Option<u8> {
    match *scope {
        Scope::Function(id) => (id == device.requester_id()).then_some(0),
        Scope::Buses(first, last) => (first..=last).contains(&device.bus()).then_some(1),
        Scope::IoApic { .. } | Scope::Hpet { .. } => None,
    }
}
