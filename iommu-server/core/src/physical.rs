//! [`Physical`]: the back end of a machine without an IOMMU. Nothing is
//! translated, nothing is blocked, and it says so: whether a bus-mastering
//! device may be assigned all the same is the pci-server's question to the
//! system description (`unprotected`).

use hw::Sbdf;
use ipc_proto::{Access, Properties};

use crate::backend::{Addressing, Backend, BackendError, DomainId, Drained, Extent, Fault};

/// No units at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Physical;

impl Backend for Physical {
    fn properties(&self, _device: Sbdf) -> Option<Properties> {
        Some(Properties::default())
    }

    fn addressing(&self) -> Addressing {
        Addressing::Physical
    }

    fn create_domain(&mut self) -> Result<DomainId, BackendError> {
        Ok(DomainId(0))
    }

    fn destroy_domain(&mut self, _domain: DomainId) -> Result<(), BackendError> {
        Ok(())
    }

    fn attach(&mut self, _device: Sbdf, _domain: DomainId) -> Result<(), BackendError> {
        Ok(())
    }

    fn detach(&mut self, _device: Sbdf, _domain: DomainId) -> Result<(), BackendError> {
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
}
