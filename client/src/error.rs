//! [`Error`]: everything that can go wrong for a driver.

use core::fmt;

use hw::Sbdf;
use ipc_proto::{Refusal, Rule};

use crate::platform::KernelError;

/// Why an operation did not happen. Nothing is left half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A server refused; the rule and what it is about.
    Refused(Refusal),
    /// No shard that this PD reaches owns the device.
    NoShard(Sbdf),
    /// No granted device fits.
    NotFound,
    /// There is no iommu-server shard for this PD.
    NoIommuShard,
    /// The grant window has no run of so many free slots.
    WindowFull(u32),
    /// The BAR is larger than can be mapped at once, or empty.
    BarSize(u64),
    /// As many capabilities are on their way over the channel as it holds.
    ChannelFull,
    /// The kernel refused to map or bind something.
    Kernel(KernelError),
}

impl Error {
    /// The rule, when a server refused.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Self::Refused(refusal) => Some(refusal.rule),
            _ => None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<KernelError> for Error {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::NoShard(device) => write!(f, "no pci-server shard of this PD owns {device}"),
            Self::NotFound => write!(
                f,
                "no device that is there and granted to this PD (its `devices`) fits"
            ),
            Self::NoIommuShard => {
                write!(f, "this PD may have no DMA memory; give it a `dma_quota`")
            }
            Self::WindowFull(slots) => write!(
                f,
                "the grant window has no {slots} free slots in a row; raise `window` of the client"
            ),
            Self::BarSize(bytes) => write!(f, "a BAR of {bytes:#x} bytes cannot be mapped"),
            Self::ChannelFull => write!(
                f,
                "the other end of the channel has not taken what it was given"
            ),
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}
