//! Address Translation Services: [`AddressTranslation`], a device's own cache of
//! translated addresses (PCIe 5.0, 10.5.1).

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::{ConfigSpace, Sbdf};

/// ATS of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AddressTranslation {
    /// Where the capability starts.
    pub offset: u16,
    /// Invalidations that the function takes at a time: 1 to 32.
    pub queue_depth: u8,
    /// Invalidations ask for addresses that are aligned to a page.
    pub page_aligned: bool,
    /// Global invalidations are understood.
    pub global_invalidate: bool,
    /// Control at the time of reading.
    pub control: AtsControl,
}

/// The ATS Control register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AtsControl(u16);

impl AtsControl {
    /// Bit 15: the function may ask for translations.
    pub const ENABLE: u16 = 1 << 15;

    /// The register's value for this state; `smallest_unit` as [`Self::smallest_unit`], 0 to 31.
    #[must_use]
    pub const fn enabled(smallest_unit: u8) -> Self {
        Self(Self::ENABLE | (smallest_unit & 0x1f) as u16)
    }

    /// The function may ask for translations.
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        self.0 & Self::ENABLE != 0
    }

    /// Smallest translation unit: 4 KiB times two to the power of this.
    #[must_use]
    pub const fn smallest_unit(self) -> u8 {
        (self.0 & 0x1f) as u8
    }

    /// The register's value.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

impl AddressTranslation {
    const BYTES: u16 = 8;

    /// ATS Control, 16 bits ([`AtsControl`]).
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset + 6
    }
}

impl ExtendedCapability for AddressTranslation {
    const ID: u16 = id::extended::ADDRESS_TRANSLATION;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        let word = cfg.read16(at, offset + 4);
        Ok(Self {
            offset,
            // 32 does not fit the field: it is written as 0 (PCIe 5.0, 10.5.1.2).
            queue_depth: match word & 0x1f {
                0 => 32,
                depth => depth as u8,
            },
            page_aligned: word & 1 << 5 != 0,
            global_invalidate: word & 1 << 6 != 0,
            control: AtsControl(cfg.read16(at, offset + 6)),
        })
    }
}
