//! The VT-d back end after a restart: domains, context entries and interrupt entries as the tables have them.

use heapless::Vec;
use hw::{Mmio, Sbdf};
use ipc_proto::ClientId;
use system::info::MAX_UNITS;

use super::context::{self, Target};
use super::forget::{show_again, tell_devices};
use super::interrupt::Source;
use super::unit::State;
use super::{Caching, Domain, Entry, FIRST_TABLES, Fate, Slot, Vtd, find_domain};
use crate::TableMemory;
use crate::adopt::{Adopt, Found};
use crate::backend::{Backend, BackendError, DeviceCache, DomainId, InterruptMessage};
use crate::paging::{AddressSpace, Leaf};
use crate::place::Place;
use crate::tables::Others;

/// More than any address has.
const ALL_ADDRESSES: u64 = 1 << 52;

impl<M: Mmio, T: TableMemory> Vtd<'_, M, T> {
    /// Claims the context tables of every unit; a bus whose table makes no sense is blocked by its root entry.
    pub(super) fn claim_contexts(&mut self) {
        for entry in &self.units {
            let Slot::Driven(unit) = &entry.slot else {
                continue;
            };
            for bus in 0..=u8::MAX {
                let at = u16::from(bus) * 2;
                let low = self.tables.get(unit.root(), at);
                let high = self.tables.get(unit.root(), at + 1);
                let stays = high == 0
                    && low & 0xfff == context::PRESENT
                    && context::existing(&self.tables, unit.root(), bus)
                        .is_some_and(|page| self.tables.claim(page));
                if !stays && low | high != 0 {
                    self.tables.set(unit.root(), at, 0);
                    self.tables.set(unit.root(), at + 1, 0);
                    self.tables.flush(unit.root(), at, 2);
                }
            }
        }
    }

    /// Where an entry of the scratch domain leads.
    fn scratch_target(&self) -> Option<Target> {
        let (root, domain) = self.scratch?;
        Some(Target {
            root,
            domain,
            keeps: false,
        })
    }

    /// Blocks whoever is in the tables of unit `number` and not known.
    fn block_others(&mut self, number: usize, known: &dyn Fn(Sbdf) -> bool) {
        let scratch = self.scratch_target();
        let Some(Entry {
            slot: Slot::Driven(unit),
            segment,
            ..
        }) = self.units.get(number)
        else {
            return;
        };
        let (root, segment) = (unit.root(), *segment);
        for bus in 0..=u8::MAX {
            let Some(table) = context::existing(&self.tables, root, bus) else {
                continue;
            };
            for low in 0..=u8::MAX {
                let requester = u16::from(bus) << 8 | u16::from(low);
                if !context::is_present(&self.tables, table, requester) {
                    continue;
                }
                let id = Sbdf::from_requester_id(segment, requester);
                let ours = known(id) && self.unit_of(id) == Some(number);
                let parked = |target: Target| {
                    self.geometry.is_some_and(|geometry| {
                        context::leads_to(&self.tables, table, requester, &target, &geometry)
                    })
                };
                if !ours && !scratch.is_some_and(parked) {
                    context::disable(&mut self.tables, table, requester);
                }
            }
        }
    }

    /// Has unit `number` forget everything. With caching mode it is shown what is present after that.
    fn forget_everything(&mut self, number: usize) {
        let Some(Entry {
            slot: Slot::Driven(unit),
            ..
        }) = self.units.get_mut(number)
        else {
            return;
        };
        if unit.forget_everything(&mut self.tables).is_err() || !unit.capabilities().caching_mode {
            return;
        }
        let root = unit.root();
        for bus in 0..=u8::MAX {
            let Some(table) = context::existing(&self.tables, root, bus) else {
                continue;
            };
            for low in 0..=u8::MAX {
                let requester = u16::from(bus) << 8 | u16::from(low);
                if let Some(domain) = context::domain_of(&self.tables, table, requester)
                    && show_again(unit, &mut self.tables, requester, domain).is_err()
                {
                    return;
                }
            }
        }
    }

    /// Has the devices of a domain forget what they keep; those that may not keep anything any more are done with then.
    fn forget_in_devices(&mut self, domain: DomainId) -> Result<(), BackendError> {
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        let (units, tables, silent) = (&mut self.units, &mut self.tables, &mut self.silent);
        let told = tell_devices(units, tables, found, domain, (0, ALL_ADDRESSES), |device| {
            let _ = silent.push(device);
        });
        found.caching.retain(|caching| {
            let Some(Slot::Driven(unit)) = units
                .get(usize::from(caching.unit))
                .map(|entry| &entry.slot)
            else {
                return false;
            };
            let requester = caching.device.requester_id();
            context::existing(tables, unit.root(), caching.device.bus())
                .is_some_and(|table| context::keeps(tables, table, requester))
        });
        told
    }

    fn is_running(&self, number: usize) -> bool {
        self.units.get(number).is_some_and(
            |entry| matches!(&entry.slot, Slot::Driven(unit) if unit.state() == State::Running),
        )
    }
}

impl<M: Mmio, T: TableMemory> Adopt for Vtd<'_, M, T> {
    fn adopt_domain(
        &mut self,
        domain: DomainId,
        owner: ClientId,
        mark: u32,
    ) -> Result<(), BackendError> {
        let geometry = self.geometry.ok_or(BackendError::NoUnit)?;
        let scratch = self.scratch.map_or(u16::MAX, |(_, id)| id);
        let last = geometry.domains.min(scratch.into());
        let place = usize::from(domain.0).wrapping_sub(1);
        let free = self
            .domains
            .get(place)
            .is_some_and(|place| place.as_ref().is_none());
        let root = self
            .tables
            .page(mark)
            .filter(|_| free && u32::from(domain.0) < last);
        let mut space = root
            .and_then(|root| AddressSpace::adopt(&mut self.tables, root, geometry.shape()))
            .ok_or(BackendError::NoDomain)?;
        let granted = space.count().max(FIRST_TABLES);
        space.allow(granted);
        if let Some(share) = self.shares.get_mut(usize::from(owner.0)) {
            *share = share.saturating_sub(granted);
        }
        if let Some(slot) = self.domains.get_mut(place) {
            *slot = Place::Taken(Domain {
                space,
                owner,
                attached: [0; MAX_UNITS],
                caching: Vec::new(),
                fate: Fate::Usable,
            });
        }
        Ok(())
    }

    fn adopt_requester(&mut self, id: Sbdf, domain: DomainId, cache: DeviceCache) -> Found {
        let scratch = self.scratch_target();
        let (Some(number), Some(geometry)) = (self.unit_of(id), self.geometry) else {
            return Found::Blocked;
        };
        let Some(found) = find_domain(self.domains, domain) else {
            return Found::Blocked;
        };
        let Some(Slot::Driven(unit)) = self.units.get(number).map(|entry| &entry.slot) else {
            return Found::Blocked;
        };
        let (root, requester) = (unit.root(), id.requester_id());
        let tables = &mut self.tables;
        let table = context::existing(tables, root, id.bus());
        let leads_to = |target: &Target| {
            table
                .is_some_and(|table| context::leads_to(tables, table, requester, target, &geometry))
        };
        if scratch.is_some_and(|target| leads_to(&target)) {
            return Found::Released;
        }
        if let Some(count) = found.attached.get_mut(number) {
            *count = count.saturating_add(1);
        }
        let Some(table) = table else {
            return Found::Blocked;
        };
        let keeps = context::keeps(tables, table, requester);
        let target = Target {
            root: found.space.root(),
            domain: domain.0,
            keeps,
        };
        let within = context::leads_to(tables, table, requester, &target, &geometry);
        if !within {
            context::disable(tables, table, requester);
        }
        if let DeviceCache::Depth(depth) = cache
            && unit.capabilities().device_tlb
        {
            let caching = Caching {
                unit: number as u8,
                device: id,
                depth,
            };
            if found.caching.push(caching).is_ok() {
                return standing(tables, table, requester);
            }
        }
        if within && keeps {
            // Nobody is known to have allowed it, or nobody could tell it to forget.
            context::set_keeps(tables, table, requester, false);
        }
        standing(tables, table, requester)
    }

    fn adopt_messages(
        &mut self,
        device: Sbdf,
        aliases: &[Sbdf],
        sent: InterruptMessage,
        count: u16,
    ) -> bool {
        let source = Source::of(device, aliases);
        let remapper = self
            .unit_of(device)
            .and_then(|number| self.remappers.get_mut(number));
        remapper.is_some_and(|remapper| remapper.adopt(&self.tables, device, source, sent, count))
    }

    fn leaf(&self, domain: DomainId, from: u64) -> Option<Leaf> {
        let place = usize::from(domain.0).checked_sub(1)?;
        let found = self.domains.get(place)?.as_ref()?;
        found.space.leaf(&self.tables, from)
    }

    fn scrub(&mut self, domain: DomainId, iova: u64, bytes: u64) {
        if let Some(found) = find_domain(self.domains, domain) {
            found.space.scrub(&mut self.tables, iova, bytes);
        }
    }

    fn settle(&mut self, known: &dyn Fn(Sbdf) -> bool, doubt: &mut dyn FnMut(ClientId)) {
        for number in 0..self.units.len() {
            self.block_others(number, known);
            if let Some(remapper) = self.remappers.get(number) {
                remapper.clear_others(&mut self.tables);
            }
        }
        // What was written last may not have left the processor's cache.
        self.tables.write_back();
        for number in 0..self.units.len() {
            self.forget_everything(number);
        }
        let mut others = Others::Free;
        for place in 1..=self.domains.len() as u16 {
            let domain = DomainId(place);
            let Some(found) = find_domain(self.domains, domain) else {
                continue;
            };
            let (owner, attached) = (found.owner, found.attached);
            let told = self.forget_in_devices(domain);
            let units = attached.iter().enumerate();
            let failed = units
                .filter(|(_, count)| **count > 0)
                .any(|(number, _)| !self.is_running(number));
            if failed {
                others = Others::Unknown;
                if let Some(found) = find_domain(self.domains, domain) {
                    found.fate = Fate::Retired;
                }
            }
            if failed || told.is_err() {
                doubt(owner);
            }
        }
        self.tables.settle(others);
    }
}

/// How a requester's entry is.
fn standing<T: TableMemory>(
    tables: &crate::tables::Tables<'_, T>,
    table: super::Page,
    requester: u16,
) -> Found {
    if context::is_present(tables, table, requester) {
        Found::Within
    } else if context::is_silent(tables, table, requester) {
        Found::Silenced
    } else {
        Found::Blocked
    }
}
