//! Power management capability: [`PowerManagement`] (PCI Power Management 1.2,
//! chapter 3; PCIe 5.0, 7.5.2).

use super::{Capability, CapabilityError, check_extent, id};
use crate::{ConfigSpace, Sbdf};

/// Power state of a function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PowerState {
    /// Working.
    D0,
    /// Light sleep.
    D1,
    /// Deeper sleep.
    D2,
    /// Off but for configuration space.
    D3Hot,
}

impl PowerState {
    /// The value of PMCSR bits 1:0 for this state.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self as u16
    }

    /// The state in PMCSR bits 1:0; other bits are ignored.
    #[must_use]
    pub const fn from_bits(control: u16) -> Self {
        match control & 3 {
            0 => Self::D0,
            1 => Self::D1,
            2 => Self::D2,
            _ => Self::D3Hot,
        }
    }
}

/// What the function can do about power, and where its control register is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PowerManagement {
    /// Where the capability starts.
    pub offset: u8,
    /// Version of the power management specification, 3 today.
    pub version: u8,
    /// Supports D1.
    pub d1: bool,
    /// Supports D2.
    pub d2: bool,
    /// Keeps its state over D3hot to D0: that way is no reset of the function.
    pub no_soft_reset: bool,
    /// State at the time of reading.
    pub state: PowerState,
}

impl PowerManagement {
    const BYTES: u16 = 8;

    /// PMCSR, 16 bits: bits 1:0 state, bit 8 PME enable, bit 15 PME status (cleared by writing one).
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset as u16 + 4
    }
}

impl Capability for PowerManagement {
    const ID: u8 = id::POWER_MANAGEMENT;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u8,
    ) -> Result<Self, CapabilityError> {
        check_extent(Self::ID, offset, Self::BYTES)?;
        let base = u16::from(offset);
        let capabilities = cfg.read16(at, base + 2);
        let control = cfg.read16(at, base + 4);
        Ok(Self {
            offset,
            version: (capabilities & 7) as u8,
            d1: capabilities & 1 << 9 != 0,
            d2: capabilities & 1 << 10 != 0,
            no_soft_reset: control & 1 << 3 != 0,
            state: PowerState::from_bits(control),
        })
    }
}
