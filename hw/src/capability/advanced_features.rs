//! Advanced Features capability: function-level reset of a conventional
//! function (PCI ECN "Advanced Capabilities for Conventional PCI", 2006).

use super::{Capability, CapabilityError, check_extent, id};
use crate::{ConfigSpace, Sbdf};

/// What a conventional function can do like an Express one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AdvancedFeatures {
    /// Where the capability starts.
    pub offset: u8,
    /// Reports whether transactions are pending; a function-level reset needs it.
    pub transactions_pending: bool,
    /// Can be reset alone.
    pub function_level_reset: bool,
    /// Transactions were pending at the time of reading.
    pub pending: bool,
}

impl AdvancedFeatures {
    const BYTES: u16 = 6;
    /// Bit of the control register (8 bits) that starts a function-level reset.
    pub const INITIATE_FLR: u8 = 1;
    /// Bit of the status register (8 bits): transactions are pending.
    pub const TRANSACTIONS_PENDING: u8 = 1;

    /// Control register, 8 bits ([`Self::INITIATE_FLR`]).
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset as u16 + 4
    }

    /// Status register, 8 bits ([`Self::TRANSACTIONS_PENDING`]).
    #[must_use]
    pub const fn status_register(&self) -> u16 {
        self.offset as u16 + 5
    }
}

impl Capability for AdvancedFeatures {
    const ID: u8 = id::ADVANCED_FEATURES;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u8,
    ) -> Result<Self, CapabilityError> {
        check_extent(Self::ID, offset, Self::BYTES)?;
        let capabilities = cfg.read8(at, u16::from(offset) + 3);
        Ok(Self {
            offset,
            transactions_pending: capabilities & 1 != 0,
            function_level_reset: capabilities & 2 != 0,
            pending: cfg.read8(at, u16::from(offset) + 5) & Self::TRANSACTIONS_PENDING != 0,
        })
    }
}
