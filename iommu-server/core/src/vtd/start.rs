//! Taking the units of a shard over: what each can do, what they have in
//! common, the memory for their tables.

use heapless::Vec;
use hw::Mmio;
use system::info::{MAX_SCOPES, MAX_UNITS, Scope};
use system::model::MAX_CLIENTS;

use super::capability::{Capabilities, Geometry};
use super::registers::Registers;
use super::unit::{FaultMessage, Start, Unit, UnitError};
use super::{Domain, Entry, MAX_DOMAINS, Remapper, Slot, Storage, Vtd, format, interrupt};
use crate::TableMemory;
use crate::place::Place;
use crate::tables::{Life, Page, Tables};

/// A client may have at least so many tables, however many share the pool.
const MIN_TABLES_A_CLIENT: u32 = 8;

/// A unit to be driven.
pub struct UnitSetup<'s, M> {
    /// Its registers.
    pub window: M,
    /// PCI segment of its devices.
    pub segment: u16,
    /// Does it take all devices that no other unit names?
    pub include_all: bool,
    /// Devices that firmware names as its own.
    pub scopes: &'s [Scope],
    /// Message of its fault event.
    pub message: FaultMessage,
}

/// How the units of a shard are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Remap interrupts where a unit can.
    pub remap: Remap,
    /// What a device without a domain reaches.
    pub quarantine: Quarantine,
    /// Clients that share the memory of tables.
    pub clients: usize,
}

/// Whether interrupts are remapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remap {
    /// Where a unit can.
    WherePossible,
    /// Nowhere.
    Nowhere,
}

/// What a device that was taken out of its domain reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quarantine {
    /// Nothing.
    Blocking,
    /// Reads give zeros, writes reach nothing: for devices that hang when a read of theirs is refused. A
    /// device that never was in a domain, or was silenced, is blocked all the same.
    Scratch,
}

impl<'a, M: Mmio, T: TableMemory> Vtd<'a, M, T> {
    /// Takes over every unit with all devices blocked. `memory` begins at physical address
    /// `tables_base`. Units beyond [`MAX_UNITS`] are left alone.
    ///
    /// A unit that fails does not stop the others; see [`Self::report`].
    pub fn start<'s>(
        storage: &'a mut Storage,
        memory: T,
        tables_base: u64,
        units: impl Iterator<Item = UnitSetup<'s, M>>,
        options: &Options,
    ) -> Self
    where
        M: 's,
    {
        let Storage {
            meta,
            domains,
            remappers,
            scopes,
        } = storage;
        let tables = Tables::new(memory, tables_base, meta);
        Self::begin(tables, domains, remappers, scopes, units, options)
    }

    /// Takes up every unit as an earlier life of the shard has left it; the same arguments as at the first start give the
    /// same places of tables. See [`crate::Adopt`] for what is to follow.
    pub fn adopt<'s>(
        storage: &'a mut Storage,
        memory: T,
        tables_base: u64,
        units: impl Iterator<Item = UnitSetup<'s, M>>,
        options: &Options,
    ) -> Self
    where
        M: 's,
    {
        let Storage {
            meta,
            domains,
            remappers,
            scopes,
        } = storage;
        let tables = Tables::again(memory, tables_base, meta);
        let mut this = Self::begin(tables, domains, remappers, scopes, units, options);
        this.tables.close();
        this.claim_contexts();
        this
    }

    /// Each step takes its tables in the same order at every start.
    fn begin<'s>(
        mut tables: Tables<'a, T>,
        domains: &'a mut [Place<Domain>; MAX_DOMAINS],
        remappers: &'a mut [Remapper; MAX_UNITS],
        all_scopes: &'a mut [Vec<Scope, MAX_SCOPES>; MAX_UNITS],
        units: impl Iterator<Item = UnitSetup<'s, M>>,
        options: &Options,
    ) -> Self
    where
        M: 's,
    {
        let mut probed: Vec<_, MAX_UNITS> = Vec::new();
        for (scopes, setup) in all_scopes.iter_mut().zip(units) {
            // A scope too many is a device that goes to the unit which takes the rest, if one does.
            scopes.clear();
            let known = setup.scopes.get(..MAX_SCOPES).unwrap_or(setup.scopes);
            let _ = scopes.extend_from_slice(known);
            let found = Unit::probe(setup.window);
            // Room is certain: there are as many places for scopes.
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
            domains,
            remappers,
            scopes: all_scopes,
            geometry,
            shares: [0; MAX_CLIENTS],
            scratch: None,
            silent: Vec::new(),
            tells_on_map: false,
        };
        for (number, (found, segment, include_all, message)) in probed.into_iter().enumerate() {
            let slot = match (found, status) {
                (Err(unusable), _) => Slot::Dead(UnitError::Unusable(unusable)),
                (Ok(_), Err(exhausted)) => Slot::Dead(exhausted.into()),
                (Ok((registers, capabilities)), Ok(page)) => {
                    let start = Start {
                        status: (page, number as u16 * 8),
                        interrupts: this.interrupt_table(number, &capabilities, options.remap),
                        message,
                    };
                    this.start_unit(registers, capabilities, &start)
                }
            };
            let _ = this.units.push(Entry {
                slot,
                segment,
                include_all,
            });
        }
        if options.quarantine == Quarantine::Scratch {
            this.scratch = this.make_scratch();
        }
        this.share_tables(options.clients);
        this
    }

    /// Shares the memory of tables out. Context tables need up to one page a bus; the rest is shared
    /// evenly, so that no client can take another's tables.
    fn share_tables(&mut self, clients: usize) {
        let left = self.tables.pages().saturating_sub(self.tables.used());
        let for_domains = left.saturating_sub((left / 8).min(256));
        let share = (for_domains / clients.max(1) as u32).max(MIN_TABLES_A_CLIENT);
        for rest in self.shares.iter_mut().take(clients) {
            *rest = share;
        }
    }

    /// An empty interrupt remapping table for unit `number`, if it is to have one.
    fn interrupt_table(
        &mut self,
        number: usize,
        capabilities: &Capabilities,
        remap: Remap,
    ) -> Option<Page> {
        if remap == Remap::Nowhere || !capabilities.interrupt_remapping {
            return None;
        }
        // Without memory for it the unit works without.
        let table = self.tables.take_row(interrupt::PAGES).ok()?;
        self.remappers.get_mut(number)?.open(table);
        Some(table)
    }

    fn start_unit(
        &mut self,
        registers: Registers<M>,
        capabilities: Capabilities,
        start: &Start,
    ) -> Slot<M> {
        self.tells_on_map |= capabilities.caching_mode || capabilities.write_buffer;
        let started = match self.tables.life() {
            Life::First => Unit::start(registers, capabilities, &mut self.tables, start),
            Life::Again => Unit::adopt(registers, capabilities, &mut self.tables, start),
        };
        match started {
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

    /// Tables under which every address reads as zero, and a domain id for them that no domain has.
    fn make_scratch(&mut self) -> Option<(Page, u16)> {
        let geometry = self.geometry?;
        let id = geometry
            .domains
            .min(MAX_DOMAINS as u32 + 2)
            .checked_sub(1)?;
        let mut page = self.tables.take().ok()?;
        for _ in 0..geometry.levels {
            let table = self.tables.take().ok()?;
            format::fill_readable(&mut self.tables, table, page);
            page = table;
        }
        Some((page, id as u16))
    }

    /// Lets messages in the compatibility format pass at every unit from now on. Says whether all do so.
    pub fn pass_compatibility(&mut self) -> bool {
        self.units.iter_mut().all(|entry| match &mut entry.slot {
            Slot::Driven(unit) => unit.pass_compatibility().is_ok(),
            Slot::Dead(_) => true,
        })
    }
}
