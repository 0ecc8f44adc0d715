//! Subsystem id of a bridge: [`BridgeSubsystem`] (PCI-to-PCI Bridge 1.2, 3.2.5; PCIe 5.0, 7.9.23).

use super::{Capability, CapabilityError, check_extent, id};
use crate::header::Subsystem;
use crate::{ConfigSpace, Sbdf};

/// Who put the bridge on a board; endpoints say it in their header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BridgeSubsystem(pub Subsystem);

impl BridgeSubsystem {
    const BYTES: u16 = 8;
}

impl Capability for BridgeSubsystem {
    const ID: u8 = id::BRIDGE_SUBSYSTEM;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u8,
    ) -> Result<Self, CapabilityError> {
        check_extent(Self::ID, offset, Self::BYTES)?;
        Ok(Self(Subsystem::at(cfg, at, u16::from(offset) + 4)))
    }
}
