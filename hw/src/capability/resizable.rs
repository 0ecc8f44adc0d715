//! Resizable BARs, of a function and of its virtual functions: [`ResizableBars`]
//! and [`VfResizableBars`] (PCIe 5.0, 7.8.6 and 9.3.7.5).

use heapless::Vec;

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::bar::MAX_BARS;
use crate::{ConfigSpace, Sbdf};

/// One BAR that can be resized.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Resizable {
    /// Which BAR, 0 to 5; 6 and 7 are reserved.
    pub bar: u8,
    /// Sizes that it can have: bit n for 1 MiB times two to the power of n, 44 bits.
    pub sizes: u64,
    /// Size that it has: 1 MiB times two to the power of this; above 43 is reserved.
    pub current: u8,
    /// Offset of its control register, 32 bits; bits 13:8 take what [`Self::encode`] gives.
    pub control_register: u16,
}

impl Resizable {
    /// Where the size stands in the control register.
    pub const SIZE_SHIFT: u32 = 8;
    /// The bits of the control register that software writes.
    pub const SIZE_MASK: u32 = 0x3f << Self::SIZE_SHIFT;
    const SMALLEST_LOG2: u32 = 20;
    const COUNT: u8 = 44;

    /// Bytes of the BAR; `None` for a reserved encoding.
    #[must_use]
    pub const fn bytes(&self) -> Option<u64> {
        if self.current < Self::COUNT {
            Some(1 << (Self::SMALLEST_LOG2 + self.current as u32))
        } else {
            None
        }
    }

    /// What to put in [`Self::SIZE_MASK`] of the control register for a BAR of `bytes`; `None` if
    /// the BAR cannot have this size.
    #[must_use]
    pub const fn encode(&self, bytes: u64) -> Option<u32> {
        if !bytes.is_power_of_two() || bytes.trailing_zeros() < Self::SMALLEST_LOG2 {
            return None;
        }
        let log2 = bytes.trailing_zeros() - Self::SMALLEST_LOG2;
        if log2 < Self::COUNT as u32 && self.sizes >> log2 & 1 != 0 {
            Some(log2 << Self::SIZE_SHIFT)
        } else {
            None
        }
    }

    /// Sizes that it can have, in bytes, smallest first.
    pub fn sizes(&self) -> impl Iterator<Item = u64> {
        let sizes = self.sizes;
        (0..u32::from(Self::COUNT))
            .filter(move |log2| sizes >> log2 & 1 != 0)
            .map(|log2| 1 << (Self::SMALLEST_LOG2 + log2))
    }
}

/// BARs of a function that can be resized.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResizableBars(pub Vec<Resizable, MAX_BARS>);

/// BARs of a function's virtual functions that can be resized.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VfResizableBars(pub Vec<Resizable, MAX_BARS>);

fn decode<C: ConfigSpace + ?Sized>(
    cfg: &C,
    at: Sbdf,
    id: u16,
    offset: u16,
) -> Result<Vec<Resizable, MAX_BARS>, CapabilityError> {
    check_extended_extent(id, offset, 12)?;
    let count = cfg.read32(at, offset + 8) >> 5 & 7;
    if !(1..=MAX_BARS as u32).contains(&count) {
        return Err(CapabilityError::Reserved {
            id,
            offset,
            field: "number of resizable BARs",
            value: count,
        });
    }
    // At most six, as checked.
    let count = count as u16;
    check_extended_extent(id, offset, 4 + 8 * count)?;
    let bars = (0..count).map(|index| {
        let capability = cfg.read32(at, offset + 4 + 8 * index);
        let control_register = offset + 8 + 8 * index;
        let control = cfg.read32(at, control_register);
        Resizable {
            bar: (control & 7) as u8,
            sizes: u64::from(capability >> 4) | u64::from(control >> 16) << 28,
            current: (control >> 8 & 0x3f) as u8,
            control_register,
        }
    });
    Ok(bars.collect())
}

impl ExtendedCapability for ResizableBars {
    const ID: u16 = id::extended::RESIZABLE_BAR;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        decode(cfg, at, Self::ID, offset).map(Self)
    }
}

impl ExtendedCapability for VfResizableBars {
    const ID: u16 = id::extended::VF_RESIZABLE_BAR;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        decode(cfg, at, Self::ID, offset).map(Self)
    }
}
