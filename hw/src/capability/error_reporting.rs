//! Advanced error reporting: [`ErrorReporting`], and what a root port or event
//! collector adds, [`RootErrors`] (PCIe 5.0, 7.8.4).

use bitflags::bitflags;

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::{ConfigSpace, Sbdf};

bitflags! {
    /// Uncorrectable errors: the bits of status, mask and severity (PCIe 5.0, 7.8.4.2 to 7.8.4.4).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct UncorrectableErrors: u32 {
        /// The data link layer broke its protocol.
        const DATA_LINK_PROTOCOL = 1 << 4;
        /// The link went down by surprise.
        const SURPRISE_DOWN = 1 << 5;
        /// A poisoned transaction was received.
        const POISONED = 1 << 12;
        /// Flow control broke its protocol.
        const FLOW_CONTROL = 1 << 13;
        /// No completion came in time.
        const COMPLETION_TIMEOUT = 1 << 14;
        /// The function aborted a request.
        const COMPLETER_ABORT = 1 << 15;
        /// A completion came for no request.
        const UNEXPECTED_COMPLETION = 1 << 16;
        /// The receiver overflowed.
        const RECEIVER_OVERFLOW = 1 << 17;
        /// A malformed transaction was received.
        const MALFORMED = 1 << 18;
        /// The end-to-end checksum was wrong.
        const ECRC = 1 << 19;
        /// A request was not supported.
        const UNSUPPORTED_REQUEST = 1 << 20;
        /// Access control was violated.
        const ACS_VIOLATION = 1 << 21;
        /// The function found an error within itself.
        const INTERNAL = 1 << 22;
        /// A multicast transaction was blocked.
        const MULTICAST_BLOCKED = 1 << 23;
        /// An atomic operation was blocked on its way out.
        const ATOMIC_BLOCKED = 1 << 24;
        /// A prefix was blocked on its way out.
        const PREFIX_BLOCKED = 1 << 25;
        /// A poisoned transaction was blocked on its way out.
        const POISONED_BLOCKED = 1 << 26;
        /// A deferrable write was blocked on its way out (this and what follows: PCIe 6.0).
        const DEFERRABLE_WRITE_BLOCKED = 1 << 27;
        /// The check of an encrypted stream failed.
        const ENCRYPTION_CHECK = 1 << 28;
        /// A transaction of an encrypted stream went astray.
        const ENCRYPTION_MISROUTED = 1 << 29;
        /// The plaintext checksum of an encrypted stream was wrong.
        const PLAINTEXT_CHECKSUM = 1 << 30;
        /// A translated or translation request was blocked on its way out.
        const TRANSLATION_BLOCKED = 1 << 31;
        const _ = !0;
    }
}

bitflags! {
    /// Correctable errors: the bits of status and mask (PCIe 5.0, 7.8.4.5 and 7.8.4.6).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct CorrectableErrors: u32 {
        /// The receiver saw an error.
        const RECEIVER = 1 << 0;
        /// A transaction had a wrong checksum or sequence number.
        const BAD_TRANSACTION = 1 << 6;
        /// A data link packet had a wrong checksum.
        const BAD_DATA_LINK = 1 << 7;
        /// The replay counter rolled over.
        const REPLAY_ROLLOVER = 1 << 8;
        /// The replay timer ran out.
        const REPLAY_TIMEOUT = 1 << 12;
        /// A non-fatal error that the function took as advisory.
        const ADVISORY_NON_FATAL = 1 << 13;
        /// The function corrected an error within itself.
        const CORRECTED_INTERNAL = 1 << 14;
        /// More headers came than the log holds.
        const LOG_OVERFLOW = 1 << 15;
        const _ = !0;
    }
}

bitflags! {
    /// Advanced Error Capabilities and Control (PCIe 5.0, 7.8.4.7); bits 4:0 first error.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct ErrorControl: u32 {
        /// Can generate end-to-end checksums.
        const ECRC_GENERATION_CAPABLE = 1 << 5;
        /// Generates end-to-end checksums.
        const ECRC_GENERATION_ENABLE = 1 << 6;
        /// Can check end-to-end checksums.
        const ECRC_CHECK_CAPABLE = 1 << 7;
        /// Checks end-to-end checksums.
        const ECRC_CHECK_ENABLE = 1 << 8;
        /// Can log several headers.
        const MULTIPLE_HEADER_CAPABLE = 1 << 9;
        /// Logs several headers.
        const MULTIPLE_HEADER_ENABLE = 1 << 10;
        /// The prefix log is valid.
        const PREFIX_LOG_PRESENT = 1 << 11;
        /// Logs headers of completions that timed out.
        const TIMEOUT_LOG_CAPABLE = 1 << 12;
        const _ = !0;
    }
}

impl ErrorControl {
    /// Bit number of the first uncorrectable error.
    #[must_use]
    pub const fn first_error(self) -> u8 {
        (self.bits() & 0x1f) as u8
    }
}

bitflags! {
    /// Root Error Command (PCIe 5.0, 7.8.4.9): which messages interrupt.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct RootErrorCommand: u32 {
        /// Correctable ones.
        const CORRECTABLE = 1 << 0;
        /// Non-fatal ones.
        const NON_FATAL = 1 << 1;
        /// Fatal ones.
        const FATAL = 1 << 2;
        const _ = !0;
    }
}

bitflags! {
    /// Root Error Status (PCIe 5.0, 7.8.4.10), cleared by writing ones; bits 31:27 interrupt message.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct RootErrorStatus: u32 {
        /// A correctable error was reported.
        const CORRECTABLE = 1 << 0;
        /// More than one correctable error was.
        const MULTIPLE_CORRECTABLE = 1 << 1;
        /// An uncorrectable error was reported.
        const UNCORRECTABLE = 1 << 2;
        /// More than one uncorrectable error was.
        const MULTIPLE_UNCORRECTABLE = 1 << 3;
        /// The first uncorrectable one was fatal.
        const FIRST_FATAL = 1 << 4;
        /// A non-fatal one is among them.
        const NON_FATAL = 1 << 5;
        /// A fatal one is among them.
        const FATAL = 1 << 6;
        const _ = !0;
    }
}

impl RootErrorStatus {
    /// Number of the vector that it interrupts with.
    #[must_use]
    pub const fn interrupt_message(self) -> u8 {
        (self.bits() >> 27) as u8
    }
}

/// Errors of a function, as they were at the time of reading.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ErrorReporting {
    /// Where the capability starts.
    pub offset: u16,
    /// Uncorrectable errors that were seen; cleared by writing ones.
    pub uncorrectable: UncorrectableErrors,
    /// Uncorrectable errors that are not reported.
    pub uncorrectable_mask: UncorrectableErrors,
    /// Uncorrectable errors that are reported as fatal.
    pub severity: UncorrectableErrors,
    /// Correctable errors that were seen; cleared by writing ones.
    pub correctable: CorrectableErrors,
    /// Correctable errors that are not reported.
    pub correctable_mask: CorrectableErrors,
    /// Checksums, and which error came first.
    pub control: ErrorControl,
    /// Header of the transaction with the first error.
    pub header_log: [u32; 4],
}

/// What a root port or event collector knows of the errors below it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RootErrors {
    /// Which messages interrupt.
    pub command: RootErrorCommand,
    /// What was reported.
    pub status: RootErrorStatus,
    /// Requester id of the first correctable error.
    pub correctable_source: u16,
    /// Requester id of the first uncorrectable error.
    pub uncorrectable_source: u16,
}

impl ErrorReporting {
    const BYTES: u16 = 0x2c;
    const ROOT_BYTES: u16 = 0x38;

    /// Uncorrectable Error Status, 32 bits; cleared by writing ones.
    #[must_use]
    pub const fn uncorrectable_register(&self) -> u16 {
        self.offset + 0x04
    }

    /// Uncorrectable Error Mask, 32 bits.
    #[must_use]
    pub const fn uncorrectable_mask_register(&self) -> u16 {
        self.offset + 0x08
    }

    /// Uncorrectable Error Severity, 32 bits: ones are fatal.
    #[must_use]
    pub const fn severity_register(&self) -> u16 {
        self.offset + 0x0c
    }

    /// Correctable Error Status, 32 bits; cleared by writing ones.
    #[must_use]
    pub const fn correctable_register(&self) -> u16 {
        self.offset + 0x10
    }

    /// Correctable Error Mask, 32 bits.
    #[must_use]
    pub const fn correctable_mask_register(&self) -> u16 {
        self.offset + 0x14
    }

    /// Root Error Command, 32 bits; of meaning in root ports and event collectors.
    #[must_use]
    pub const fn root_command_register(&self) -> u16 {
        self.offset + 0x2c
    }

    /// Root Error Status, 32 bits; as [`Self::root_command_register`].
    #[must_use]
    pub const fn root_status_register(&self) -> u16 {
        self.offset + 0x30
    }

    /// Error Source Identification, 32 bits: correctable in the lower half.
    #[must_use]
    pub const fn source_register(&self) -> u16 {
        self.offset + 0x34
    }

    /// Reads what only root ports and event collectors have.
    ///
    /// # Errors
    /// The registers pass the end of the space.
    pub fn root<C: ConfigSpace + ?Sized>(
        &self,
        cfg: &C,
        at: Sbdf,
    ) -> Result<RootErrors, CapabilityError> {
        check_extended_extent(Self::ID, self.offset, Self::ROOT_BYTES)?;
        let source = cfg.read32(at, self.source_register());
        let command = cfg.read32(at, self.root_command_register());
        let status = cfg.read32(at, self.root_status_register());
        Ok(RootErrors {
            command: RootErrorCommand::from_bits_retain(command),
            status: RootErrorStatus::from_bits_retain(status),
            correctable_source: source as u16,
            uncorrectable_source: (source >> 16) as u16,
        })
    }
}

impl ExtendedCapability for ErrorReporting {
    const ID: u16 = id::extended::ERROR_REPORTING;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        let read = |register: u16| cfg.read32(at, offset + register);
        Ok(Self {
            offset,
            uncorrectable: UncorrectableErrors::from_bits_retain(read(0x04)),
            uncorrectable_mask: UncorrectableErrors::from_bits_retain(read(0x08)),
            severity: UncorrectableErrors::from_bits_retain(read(0x0c)),
            correctable: CorrectableErrors::from_bits_retain(read(0x10)),
            correctable_mask: CorrectableErrors::from_bits_retain(read(0x14)),
            control: ErrorControl::from_bits_retain(read(0x18)),
            header_log: [read(0x1c), read(0x20), read(0x24), read(0x28)],
        })
    }
}
