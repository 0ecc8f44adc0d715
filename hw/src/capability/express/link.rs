//! The link's registers of the PCI Express capability: [`LinkRegisters`] and
//! [`Link2Registers`] (PCIe 5.0, 7.5.3.6 to 7.5.3.8, 7.5.3.18 to 7.5.3.20).

use bitflags::bitflags;

bitflags! {
    /// Link Capabilities; bits 3:0 speed, 9:4 width, 11:10 power management, 14:12 and 17:15 exit
    /// latencies, 31:24 port number.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct LinkCapabilities: u32 {
        /// The reference clock may be removed.
        const CLOCK_POWER_MANAGEMENT = 1 << 18;
        /// A downstream port reports links that go down by surprise.
        const SURPRISE_DOWN_REPORTING = 1 << 19;
        /// A downstream port reports whether its link is active.
        const ACTIVE_REPORTING = 1 << 20;
        /// Notifies of changes of bandwidth.
        const BANDWIDTH_NOTIFICATION = 1 << 21;
        /// Keeps the rules of optional power management.
        const ASPM_OPTIONALITY = 1 << 22;
        const _ = !0;
    }
}

impl LinkCapabilities {
    /// Highest speed: 1 for 2.5 GT/s, 2 for 5, 3 for 8, 4 for 16, 5 for 32, 6 for 64, 7 for 128.
    #[must_use]
    pub const fn max_speed(self) -> u8 {
        (self.bits() & 0xf) as u8
    }

    /// Largest width, in lanes.
    #[must_use]
    pub const fn max_width(self) -> u8 {
        (self.bits() >> 4 & 0x3f) as u8
    }

    /// Active state power management: bit 0 L0s, bit 1 L1.
    #[must_use]
    pub const fn power_management(self) -> u8 {
        (self.bits() >> 10 & 3) as u8
    }

    /// Encoding of the exit latency from L0s: below 64 ns times two to the power of this, 7 for more.
    #[must_use]
    pub const fn l0s_exit_latency(self) -> u8 {
        (self.bits() >> 12 & 7) as u8
    }

    /// Encoding of the exit latency from L1: below 1 us times two to the power of this, 7 for more.
    #[must_use]
    pub const fn l1_exit_latency(self) -> u8 {
        (self.bits() >> 15 & 7) as u8
    }

    /// Number of the port.
    #[must_use]
    pub const fn port(self) -> u8 {
        (self.bits() >> 24) as u8
    }
}

bitflags! {
    /// Link Control; bits 1:0 power management.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct LinkControl: u16 {
        /// Completions are cut at 128 bytes instead of 64.
        const COMPLETION_BOUNDARY_128 = 1 << 3;
        /// A downstream port's link is off.
        const DISABLE = 1 << 4;
        /// A downstream port trains its link anew; reads zero.
        const RETRAIN = 1 << 5;
        /// Both ends share their clock.
        const COMMON_CLOCK = 1 << 6;
        /// More symbols when L0s is left, for test equipment.
        const EXTENDED_SYNCH = 1 << 7;
        /// The reference clock may be removed.
        const CLOCK_POWER_MANAGEMENT = 1 << 8;
        /// Hardware does not change the width by itself.
        const WIDTH_CHANGE_DISABLE = 1 << 9;
        /// Interrupts when software changed the bandwidth.
        const BANDWIDTH_INTERRUPT = 1 << 10;
        /// Interrupts when hardware changed the bandwidth.
        const AUTONOMOUS_INTERRUPT = 1 << 11;
        /// Does not offer flit mode (PCIe 6.0).
        const FLIT_MODE_DISABLE = 1 << 13;
        const _ = !0;
    }
}

impl LinkControl {
    /// Active state power management in force: bit 0 L0s, bit 1 L1.
    #[must_use]
    pub const fn power_management(self) -> u8 {
        (self.bits() & 3) as u8
    }
}

bitflags! {
    /// Link Status; bits 3:0 speed, 9:4 width; bits 15:14 are cleared by writing ones.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct LinkStatus: u16 {
        /// Before PCIe 2.0: training failed.
        const TRAINING_ERROR = 1 << 10;
        /// A downstream port trains its link.
        const TRAINING = 1 << 11;
        /// Uses the slot's reference clock.
        const SLOT_CLOCK = 1 << 12;
        /// A downstream port's link is active.
        const ACTIVE = 1 << 13;
        /// Software changed the bandwidth.
        const BANDWIDTH_CHANGED = 1 << 14;
        /// Hardware changed the bandwidth.
        const AUTONOMOUS_CHANGED = 1 << 15;
        const _ = !0;
    }
}

impl LinkStatus {
    /// Speed, as [`LinkCapabilities::max_speed`].
    #[must_use]
    pub const fn speed(self) -> u8 {
        (self.bits() & 0xf) as u8
    }

    /// Width, in lanes.
    #[must_use]
    pub const fn width(self) -> u8 {
        (self.bits() >> 4 & 0x3f) as u8
    }
}

/// Link registers at the time of reading.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkRegisters {
    /// Link Capabilities.
    pub capabilities: LinkCapabilities,
    /// Link Control.
    pub control: LinkControl,
    /// Link Status.
    pub status: LinkStatus,
}

bitflags! {
    /// Link Capabilities 2; bits 7:1 speeds. Reserved before PCIe 3.0.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct LinkCapabilities2: u32 {
        /// Can be linked to a port of its own kind.
        const CROSSLINK = 1 << 8;
        /// Detects a retimer.
        const RETIMER = 1 << 23;
        /// Detects two retimers.
        const TWO_RETIMERS = 1 << 24;
        /// Receives readiness messages.
        const READINESS_STATUS = 1 << 31;
        const _ = !0;
    }
}

impl LinkCapabilities2 {
    /// Speeds supported, one bit each: bit 0 for 2.5 GT/s, 1 for 5, 2 for 8, 3 for 16, 4 for 32, 5 for 64, 6 for 128.
    #[must_use]
    pub const fn speeds(self) -> u8 {
        (self.bits() >> 1 & 0x7f) as u8
    }
}

bitflags! {
    /// Link Control 2; bits 3:0 target speed, 9:7 transmit margin, 15:12 compliance preset.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct LinkControl2: u16 {
        /// Enters compliance mode.
        const ENTER_COMPLIANCE = 1 << 4;
        /// Hardware does not change the speed by itself.
        const SPEED_CHANGE_DISABLE = 1 << 5;
        /// A downstream port asks for -3.5 dB instead of -6 dB.
        const SELECT_DEEMPHASIS = 1 << 6;
        /// Sends the modified compliance pattern.
        const MODIFIED_COMPLIANCE = 1 << 10;
        /// Sends skip sets in compliance patterns.
        const COMPLIANCE_SKIP = 1 << 11;
        const _ = !0;
    }
}

impl LinkControl2 {
    /// Target speed, as [`LinkCapabilities::max_speed`].
    #[must_use]
    pub const fn target_speed(self) -> u8 {
        (self.bits() & 0xf) as u8
    }

    /// Encoding of the transmitter's voltage.
    #[must_use]
    pub const fn transmit_margin(self) -> u8 {
        (self.bits() >> 7 & 7) as u8
    }

    /// Encoding of the compliance pattern's preset or de-emphasis.
    #[must_use]
    pub const fn compliance_preset(self) -> u8 {
        (self.bits() >> 12) as u8
    }
}

bitflags! {
    /// Link Status 2; bits 9:8 crosslink, 14:12 component below.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct LinkStatus2: u16 {
        /// De-emphasis is -3.5 dB instead of -6 dB.
        const DEEMPHASIS = 1 << 0;
        /// Equalization at 8 GT/s is complete.
        const EQUALIZED = 1 << 1;
        /// Its phase 1 succeeded.
        const EQUALIZATION_1 = 1 << 2;
        /// Its phase 2 succeeded.
        const EQUALIZATION_2 = 1 << 3;
        /// Its phase 3 succeeded.
        const EQUALIZATION_3 = 1 << 4;
        /// Equalization is asked for; cleared by writing one.
        const EQUALIZATION_REQUEST = 1 << 5;
        /// There is a retimer.
        const RETIMER = 1 << 6;
        /// There are two retimers.
        const TWO_RETIMERS = 1 << 7;
        /// The link is in flit mode (PCIe 6.0).
        const FLIT_MODE = 1 << 10;
        /// A readiness message was received; cleared by writing one.
        const READINESS_RECEIVED = 1 << 15;
        const _ = !0;
    }
}

impl LinkStatus2 {
    /// Crosslink: 0 none, 1 this end became an upstream port, 2 a downstream port, 3 undecided.
    #[must_use]
    pub const fn crosslink(self) -> u8 {
        (self.bits() >> 8 & 3) as u8
    }

    /// Component below a downstream port that receives readiness messages: 0 link down, unknown;
    /// 1 down, absent; 2 down, present; 4 up; 5 up and ready.
    #[must_use]
    pub const fn component(self) -> u8 {
        (self.bits() >> 12 & 7) as u8
    }
}

/// Second set of link registers at the time of reading; version 2 of the capability has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Link2Registers {
    /// Link Capabilities 2.
    pub capabilities: LinkCapabilities2,
    /// Link Control 2.
    pub control: LinkControl2,
    /// Link Status 2.
    pub status: LinkStatus2,
}
