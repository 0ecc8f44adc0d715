//! MSI capability: [`Msi`], with the place of each register (PCIe 5.0, 7.7.1).
//!
//! Four layouts exist: the upper address half and the mask and pending words
//! are each optional and move what follows.

use super::{Capability, CapabilityError, check_extent, id};
use crate::{ConfigSpace, Sbdf};

/// Message signalled interrupts of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Msi {
    /// Where the capability starts.
    pub offset: u8,
    /// Sends to addresses of 64 bits.
    pub address64: bool,
    /// Each vector has a mask and a pending bit.
    pub maskable: bool,
    /// Vectors the function asks for: 1, 2, 4, 8, 16 or 32.
    pub vectors: u8,
    /// Whether it was enabled at the time of reading.
    pub enabled: bool,
    /// Vectors that it may use at the time of reading; 64 and 128 stand for the reserved
    /// encodings of Multiple Message Enable.
    pub allowed: u8,
}

/// What a function sends, and which vectors it holds back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MsiMessage {
    /// Message address.
    pub address: u64,
    /// Message data of the first vector.
    pub data: u16,
    /// Masked vectors, where each has a mask.
    pub mask: Option<u32>,
    /// Pending vectors, where each has a pending bit.
    pub pending: Option<u32>,
}

impl Msi {
    /// Message control: the function sends MSIs instead of INTx.
    pub const ENABLE: u16 = 1;
    /// Message control, bits 6:4: how many vectors it may use, as a power of two.
    pub const MULTIPLE_ENABLE_SHIFT: u32 = 4;
    /// The bits of message control that software writes.
    pub const MULTIPLE_ENABLE_MASK: u16 = 7 << Self::MULTIPLE_ENABLE_SHIFT;

    /// Bytes that the capability takes.
    #[must_use]
    pub const fn bytes(&self) -> u16 {
        match (self.address64, self.maskable) {
            (false, false) => 10,
            (true, false) => 14,
            (false, true) => 20,
            (true, true) => 24,
        }
    }

    /// Message control, 16 bits.
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset as u16 + 2
    }

    /// Message address, lower 32 bits.
    #[must_use]
    pub const fn address_register(&self) -> u16 {
        self.offset as u16 + 4
    }

    /// Message address, upper 32 bits, where the function has them.
    #[must_use]
    pub const fn upper_address_register(&self) -> Option<u16> {
        if self.address64 {
            Some(self.offset as u16 + 8)
        } else {
            None
        }
    }

    /// Message data, 16 bits.
    #[must_use]
    pub const fn data_register(&self) -> u16 {
        self.offset as u16 + if self.address64 { 12 } else { 8 }
    }

    /// Mask bits, 32 bits: one a vector, set is masked.
    #[must_use]
    pub const fn mask_register(&self) -> Option<u16> {
        if self.maskable {
            Some(self.offset as u16 + if self.address64 { 16 } else { 12 })
        } else {
            None
        }
    }

    /// Pending bits, 32 bits, read only.
    #[must_use]
    pub const fn pending_register(&self) -> Option<u16> {
        if self.maskable {
            Some(self.offset as u16 + if self.address64 { 20 } else { 16 })
        } else {
            None
        }
    }

    /// Reads the message and the masks as they are now.
    pub fn message<C: ConfigSpace + ?Sized>(&self, cfg: &C, at: Sbdf) -> MsiMessage {
        let upper = self
            .upper_address_register()
            .map_or(0, |register| cfg.read32(at, register));
        let lower = cfg.read32(at, self.address_register());
        MsiMessage {
            address: u64::from(upper) << 32 | u64::from(lower),
            data: cfg.read16(at, self.data_register()),
            mask: self
                .mask_register()
                .map(|register| cfg.read32(at, register)),
            pending: self
                .pending_register()
                .map(|register| cfg.read32(at, register)),
        }
    }

    /// The Multiple Message Enable field for `vectors`, a power of two up to what the
    /// function asks for; `None` for any other number.
    #[must_use]
    pub const fn multiple_enable(&self, vectors: u8) -> Option<u16> {
        if vectors.is_power_of_two() && vectors <= self.vectors {
            Some((vectors.trailing_zeros() as u16) << Self::MULTIPLE_ENABLE_SHIFT)
        } else {
            None
        }
    }
}

impl Capability for Msi {
    const ID: u8 = id::MSI;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u8,
    ) -> Result<Self, CapabilityError> {
        check_extent(Self::ID, offset, 10)?;
        let control = cfg.read16(at, u16::from(offset) + 2);
        let wanted = control >> 1 & 7;
        if wanted > 5 {
            return Err(CapabilityError::Reserved {
                id: u16::from(Self::ID),
                offset: u16::from(offset),
                field: "multiple message capable",
                value: u32::from(wanted),
            });
        }
        let msi = Self {
            offset,
            address64: control & 1 << 7 != 0,
            maskable: control & 1 << 8 != 0,
            vectors: 1 << wanted,
            enabled: control & Self::ENABLE != 0,
            allowed: 1 << ((control & Self::MULTIPLE_ENABLE_MASK) >> Self::MULTIPLE_ENABLE_SHIFT),
        };
        check_extent(Self::ID, offset, msi.bytes())?;
        Ok(msi)
    }
}
