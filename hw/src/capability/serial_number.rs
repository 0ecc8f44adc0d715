//! Device serial number: [`SerialNumber`] (PCIe 5.0, 7.9.3).

use core::fmt;

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::{ConfigSpace, Sbdf};

/// A number that no other device of its vendor has: an EUI-64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SerialNumber(pub u64);

impl SerialNumber {
    const BYTES: u16 = 12;
}

impl fmt::Display for SerialNumber {
    /// Most significant byte first: `00-1b-21-ff-ff-8a-bc-de`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for byte in self.0.to_be_bytes() {
            write!(f, "{separator}{byte:02x}")?;
            separator = "-";
        }
        Ok(())
    }
}

impl ExtendedCapability for SerialNumber {
    const ID: u16 = id::extended::SERIAL_NUMBER;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        let lower = cfg.read32(at, offset + 4);
        let upper = cfg.read32(at, offset + 8);
        Ok(Self(u64::from(upper) << 32 | u64::from(lower)))
    }
}
