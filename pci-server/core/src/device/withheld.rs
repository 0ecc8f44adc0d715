//! Why nobody gets a function: [`Withheld`], and what is wrong with it,
//! [`Malformed`].

use hw::Sbdf;
use hw::bar::BarError;
use hw::capability::{CapabilityError, MsixError, WalkFault};
use hw::header::HeaderError;
use ipc_proto::{Refusal, Rule, WithheldCode};
use thiserror::Error;

/// Why a function is given to nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Withheld {
    /// A host bridge: memory is reached through it.
    #[error("host bridge")]
    HostBridge,
    /// A bridge to other buses, or to ISA: the platform's.
    #[error("bridge")]
    Bridge,
    /// A part of the chipset: interrupt controller, timer, system management bus.
    #[error("part of the chipset")]
    Chipset,
    /// An IOMMU's own function.
    #[error("an IOMMU")]
    Iommu,
    /// The description says so.
    #[error("by the system description")]
    Description,
    /// The console's serial line.
    #[error("the console's serial line")]
    Console,
    /// A physical function whose virtual functions the platform hands out.
    #[error("its virtual functions are handed out")]
    Platform,
    /// It breaks a rule of the specification, or lies where it cannot be used.
    #[error("malformed: {0}")]
    Malformed(Malformed),
}

impl Withheld {
    /// Does it make its isolation group one that nobody gets? Bridges are no end of a request, and the
    /// platform's physical functions are idle: they go with their group, whoever has it.
    #[must_use]
    pub const fn bars_group(self) -> bool {
        !matches!(self, Self::HostBridge | Self::Bridge | Self::Platform)
    }

    /// Its code for a dump.
    #[must_use]
    pub const fn code(self) -> WithheldCode {
        match self {
            Self::HostBridge => WithheldCode::HostBridge,
            Self::Bridge => WithheldCode::Bridge,
            Self::Chipset => WithheldCode::Chipset,
            Self::Iommu => WithheldCode::Iommu,
            Self::Description => WithheldCode::Description,
            Self::Console => WithheldCode::Console,
            Self::Platform => WithheldCode::Platform,
            Self::Malformed(_) => WithheldCode::Malformed,
        }
    }

    /// The refusal of a request for such a device.
    #[must_use]
    pub fn refusal(self, device: Sbdf) -> Refusal {
        let rule = match self {
            Self::Malformed(_) => Rule::MalformedDevice,
            _ => Rule::Withheld,
        };
        Refusal::new(rule, u64::from(device.to_bits()))
    }
}

/// What answers where a device is known to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// The device.
    Same,
    /// Nothing.
    Gone,
    /// Another device, or one that is not ready.
    Other,
}

/// What is wrong with a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Malformed {
    /// Its header makes no sense.
    #[error("{0}")]
    Header(HeaderError),
    /// It stopped answering while it was examined.
    #[error("stopped answering")]
    Vanished,
    /// A capability list does not end properly.
    #[error("{0}")]
    List(WalkFault),
    /// A capability makes no sense.
    #[error("{0}")]
    Capability(CapabilityError),
    /// A BAR breaks a rule.
    #[error("{0}")]
    Bar(BarError),
    /// A BAR is larger than [`crate::MAX_BAR_BYTES`].
    #[error("BAR {0} is absurdly large")]
    BarTooLarge(u8),
    /// A memory BAR was not placed by firmware.
    #[error("BAR {0} has no address")]
    Unplaced(u8),
    /// A memory BAR lies outside the memory that the shard has.
    #[error("BAR {0} lies outside the shard's device memory")]
    OutsideMemory(u8),
    /// A memory BAR overlaps one of another function.
    #[error("BAR {bar} overlaps a BAR of {other}")]
    Overlap {
        /// Which BAR.
        bar: u8,
        /// The other function.
        other: Sbdf,
    },
    /// The MSI-X table is not inside a memory BAR.
    #[error("{0}")]
    Msix(MsixError),
    /// Bus mastering or decoding cannot be switched off.
    #[error("bus mastering or decoding stays on")]
    ControlStuck,
}

impl Malformed {
    /// The BAR that is wrong, if it is one.
    #[must_use]
    pub const fn bar(self) -> Option<u8> {
        match self {
            Self::BarTooLarge(bar)
            | Self::Unplaced(bar)
            | Self::OutsideMemory(bar)
            | Self::Overlap { bar, .. } => Some(bar),
            _ => None,
        }
    }
}
