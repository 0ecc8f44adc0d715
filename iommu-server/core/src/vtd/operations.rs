//! What a shard asks of the VT-d back end: domains, devices, mappings,
//! interrupt messages, faults.

use heapless::Vec;
use hw::{Mmio, Sbdf};
use ipc_proto::{Access, ClientId, Properties};
use system::info::{MAX_UNITS, Scope};

use super::forget::{
    Forget, forget_all_of_device, forget_entry, forget_requester, show_requester, tell,
    tell_devices,
};
use super::interrupt::{Block, Source};
use super::queue::Invalidate;
use super::unit::{Compatibility, Remapping, State, Unit, UnitError};
use super::{Caching, Domain, Entry, FIRST_TABLES, Fate, Slot, Vtd, context, fault, find_domain};
use crate::TableMemory;
use crate::backend::{
    Addressing, Backend, BackendError, DeviceCache, DomainId, Drained, Extent, Fault,
    InterruptMessage,
};
use crate::paging::AddressSpace;
use crate::place::Place;
use crate::tables::{Exhausted, Tables};

impl<M: Mmio, T: TableMemory> Backend for Vtd<'_, M, T> {
    fn properties(&self, device: Sbdf, cache: DeviceCache) -> Option<Properties> {
        match &self.units.get(self.unit_of(device)?)?.slot {
            Slot::Driven(unit) if unit.state() == State::Running => Some(Properties {
                dma_isolated: true,
                interrupts_isolated: unit.remapping()
                    == Remapping::On {
                        compatibility: Compatibility::Blocked,
                    },
                faults_reported: true,
                translation_cached: unit.capabilities().device_tlb && cache != DeviceCache::None,
                reset: None,
                vectors: 0,
            }),
            _ => None,
        }
    }

    #[inline]
    fn addressing(&self) -> Addressing {
        let bits = self.geometry.map_or(0, |geometry| geometry.address_bits);
        Addressing::Translated { limit: 1 << bits }
    }

    fn create_domain(&mut self, owner: ClientId) -> Result<DomainId, BackendError> {
        let geometry = self.geometry.ok_or(BackendError::NoUnit)?;
        let scratch = u32::from(self.scratch.map_or(u16::MAX, |(_, id)| id));
        let last = geometry.domains.min(scratch);
        let place = self
            .domains
            .iter()
            .position(|place| place.as_ref().is_none())
            .filter(|place| (*place as u32 + 1) < last)
            .ok_or(BackendError::DomainsExhausted)?;
        let share = self
            .shares
            .get_mut(usize::from(owner.0))
            .filter(|share| **share > 0)
            .ok_or(BackendError::TablesExhausted)?;
        let granted = FIRST_TABLES.min(*share);
        let space = AddressSpace::new(&mut self.tables, geometry.shape(), granted)
            .map_err(|Exhausted| BackendError::TablesExhausted)?;
        *share -= granted;
        if let Some(slot) = self.domains.get_mut(place) {
            *slot = Place::Taken(Domain {
                space,
                owner,
                attached: [0; MAX_UNITS],
                caching: Vec::new(),
                fate: Fate::Usable,
            });
        }
        Ok(DomainId(place as u16 + 1))
    }

    fn domain_mark(&self, domain: DomainId) -> u32 {
        let place = self.domains.get(usize::from(domain.0).wrapping_sub(1));
        let found = place.and_then(Place::as_ref);
        found.map_or(0, |found| self.tables.number(found.space.root()))
    }

    fn destroy_domain(&mut self, domain: DomainId) -> Result<(), BackendError> {
        let found = self.domain(domain)?;
        if found.fate == Fate::Retired || found.attached.iter().any(|count| *count > 0) {
            found.fate = Fate::Retired;
            return Err(BackendError::Unconfirmed);
        }
        // The last detach on each unit made it forget all of the domain, and nothing can have been
        // cached since.
        let place = usize::from(domain.0).wrapping_sub(1);
        if let Some(found) = self.domains.get_mut(place).and_then(Place::take) {
            if let Some(share) = self.shares.get_mut(usize::from(found.owner.0)) {
                *share += found.space.limit();
            }
            found.space.destroy(&mut self.tables);
        }
        Ok(())
    }

    fn attach(
        &mut self,
        device: Sbdf,
        domain: DomainId,
        cache: DeviceCache,
    ) -> Result<DeviceCache, BackendError> {
        let geometry = self.geometry.ok_or(BackendError::NoUnit)?;
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        let unit = driven(&mut self.units, number)?;
        if unit.state() != State::Running {
            return Err(BackendError::NoUnit);
        }
        let count = found.attached.get_mut(number).ok_or(BackendError::NoUnit)?;
        let requester = device.requester_id();
        let table = context::table_of(&mut self.tables, unit.root(), device.bus())
            .map_err(|Exhausted| BackendError::TablesExhausted)?;
        let keeps = match cache {
            DeviceCache::Depth(depth)
                if unit.capabilities().device_tlb && !found.caching.is_full() =>
            {
                let unit = number as u8;
                let _ = found.caching.push(Caching {
                    unit,
                    device,
                    depth,
                });
                cache
            }
            _ => DeviceCache::None,
        };
        let target = context::Target {
            root: found.space.root(),
            domain: domain.0,
            keeps: keeps != DeviceCache::None,
        };
        *count += 1;
        let told = match self.scratch {
            Some((_, scratch)) => leave_scratch(unit, &mut self.tables, table, requester, scratch),
            None => Ok(()),
        }
        .and_then(|()| {
            context::enable(&mut self.tables, table, requester, &target, &geometry);
            show_requester(unit, &mut self.tables, requester, domain.0)
        });
        if told.is_err() {
            context::disable(&mut self.tables, table, requester);
            found.fate = Fate::Retired;
            return Err(BackendError::Unconfirmed);
        }
        Ok(keeps)
    }

    fn keep(
        &mut self,
        device: Sbdf,
        domain: DomainId,
        cache: DeviceCache,
    ) -> Result<DeviceCache, BackendError> {
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        let unit = driven(&mut self.units, number)?;
        let requester = device.requester_id();
        let table = context::existing(&self.tables, unit.root(), device.bus())
            .ok_or(BackendError::NoUnit)?;
        let known = found.caching.iter().position(|one| one.device == device);
        if !context::is_present(&self.tables, table, requester) {
            // It was silenced, and keeps nothing.
            return Ok(DeviceCache::None);
        }
        let keeps = match (cache, known) {
            (DeviceCache::None, None) => return Ok(cache),
            (DeviceCache::Depth(_), Some(_)) => return Ok(cache),
            (DeviceCache::None, Some(_)) => false,
            (DeviceCache::Depth(_), None) => {
                unit.capabilities().device_tlb && !found.caching.is_full()
            }
        };
        if !keeps && known.is_none() {
            return Ok(DeviceCache::None);
        }
        context::set_keeps(&mut self.tables, table, requester, keeps);
        // From here on the unit refuses what the device kept, or answers its questions. Translations did not change, but
        // whoever shadows the tables (caching mode) looks at them anew only when the domain is named.
        if forget_requester(unit, &mut self.tables, requester, domain.0).is_err() {
            found.fate = Fate::Retired;
            return Err(BackendError::Unconfirmed);
        }
        let Some(place) = known else {
            if let DeviceCache::Depth(depth) = cache {
                let unit = number as u8;
                // There is room: it was checked.
                let _ = found.caching.push(Caching {
                    unit,
                    device,
                    depth,
                });
            }
            return Ok(cache);
        };
        let caching = found.caching.swap_remove(place);
        if forget_all_of_device(unit, &mut self.tables, &caching).is_ok() {
            return Ok(DeviceCache::None);
        }
        // It did not say that it forgot: it is blocked, as one that does not answer when something is unmapped.
        context::silence(&mut self.tables, table, requester);
        let _ = self.silent.push(device);
        if forget_entry(unit, &mut self.tables, requester, domain.0).is_err() {
            found.fate = Fate::Retired;
            return Err(BackendError::Unconfirmed);
        }
        Err(BackendError::DeviceSilent)
    }

    fn detach(&mut self, device: Sbdf, domain: DomainId) -> Result<(), BackendError> {
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        let unit = driven(&mut self.units, number)?;
        let requester = device.requester_id();
        // Without one its bus is blocked: an earlier life got no further with attaching it.
        let table = context::existing(&self.tables, unit.root(), device.bus());
        let silenced = table.is_some_and(|table| {
            let silenced = context::is_silent(&self.tables, table, requester);
            context::disable(&mut self.tables, table, requester);
            silenced
        });
        let mut told = forget_requester(unit, &mut self.tables, requester, domain.0);
        let mut answer = Ok(());
        if let Some(place) = found.caching.iter().position(|one| one.device == device) {
            let caching = found.caching.swap_remove(place);
            if told.is_ok() && forget_all_of_device(unit, &mut self.tables, &caching).is_err() {
                // The unit refuses what the device still keeps: its entry is not present.
                let _ = self.silent.push(device);
                answer = Err(BackendError::DeviceSilent);
            }
        }
        if let (Some(table), Some((root, scratch)), Some(geometry), Ok(())) =
            (table, self.scratch, self.geometry, &answer)
            && !silenced
            && told.is_ok()
        {
            let target = context::Target {
                root,
                domain: scratch,
                keeps: false,
            };
            context::enable(&mut self.tables, table, requester, &target, &geometry);
            told = show_requester(unit, &mut self.tables, requester, scratch);
        }
        if told.is_err() {
            found.fate = Fate::Retired;
            return Err(BackendError::Unconfirmed);
        }
        if let Some(count) = found.attached.get_mut(number) {
            *count = count.saturating_sub(1);
        }
        answer
    }

    fn silence(&mut self, device: Sbdf, domain: Option<DomainId>) -> Result<(), BackendError> {
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let unit = driven(&mut self.units, number)?;
        let requester = device.requester_id();
        let table = context::table_of(&mut self.tables, unit.root(), device.bus())
            .map_err(|Exhausted| BackendError::TablesExhausted)?;
        let filed_under = match (domain, self.scratch) {
            (Some(domain), _) => domain.0,
            (None, Some((_, scratch))) if context::is_present(&self.tables, table, requester) => {
                scratch
            }
            (None, _) => 0,
        };
        context::silence(&mut self.tables, table, requester);
        let told = forget_entry(unit, &mut self.tables, requester, filed_under);
        if let Some(found) = domain.and_then(|domain| find_domain(self.domains, domain)) {
            // What it keeps is refused from now on.
            found.caching.retain(|one| one.device != device);
            if told.is_err() {
                found.fate = Fate::Retired;
            }
        }
        told.map_err(|_| BackendError::Unconfirmed)
    }

    fn remap(
        &mut self,
        device: Sbdf,
        aliases: &[Sbdf],
        message: InterruptMessage,
        count: u16,
    ) -> Result<InterruptMessage, BackendError> {
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let unit = driven(&mut self.units, number)?;
        let remapper = self.remappers.get_mut(number).ok_or(BackendError::NoUnit)?;
        if unit.remapping() == Remapping::Off {
            return Ok(message);
        }
        if unit.state() != State::Running {
            return Err(BackendError::NoUnit);
        }
        let source = Source::of(device, aliases);
        let (block, message) = remapper.make(&mut self.tables, device, source, message, count)?;
        let told = unit.flush_write_buffer().and_then(|()| {
            if !unit.capabilities().caching_mode {
                // Nothing is cached of entries that were not present.
                return Ok(());
            }
            forget_block(unit, &mut self.tables, &block)
        });
        if told.is_err() {
            remapper.clear(&mut self.tables, &block);
            remapper.lose(&block);
            return Err(BackendError::Unconfirmed);
        }
        Ok(message)
    }

    fn reroute(
        &mut self,
        device: Sbdf,
        remapped: InterruptMessage,
        messages: (u16, u16),
        address: u64,
    ) -> Result<(), BackendError> {
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let unit = driven(&mut self.units, number)?;
        let remapper = self.remappers.get_mut(number).ok_or(BackendError::NoUnit)?;
        let block = remapper.reroute(&mut self.tables, device, remapped, messages, address)?;
        unit.flush_write_buffer()
            .and_then(|()| forget_block(unit, &mut self.tables, &block))
            .map_err(|_| BackendError::Unconfirmed)
    }

    fn unremap(&mut self, device: Sbdf) -> Result<(), BackendError> {
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let unit = driven(&mut self.units, number)?;
        let remapper = self.remappers.get_mut(number).ok_or(BackendError::NoUnit)?;
        let mut outcome = Ok(());
        // Each round takes a block out of those that are in use.
        while let Some(block) = remapper.block_of(device) {
            remapper.clear(&mut self.tables, &block);
            let told = unit
                .flush_write_buffer()
                .and_then(|()| forget_block(unit, &mut self.tables, &block));
            if told.is_ok() {
                remapper.give(&block);
            } else {
                remapper.lose(&block);
                outcome = Err(BackendError::Unconfirmed);
            }
        }
        outcome
    }

    #[inline(always)]
    fn map(
        &mut self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), BackendError> {
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        let space = &mut found.space;
        let mapped = space.map(&mut self.tables, iova, extents, access);
        let replaced_tables = space.in_limbo();
        if mapped.is_err() {
            self.map_after_growth(domain, iova, extents, access)?;
            return self.tell_of_new(domain, iova, extents);
        }
        if !self.tells_on_map && !replaced_tables {
            // Nothing is cached of entries that were not present.
            return Ok(());
        }
        self.tell_of_new(domain, iova, extents)
    }

    #[inline(always)]
    fn unmap(&mut self, domain: DomainId, iova: u64, bytes: u64) -> Result<(), BackendError> {
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        found.space.unmap(&mut self.tables, iova, bytes);
        let gone = Forget::OldRange { iova, bytes };
        let told = tell(&mut self.units, &mut self.tables, found, domain, gone);
        if told.is_err() || found.caching.is_empty() {
            return told;
        }
        let (units, tables, silent) = (&mut self.units, &mut self.tables, &mut self.silent);
        tell_devices(units, tables, found, domain, (iova, bytes), |device| {
            // One that does not fit is blocked all the same; there is room for all of a domain.
            let _ = silent.push(device);
        })
    }

    fn drain_faults(
        &mut self,
        unit: usize,
        allowance: u32,
        sink: &mut dyn FnMut(Fault),
    ) -> Drained {
        let Some(Entry {
            slot: Slot::Driven(unit),
            segment,
            ..
        }) = self.units.get_mut(unit)
        else {
            return Drained::default();
        };
        let capabilities = *unit.capabilities();
        fault::drain(unit.registers(), &capabilities, *segment, allowance, sink)
    }

    fn next_silent(&mut self) -> Option<Sbdf> {
        self.silent.pop()
    }

    fn units(&self) -> usize {
        self.units.len()
    }

    fn unit_of(&self, device: Sbdf) -> Option<usize> {
        // The only one takes what it can at all.
        if let [only] = self.units.as_slice()
            && only.include_all
        {
            return (only.segment == device.segment()).then_some(0);
        }
        // A unit that names the device itself; one that names the bus; the one that takes the rest.
        let names = |scope: &Scope| match *scope {
            Scope::Function(id) => (id == device.requester_id()).then_some(0),
            Scope::Buses(first, last) => (first..=last).contains(&device.bus()).then_some(1),
            Scope::IoApic { .. } | Scope::Hpet { .. } => None,
        };
        let of_segment = self.units.iter().enumerate();
        let claims = of_segment
            .filter(|(_, entry)| entry.segment == device.segment())
            .filter_map(|(number, entry)| {
                let scopes = self.scopes.get(number).map_or(&[][..], Vec::as_slice);
                let rest = entry.include_all.then_some(2);
                let claim = scopes.iter().filter_map(names).chain(rest).min()?;
                Some((claim, number))
            });
        claims.min().map(|(_, number)| number)
    }

    fn tables_used(&self) -> u32 {
        let domains = self.domains.iter().filter_map(Place::as_ref);
        domains.map(|domain| domain.space.count()).sum()
    }

    fn domains_used(&self) -> u32 {
        self.domains.iter().filter_map(Place::as_ref).count() as u32
    }

    fn remapped(&self) -> u32 {
        self.remappers.iter().map(super::Remapper::used).sum()
    }
}

fn driven<M>(units: &mut [Entry<M>], number: usize) -> Result<&mut Unit<M>, BackendError> {
    match units.get_mut(number).map(|entry| &mut entry.slot) {
        Some(Slot::Driven(unit)) => Ok(unit),
        _ => Err(BackendError::NoUnit),
    }
}

/// Blocks a requester that is in the scratch domain.
fn leave_scratch<M: Mmio, T: TableMemory>(
    unit: &mut Unit<M>,
    tables: &mut Tables<'_, T>,
    table: super::Page,
    requester: u16,
    scratch: u16,
) -> Result<(), UnitError> {
    if !context::is_present(tables, table, requester) {
        return Ok(());
    }
    context::disable(tables, table, requester);
    forget_requester(unit, tables, requester, scratch)
}

/// Has a unit forget a block of interrupt entries, and deliver what is in flight.
fn forget_block<M: Mmio, T: TableMemory>(
    unit: &mut Unit<M>,
    tables: &mut Tables<'_, T>,
    block: &Block,
) -> Result<(), UnitError> {
    let request = if block.mask <= unit.capabilities().interrupt_mask {
        Invalidate::Interrupts {
            first: block.first,
            mask: block.mask,
        }
    } else {
        Invalidate::AllInterrupts
    };
    unit.run(tables, &[request])
}
