//! What a shard asks of the AMD back end.

use hw::{Mmio, Sbdf};
use ipc_proto::{Access, ClientId, Properties};

use super::commands::Command;
use super::device_table::{self, Recorded};
use super::interrupts::{Ids, SIZE};
use super::unit::{State, Unit};
use super::{AmdVi, Domain, FIRST_TABLES, Fate, MAX_DOMAINS, events, find_domain, names};
use crate::TableMemory;
use crate::backend::{
    Addressing, Backend, BackendError, DeviceCache, DomainId, Drained, Extent, Fault,
    InterruptMessage,
};
use crate::paging::{AddressSpace, Largest, Shape};
use crate::place::Place;
use crate::tables::{Exhausted, Page};

/// Three levels: 39 bits of addresses.
pub(super) const SHAPE: Shape = Shape {
    levels: 3,
    largest: Largest::Huge,
};
const ADDRESS_BITS: u32 = 39;

impl<M: Mmio, T: TableMemory> AmdVi<'_, M, T> {
    /// The unit of a device, its number, and the device table.
    fn driven(&mut self, device: Sbdf) -> Result<(&mut Unit<M>, Page), BackendError> {
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let devices = self.devices.ok_or(BackendError::NoUnit)?;
        match self.units.get_mut(number) {
            Some(entry) => Ok((&mut entry.unit, devices)),
            None => Err(BackendError::NoUnit),
        }
    }

    fn run_for(&mut self, device: Sbdf, batch: &[Command]) -> Result<(), BackendError> {
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let Some(entry) = self.units.get_mut(number) else {
            return Err(BackendError::NoUnit);
        };
        let told = entry.unit.run(&mut self.tables, batch);
        told.map_err(|_| BackendError::Unconfirmed)
    }

    /// Tells every unit about a domain.
    fn run_everywhere(&mut self, batch: &[Command]) -> Result<(), BackendError> {
        let mut outcome = Ok(());
        for entry in &mut self.units {
            if entry.unit.run(&mut self.tables, batch).is_err() {
                outcome = Err(BackendError::Unconfirmed);
            }
        }
        outcome
    }

    fn domain(&mut self, domain: DomainId) -> Result<&mut Domain, BackendError> {
        find_domain(self.domains, domain).ok_or(BackendError::NoDomain)
    }

    /// Maps, with more tables out of the owner's share, or out of empty places, if need be.
    fn map_with_room(
        &mut self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), BackendError> {
        for attempt in 0..3 {
            let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
            let mapped = found.space.map(&mut self.tables, iova, extents, access);
            if mapped.is_ok() {
                return Ok(());
            }
            if attempt == 0 {
                let share = self.shares.get_mut(usize::from(found.owner.0));
                let wanted = extents.iter().fold(0u64, |sum, extent| {
                    sum.saturating_add(8 + (extent.bytes >> 21))
                });
                if let Some(share) = share {
                    let granted = u64::from(*share).min(wanted) as u32;
                    *share -= granted;
                    found.space.allow(granted);
                }
            } else {
                found.space.prune(&mut self.tables);
                self.release_limbo(domain)?;
            }
        }
        Err(BackendError::TablesExhausted)
    }

    /// Has every unit forget tables that were taken out, and gives them back.
    fn release_limbo(&mut self, domain: DomainId) -> Result<(), BackendError> {
        if !self.domain(domain)?.space.in_limbo() {
            return Ok(());
        }
        self.run_everywhere(&[all_of(domain)])?;
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        found.space.release_limbo(&mut self.tables);
        Ok(())
    }

    fn retire(&mut self, domain: DomainId) -> BackendError {
        if let Some(found) = find_domain(self.domains, domain) {
            found.fate = Fate::Retired;
        }
        BackendError::Unconfirmed
    }
}

fn all_of(domain: DomainId) -> Command {
    Command::Pages {
        domain: domain.0,
        iova: 0,
        bytes: u64::MAX,
    }
}

impl<M: Mmio, T: TableMemory> Backend for AmdVi<'_, M, T> {
    fn properties(&self, device: Sbdf, _cache: DeviceCache) -> Option<Properties> {
        let unit = &self.units.get(self.unit_of(device)?)?.unit;
        (unit.state() == State::Running).then_some(Properties {
            dma_isolated: true,
            interrupts_isolated: self.interrupts.is_open(),
            faults_reported: true,
            translation_cached: false,
            reset: None,
            vectors: 0,
        })
    }

    fn addressing(&self) -> Addressing {
        Addressing::Translated {
            limit: 1 << ADDRESS_BITS,
        }
    }

    fn create_domain(&mut self, owner: ClientId) -> Result<DomainId, BackendError> {
        let place = self
            .domains
            .iter()
            .position(|place| place.as_ref().is_none())
            .ok_or(BackendError::DomainsExhausted)?;
        debug_assert!(place < MAX_DOMAINS);
        let share = self
            .shares
            .get_mut(usize::from(owner.0))
            .filter(|share| **share > 0)
            .ok_or(BackendError::TablesExhausted)?;
        let granted = FIRST_TABLES.min(*share);
        let space = AddressSpace::new(&mut self.tables, SHAPE, granted)
            .map_err(|Exhausted| BackendError::TablesExhausted)?;
        *share -= granted;
        if let Some(slot) = self.domains.get_mut(place) {
            *slot = Place::Taken(Domain {
                space,
                owner,
                devices: 0,
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
        if found.fate == Fate::Retired || found.devices > 0 {
            return Err(self.retire(domain));
        }
        // The last detach made its unit forget all of the domain; the others never had a device of it since.
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
        _cache: DeviceCache,
    ) -> Result<DeviceCache, BackendError> {
        let root = self.domain(domain)?.space.root();
        let (unit, devices) = self.driven(device)?;
        if unit.state() != State::Running {
            return Err(BackendError::NoUnit);
        }
        let id = device.requester_id();
        device_table::enable(&mut self.tables, devices, id, root, SHAPE.levels, domain.0);
        let found = self.domain(domain)?;
        found.devices = found.devices.saturating_add(1);
        if let Err(error) = self.run_for(device, &[Command::Device(id)]) {
            device_table::disable(&mut self.tables, devices, id, Recorded::Yes);
            self.retire(domain);
            return Err(error);
        }
        Ok(DeviceCache::None)
    }

    fn detach(&mut self, device: Sbdf, domain: DomainId) -> Result<(), BackendError> {
        self.domain(domain)?;
        let (_, devices) = self.driven(device)?;
        let id = device.requester_id();
        device_table::disable(&mut self.tables, devices, id, Recorded::Yes);
        let batch = [Command::Device(id), Command::Fence, all_of(domain)];
        if let Err(error) = self.run_for(device, &batch) {
            self.retire(domain);
            return Err(error);
        }
        let found = self.domain(domain)?;
        found.devices = found.devices.saturating_sub(1);
        Ok(())
    }

    fn silence(&mut self, device: Sbdf, domain: Option<DomainId>) -> Result<(), BackendError> {
        let (_, devices) = self.driven(device)?;
        let id = device.requester_id();
        device_table::disable(&mut self.tables, devices, id, Recorded::No);
        let told = self.run_for(device, &[Command::Device(id)]);
        if let (Err(_), Some(domain)) = (told, domain) {
            self.retire(domain);
        }
        told
    }

    fn remap(
        &mut self,
        device: Sbdf,
        aliases: &[Sbdf],
        message: InterruptMessage,
        count: u16,
    ) -> Result<InterruptMessage, BackendError> {
        let (unit, devices) = self.driven(device)?;
        if unit.state() != State::Running {
            return Err(BackendError::NoUnit);
        }
        if !self.interrupts.is_open() {
            return Ok(message);
        }
        // Whichever id a message comes under, it is looked up in this device's table.
        let mut ids = Ids::new();
        for id in aliases.iter().chain([&device]) {
            let full = |_| BackendError::Cannot;
            ids.push(id.requester_id()).map_err(full)?;
        }
        let (sent, table) = self
            .interrupts
            .make(&mut self.tables, device, &ids, message, count)?;
        for id in ids {
            device_table::set_interrupts(&mut self.tables, devices, id, Some((table, SIZE)));
            // In any order: what either leads to holds already.
            self.run_for(device, &[Command::Device(id), Command::Interrupts(id)])?;
        }
        Ok(sent)
    }

    fn reroute(
        &mut self,
        device: Sbdf,
        remapped: InterruptMessage,
        messages: (u16, u16),
        address: u64,
    ) -> Result<(), BackendError> {
        let (unit, _) = self.driven(device)?;
        if unit.state() != State::Running {
            return Err(BackendError::NoUnit);
        }
        let begin = remapped.data;
        let tables = &mut self.tables;
        let ids = (self.interrupts).reroute(tables, device, begin, messages, address)?;
        for id in ids {
            self.run_for(device, &[Command::Interrupts(id)])?;
        }
        Ok(())
    }

    fn unremap(&mut self, device: Sbdf) -> Result<(), BackendError> {
        let (_, devices) = self.driven(device)?;
        let Some(ids) = self.interrupts.clear(&mut self.tables, device) else {
            return Ok(());
        };
        for id in ids {
            device_table::set_interrupts(&mut self.tables, devices, id, None);
            // What is kept of the table's entries leads nowhere without this one, and is forgotten before it leads
            // to a table again (`remap`).
            self.run_for(device, &[Command::Device(id)])?;
        }
        self.interrupts.give(device);
        Ok(())
    }

    fn map(
        &mut self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), BackendError> {
        self.map_with_room(domain, iova, extents, access)?;
        let bytes = extents
            .iter()
            .fold(0u64, |sum, extent| sum.saturating_add(extent.bytes));
        if self.domain(domain)?.devices == 0 {
            // Nobody can have cached that there was nothing; tables in limbo wait for the next.
            return self.release_limbo(domain);
        }
        let fresh = Command::Pages {
            domain: domain.0,
            iova,
            bytes,
        };
        let told = self
            .run_everywhere(&[fresh])
            .and_then(|()| self.release_limbo(domain));
        if told.is_err() {
            let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
            found.space.unmap(&mut self.tables, iova, bytes);
        }
        told
    }

    fn unmap(&mut self, domain: DomainId, iova: u64, bytes: u64) -> Result<(), BackendError> {
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        found.space.unmap(&mut self.tables, iova, bytes);
        if found.devices == 0 {
            return Ok(());
        }
        let gone = Command::Pages {
            domain: domain.0,
            iova,
            bytes,
        };
        self.run_everywhere(&[gone])
    }

    fn drain_faults(
        &mut self,
        unit: usize,
        allowance: u32,
        sink: &mut dyn FnMut(Fault),
    ) -> Drained {
        let segment = self.segment;
        let events = self
            .units
            .get_mut(unit)
            .and_then(|entry| entry.unit.events());
        let Some((registers, log)) = events else {
            return Drained::default();
        };
        events::drain(registers, &self.tables, log, segment, allowance, sink)
    }

    fn next_silent(&mut self) -> Option<Sbdf> {
        None
    }

    fn units(&self) -> usize {
        self.units.len()
    }

    fn unit_of(&self, device: Sbdf) -> Option<usize> {
        if device.segment() != self.segment {
            return None;
        }
        let claims = self.units.iter().enumerate().filter_map(|(number, entry)| {
            let scopes = self.scopes.get(number)?;
            let rest = entry.include_all.then_some(2);
            let named = scopes.iter().filter_map(|scope| names(scope, device));
            Some((named.chain(rest).min()?, number))
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
        self.interrupts.used()
    }
}
