//! Vital product data: [`VitalProductData`], the register pair through which the
//! data is read; the data itself is not looked at (PCIe 5.0, 7.9.19).

use super::{Capability, CapabilityError, check_extent, id};
use crate::{ConfigSpace, Sbdf};

/// Where vital product data is read, and the state of the last access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VitalProductData {
    /// Where the capability starts.
    pub offset: u8,
    /// Address of the last access, 15 bits, in bytes.
    pub address: u16,
    /// The flag of the address register: set when a read is done, cleared when a write is done.
    pub flag: bool,
}

impl VitalProductData {
    const BYTES: u16 = 8;
    /// Address register, bit 15: see [`Self::flag`].
    pub const FLAG: u16 = 1 << 15;

    /// VPD Address, 16 bits.
    #[must_use]
    pub const fn address_register(&self) -> u16 {
        self.offset as u16 + 2
    }

    /// VPD Data, 32 bits.
    #[must_use]
    pub const fn data_register(&self) -> u16 {
        self.offset as u16 + 4
    }
}

impl Capability for VitalProductData {
    const ID: u8 = id::VITAL_PRODUCT_DATA;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u8,
    ) -> Result<Self, CapabilityError> {
        check_extent(Self::ID, offset, Self::BYTES)?;
        let word = cfg.read16(at, u16::from(offset) + 2);
        Ok(Self {
            offset,
            address: word & !Self::FLAG,
            flag: word & Self::FLAG != 0,
        })
    }
}
