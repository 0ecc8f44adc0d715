//! What a shard asks of the VT-d back end: domains, devices, mappings, faults.

use hw::{Mmio, Sbdf};
use ipc_proto::{Access, Properties};
use system::info::MAX_UNITS;

use super::paging::AddressSpace;
use super::queue::Invalidate;
use super::tables::Exhausted;
use super::unit::State;
use super::{Domain, Entry, Fate, Forget, Slot, Vtd, context, fault, find_domain, tell};
use crate::TableMemory;
use crate::backend::{Addressing, Backend, BackendError, DomainId, Drained, Extent, Fault};
use crate::place::Place;

impl<M: Mmio, T: TableMemory> Backend for Vtd<'_, M, T> {
    fn properties(&self, device: Sbdf) -> Option<Properties> {
        match &self.units.get(self.unit_of(device)?)?.slot {
            Slot::Driven(unit) if unit.state() == State::Running => Some(Properties {
                translation_cached: false,
                dma_isolated: true,
                interrupts_isolated: false,
                faults_reported: true,
                reset: None,
            }),
            _ => None,
        }
    }

    #[inline]
    fn addressing(&self) -> Addressing {
        let bits = self.geometry.map_or(0, |geometry| geometry.address_bits);
        Addressing::Translated { limit: 1 << bits }
    }

    fn create_domain(&mut self) -> Result<DomainId, BackendError> {
        let geometry = self.geometry.ok_or(BackendError::NoUnit)?;
        let place = self
            .domains
            .iter()
            .position(|place| place.as_ref().is_none())
            .filter(|place| (*place as u32 + 1) < geometry.domains)
            .ok_or(BackendError::DomainsExhausted)?;
        let space = AddressSpace::new(&mut self.tables, &geometry, self.tables_a_domain)
            .map_err(|Exhausted| BackendError::TablesExhausted)?;
        if let Some(slot) = self.domains.get_mut(place) {
            *slot = Place::Taken(Domain {
                space,
                attached: [0; MAX_UNITS],
                fate: Fate::Usable,
            });
        }
        Ok(DomainId(place as u16 + 1))
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
            found.space.destroy(&mut self.tables);
        }
        Ok(())
    }

    fn attach(&mut self, device: Sbdf, domain: DomainId) -> Result<(), BackendError> {
        let geometry = self.geometry.ok_or(BackendError::NoUnit)?;
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        let Some(Entry {
            slot: Slot::Driven(unit),
            ..
        }) = self.units.get_mut(number)
        else {
            return Err(BackendError::NoUnit);
        };
        if unit.state() != State::Running {
            return Err(BackendError::NoUnit);
        }
        let count = found.attached.get_mut(number).ok_or(BackendError::NoUnit)?;
        let requester = device.requester_id();
        let table = context::table_of(&mut self.tables, unit.root(), device.bus())
            .map_err(|Exhausted| BackendError::TablesExhausted)?;
        context::enable(
            &mut self.tables,
            table,
            requester,
            found.space.root(),
            &geometry,
            domain.0,
        );
        *count += 1;
        let told = if unit.capabilities().caching_mode {
            // What was cached said "not present", under domain 0.
            let batch = [
                Invalidate::Context {
                    requester,
                    domain: 0,
                },
                Invalidate::Fence,
                Invalidate::Domain { domain: domain.0 },
            ];
            unit.flush_write_buffer()
                .and_then(|()| unit.run(&mut self.tables, &batch))
        } else {
            unit.flush_write_buffer()
        };
        if told.is_err() {
            context::disable(&mut self.tables, table, requester);
            found.fate = Fate::Retired;
            return Err(BackendError::Unconfirmed);
        }
        Ok(())
    }

    fn detach(&mut self, device: Sbdf, domain: DomainId) -> Result<(), BackendError> {
        let number = self.unit_of(device).ok_or(BackendError::NoUnit)?;
        let found = find_domain(self.domains, domain).ok_or(BackendError::NoDomain)?;
        let Some(Entry {
            slot: Slot::Driven(unit),
            ..
        }) = self.units.get_mut(number)
        else {
            return Err(BackendError::NoUnit);
        };
        let requester = device.requester_id();
        let table = context::existing(&self.tables, unit.root(), device.bus())
            .ok_or(BackendError::NoUnit)?;
        context::disable(&mut self.tables, table, requester);
        let batch = [
            Invalidate::Context {
                requester,
                domain: domain.0,
            },
            Invalidate::Fence,
            Invalidate::Domain { domain: domain.0 },
        ];
        let told = unit
            .flush_write_buffer()
            .and_then(|()| unit.run(&mut self.tables, &batch));
        if told.is_err() {
            found.fate = Fate::Retired;
            return Err(BackendError::Unconfirmed);
        }
        context::forget(&mut self.tables, table, requester);
        if let Some(count) = found.attached.get_mut(number) {
            *count = count.saturating_sub(1);
        }
        Ok(())
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
            self.map_after_reclaim(domain, iova, extents, access)?;
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
        tell(&mut self.units, &mut self.tables, found, domain, gone)
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

    fn units(&self) -> usize {
        self.units.len()
    }

    fn unit_of(&self, device: Sbdf) -> Option<usize> {
        let of_segment = |entry: &Entry<M>| entry.segment == device.segment();
        // Without device scopes: the unit that takes the rest, else the segment's first.
        self.units
            .iter()
            .position(|entry| of_segment(entry) && entry.include_all)
            .or_else(|| self.units.iter().position(of_segment))
    }

    fn tables_used(&self) -> u32 {
        let domains = self.domains.iter().filter_map(Place::as_ref);
        domains.map(|domain| domain.space.count()).sum()
    }

    fn domains_used(&self) -> u32 {
        self.domains.iter().filter_map(Place::as_ref).count() as u32
    }
}
