//! Power management capability: [`PowerManagement`] (PCI Power Management 1.2,
//! chapter 3; PCIe 5.0, 7.5.2).

use bitflags::bitflags;

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

bitflags! {
    /// Power Management Capabilities (PCIe 5.0, 7.5.2.1); bits 2:0 version, 8:6 auxiliary current.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct PowerCapabilities: u16 {
        /// Needs the clock to signal PME.
        const PME_CLOCK = 1 << 3;
        /// Needs initialization by its driver after D0 is entered.
        const DEVICE_SPECIFIC_INIT = 1 << 5;
        /// Supports D1.
        const D1 = 1 << 9;
        /// Supports D2.
        const D2 = 1 << 10;
        /// Signals PME from D0.
        const PME_D0 = 1 << 11;
        /// Signals PME from D1.
        const PME_D1 = 1 << 12;
        /// Signals PME from D2.
        const PME_D2 = 1 << 13;
        /// Signals PME from D3hot.
        const PME_D3_HOT = 1 << 14;
        /// Signals PME from D3cold.
        const PME_D3_COLD = 1 << 15;
        const _ = !0;
    }
}

bitflags! {
    /// Power Management Control/Status, PMCSR (PCIe 5.0, 7.5.2.2); bits 1:0 state, 12:9 data
    /// select, 14:13 data scale.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct PowerControl: u16 {
        /// Keeps its state over D3hot to D0.
        const NO_SOFT_RESET = 1 << 3;
        /// May signal PME.
        const PME_ENABLE = 1 << 8;
        /// Signals PME; cleared by writing one.
        const PME_STATUS = 1 << 15;
        const _ = !0;
    }
}

impl PowerControl {
    /// The power state, bits 1:0.
    #[must_use]
    pub const fn state(self) -> PowerState {
        PowerState::from_bits(self.bits())
    }

    /// What the data register reports, bits 12:9.
    #[must_use]
    pub const fn data_select(self) -> u8 {
        (self.bits() >> 9 & 0xf) as u8
    }

    /// The unit of the data register, bits 14:13.
    #[must_use]
    pub const fn data_scale(self) -> u8 {
        (self.bits() >> 13 & 3) as u8
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
    /// Power Management Capabilities.
    pub capabilities: PowerCapabilities,
    /// PMCSR at the time of reading.
    pub control: PowerControl,
    /// PMCSR bridge support extensions: bit 7 the secondary bus's clock stops with the bridge's
    /// power state, bit 6 (inverted) the secondary bus goes to B3 in D3hot.
    pub bridge_extensions: u8,
}

impl PowerManagement {
    const BYTES: u16 = 8;

    /// Milliamperes from the auxiliary supply in D3cold with PME enabled (PCI Power Management
    /// 1.2, 3.2.3).
    #[must_use]
    pub const fn auxiliary_current(&self) -> u16 {
        match self.capabilities.bits() >> 6 & 7 {
            0 => 0,
            1 => 55,
            2 => 100,
            3 => 160,
            4 => 220,
            5 => 270,
            6 => 320,
            _ => 375,
        }
    }

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
        let capabilities = PowerCapabilities::from_bits_retain(cfg.read16(at, base + 2));
        let control = PowerControl::from_bits_retain(cfg.read16(at, base + 4));
        Ok(Self {
            offset,
            version: (capabilities.bits() & 7) as u8,
            d1: capabilities.contains(PowerCapabilities::D1),
            d2: capabilities.contains(PowerCapabilities::D2),
            no_soft_reset: control.contains(PowerControl::NO_SOFT_RESET),
            state: control.state(),
            capabilities,
            control,
            bridge_extensions: cfg.read8(at, base + 6),
        })
    }
}
