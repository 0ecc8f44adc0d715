//! Downstream Port Containment: [`Containment`], a port that cuts its link after
//! an uncorrectable error (PCIe 5.0, 7.9.15 and 6.2.10).

use bitflags::bitflags;

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::{ConfigSpace, Sbdf};

bitflags! {
    /// DPC Capability; bits 4:0 interrupt message, 11:8 words of the root port's log.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DpcCapabilities: u16 {
        /// Has the extensions of a root port.
        const ROOT_PORT_EXTENSIONS = 1 << 5;
        /// Can keep poisoned requests from going down.
        const POISONED_EGRESS_BLOCKING = 1 << 6;
        /// Software can trigger it.
        const SOFTWARE_TRIGGER = 1 << 7;
        /// Can send ERR_COR when the link becomes active.
        const LINK_ACTIVE_SIGNAL = 1 << 12;
        const _ = !0;
    }
}

bitflags! {
    /// DPC Control; bits 1:0 trigger (0 off, 1 fatal, 2 fatal and non-fatal errors).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DpcControl: u16 {
        /// Triggers on fatal errors.
        const TRIGGER_FATAL = 1 << 0;
        /// Triggers on fatal and non-fatal errors.
        const TRIGGER_NON_FATAL = 1 << 1;
        /// Requests to below complete as unsupported while triggered, else with Completer Abort.
        const COMPLETION_UNSUPPORTED = 1 << 2;
        /// Interrupts when triggered.
        const INTERRUPT_ENABLE = 1 << 3;
        /// Sends ERR_COR when triggered.
        const ERR_COR_ENABLE = 1 << 4;
        /// Keeps poisoned requests from going down.
        const POISONED_EGRESS_BLOCKING = 1 << 5;
        /// Triggers now; reads zero.
        const SOFTWARE_TRIGGER = 1 << 6;
        /// Sends ERR_COR when the link becomes active.
        const LINK_ACTIVE_SIGNAL = 1 << 7;
        const _ = !0;
    }
}

bitflags! {
    /// DPC Status; bits 2:1 reason, 6:5 its extension, 12:8 first error of the root port.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DpcStatus: u16 {
        /// Triggered: the link is off; cleared by writing one.
        const TRIGGERED = 1 << 0;
        /// An interrupt was signalled; cleared by writing one.
        const INTERRUPT = 1 << 3;
        /// The root port still works on it: wait before the trigger is cleared.
        const ROOT_PORT_BUSY = 1 << 4;
        const _ = !0;
    }
}

impl DpcStatus {
    /// Why it triggered: 0 uncorrectable error seen, 1 ERR_NONFATAL, 2 ERR_FATAL received, 3 see
    /// [`Self::reason_extension`].
    #[must_use]
    pub const fn reason(self) -> u8 {
        (self.bits() >> 1 & 3) as u8
    }

    /// With reason 3: 0 root port's own error, 1 software.
    #[must_use]
    pub const fn reason_extension(self) -> u8 {
        (self.bits() >> 5 & 3) as u8
    }

    /// First error of the root port's extensions.
    #[must_use]
    pub const fn first_error(self) -> u8 {
        (self.bits() >> 8 & 0x1f) as u8
    }
}

/// Containment of a downstream port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Containment {
    /// Where the capability starts.
    pub offset: u16,
    /// What it can do.
    pub capabilities: DpcCapabilities,
    /// What is set at the time of reading.
    pub control: DpcControl,
    /// What had happened at the time of reading.
    pub status: DpcStatus,
    /// Requester id of the error message that triggered it.
    pub source: u16,
}

impl Containment {
    const BYTES: u16 = 12;

    /// Number of the vector that it interrupts with.
    #[must_use]
    pub const fn interrupt_message(&self) -> u8 {
        (self.capabilities.bits() & 0x1f) as u8
    }

    /// Words in the root port's log.
    #[must_use]
    pub const fn log_words(&self) -> u8 {
        (self.capabilities.bits() >> 8 & 0xf) as u8
    }

    /// DPC Control, 16 bits.
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset + 6
    }

    /// DPC Status, 16 bits.
    #[must_use]
    pub const fn status_register(&self) -> u16 {
        self.offset + 8
    }
}

impl ExtendedCapability for Containment {
    const ID: u16 = id::extended::PORT_CONTAINMENT;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        Ok(Self {
            offset,
            capabilities: DpcCapabilities::from_bits_retain(cfg.read16(at, offset + 4)),
            control: DpcControl::from_bits_retain(cfg.read16(at, offset + 6)),
            status: DpcStatus::from_bits_retain(cfg.read16(at, offset + 8)),
            source: cfg.read16(at, offset + 10),
        })
    }
}
