//! Designated vendor-specific extended capability: [`DesignatedVendor`], whose
//! registers a vendor or consortium other than the device's own defines (PCIe 5.0, 7.9.6).

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::{ConfigSpace, Sbdf};

/// Who defines the registers, and how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DesignatedVendor {
    /// Where the capability starts.
    pub offset: u16,
    /// Vendor that defines it.
    pub vendor: u16,
    /// What it is, as that vendor numbers them.
    pub id: u16,
    /// Revision, 0 to 15.
    pub revision: u8,
    /// Bytes that it alleges to take, its headers included; may pass the end of the space.
    pub length: u16,
}

impl DesignatedVendor {
    const BYTES: u16 = 10;
}

impl ExtendedCapability for DesignatedVendor {
    const ID: u16 = id::extended::DESIGNATED_VENDOR;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        let header = cfg.read32(at, offset + 4);
        Ok(Self {
            offset,
            vendor: header as u16,
            id: cfg.read16(at, offset + 8),
            revision: (header >> 16 & 0xf) as u8,
            length: (header >> 20) as u16,
        })
    }
}
