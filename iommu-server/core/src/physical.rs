//! [`Physical`]: the back end of a machine without an IOMMU. Nothing is
//! translated, nothing is blocked, and it says so: whether a bus-mastering
//! device may be assigned all the same is the pci-server's question to the
//! system description (`unprotected`).

use hw::Sbdf;
use ipc_proto::{Access, ClientId, Properties};

use crate::backend::{
    Addressing, Backend, BackendError, DeviceCache, DomainId, Drained, Extent, Fault,
    InterruptMessage,
};

/// No units at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Physical;

impl Backend for Physical {
    fn properties(&self, _device: Sbdf, _cache: DeviceCache) -> Option<Properties> {
        Some(Properties::default())
    }

    fn addressing(&self) -> Addressing {
        Addressing::Physical
    }

    fn create_domain(&mut self, _owner: ClientId) -> Result<DomainId, BackendError> {
        Ok(DomainId(0))
    }

    fn destroy_domain(&mut self, _domain: DomainId) -> Result<(), BackendError> {
        Ok(())
    }

    fn attach(
        &mut self,
        _device: Sbdf,
        _domain: DomainId,
        _cache: DeviceCache,
    ) -> Result<DeviceCache, BackendError> {
        // No unit translates for a device, so it has nothing to keep.
        Ok(DeviceCache::None)
    }

    fn detach(&mut self, _device: Sbdf, _domain: DomainId) -> Result<(), BackendError> {
        Ok(())
    }

    fn silence(&mut self, _device: Sbdf, _domain: Option<DomainId>) -> Result<(), BackendError> {
        Err(BackendError::NoUnit)
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
        _domain: DomainId,
        _iova: u64,
        _extents: &[Extent],
        _access: Access,
    ) -> Result<(), BackendError> {
        Ok(())
    }

    fn unmap(&mut self, _domain: DomainId, _iova: u64, _bytes: u64) -> Result<(), BackendError> {
        Ok(())
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
        0
    }

    fn domains_used(&self) -> u32 {
        0
    }

    fn remapped(&self) -> u32 {
        0
    }
}
