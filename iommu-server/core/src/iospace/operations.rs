//! What a shard asks of the kernel's I/O spaces.

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::{Access, ClientId, Properties};

use super::{
    ADDRESS_BITS, IoSpaces, Life, MAX_SPACES, Mapping, PAGE_BITS, Space, Spaces, Standing,
};
use crate::backend::{
    Addressing, Backend, BackendError, DeviceCache, DomainId, Drained, Extent, Fault,
    InterruptMessage,
};
use crate::buffers::NO_FRAMES;

impl<S: Spaces> Backend for IoSpaces<'_, S> {
    fn properties(&self, _device: Sbdf, _cache: DeviceCache) -> Option<Properties> {
        Some(Properties {
            dma_isolated: true,
            interrupts_isolated: false,
            faults_reported: false,
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

    fn large_frames(&self) -> bool {
        false
    }

    fn maps_frames(&self) -> bool {
        true
    }

    fn create_domain(&mut self, owner: ClientId) -> Result<DomainId, BackendError> {
        let domains = &mut self.storage.domains;
        let owned = domains.iter().filter(|life| **life == Life::Used(owner));
        if owned.count() >= self.domains_a_client {
            return Err(BackendError::DomainsExhausted);
        }
        let place = domains.iter().position(|life| *life == Life::Free);
        let place = place.ok_or(BackendError::DomainsExhausted)?;
        if let Some(life) = domains.get_mut(place) {
            *life = Life::Used(owner);
        }
        Ok(DomainId(place as u16 + 1))
    }

    fn destroy_domain(&mut self, domain: DomainId) -> Result<(), BackendError> {
        let attached = |space: &Space| space.domain == Some(domain);
        let in_use = self.storage.spaces.iter().any(attached);
        let life = self.life(domain)?;
        if *life == Life::Retired || in_use {
            *life = Life::Retired;
            return Err(BackendError::Unconfirmed);
        }
        *life = Life::Free;
        self.storage
            .mappings
            .retain(|mapping| mapping.domain != domain);
        Ok(())
    }

    fn attach(
        &mut self,
        device: Sbdf,
        domain: DomainId,
        _cache: DeviceCache,
    ) -> Result<DeviceCache, BackendError> {
        self.life(domain)?;
        let place = self.space(device)?;
        for mapping in 0..self.storage.mappings.len() {
            let here = self.storage.mappings.get(mapping);
            if here.is_none_or(|mapping| mapping.domain != domain) {
                continue;
            }
            if let Err(error) = self.carry_out(place, mapping) {
                if self
                    .take_where(|placed| placed.requester == device)
                    .is_err()
                    || error == BackendError::Unconfirmed
                {
                    self.retire(domain);
                    return Err(BackendError::Unconfirmed);
                }
                return Err(error);
            }
        }
        if let Some(space) = self.storage.spaces.get_mut(place) {
            (space.domain, space.standing) = (Some(domain), Standing::Served);
        }
        Ok(DeviceCache::None)
    }

    fn detach(&mut self, device: Sbdf, domain: DomainId) -> Result<(), BackendError> {
        self.life(domain)?;
        let place = self.member(device, domain)?;
        let taken = self.take_where(|placed| placed.requester == device);
        if taken.is_err() {
            self.retire(domain);
            return taken;
        }
        if let Some(space) = self.storage.spaces.get_mut(place) {
            space.domain = None;
        }
        Ok(())
    }

    fn silence(&mut self, device: Sbdf, domain: Option<DomainId>) -> Result<(), BackendError> {
        let Some(domain) = domain else {
            // Nothing is mapped for it; what the kernel prints of it cannot be stopped.
            return Ok(());
        };
        let place = self.member(device, domain)?;
        let taken = self.take_where(|placed| placed.requester == device);
        if let Some(space) = self.storage.spaces.get_mut(place) {
            space.standing = Standing::Silenced;
        }
        if taken.is_err() {
            self.retire(domain);
        }
        taken
    }

    fn remap(
        &mut self,
        _device: Sbdf,
        _aliases: &[Sbdf],
        message: InterruptMessage,
        _count: u16,
    ) -> Result<InterruptMessage, BackendError> {
        Ok(message)
    }

    fn unremap(&mut self, _device: Sbdf) -> Result<(), BackendError> {
        Ok(())
    }

    fn map(
        &mut self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), BackendError> {
        self.life(domain)?;
        let mappable =
            |extent: &Extent| extent.page_bits == PAGE_BITS && extent.frames != NO_FRAMES;
        if !extents.iter().all(mappable) {
            return Err(BackendError::Cannot);
        }
        let mapping = Mapping {
            domain,
            iova,
            access,
            extents: Vec::from_slice(extents).map_err(|_| BackendError::Cannot)?,
        };
        let number = self.storage.mappings.len();
        let full = |_| BackendError::TablesExhausted;
        self.storage.mappings.push(mapping).map_err(full)?;
        for place in 0..self.storage.spaces.len() {
            let space = self.storage.spaces.get(place);
            let served = space.is_some_and(|space| {
                space.domain == Some(domain) && space.standing == Standing::Served
            });
            if !served {
                continue;
            }
            if let Err(error) = self.carry_out(place, number) {
                let taken = self.unmap(domain, iova, 0);
                if error == BackendError::Unconfirmed {
                    self.retire(domain);
                    return Err(error);
                }
                return taken.and(Err(error));
            }
        }
        Ok(())
    }

    fn unmap(&mut self, domain: DomainId, iova: u64, _bytes: u64) -> Result<(), BackendError> {
        self.life(domain)?;
        let Some(number) = self.mapping_at(domain, iova) else {
            return Ok(());
        };
        let mut members: Vec<Sbdf, MAX_SPACES> = Vec::new();
        for space in &self.storage.spaces {
            if space.domain == Some(domain) {
                // There are as many places as spaces.
                let _ = members.push(space.requester);
            }
        }
        let taken =
            self.take_where(|placed| placed.iova == iova && members.contains(&placed.requester));
        self.storage.mappings.swap_remove(number);
        if taken.is_err() {
            self.retire(domain);
        }
        taken
    }

    fn drain_faults(
        &mut self,
        _unit: usize,
        _allowance: u32,
        _sink: &mut dyn FnMut(Fault),
    ) -> Drained {
        Drained::default()
    }

    fn next_silent(&mut self) -> Option<Sbdf> {
        None
    }

    fn units(&self) -> usize {
        0
    }

    fn unit_of(&self, _device: Sbdf) -> Option<usize> {
        None
    }

    fn tables_used(&self) -> u32 {
        // They belong to requesters, for ever, and to no domain.
        0
    }

    fn domains_used(&self) -> u32 {
        let used = self.storage.domains.iter();
        used.filter(|life| **life != Life::Free).count() as u32
    }

    fn remapped(&self) -> u32 {
        0
    }
}
