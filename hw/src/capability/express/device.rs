//! The device's own registers of the PCI Express capability: [`DeviceRegisters`]
//! and [`Device2Registers`] (PCIe 5.0, 7.5.3.3 to 7.5.3.5, 7.5.3.15 to 7.5.3.17).

use bitflags::bitflags;

use super::PowerLimit;

bitflags! {
    /// Device Capabilities; bits 2:0 payload, 4:3 phantom functions, 8:6 and 11:9 acceptable
    /// latencies, 25:18 and 27:26 slot power limit.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DeviceCapabilities: u32 {
        /// Tags of 8 bits.
        const EXTENDED_TAG = 1 << 5;
        /// Before PCIe 1.1: has an attention button.
        const ATTENTION_BUTTON = 1 << 12;
        /// Before PCIe 1.1: has an attention indicator.
        const ATTENTION_INDICATOR = 1 << 13;
        /// Before PCIe 1.1: has a power indicator.
        const POWER_INDICATOR = 1 << 14;
        /// Reports errors by their role (PCIe 1.1 and later).
        const ROLE_BASED_ERRORS = 1 << 15;
        /// Can be reset alone; endpoints only.
        const FUNCTION_LEVEL_RESET = 1 << 28;
        /// Can be assigned to a trusted machine (PCIe 6.0, TDISP).
        const TRUSTED_IO = 1 << 30;
        const _ = !0;
    }
}

impl DeviceCapabilities {
    /// Encoding of the largest payload: 128 bytes times two to the power of this; above 5 is reserved.
    #[must_use]
    pub const fn payload_log2(self) -> u8 {
        (self.bits() & 7) as u8
    }

    /// Bits of the function number that the device uses as tags, 0 to 3: it sends with the ids of
    /// functions that do not exist. An isolation group contains them.
    #[must_use]
    pub const fn phantom_bits(self) -> u8 {
        (self.bits() >> 3 & 3) as u8
    }

    /// Encoding of the latency from L0s that an endpoint accepts: 64 ns times two to the power of
    /// this, 7 for any.
    #[must_use]
    pub const fn l0s_latency(self) -> u8 {
        (self.bits() >> 6 & 7) as u8
    }

    /// Encoding of the latency from L1 that an endpoint accepts: 1 us times two to the power of
    /// this, 7 for any.
    #[must_use]
    pub const fn l1_latency(self) -> u8 {
        (self.bits() >> 9 & 7) as u8
    }

    /// Power that the slot gives the card.
    #[must_use]
    pub const fn slot_power_limit(self) -> PowerLimit {
        PowerLimit {
            value: (self.bits() >> 18) as u8,
            scale: (self.bits() >> 26 & 3) as u8,
        }
    }
}

bitflags! {
    /// Device Control; bits 7:5 payload, 14:12 read request.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DeviceControl: u16 {
        /// Reports correctable errors.
        const REPORT_CORRECTABLE = 1 << 0;
        /// Reports non-fatal errors.
        const REPORT_NON_FATAL = 1 << 1;
        /// Reports fatal errors.
        const REPORT_FATAL = 1 << 2;
        /// Reports unsupported requests.
        const REPORT_UNSUPPORTED = 1 << 3;
        /// May send requests that may be reordered.
        const RELAXED_ORDERING = 1 << 4;
        /// Uses tags of 8 bits.
        const EXTENDED_TAG = 1 << 8;
        /// Uses phantom functions' numbers.
        const PHANTOM_FUNCTIONS = 1 << 9;
        /// Draws auxiliary power.
        const AUXILIARY_POWER = 1 << 10;
        /// May send requests that skip the processors' caches.
        const NO_SNOOP = 1 << 11;
        /// Endpoints: starts a function-level reset and reads zero. Bridges to conventional PCI:
        /// answer configuration requests with a retry.
        const INITIATE_FLR = 1 << 15;
        const _ = !0;
    }
}

impl DeviceControl {
    /// Encoding of the largest payload sent: 128 bytes times two to the power of this.
    #[must_use]
    pub const fn payload_log2(self) -> u8 {
        (self.bits() >> 5 & 7) as u8
    }

    /// Encoding of the largest read request: 128 bytes times two to the power of this.
    #[must_use]
    pub const fn read_request_log2(self) -> u8 {
        (self.bits() >> 12 & 7) as u8
    }
}

bitflags! {
    /// Device Status; bits 3:0 are cleared by writing ones.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DeviceStatus: u16 {
        /// Saw a correctable error.
        const CORRECTABLE = 1 << 0;
        /// Saw a non-fatal error.
        const NON_FATAL = 1 << 1;
        /// Saw a fatal error.
        const FATAL = 1 << 2;
        /// Got an unsupported request.
        const UNSUPPORTED = 1 << 3;
        /// Sees auxiliary power.
        const AUXILIARY_POWER = 1 << 4;
        /// Waits for completions.
        const TRANSACTIONS_PENDING = 1 << 5;
        const _ = !0;
    }
}

/// Device registers at the time of reading.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeviceRegisters {
    /// Device Capabilities.
    pub capabilities: DeviceCapabilities,
    /// Device Control.
    pub control: DeviceControl,
    /// Device Status.
    pub status: DeviceStatus,
}

bitflags! {
    /// Device Capabilities 2; bits 3:0 timeout ranges, 13:12 processing hints, 15:14 cache line,
    /// 19:18 OBFF, 23:22 prefixes, 25:24 emergency power.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DeviceCapabilities2: u32 {
        /// The completion timeout can be turned off.
        const TIMEOUT_DISABLE = 1 << 4;
        /// A downstream port forwards requests by function numbers of 8 bits.
        const ARI_FORWARDING = 1 << 5;
        /// Routes atomic operations.
        const ATOMIC_ROUTING = 1 << 6;
        /// Completes atomic operations of 32 bits.
        const ATOMIC_32 = 1 << 7;
        /// Completes atomic operations of 64 bits.
        const ATOMIC_64 = 1 << 8;
        /// Completes compare-and-swap of 128 bits.
        const CAS_128 = 1 << 9;
        /// Never lets relaxed writes pass between its ports.
        const NO_RELAXED_PASSING = 1 << 10;
        /// Reports latency tolerance.
        const LATENCY_TOLERANCE = 1 << 11;
        /// Completes requests with tags of 10 bits.
        const TAG10_COMPLETER = 1 << 16;
        /// Can send requests with tags of 10 bits.
        const TAG10_REQUESTER = 1 << 17;
        /// Understands the third bit of the format field.
        const EXTENDED_FORMAT = 1 << 20;
        /// Understands end-to-end prefixes.
        const END_TO_END_PREFIX = 1 << 21;
        /// Must be set up for emergency power reduction.
        const EMERGENCY_POWER_INIT = 1 << 26;
        /// Sends readiness messages of its functions.
        const READINESS_STATUS = 1 << 31;
        const _ = !0;
    }
}

impl DeviceCapabilities2 {
    /// Completion timeout ranges A to D, a bit each; 0 if the timeout is fixed.
    #[must_use]
    pub const fn timeout_ranges(self) -> u8 {
        (self.bits() & 0xf) as u8
    }

    /// Processing hints: 0 none, 1 completer, 3 also extended ones, 2 reserved.
    #[must_use]
    pub const fn processing_hints(self) -> u8 {
        (self.bits() >> 12 & 3) as u8
    }

    /// Cache line of lightweight notification: 0 none, 1 64 bytes, 2 128 bytes, 3 reserved.
    #[must_use]
    pub const fn notification_line(self) -> u8 {
        (self.bits() >> 14 & 3) as u8
    }

    /// Optimized buffer flush and fill: bit 0 by message, bit 1 by WAKE#.
    #[must_use]
    pub const fn buffer_flush(self) -> u8 {
        (self.bits() >> 18 & 3) as u8
    }

    /// End-to-end prefixes that it understands, 1 to 4; of meaning with
    /// [`Self::END_TO_END_PREFIX`].
    #[must_use]
    pub const fn max_prefixes(self) -> u8 {
        match self.bits() >> 22 & 3 {
            0 => 4,
            count => count as u8,
        }
    }

    /// Emergency power reduction: 0 none, 1 device specific, 2 form factor or device specific, 3 reserved.
    #[must_use]
    pub const fn emergency_power(self) -> u8 {
        (self.bits() >> 24 & 3) as u8
    }
}

bitflags! {
    /// Device Control 2; bits 3:0 timeout, 14:13 OBFF.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DeviceControl2: u16 {
        /// No completion timeout.
        const TIMEOUT_DISABLE = 1 << 4;
        /// A downstream port forwards requests by function numbers of 8 bits.
        const ARI_FORWARDING = 1 << 5;
        /// May send atomic operations.
        const ATOMIC_REQUESTER = 1 << 6;
        /// Blocks atomic operations on their way out.
        const ATOMIC_EGRESS_BLOCK = 1 << 7;
        /// Requests may be ordered by their id.
        const ID_ORDERED_REQUESTS = 1 << 8;
        /// Completions may be ordered by their id.
        const ID_ORDERED_COMPLETIONS = 1 << 9;
        /// Reports latency tolerance.
        const LATENCY_TOLERANCE = 1 << 10;
        /// Is to save power in an emergency.
        const EMERGENCY_POWER_REQUEST = 1 << 11;
        /// Sends requests with tags of 10 bits.
        const TAG10_REQUESTER = 1 << 12;
        /// A port lets no end-to-end prefix out.
        const PREFIX_BLOCK = 1 << 15;
        const _ = !0;
    }
}

impl DeviceControl2 {
    /// Encoding of the completion timeout (PCIe 5.0, table 7-27).
    #[must_use]
    pub const fn timeout(self) -> u8 {
        (self.bits() & 0xf) as u8
    }

    /// Optimized buffer flush and fill: 0 off, 1 and 2 by message (variations A, B), 3 by WAKE#.
    #[must_use]
    pub const fn buffer_flush(self) -> u8 {
        (self.bits() >> 13 & 3) as u8
    }
}

/// Second set of device registers at the time of reading; version 2 of the capability has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Device2Registers {
    /// Device Capabilities 2.
    pub capabilities: DeviceCapabilities2,
    /// Device Control 2.
    pub control: DeviceControl2,
}
